/* Profiles in pprof's format, as others write them, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/pprof_read.h"
#include "profiles.h"

/*
 * As Go's heap profiles are, strings last: alloc_space and inuse_space; a sample of 2 locations,
 * packed, the leaf of which has an inlined function; and one of a location without functions, not
 * packed. Location ids have gaps.
 */
#define TYPES  "\x0a\x04\x08\x01\x10\x02\x0a\x04\x08\x03\x10\x02"
#define SAMPLE "\x12\x08\x0a\x02\x07\x05\x12\x02\x64\x28"
#define OTHER  "\x12\x06\x08\x09\x10\x0a\x10\x07"
#define MAPPED "\x1a\x0a\x08\x01\x10\x80\x20\x18\x80\x40\x28\x07"
#define LEAF   "\x22\x0d\x08\x07\x18\x90\x20\x22\x02\x08\x02\x22\x02\x08\x01"
#define CALLER "\x22\x06\x08\x05\x22\x02\x08\x03"
#define BARE   "\x22\x07\x08\x09\x10\x01\x18\xb0\x20"
#define NAMES  "\x2a\x04\x08\x01\x10\x04\x2a\x04\x08\x02\x10\x05\x2a\x04\x08\x03\x10\x06"
#define STRINGS               \
	"\x32\x00\x32\x0b"    \
	"alloc_space\x32\x05" \
	"bytes\x32\x0b"       \
	"inuse_space\x32\x05" \
	"outer\x32\x05"       \
	"inner\x32\x04"       \
	"main\x32\x07"        \
	"/lib.so"
#define GO TYPES SAMPLE OTHER MAPPED LEAF CALLER BARE NAMES STRINGS

static struct profile *read_all(const void *bytes, size_t size, size_t left_out)
{
	struct profile *profile = profiles_new();
	size_t left;

	assert_true(pprof_is(bytes, size));
	assert_null(pprof_read(bytes, size, profile, &left));
	assert_int_equal(left, left_out);
	profile_sort(profile);
	return profile;
}

static void what_go_writes(void **state)
{
	cleanup(profile) struct profile *profile = read_all(GO, sizeof(GO) - 1, 0);
	cleanup(free) char *text = profiles_written(profile, "folded", NULL, NULL);

	assert_string_equal(text, "main;outer;inner 40\n[lib.so+0x30] 7\n");
	assert_true(profile_has(profile, PROFILE_ALL_BYTES));
	assert_false(profile_has(profile, PROFILE_COUNT));
	assert_int_equal(profile_total(profile, PROFILE_ALL_BYTES), 110);
}

/* Every cut, and every byte turned over, is an error or another profile; ASan sees the rest. */
static void what_is_broken(void **state)
{
	for (size_t i = 0; i < sizeof(GO) - 1; i++) {
		cleanup(free) char *copy = malloc(sizeof(GO));
		cleanup(profile) struct profile *cut = profiles_new();
		cleanup(profile) struct profile *changed = profiles_new();
		size_t left;

		memcpy(copy, GO, sizeof(GO));
		error_destroy(pprof_read(copy, i, cut, &left));
		copy[i] ^= 0xff;
		error_destroy(pprof_read(copy, sizeof(GO) - 1, changed, &left));
	}
}

static void samples_that_refer_to_nothing_are_left_out(void **state)
{
	static const char bytes[] = TYPES OTHER STRINGS;
	cleanup(profile) struct profile *profile = read_all(bytes, sizeof(bytes) - 1, 1);

	assert_int_equal(profile->sites.size, 0);
}

static void what_is_no_profile(void **state)
{
	static const char *const texts[] = { "", "main;run 10\n", "{\"sites\": []}", "\n\nmain 1\n",
					     "comm 12 1.5: 1 faults:\n\t7f12 f (/l)\n" };

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_false(pprof_is(texts[i], strlen(texts[i])));
	assert_false(pprof_is("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", 10));
}

/* A location of many functions, again and again, would be more than memory holds. */
static void what_unfolds_is_limited(void **state)
{
	enum { FUNCTIONS = 20000, TIMES = 100000 };
	cleanup(free) char *bytes = malloc(16 * FUNCTIONS + 4 * TIMES + 256);
	cleanup(profile) struct profile *profile = profiles_new();
	char *at = bytes;
	unsigned size = 2 + 4 * FUNCTIONS;
	struct error *error;
	size_t left;

	at = mempcpy(at, TYPES, sizeof(TYPES) - 1);
	*at++ = 0x22, *at++ = (char)(0x80 | (size & 0x7f)),
	*at++ = (char)(0x80 | (size >> 7 & 0x7f));
	*at++ = (char)(size >> 14);
	at = mempcpy(at, "\x08\x01", 2);
	for (unsigned i = 0; i < FUNCTIONS; i++)
		at = mempcpy(at, "\x22\x02\x08\x01", 4);
	size = 4 + TIMES;
	*at++ = 0x12, *at++ = (char)(0x80 | (size & 0x7f)),
	*at++ = (char)(0x80 | (size >> 7 & 0x7f));
	*at++ = (char)(size >> 14);
	*at++ = 0x0a, *at++ = (char)(0x80 | (TIMES & 0x7f)),
	*at++ = (char)(0x80 | (TIMES >> 7 & 0x7f));
	*at++ = (char)(TIMES >> 14);
	memset(at, 1, TIMES);
	at = mempcpy(at + TIMES, STRINGS, sizeof(STRINGS) - 1);
	error = pprof_read(bytes, (size_t)(at - bytes), profile, &left);
	assert_non_null(error);
	assert_non_null(strstr(error->message, "too large"));
	error_destroy(error);
}

static void what_was_written_is_read(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	cleanup(profile) struct profile *again = NULL;
	cleanup(free) char *text = NULL, *text_again = NULL, *bytes = NULL;
	size_t size;

	profiles_add(profile, "main;serve;malloc", 3, 300);
	profiles_add(profile, "main;other", 1, 4096);
	profile_sort(profile);
	bytes = profiles_written(profile, "pprof", NULL, &size);
	again = read_all(bytes, size, 0);
	text = profiles_written(profile, "folded", NULL, NULL);
	text_again = profiles_written(again, "folded", NULL, NULL);
	assert_string_equal(text, text_again);
	assert_int_equal(profile_total(again, PROFILE_COUNT), 4);
	/* Cut, it is said to be. */
	assert_true(pprof_is(bytes, size - 9));
	{
		cleanup(profile) struct profile *cut = profiles_new();
		struct error *error = pprof_read(bytes, size - 9, cut, &size);

		assert_non_null(error);
		error_destroy(error);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_go_writes),
		cmocka_unit_test(what_is_broken),
		cmocka_unit_test(samples_that_refer_to_nothing_are_left_out),
		cmocka_unit_test(what_is_no_profile),
		cmocka_unit_test(what_unfolds_is_limited),
		cmocka_unit_test(what_was_written_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
