/*
 * Has asked by userfaultfd(2) to be told of its forks, and never reads what it is told: a fork
 * would wait for ever. Says `refused` first where it may not.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

#define SIZE (1u << 20)

static bool command(const char *line)
{
	return false;
}

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd;
	void *start;

	victim_init();
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	start = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_that(start != MAP_FAILED, "mmap");
	range.range.start = (uintptr_t)start;
	range.range.len = SIZE;
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range))
		say("refused");
	check_that(malloc(1000) != NULL, "malloc");
	victim_ready();
	victim_serve(command);
}
