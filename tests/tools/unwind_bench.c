/*
 * unwind_bench: the time that one walk of a stack of 14 frames takes in the process itself, of code
 * without frame pointers, by the compiled table and by what else there is. The stack is never the
 * same twice running: 4,096 paths in turn, or with `one` always the same.
 *
 * unwind_bench table [LIBRARY...]: what it takes to compile the table of a process with these
 * libraries.
 */
#include <dlfcn.h>
#include <execinfo.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

#include "agent/unwind_walk.h"
#include "memprobe/unwind_table.h"

#define NOINLINE  __attribute__((noinline))
#define DEPTH_MAX 64
#define PATHS	  4096
#define ROUNDS	  9

typedef unsigned walker(void);

static const struct unwind_header *image;
static uint64_t cache[UNWIND_CACHE_SIZE], *used_cache;
static uint64_t stack_top;
static uint64_t pcs[DEPTH_MAX];
static int (*libunwind)(void **, int);
static walker *walk_now;
static uint64_t total_ns, total_frames;
static volatile unsigned sink;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* Has a frame pointer for its use of the frame address. */
NOINLINE static unsigned walk_table(void)
{
	struct unwind_start start = UNWIND_START_CALLER;
	struct unwind_memory memory = { .low = start.sp, .high = stack_top };
	struct unwind_frames frames = { .pcs = pcs, .max = DEPTH_MAX };

	unwind_walk(image, used_cache, &start, &memory, &frames);
	return frames.count;
}

NOINLINE static unsigned walk_libunwind(void)
{
	return libunwind((void **)pcs, DEPTH_MAX);
}

NOINLINE static unsigned walk_glibc(void)
{
	return backtrace((void **)pcs, DEPTH_MAX);
}

static _Unwind_Reason_Code visit(struct _Unwind_Context *context, void *data)
{
	unsigned *count = data;

	if (*count == DEPTH_MAX)
		return _URC_END_OF_STACK;
	pcs[(*count)++] = _Unwind_GetIP(context);
	return _URC_NO_REASON;
}

NOINLINE static unsigned walk_libgcc(void)
{
	unsigned count = 0;

	_Unwind_Backtrace(visit, &count);
	return count;
}

/* ---- the stacks ---- */

#define TIMES 16

NOINLINE static void leaf(unsigned path)
{
	uint64_t begun = now_ns();

	for (unsigned i = 0; i < TIMES; i++)
		total_frames += walk_now();
	total_ns += now_ns() - begun;
	sink += path;
}

/* Frames of different sizes, and two functions to choose from at every level. */
#define LEVEL(number, next)                                \
	NOINLINE static void left_##number(unsigned path)  \
	{                                                  \
		volatile char room[number * 16 + 8];       \
		room[0] = (char)path;                      \
		next;                                      \
		sink += room[0];                           \
	}                                                  \
	NOINLINE static void right_##number(unsigned path) \
	{                                                  \
		volatile char room[number * 8 + 24];       \
		room[0] = (char)path;                      \
		next;                                      \
		sink += room[0] + path;                    \
	}

#define CHOOSE(number) (path & 1 << number ? left_##number(path) : right_##number(path))

LEVEL(0, leaf(path))
LEVEL(1, CHOOSE(0))
LEVEL(2, CHOOSE(1))
LEVEL(3, CHOOSE(2))
LEVEL(4, CHOOSE(3))
LEVEL(5, CHOOSE(4))
LEVEL(6, CHOOSE(5))
LEVEL(7, CHOOSE(6))
LEVEL(8, CHOOSE(7))
LEVEL(9, CHOOSE(8))

static void measure(const char *name, walker *walk, unsigned count, bool one)
{
	double best = 0, frames = 0;

	walk_now = walk;
	for (unsigned round = 0; round < ROUNDS; round++) {
		total_ns = total_frames = 0;
		for (unsigned i = 0; i < count; i++) {
			unsigned path = one ? 5 : i * 2654435761u >> 20;

			CHOOSE(9);
		}
		frames = (double)total_frames / count / TIMES;
		if (!round || (double)total_ns / count / TIMES < best)
			best = (double)total_ns / count / TIMES;
	}
	printf("%-32s %8.1f ns a stack of %.1f frames\n", name, best, frames);
}

static int show_table(char **libraries)
{
	uint64_t begun, cpu;
	struct unwind_table_stats stats;
	struct unwind_table *table;
	struct target *target;
	struct rusage before, after;

	for (; *libraries; libraries++)
		if (!dlopen(*libraries, RTLD_LAZY))
			printf("without %s: %s\n", *libraries, dlerror());
	getrusage(RUSAGE_SELF, &before);
	begun = now_ns();
	if (target_open_live(getpid(), &target) || unwind_table_create(target, &table))
		return 1;
	cpu = now_ns() - begun;
	getrusage(RUSAGE_SELF, &after);
	unwind_table_stats(table, &stats);
	printf("table of %" PRIu64 " modules, %" PRIu64 " FDEs, %" PRIu64 " rows: %.1f ms (%.1f of "
	       "CPU), %.1f MiB, at most %.1f MiB on the way\n",
	       stats.modules, stats.entries, stats.rows, stats.build_us / 1e3, cpu / 1e6,
	       stats.bytes / 1048576.0, (after.ru_maxrss - before.ru_maxrss) / 1024.0);
	unwind_table_destroy(table);
	target_destroy(target);
	return 0;
}

int main(int argc, char **argv)
{
	bool one = argc > 1 && !strcmp(argv[1], "one");
	struct unwind_table *table;
	struct target *target;
	void *library = dlopen("libunwind.so.8", RTLD_NOW);

	if (argc > 1 && !strcmp(argv[1], "table"))
		return show_table(argv + 2);
	stack_top = (uint64_t)&one + 4096;
	if (target_open_live(getpid(), &target) || unwind_table_create(target, &table)) {
		fprintf(stderr, "unwind_bench: cannot compile the table\n");
		return 1;
	}
	image = unwind_table_image(table, NULL);
	used_cache = cache;
	measure("table", walk_table, PATHS, one);
	used_cache = NULL;
	measure("table, without the cache", walk_table, PATHS / 4, one);
	if (library)
		libunwind = (int (*)(void **, int))dlsym(library, "unw_backtrace");
	if (libunwind)
		measure("libunwind's unw_backtrace()", walk_libunwind, PATHS, one);
	measure("glibc's backtrace()", walk_glibc, PATHS / 16, one);
	measure("libgcc's _Unwind_Backtrace()", walk_libgcc, PATHS / 16, one);
	unwind_table_destroy(table);
	target_destroy(target);
	return 0;
}
