/*
 * pages.h against what the kernel counts (smaps_rollup) in a child that has pages of all kinds.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "child.h"
#include "record/kernel/pages.h"

#define WRITTEN	  300u
#define ONLY_READ 200u
#define SHARED	  100u

struct told {
	uint64_t written, only_read, shared;
};

static uint64_t fresh(unsigned pages, int flags)
{
	void *area =
		mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	madvise(area, pages * PAGE_SIZE, MADV_NOHUGEPAGE);
	return (uintptr_t)area;
}

static void life(void *argument)
{
	struct told told = { fresh(WRITTEN * 2, MAP_PRIVATE), fresh(ONLY_READ, MAP_PRIVATE),
			     fresh(SHARED, MAP_SHARED) };
	char sum = 0;

	/* Every other one. */
	for (unsigned i = 0; i < WRITTEN; i++)
		((volatile char *)told.written)[i * 2 * PAGE_SIZE] = 1;
	for (unsigned i = 0; i < ONLY_READ; i++)
		sum += ((volatile char *)told.only_read)[i * PAGE_SIZE];
	for (unsigned i = 0; i < SHARED; i++)
		((volatile char *)told.shared)[i * PAGE_SIZE] = sum;
	child_tell(&told, sizeof(told));
}

/* On its way into pause() it may touch more pages. */
static void wait_until_paused(struct target *target)
{
	struct process_syscall syscall;

	do
		assert_null(process_read_syscall(target->process, 0, &syscall));
	while (syscall.running || syscall.nr != SYS_pause);
}

static uint64_t rss_of(pid_t pid)
{
	char path[64], line[256];
	unsigned long long kib = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "Rss: %llu", &kib) == 1)
			break;
	fclose(file);
	return kib * 1024;
}

static uint64_t resident_in(const struct pages *pages, uint64_t start, uint64_t end,
			    unsigned *flags_ret)
{
	uint64_t bytes = 0;

	vec_for_each (run, &pages->runs)
		if (run->flags & PAGES_RESIDENT && run->start < end && run->end > start) {
			bytes += (run->end < end ? run->end : end) -
				 (run->start > start ? run->start : start);
			*flags_ret = run->flags;
		}
	return bytes;
}

static void test_sum_is_rss(void **state)
{
	struct pages pages = { 0 };
	struct mapping_vec maps = { 0 };
	struct target *target;
	unsigned flags = 0;
	struct told told;
	uint64_t read;
	pid_t pid = child_start(life, NULL);

	child_hear(&told, sizeof(told));
	assert_null(target_open_live(pid, &target));
	wait_until_paused(target);
	assert_null(target_read_maps(target, MAPS_PLAIN, &maps));
	assert_null(pages_read(target, &maps, &pages));
	assert_int_equal(
		resident_in(&pages, told.written, told.written + WRITTEN * 2 * PAGE_SIZE, &flags),
		WRITTEN * PAGE_SIZE);
	assert_int_equal(flags, PAGES_RESIDENT);
	assert_int_equal(resident_in(&pages, told.shared, told.shared + SHARED * PAGE_SIZE, &flags),
			 SHARED * PAGE_SIZE);
	assert_int_equal(flags, PAGES_RESIDENT | PAGES_FILE);
	if (!pages.zero_unknown) {
		/* Some kernels have no page of zeros to map there and give each its own. */
		read = resident_in(&pages, told.only_read, told.only_read + ONLY_READ * PAGE_SIZE,
				   &flags);
		assert_true(read == 0 || read == ONLY_READ * PAGE_SIZE);
		assert_int_equal(pages.resident, rss_of(pid));
	}
	pages_deinit(&pages);
	mappings_deinit(&maps);
	target_destroy(target);
	child_stop(pid);
}

struct change {
	uint64_t start, end;
};

static struct change changes[16];
static unsigned change_count;

static void note(void *data, uint64_t start, uint64_t end, unsigned flags)
{
	changes[change_count++] = (struct change){ start, end };
}

static void test_difference(void **state)
{
	struct page_run old_runs[] = { { 10, 20, PAGES_RESIDENT },
				       { 20, 30, PAGES_SWAPPED },
				       { 40, 50, PAGES_RESIDENT | PAGES_FILE },
				       { 60, 100, PAGES_RESIDENT } };
	struct page_run new_runs[] = { { 5, 30, PAGES_RESIDENT },
				       { 45, 47, PAGES_RESIDENT },
				       { 48, 65, PAGES_RESIDENT },
				       { 70, 80, PAGES_SWAPPED },
				       { 90, 110, PAGES_RESIDENT } };
	const struct change expected[] = { { 5, 10 }, { 20, 30 }, { 50, 60 }, { 100, 110 } };
	const struct change gone[] = { { 40, 45 }, { 47, 48 }, { 65, 90 } };
	const struct pages before = { .runs = { old_runs, 4, 4 } };
	const struct pages after = { .runs = { new_runs, 5, 5 } };
	const struct pages none = { 0 };

	change_count = 0;
	pages_difference(&before, &after, note, NULL);
	assert_int_equal(change_count, 4);
	assert_memory_equal(changes, expected, sizeof(expected));
	change_count = 0;
	pages_difference(&after, &before, note, NULL);
	assert_int_equal(change_count, 3);
	assert_memory_equal(changes, gone, sizeof(gone));
	change_count = 0;
	pages_difference(&none, &none, note, NULL);
	pages_difference(&before, &none, note, NULL);
	assert_int_equal(change_count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sum_is_rss),
		cmocka_unit_test(test_difference),
	};

	return cmocka_run_group_tests_name("pages", tests, NULL, NULL);
}
