/*
 * Memory of files that is mostly holes, and what others wrote there.
 *
 * Truth: `file START END OTHER`: shared memory of 16 MiB, of which the process has touched one
 * page; at OTHER, which it has not, stands `written-by-others`; behind that, the only pointer to a
 * block. `block ADDRESS`. `private START END`: a private mapping of such a file, one page written.
 * `guarded START END`: memory with two guard pages, unless the kernel has none.
 *
 * Commands: `blocks` prints `blocks N...`: how much there is of each file, in blocks of 512 bytes.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "victim.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

#define SIZE	(16u << 20)
#define TOUCHED (5u << 20)
#define OTHER	(6u << 20)
#define FILES	3
#define BLOCK	777

static int files[FILES];

static char *map_file(int number, int flags)
{
	int fd = memfd_create("holes", MFD_CLOEXEC);
	char *start;

	check_that(fd >= 0 && ftruncate(fd, SIZE) == 0, "memfd_create");
	files[number] = fd;
	start = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);
	check_that(start != MAP_FAILED, "mmap");
	start[TOUCHED] = 'x';
	return start;
}

/* That only a file has the pointer, and not this stack. */
__attribute__((noinline)) static void plant_block(void)
{
	void *block = malloc(BLOCK);

	memset(block, 'b', BLOCK);
	say("block %p", block);
	check_that(pwrite(files[0], &block, sizeof(block), OTHER + 64) == sizeof(block), "pwrite");
}

static void plant_guard(void)
{
	size_t page = sysconf(_SC_PAGESIZE), size = 16 * page;
	char *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check_that(start != MAP_FAILED, "mmap");
	memset(start, 'g', size);
	madvise(start + 4 * page, 2 * page, MADV_GUARD_INSTALL);
	say("guarded %p %p", (void *)start, (void *)(start + size));
}

static void map_system_v(void)
{
	int id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
	char *start = shmat(id, NULL, 0);

	check_that(id >= 0 && start != (void *)-1, "shmat");
	shmctl(id, IPC_RMID, NULL);
	start[TOUCHED] = 'x';
}

static bool command(const char *line)
{
	struct stat status[FILES];

	if (strcmp(line, "blocks"))
		return false;
	for (int i = 0; i < FILES; i++)
		check_that(fstat(files[i], &status[i]) == 0, "fstat");
	say("blocks %ld %ld %ld", (long)status[0].st_blocks, (long)status[1].st_blocks,
	    (long)status[2].st_blocks);
	return true;
}

int main(void)
{
	char *start;

	victim_init();
	start = map_file(0, MAP_SHARED);
	check_that(pwrite(files[0], "written-by-others", 17, OTHER) == 17, "pwrite");
	say("file %p %p %p", (void *)start, (void *)(start + SIZE), (void *)(start + OTHER));
	start = map_file(1, MAP_PRIVATE);
	say("private %p %p", (void *)start, (void *)(start + SIZE));
	/* Nothing of it is mapped with a page at its beginning, where headers would be. */
	map_file(2, MAP_SHARED);
	map_system_v();
	plant_guard();
	plant_block();
	start = NULL;
	victim_ready();
	victim_serve(command);
}
