/*
 * `paths DIRECTORY`: maps files whose names are hard to read in /proc/PID/maps, one page each.
 *
 * Truth: `file KEY START END`, KEY being one of those in the table below.
 */
#include "victim.h"

#include <fcntl.h>
#include <sys/mman.h>

static const struct {
	const char *key, *name;
	bool deleted;
} files[] = {
	{ "space", "two words", false },
	{ "spaces", "  leading and trailing  ", false },
	{ "newline", "first\nsecond", false },
	{ "utf8", "gr\303\274n \346\227\245\346\234\254", false },
	{ "latin1", "broken \374 utf8", false },
	{ "backslash", "a\\012b", false },
	{ "pretender", "not really (deleted)", false },
	{ "escape", "red \033[31m", false },
	{ "deleted", "gone", true },
	{ "header", "00400000-00401000 r-xp 00000000 00:00 0", false },
};

int main(int argc, char **argv)
{
	size_t page = sysconf(_SC_PAGESIZE);

	victim_init();
	if (argc < 2 || chdir(argv[1]) < 0) {
		say("WRONG directory");
		return 1;
	}
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		int fd = open(files[i].name, O_RDWR | O_CREAT, 0600);
		char *start;

		check_that(fd >= 0 && ftruncate(fd, page) == 0, files[i].key);
		start = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		check_that(start != MAP_FAILED, "mmap");
		start[0] = 1;
		close(fd);
		if (files[i].deleted)
			unlink(files[i].name);
		say("file %s 0x%lx 0x%lx", files[i].key, (unsigned long)start,
		    (unsigned long)start + page);
	}
	victim_ready();
	victim_serve(NULL);
	return 0;
}
