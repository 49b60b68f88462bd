/* Conditions of `watch --when`, and what its commands become. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/watch_condition.h"

static void assert_condition(const char *text, enum watch_metric metric, bool below, double value,
			     uint64_t for_us)
{
	struct watch_condition condition;

	assert_null(watch_condition_parse(text, &condition));
	assert_int_equal(condition.metric, metric);
	assert_int_equal(condition.below, below);
	assert_true(condition.value == value);
	assert_int_equal(condition.for_us, for_us);
}

static void conditions_are_read(void **state)
{
	assert_condition("rss>2G", WATCH_RSS, false, 2147483648.0, 0);
	assert_condition(" rss > 2G ", WATCH_RSS, false, 2147483648.0, 0);
	assert_condition("growth>10M/s for 60s", WATCH_GROWTH, false, 10485760, 60000000);
	assert_condition("limit>90%", WATCH_LIMIT, false, 90, 0);
	assert_condition("swap>0", WATCH_SWAP, false, 0, 0);
	assert_condition("threads<10 for 2m", WATCH_THREADS, true, 10, 120000000);
	assert_condition("fds>1000", WATCH_FDS, false, 1000, 0);
	assert_condition("anon>1", WATCH_ANON, false, 1, 0);
	assert_condition("shmem>1K", WATCH_SHMEM, false, 1024, 0);
}

static void others_are_refused(void **state)
{
	static const char *const wrong[] = {
		"",
		"rss",
		">",
		"rss>",
		">1",
		"rss=1",
		"rss>x",
		"rss>-1",
		"limit>90",
		"growth>10M",
		"size>1",
		"rss>1 for",
		"rss>1 for ",
		"rss>1 for x",
		"rss>1 and 2",
		"rss>>1",
		"limit>9x%",
		"limit>%",
		"growth>/s",
		"rss>1 for 1 for 1",
		"rssrssrssrssrssrssrssrssrssrssrssrssrssrssrss>1",
		"rss>1111111111111111111111111111111111111111111",
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct watch_condition condition;
		struct error *error = watch_condition_parse(wrong[i], &condition);

		if (!error_is(error, ERROR_USAGE))
			fail_msg("'%s' is taken", wrong[i]);
		error_destroy(error);
	}
}

static void they_hold_or_not(void **state)
{
	const struct watch_condition above = { .value = 10 },
				     below = { .value = 10, .below = true };

	assert_true(watch_condition_holds(&above, 11));
	assert_false(watch_condition_holds(&above, 10));
	assert_false(watch_condition_holds(&above, NAN));
	assert_true(watch_condition_holds(&below, 9));
	assert_false(watch_condition_holds(&below, NAN));
}

static void assert_filled(const char *command, const char *expected)
{
	char *filled = watch_command_fill(command, 42, "it's $x", "20261201-101112");

	assert_string_equal(filled, expected);
	free(filled);
}

static void commands_are_filled(void **state)
{
	assert_filled("memprobe allocs {pid} -o {pid}-{time}.svg",
		      "memprobe allocs 42 -o 42-20261201-101112.svg");
	assert_filled("echo {name}", "echo 'it'\\''s $x'");
	assert_filled("{pid", "{pid");
	assert_filled("{} {x} ${HOME}", "{} {x} ${HOME}");
	assert_filled("", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conditions_are_read),
		cmocka_unit_test(others_are_refused),
		cmocka_unit_test(they_hold_or_not),
		cmocka_unit_test(commands_are_filled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
