#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/pause.h"

#define GIB (UINT64_C(1) << 30)

static void test_times(void **state)
{
	char text[TIME_TEXT_MAX];

	(void)state;
	assert_string_equal(format_time(0, text), "0 us");
	assert_string_equal(format_time(999, text), "999 us");
	assert_string_equal(format_time(1800, text), "1.8 ms");
	assert_string_equal(format_time(482000, text), "482 ms");
	assert_string_equal(format_time(1000000, text), "1.0 s");
	assert_string_equal(format_time(4240000, text), "4.2 s");
	assert_string_equal(format_time(123456789, text), "123 s");
}

static void test_estimates_grow_with_memory(void **state)
{
	const struct process_status small = { .vm_rss = GIB, .rss_anon = GIB },
				    large = { .vm_rss = 8 * GIB, .rss_anon = 8 * GIB },
				    swapped = { .vm_rss = GIB,
						.rss_anon = GIB,
						.vm_swap = 7 * GIB },
				    reserved = { .vm_rss = GIB,
						 .rss_anon = GIB,
						 .vm_size = 16384 * GIB },
				    files = { .vm_rss = 8 * GIB, .rss_anon = GIB };

	(void)state;
	assert_true(pause_of_fork(&small) < pause_of_reading(&small, true));
	assert_true(pause_of_fork(&large) > 4 * pause_of_fork(&small));
	assert_true(pause_of_reading(&large, true) > 4 * pause_of_reading(&small, true));
	assert_int_equal(pause_of_fork(&swapped), pause_of_fork(&large));
	assert_int_equal(pause_of_reading(&small, true), pause_of_reading(&reserved, true));
	assert_true(pause_of_reading(&reserved, false) > 10000000);
	/* A fork does not copy the page tables of files. */
	assert_int_equal(pause_of_fork(&files), pause_of_fork(&small));
}

static void test_estimates_grow_with_threads(void **state)
{
	const struct process_status few = { .threads = 1 }, many = { .threads = 3000 };

	(void)state;
	assert_true(pause_of_stop(1, 0) < 1000);
	assert_in_range(pause_of_stop(3000, 0), 50000, 500000);
	assert_true(pause_of_stop(1, 64 << 20) > pause_of_stop(1, 0) + 10000);
	assert_true(pause_of_fork(&many) > pause_of_fork(&few) + 50000);
	assert_true(pause_of_fork(&many) > pause_of_stop(3000, 0));
	assert_true(pause_of_reading(&many, true) > pause_of_reading(&few, true) + 50000);
}

static void test_limit(void **state)
{
	struct error *error;

	(void)state;
	assert_null(pause_check(42, "reading its memory", 4200000, 0));
	assert_null(pause_check(42, "reading its memory", 4200000, 4200000));
	error = pause_check(42, "reading its memory", 4200000, 1000000);
	assert_int_equal(error_exit_status(error), 7);
	assert_string_equal(error->message, "cannot stop 42 for reading its memory: that takes "
					    "about 4.2 s, and --max-pause is 1.0 s");
	assert_string_equal(error->hint, "--max-pause 6s allows it");
	error_destroy(error);
	error = pause_check(42, "reading its memory", 2000, 1000);
	assert_string_equal(error->hint, "--max-pause 3ms allows it");
	error_destroy(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_estimates_grow_with_memory),
		cmocka_unit_test(test_estimates_grow_with_threads),
		cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
