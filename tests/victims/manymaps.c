/*
 * `manymaps N`: N mappings (default 22,000) of one page each, every second one written to.
 *
 * Truth: `region START END COUNT`.
 *
 * variants: 32
 */
#include "victim.h"

#include <sys/mman.h>

int main(int argc, char **argv)
{
	unsigned long count = victim_number(argc, argv, 1, 22000);
	size_t page = sysconf(_SC_PAGESIZE);
	char *region = mmap(NULL, count * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);

	victim_init();
	check_that(region != MAP_FAILED, "mmap");
	/* Neighbours of different permissions do not merge. */
	for (unsigned long i = 0; i < count; i++) {
		if (i % 2)
			region[i * page] = 1;
		else
			check_that(mprotect(region + i * page, page, PROT_READ) == 0, "mprotect");
	}
	say("region 0x%lx 0x%lx %lu", (unsigned long)region, (unsigned long)(region + count * page),
	    count);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
