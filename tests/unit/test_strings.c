/* Strings that repeat: what is one, borders of blocks, groups, and counts in too little room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake.h"
#include "memprobe/strings.h"

#define PAGE  0x1000u
#define BASE  0x100000ull
#define BLOCK (256u << 10) /* of the scan */

static struct strings_result result;

static void add(struct target *target, uint64_t start, const void *bytes, size_t size)
{
	struct fake_segment segment = {
		.start = start,
		.size = (size + PAGE - 1) / PAGE * PAGE,
		.bytes = bytes,
		.bytes_size = size,
		.perms = PERM_READ | PERM_WRITE,
	};

	assert_null(fake_target_add_segment(target, &segment));
}

static void run(const void *bytes, size_t size, struct strings_request request)
{
	struct mapping_vec maps = { 0 };
	struct range range = { BASE, BASE + size };
	struct range_vec ranges = { &range, 1, 1 };
	struct target *target;

	assert_null(fake_target_create(&arch_x86_64, &target));
	add(target, BASE, bytes, size);
	assert_null(target_read_maps(target, MAPS_PLAIN, &maps));
	request.target = target;
	request.maps = &maps;
	request.ranges = &ranges;
	if (!request.top)
		request.top = UINT64_MAX;
	strings_result_deinit(&result);
	memset(&result, 0, sizeof(result));
	assert_null(strings_run(&request, &result));
	mappings_deinit(&maps);
	target_destroy(target);
}

#define RUN(bytes, ...) run(bytes, sizeof(bytes) - 1, (struct strings_request){ __VA_ARGS__ })

/* `COUNT TEXT`, `...` behind a text that is cut, `~` in front of one that varies. */
static void assert_groups(const char *expected)
{
	char text[1024] = "";
	size_t length = 0;

	vec_for_each (group, &result.groups) {
		assert_true(group->count <= group->count_max);
		length +=
			snprintf(text + length, sizeof(text) - length, "%s%llu %s%s%s",
				 length ? "\n" : "", (unsigned long long)group->count,
				 group->varies ? "~" : "", group->text, group->is_cut ? "..." : "");
		assert_true(length < sizeof(text));
	}
	assert_string_equal(text, expected);
}

static void what_is_a_string(void **state)
{
	RUN("hello\0hello\nworld\rworld\x01world", .min_length = 4);
	assert_groups("3 world\n2 hello");
	assert_int_equal(result.count, 5);
	assert_int_equal(result.bytes, 25);
	assert_int_equal(result.groups.data[0].bytes, 15);
	/* Seen once: it does not repeat. */
	RUN("once\0twice\0twice", .min_length = 1);
	assert_groups("2 twice");
	RUN("abc\0abc\0abcd\0abcd", .min_length = 4);
	assert_groups("2 abcd");
	RUN("a\tb c~\0a\tb c~\0", .min_length = 4);
	assert_groups("2 a\tb c~");
	/* Blanks are nothing to look at. */
	RUN("      \0      \0 \t \t \t \0 \t \t \t \0", .min_length = 4);
	assert_groups("");
}

static void utf8(void **state)
{
	RUN("gr\xc3\xbc\xc3\x9f\x65\0gr\xc3\xbc\xc3\x9f\x65\0", .min_length = 5);
	assert_groups("2 gr\xc3\xbc\xc3\x9f\x65");
	/* Characters count, not bytes. */
	RUN("gr\xc3\xbc\xc3\x9f\x65\0gr\xc3\xbc\xc3\x9f\x65\0", .min_length = 6);
	assert_groups("");
	RUN("\xf0\x9f\x98\x80smile\0\xf0\x9f\x98\x80smile", .min_length = 6);
	assert_groups("2 \xf0\x9f\x98\x80smile");
	/* What is no character ends a string: stray, overlong, surrogate, control, cut short. */
	RUN("word\xbfword\xc0\x80word\xed\xa0\x80word\xc2\x85word\xe2\x82", .min_length = 4);
	assert_groups("5 word");
}

static void groups(void **state)
{
	static const char requests[] = "GET /commitop?channel=4099&seq=1\0"
				       "GET /commitop?channel=4099&seq=22\0"
				       "GET /commitop?channel=4099&seq=3\0"
				       "GET /commitop?chan\0"
				       "something else\0something else";

	/* The group of those that begin alike has little more than that. */
	RUN(requests, .min_length = 6, .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("3 ~GET /commitop?channel=4099&seq=#\n2 something else");
	RUN(requests, .min_length = 6, .prefix = 0);
	assert_groups("2 something else");
	RUN(requests, .min_length = 6, .prefix = 26);
	assert_groups("3 ~GET /commitop?channel=4099&seq=...\n2 something else");
	RUN(requests, .min_length = 6, .prefix = 1);
	assert_groups("4 ~GET /commitop?chan...\n2 something else");
	/* A whole string that is most of its group stands for it. */
	RUN("the very same text\0the very same text\0the very same text\0the very same tail",
	    .min_length = 6, .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("3 the very same text");
	/* What is in common does not end within a character. */
	RUN("sixteen bytes... \xc3\xbc\0sixteen bytes... \xc3\xb6\0sixteen bytes... \xc3\xa4",
	    .min_length = 6, .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("3 ~sixteen bytes... ...");
	RUN(requests, .min_length = 6, .top = 1);
	assert_groups("2 something else");
	RUN(requests, .min_length = 1, .prefix = 1, .top = 1);
	assert_int_equal(result.left_out, 1);
}

static void numbers(void **state)
{
	RUN("order number 1\0order number 22\0order number 22\0order number 333\0order number x\0"
	    "order number 4444",
	    .min_length = 6, .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("5 ~order number #\n2 order number 22");
	/* What is the same in all stays; and what follows. */
	RUN("GET /v2/item/17?a=9 HTTP/1.1\0GET /v2/item/18?a=9 HTTP/1.1\0"
	    "GET /v2/item/1000000?a=9 HTTP/1.1",
	    .min_length = 6, .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("3 ~GET /v2/item/#?a=9 HTTP/1.1");
	/* A number at the beginning, where the first bytes are never the same. */
	RUN("2026-11-30 10:00:01 connection lost\0002026-11-30 10:00:02 connection lost\0"
	    "2026-12-01 23:59:59 connection lost\0002027-01-01 00:00:00 connection made",
	    .min_length = 6, .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("3 ~2026-#-# #:#:# connection lost");
	/* In different words behind a number. */
	RUN("user 1 of the group red\0user 2 of the group green\0user 33 of the group blue",
	    .min_length = 6, .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("3 ~user # of the group ...");
	/* Equal numbers are no kind, and a # is one of the text's own. */
	RUN("item #1 of 5\0item #1 of 5", .min_length = 6, .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("2 item #1 of 5");
	RUN("item #1 of 5\0item #2 of 5\0item #3 of 5", .min_length = 6,
	    .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("3 ~item ## of 5");
	/* Nothing but numbers is no kind of text. */
	RUN("1234567\0007654321\0001111111\0 123 456\0 789 012\0 345 678", .min_length = 6,
	    .prefix = STRINGS_PREFIX_AUTO);
	assert_groups("");
	RUN("order number 1\0order number 2\0order number 3", .min_length = 6, .prefix = 0);
	assert_groups("");
}

/* Texts of which not all is kept. */
static void long_numbers(void **state)
{
	static char bytes[3][STRINGS_TEXT_MAX + 100];

	for (unsigned i = 0; i < 3; i++) {
		memset(bytes[i], 'x', sizeof(bytes[i]));
		memset(bytes[i] + 10, '0' + i, STRINGS_TEXT_MAX - 20);
		memset(bytes[i] + STRINGS_TEXT_MAX - 5, '0' + i, 20);
		bytes[i][sizeof(bytes[i]) - 1] = '\0';
	}
	run(bytes, sizeof(bytes),
	    (struct strings_request){ .min_length = 6, .prefix = STRINGS_PREFIX_AUTO });
	assert_groups("3 ~xxxxxxxxxx#xxxxx#...");
}

static void across_blocks(void **state)
{
	static const char text[] = "a string that lies across gr\xc3\xbc\xc3\x9f\x65 blocks";
	const size_t length = sizeof(text) - 1, size = 2 * BLOCK + PAGE;
	char *bytes = malloc(size);

	for (size_t shift = 0; shift <= length; shift++) {
		memset(bytes, 1, size);
		memcpy(bytes, text, length);
		memcpy(bytes + BLOCK - shift, text, length);
		memcpy(bytes + 2 * BLOCK - shift, text, length);
		memcpy(bytes + size - length, text, length);
		run(bytes, size, (struct strings_request){ .min_length = 4 });
		assert_int_equal(result.count, 4);
		assert_int_equal(result.groups.size, 1);
		assert_int_equal(result.groups.data[0].count, 4);
		assert_string_equal(result.groups.data[0].text, text);
	}
	free(bytes);
}

static void long_strings(void **state)
{
	size_t size = 3 * BLOCK;
	char *bytes = malloc(size);

	/* One that goes over all blocks is one. */
	memset(bytes, 'x', size);
	bytes[5] = '\0';
	bytes[size - 10000] = '\0';
	run(bytes, size, (struct strings_request){ .min_length = 6 });
	assert_int_equal(result.count, 2);
	assert_int_equal(result.groups.size, 1);
	assert_int_equal(result.groups.data[0].bytes, 2 * STRINGS_LENGTH_MAX);
	assert_int_equal(strlen(result.groups.data[0].text), STRINGS_TEXT_MAX);
	assert_true(result.groups.data[0].is_cut);
	assert_false(result.groups.data[0].varies);
	free(bytes);
}

/* More different strings than there is room for: what is said of counts stays true. */
static void too_many(void **state)
{
	enum { ROUNDS = 20000, FREQUENT = 5 };
	size_t size = (size_t)ROUNDS * 32, truth[FREQUENT] = { 0 };
	char *bytes = calloc(1, size);
	size_t at = 0, found = 0;

	for (size_t i = 0; i < ROUNDS; i++) {
		at += (size_t)snprintf(bytes + at, size - at, "unique %zu", i) + 1;
		for (size_t k = 0; k < FREQUENT; k++) {
			/* The last one begins late. */
			if (i % (3 * k + 2) || (k == FREQUENT - 1 && i < ROUNDS / 2))
				continue;
			at += (size_t)snprintf(bytes + at, size - at, "often %zu", k) + 1;
			truth[k]++;
		}
		assert_true(at < size - 100);
	}
	run(bytes, size, (struct strings_request){ .min_length = 4, .distinct = 1000 });
	assert_true(result.unseen_max > 0);
	for (size_t k = 0; k < FREQUENT; k++) {
		char text[16];

		snprintf(text, sizeof(text), "often %zu", k);
		vec_for_each (group, &result.groups) {
			if (strcmp(group->text, text))
				continue;
			found++;
			assert_in_range(truth[k], group->count, group->count_max);
			/* It was never forgotten. */
			if (k == 0)
				assert_int_equal(group->count, group->count_max);
		}
		if (truth[k] > result.unseen_max)
			assert_true(found > k);
	}
	assert_int_equal(found, FREQUENT);
	run(bytes, size, (struct strings_request){ .min_length = 4 });
	assert_int_equal(result.unseen_max, 0);
	vec_for_each (group, &result.groups)
		assert_int_equal(group->count, group->count_max);
	assert_int_equal(result.groups.data[0].count, truth[0]);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_a_string), cmocka_unit_test(utf8),
		cmocka_unit_test(groups),	    cmocka_unit_test(numbers),
		cmocka_unit_test(long_numbers),	    cmocka_unit_test(across_blocks),
		cmocka_unit_test(long_strings),	    cmocka_unit_test(too_many),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	strings_result_deinit(&result);
	return failed;
}
