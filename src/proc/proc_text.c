#include "proc_text.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/io.h"

char *text_of_file(int dirfd, const char *path)
{
	char *text = NULL;
	struct error *error = read_file_at(dirfd, path, &text, NULL);

	if (!error)
		return text;
	error_destroy(error);
	return NULL;
}

char *text_in_folder(const char *folder, const char *name)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return NULL;
	return text_of_file(AT_FDCWD, path);
}

uint64_t text_number(const char *text, const char *key, uint64_t absent)
{
	size_t length = strlen(key);

	for (const char *line = text; line && *line;) {
		if (!strncmp(line, key, length)) {
			const char *digits = line + length + strspn(line + length, " \t");

			return isdigit((unsigned char)*digits) ? strtoull(digits, NULL, 10)
							       : absent;
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return absent;
}

const char *stat_field(const char *text, unsigned number)
{
	const char *at = strrchr(text, ')');

	/* After the parenthesis: a blank and field 3. */
	for (unsigned field = 2; at && field < number; field++) {
		at = strchr(at, ' ');
		if (at)
			at++;
	}
	return at;
}
