/*
 * Touches known amounts of memory in functions of known names, at `go`, and says how much of each
 * is in memory afterwards: lines `stays FUNCTION BYTES`, then `done`.
 *
 * `faults N`: N faults on fresh pages, which are given back, then `faulted NS`, the time they took.
 *
 * Built without frame pointers: stacks have to come from call frame information.
 * cflags: -fomit-frame-pointer -Wno-format-truncation
 * variants: 32
 */
#include "victim.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define MIB	  ((size_t)1 << 20)
#define HUGE_SIZE (2 * MIB)
#define PAGE	  4096u

static char *early; /* touched before the recording */
static size_t unit = MIB;

static char *map(size_t size, int flags)
{
	char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	check_that(area != MAP_FAILED, "mmap");
	if (!(flags & MAP_POPULATE))
		madvise(area, size, MADV_NOHUGEPAGE);
	return area;
}

static void touch(char *area, size_t size)
{
	for (size_t i = 0; i < size; i += PAGE)
		((volatile char *)area)[i] = 1;
}

#define CASE(name) __attribute__((noinline, noclone)) static void name(void)

CASE(keep_pages)
{
	touch(map(32 * unit, MAP_PRIVATE), 32 * unit);
	say("stays keep_pages %zu", 32 * unit);
}

CASE(toss_pages)
{
	char *area = map(32 * unit, MAP_PRIVATE);

	touch(area, 32 * unit);
	munmap(area, 32 * unit);
	say("stays toss_pages 0");
}

CASE(drop_half)
{
	char *area = map(16 * unit, MAP_PRIVATE);

	touch(area, 16 * unit);
	madvise(area, 8 * unit, MADV_DONTNEED);
	say("stays drop_half %zu", 8 * unit);
}

CASE(read_then_write)
{
	char *area = map(8 * unit, MAP_PRIVATE);
	char sum = 0;

	for (size_t i = 0; i < 8 * unit; i += PAGE)
		sum += ((volatile char *)area)[i];
	check_that(!sum, "zero pages");
	touch(area, 8 * unit);
	say("stays read_then_write %zu", 8 * unit);
}

static size_t rss(void)
{
	unsigned long size, pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	check_that(file && fscanf(file, "%lu %lu", &size, &pages) == 2, "statm");
	fclose(file);
	return pages * PAGE;
}

/* Some kernels have no page of zeros that all share: each gets its own. */
CASE(only_read)
{
	char *area = map(8 * unit, MAP_PRIVATE);
	size_t before = rss();
	char sum = 0;

	for (size_t i = 0; i < 8 * unit; i += PAGE)
		sum += ((volatile char *)area)[i];
	check_that(!sum, "zero pages");
	say("stays only_read %zu", rss() > before + 4 * unit ? 8 * unit : 0);
}

static size_t resident(char *area, size_t size)
{
	static unsigned char present[64 * MIB / PAGE];
	size_t bytes = 0;

	mincore(area, size, present);
	for (size_t i = 0; i < size / PAGE; i++)
		bytes += present[i] & 1 ? PAGE : 0;
	return bytes;
}

/* One byte of each 2 MiB: as much as the kernel gives. */
CASE(huge_pages)
{
	char *area =
		mmap(NULL, 34 * unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *aligned = (char *)(((uintptr_t)area + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1));

	madvise(aligned, 32 * unit, MADV_HUGEPAGE);
	for (size_t i = 0; i < 32 * unit; i += HUGE_SIZE)
		((volatile char *)aligned)[i + 5 * PAGE] = 1;
	say("stays huge_pages %zu", resident(aligned, 32 * unit));
}

CASE(shared_pages)
{
	touch(map(8 * unit, MAP_SHARED), 8 * unit);
	say("stays shared_pages %zu", 8 * unit);
}

/* Fault-around: far fewer faults than pages. */
CASE(file_pages)
{
	char path[] = "/tmp/faultshape.XXXXXX";
	int file = mkstemp(path);
	char *area, sum = 0;

	check_that(file >= 0, "mkstemp");
	unlink(path);
	for (size_t i = 0; i < 8 * unit; i += PAGE)
		check_that(write(file, path, sizeof(path)) > 0 &&
				   lseek(file, (off_t)(i + PAGE), SEEK_SET) > 0,
			   "write");
	check_that(!ftruncate(file, (off_t)(8 * unit)), "ftruncate");
	area = mmap(NULL, 8 * unit, PROT_READ, MAP_PRIVATE, file, 0);
	for (size_t i = 0; i < 8 * unit; i += PAGE)
		sum |= ((volatile char *)area)[i];
	check_that(sum, "file pages");
	say("stays file_pages %zu", 8 * unit);
	close(file);
}

/* The kernel takes the faults. */
CASE(read_into_pages)
{
	int zero = open("/dev/zero", O_RDONLY);

	check_that(read(zero, map(8 * unit, MAP_PRIVATE), 8 * unit) == (ssize_t)(8 * unit), "read");
	close(zero);
	say("stays read_into_pages %zu", 8 * unit);
}

CASE(populate_pages)
{
	map(8 * unit, MAP_PRIVATE | MAP_POPULATE);
	say("stays populate_pages %zu", 8 * unit);
}

/* Touched early; only the place is new. */
CASE(move_pages)
{
	char *to = map(16 * unit, MAP_PRIVATE);

	check_that(mremap(early, 16 * unit, 16 * unit, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to,
		   "mremap");
	say("stays move_pages %zu", 16 * unit);
}

CASE(grow_pages)
{
	char *area = map(8 * unit, MAP_PRIVATE), *to = map(16 * unit, MAP_PRIVATE);

	touch(area, 8 * unit);
	check_that(mremap(area, 8 * unit, 16 * unit, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to,
		   "mremap");
	touch(to + 8 * unit, 8 * unit);
	say("stays grow_pages %zu", 16 * unit);
}

__attribute__((noinline, noclone)) static void *thread_pages(void *unused)
{
	touch(map(8 * unit, MAP_PRIVATE), 8 * unit);
	say("stays thread_pages %zu", 8 * unit);
	return NULL;
}

CASE(fork_pages)
{
	char *area = map(8 * unit, MAP_PRIVATE);
	pid_t child = fork();

	if (!child) {
		touch(area, 8 * unit);
		_exit(0);
	}
	check_that(waitpid(child, NULL, 0) == child, "waitpid");
	say("stays fork_pages 0");
}

static void fault_many(unsigned long count)
{
	struct timespec begin, end;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (unsigned long left = count; left;) {
		size_t size = (left < 2048 ? left : 2048) * PAGE;
		char *area = map(size, MAP_PRIVATE);

		touch(area, size);
		munmap(area, size);
		left -= size / PAGE;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	say("faulted %lld",
	    (long long)(end.tv_sec - begin.tv_sec) * 1000000000 + (end.tv_nsec - begin.tv_nsec));
}

__attribute__((noinline, noclone)) static bool command(const char *line)
{
	unsigned long faults;
	pthread_t thread;

	if (sscanf(line, "faults %lu", &faults) == 1) {
		fault_many(faults);
		return true;
	}
	if (strcmp(line, "go"))
		return false;
	keep_pages();
	toss_pages();
	drop_half();
	read_then_write();
	only_read();
	huge_pages();
	shared_pages();
	file_pages();
	read_into_pages();
	populate_pages();
	move_pages();
	grow_pages();
	check_that(!pthread_create(&thread, NULL, thread_pages, NULL), "pthread_create");
	pthread_join(thread, NULL);
	fork_pages();
	say("done");
	return true;
}

int main(void)
{
	victim_init();
	early = map(16 * unit, MAP_PRIVATE);
	touch(early, 16 * unit);
	victim_ready();
	victim_serve(command);
	return 0;
}
