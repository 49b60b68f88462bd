/* The logs in tests/unit/oom/. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/cleanup.h"
#include "memprobe/io.h"

int main(int argc, char **argv)
{
	DIR *directory = opendir("tests/unit/oom");
	struct dirent *entry;

	if (argc < 2 || !directory)
		return 1;
	while ((entry = readdir(directory))) {
		cleanup(free) char *text = NULL;
		char path[4096];
		size_t size;
		FILE *file;

		if (*entry->d_name == '.')
			continue;
		if (read_file_at(dirfd(directory), entry->d_name, &text, &size))
			return 1;
		snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
		file = fopen(path, "w");
		if (!file || fwrite(text, 1, size, file) != size || fclose(file))
			return 1;
	}
	return closedir(directory) != 0;
}
