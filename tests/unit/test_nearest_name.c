/* What a mistyped word means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/nearest_name.h"

static const char *const names[] = { "maps",  "threads", "stack",   "mallinfo", "heap",
				     "leaks", "find",	 "strings", "by-type",	"by-size" };

static const char *nearest(const char *word)
{
	struct nearest_name nearest = { .word = word };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		nearest_name_try(&nearest, names[i]);
	return nearest.name;
}

static void test_mistyped(void **state)
{
	assert_string_equal(nearest("mapps"), "maps");
	assert_string_equal(nearest("masp"), "maps");
	assert_string_equal(nearest("map"), "maps");
	assert_string_equal(nearest("mape"), "maps");
	assert_string_equal(nearest("thread"), "threads");
	assert_string_equal(nearest("lekas"), "leaks");
	assert_string_equal(nearest("bytype"), "by-type");
	assert_string_equal(nearest("by_size"), "by-size");
	assert_string_equal(nearest("heap"), "heap");
}

static void test_beginnings(void **state)
{
	assert_string_equal(nearest("mal"), "mallinfo");
	assert_string_equal(nearest("str"), "strings");
	assert_null(nearest("s"));
}

static void test_others(void **state)
{
	assert_null(nearest("bogus"));
	assert_null(nearest("redis-server"));
	assert_null(nearest(""));
	assert_null(nearest("a word that is longer than any name that somebody would ever type"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mistyped),
		cmocka_unit_test(test_beginnings),
		cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
