#include "memprobe/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <sys/ioctl.h>

#include "memprobe/cleanup.h"

#define SCAN_IOCTL  _IOWR('f', 16, struct pm_scan_arg)
#define INTERESTING (PAGEMAP_SCAN_PRESENT | PAGEMAP_SCAN_SWAPPED)

int pagemap_scan(int fd, struct pm_scan_arg *arg)
{
	arg->size = sizeof(*arg);
	return ioctl(fd, SCAN_IOCTL, arg);
}

int pagemap_next(int fd, uint64_t start, uint64_t end, uint64_t *ret)
{
	struct page_region region;

	while (start < end) {
		struct pm_scan_arg arg = {
			.start = start,
			.end = end,
			.vec = (uintptr_t)&region,
			.vec_len = 1,
			.max_pages = 1,
			.category_anyof_mask = INTERESTING,
			.return_mask = INTERESTING,
		};
		int count = pagemap_scan(fd, &arg);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return errno;
		if (count > 0) {
			*ret = region.start;
			return 0;
		}
		if (arg.walk_end <= start)
			break;
		start = arg.walk_end;
	}
	*ret = end;
	return 0;
}

bool pagemap_can_scan(void)
{
	cleanup(close) int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t unused;

	return fd >= 0 && pagemap_next(fd, 0, 4096, &unused) == 0;
}
