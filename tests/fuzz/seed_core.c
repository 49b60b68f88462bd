/* Writes the seeds of fuzz_core into a directory: small cores of every kind. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "../unit/cores.h"

static void save(const char *directory, const char *name, int from)
{
	char path[4096];
	int to;
	off_t at = 0;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	to = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	if (to < 0) {
		perror(path);
		exit(1);
	}
	while (sendfile(to, from, &at, 1 << 20) > 0)
		;
	close(to);
	close(from);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	save(argv[1], "core64", cores_write(&arch_x86_64, false));
	save(argv[1], "core32", cores_write(&arch_i386, false));
	save(argv[1], "packed", cores_write(&arch_x86_64, true));
	return 0;
}
