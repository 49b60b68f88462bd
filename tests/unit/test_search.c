/* Patterns in memory, held against the plainest search there is; borders of blocks and pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake.h"
#include "memprobe/search.h"

#define PAGE	 0x1000u
#define RW	 (PERM_READ | PERM_WRITE)
#define BASE	 0x100000ull
#define BLOCK	 (256u << 10) /* of the scan */
#define HITS_MAX 4096

struct found {
	uint64_t at[HITS_MAX];
	size_t size[HITS_MAX];
	size_t count;
	char context[64]; /* of the first one */
	size_t before;
};

static struct error *note(void *data, const struct search_match *match)
{
	struct found *found = data;
	size_t size = match->before + match->size + match->after;

	assert_true(found->count < HITS_MAX);
	if (!found->count && size < sizeof(found->context)) {
		memcpy(found->context, match->bytes - match->before, size);
		found->context[size] = '\0';
		found->before = match->before;
	}
	found->at[found->count] = match->address;
	found->size[found->count++] = match->size;
	return NULL;
}

static struct target *new_target(const struct arch *arch)
{
	struct target *target;

	assert_null(fake_target_create(arch, &target));
	return target;
}

static void add(struct target *target, uint64_t start, const void *bytes, size_t size,
		uint64_t mapped, unsigned perms)
{
	struct fake_segment segment = {
		.start = start,
		.size = (mapped + PAGE - 1) / PAGE * PAGE,
		.bytes = bytes,
		.bytes_size = size,
		.perms = perms,
	};

	assert_null(fake_target_add_segment(target, &segment));
}

static struct found found;
static struct search_result result;

/* Takes the pattern. In [start, end). */
static struct error *try_search(struct target *target, struct search_pattern *pattern,
				uint64_t start, uint64_t end, uint64_t list, size_t context)
{
	struct mapping_vec maps = { 0 };
	struct range range = { start, end };
	struct range_vec ranges = { &range, 1, 1 };
	struct search_request request = {
		.target = target,
		.maps = &maps,
		.ranges = &ranges,
		.pattern = pattern,
		.list = list,
		.context = context,
		.match = note,
		.data = &found,
	};
	struct error *error;

	memset(&found, 0, sizeof(found));
	search_result_deinit(&result);
	memset(&result, 0, sizeof(result));
	assert_null(target_read_maps(target, MAPS_PLAIN, &maps));
	error = search_run(&request, &result);
	mappings_deinit(&maps);
	search_pattern_destroy(pattern);
	return error;
}

static void search_in(struct target *target, struct search_pattern *pattern, uint64_t start,
		      uint64_t end)
{
	assert_null(try_search(target, pattern, start, end, HITS_MAX, 0));
	assert_int_equal(found.count, result.count < HITS_MAX ? result.count : HITS_MAX);
}

static struct search_pattern *text(const char *string)
{
	struct search_pattern *pattern = NULL;

	assert_null(search_text(string, false, &pattern));
	return pattern;
}

static struct search_pattern *hex(const char *string)
{
	struct search_pattern *pattern = NULL;

	assert_null(search_hex(string, &pattern));
	return pattern;
}

static struct search_pattern *regex(const char *string)
{
	struct search_pattern *pattern = NULL;

	assert_null(search_regex(string, &pattern));
	return pattern;
}

/* `OFFSET ...` from BASE, in hexadecimal. */
static void assert_found(const char *expected)
{
	char text[512] = "";
	size_t length = 0;

	for (size_t i = 0; i < found.count && length < sizeof(text) - 20; i++)
		length += snprintf(text + length, sizeof(text) - length, "%s%llx", i ? " " : "",
				   (unsigned long long)(found.at[i] - BASE));
	assert_string_equal(text, expected);
}

static void in_bytes(const char *bytes, size_t size, struct search_pattern *pattern,
		     const char *expected)
{
	struct target *target = new_target(&arch_x86_64);

	add(target, BASE, bytes, size, size, RW);
	search_in(target, pattern, BASE, BASE + size);
	assert_found(expected);
	target_destroy(target);
}

#define IN(bytes, pattern, expected) in_bytes(bytes, sizeof(bytes) - 1, pattern, expected)

/* ---- small things ---- */

static void texts(void **state)
{
	IN("abcdef", text("cde"), "2");
	IN("a\0bcdef\0g", text("cde"), "3");
	IN("abcd abcz", text("abc"), "0 5");
	IN("abcabcab", text("abc"), "0 3");
	IN("aaaaa", text("a"), "0 1 2 3 4");
	IN("xa", text("a"), "1");
	IN("ab", text("abc"), "");
	/* One after the other, without overlaps. */
	IN("aaaaa", text("aa"), "0 2");
	IN("abababab", text("aba"), "0 4");
}

static void wildcards(void **state)
{
	IN("\xde\xad\x00\xbe\xde\xad", hex("de ad ?? be"), "0");
	IN("\xde\xad\x00\xbe\xde\xad\x01\xbf", hex("dead??b?"), "0 4");
	IN("1a2a3a", hex("?? 61"), "0 2 4");
	IN("1a2a3a", hex("61 ??"), "1 3");
	IN("1a2a3a", hex("?1 6?"), "0");
	IN("\0\0\0", hex("00"), "0 1 2");
	IN("\x1f\x2f\x3e\x4f", hex("?f"), "0 1 3");
	IN("ab", hex(" 61 62 "), "0");
}

static void utf16(void **state)
{
	struct search_pattern *pattern = NULL;

	assert_null(search_text("Hi", true, &pattern));
	IN("..H\0i\0Hi", pattern, "2");
	assert_null(search_text("\xc3\xa9", true, &pattern));
	IN("\xc3\xa9\xe9\x00", pattern, "2");
	assert_null(search_text("\xf0\x9f\x98\x80", true, &pattern));
	IN("..\x3d\xd8\x00\xde", pattern, "2");
}

static void refused(struct error *error)
{
	assert_non_null(error);
	assert_int_equal(error->code, ERROR_USAGE);
	error_destroy(error);
}

static void wrong_patterns(void **state)
{
	static const char *const no_hex[] = { "",     " ",   "d",  "dea",  "xy",
					      "de a", "d e", "??", "0x61", "61 6" };
	static const char *const no_utf8[] = {
		"\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", ""
	};
	struct search_pattern *pattern = NULL;
	struct range_vec none = { 0 };
	char *long_text = calloc(1, SEARCH_MATCH_MAX + 2);

	for (size_t i = 0; i < sizeof(no_hex) / sizeof(*no_hex); i++)
		refused(search_hex(no_hex[i], &pattern));
	for (size_t i = 0; i < sizeof(no_utf8) / sizeof(*no_utf8); i++)
		refused(search_text(no_utf8[i], true, &pattern));
	refused(search_text("", false, &pattern));
	memset(long_text, 'a', SEARCH_MATCH_MAX + 1);
	refused(search_text(long_text, false, &pattern));
	free(long_text);
	refused(search_regex("", &pattern));
	refused(search_regex("a(", &pattern));
	refused(search_regex("(*UTF)a", &pattern));
	refused(search_pointers(&none, 8, &pattern));
	assert_null(pattern);
}

static void expressions(void **state)
{
	IN("one two", regex("t.o"), "4");
	IN("GET /a HTTP\nGET /b", regex("^GET /\\w+"), "0 c");
	IN("xGET\n", regex("^GET"), "");
	IN("a1b22c333", regex("[0-9]+"), "1 3 6");
	assert_int_equal(found.size[2], 3);
	IN("aXbxc", regex("(?i)x"), "1 3");
	IN("\xff\xfe\x00z", regex("\\xfe\\x00"), "1");
	IN("abc", regex("x*"), "");
	IN("a\0b", regex("(*NUL)^b$"), "");
	IN("a\0b\0", regex("(*NUL)^b$"), "2");
	IN("foobar", regex("(?<=foo)bar"), "3");
	IN("word words", regex("\\bword\\b"), "0");
}

/* ---- pointers ---- */

static void pointers(void **state)
{
	const uint64_t words[] = { 0x1000, 0x1008, 0x100f, 0x1010, 0, 0x1000 };
	const uint32_t halves[] = { 0x1000, 0x1004, 0xfff, 0x1000 };
	struct range at[] = { { 0x1000, 0x1001 }, { 0x1008, 0x1010 } };
	struct range_vec one = { at, 1, 1 }, two = { at, 2, 2 };
	struct search_pattern *pattern = NULL;
	struct target *target = new_target(&arch_x86_64);

	add(target, BASE, words, sizeof(words), sizeof(words), RW);
	add(target, BASE + PAGE, halves, sizeof(halves), sizeof(halves), RW);
	assert_null(search_pointers(&one, 8, &pattern));
	search_in(target, pattern, BASE, BASE + PAGE);
	assert_found("0 28");
	assert_null(search_pointers(&two, 8, &pattern));
	search_in(target, pattern, BASE, BASE + PAGE);
	assert_found("0 8 10 28");
	/* Aligned words only, and whole ones. */
	assert_null(search_pointers(&two, 8, &pattern));
	search_in(target, pattern, BASE + 1, BASE + 0x2f);
	assert_found("8 10");
	assert_null(search_pointers(&one, 4, &pattern));
	search_in(target, pattern, BASE + PAGE, BASE + 2 * PAGE);
	assert_found("1000 100c");
	target_destroy(target);
}

/* ---- borders ---- */

#define LARGE (3 * BLOCK + 5 * PAGE)

/* The plainest search: every place, one after the other. */
static size_t count_plainly(const uint8_t *bytes, size_t size, const char *needle)
{
	size_t length = strlen(needle), count = 0;

	for (size_t i = 0; i + length <= size;) {
		if (memcmp(bytes + i, needle, length)) {
			i++;
			continue;
		}
		count++;
		i += length;
	}
	return count;
}

static void across_blocks(void **state)
{
	static const char needle[] = "needle-in-hay";
	uint8_t *bytes = malloc(LARGE);
	struct target *target;
	char expected[32];

	for (size_t shift = 0; shift <= sizeof(needle); shift++) {
		size_t at = BLOCK - shift;

		memset(bytes, '.', LARGE);
		memcpy(bytes + at, needle, sizeof(needle) - 1);
		memcpy(bytes, needle, sizeof(needle) - 1);
		memcpy(bytes + LARGE - (sizeof(needle) - 1), needle, sizeof(needle) - 1);
		target = new_target(&arch_x86_64);
		add(target, BASE, bytes, LARGE, LARGE, RW);
		snprintf(expected, sizeof(expected), "0 %zx %zx", at, LARGE - (sizeof(needle) - 1));
		search_in(target, text(needle), BASE, BASE + LARGE);
		assert_found(expected);
		search_in(target, regex("ne+dle-[a-z]+-hay"), BASE, BASE + LARGE);
		assert_found(expected);
		search_in(target, hex("6e ?? 65 6? 6c 65 2d ?? ?? 2d 68 ?? ??"), BASE,
			  BASE + LARGE);
		assert_found(expected);
		/* A range that ends one byte too early. */
		search_in(target, text(needle), BASE + 1, BASE + LARGE - 1);
		snprintf(expected, sizeof(expected), "%zx", at);
		assert_found(expected);
		target_destroy(target);
	}
	free(bytes);
}

/* Matches that would overlap, in memory that is full of them: the count is that of one pass. */
static void runs_across_blocks(void **state)
{
	static const char *const needles[] = { "a", "aa", "aaa", "aaaaaaa", "aaab", "baaa" };
	uint8_t *bytes = malloc(LARGE);
	struct target *target = new_target(&arch_x86_64);
	uint32_t random = 1;

	memset(bytes, 'a', LARGE);
	for (unsigned i = 0; i < 60; i++) {
		random = random * 1103515245 + 12345;
		bytes[(random >> 4) % LARGE] = 'b';
	}
	add(target, BASE, bytes, LARGE, LARGE, RW);
	for (size_t i = 0; i < sizeof(needles) / sizeof(*needles); i++) {
		char pattern[16];
		size_t expected = count_plainly(bytes + 3, LARGE - 8, needles[i]);

		assert_null(try_search(target, text(needles[i]), BASE + 3, BASE + LARGE - 5, 0, 0));
		assert_int_equal(result.count, expected);
		snprintf(pattern, sizeof(pattern), "%s", needles[i]);
		assert_null(try_search(target, regex(pattern), BASE + 3, BASE + LARGE - 5, 0, 0));
		assert_int_equal(result.count, expected);
	}
	assert_int_equal(result.scan.bytes, LARGE - 8);
	target_destroy(target);
	free(bytes);
}

static void random_patterns(void **state)
{
	uint8_t *bytes = malloc(LARGE);
	struct target *target = new_target(&arch_x86_64);
	uint32_t random = 7;
	char needle[8] = "";

	for (size_t i = 0; i < LARGE; i++) {
		random = random * 1103515245 + 12345;
		bytes[i] = "abcd"[random >> 20 & 3];
	}
	add(target, BASE, bytes, LARGE, LARGE, RW);
	for (size_t length = 1; length < sizeof(needle); length++) {
		for (size_t i = 0; i < length; i++)
			needle[i] = (char)bytes[length * 1000 + i];
		needle[length] = '\0';
		assert_null(try_search(target, text(needle), BASE, BASE + LARGE, 3, 0));
		assert_int_equal(result.count, count_plainly(bytes, LARGE, needle));
		assert_int_equal(found.count, 3);
	}
	target_destroy(target);
	free(bytes);
}

static void longest_matches(void **state)
{
	uint8_t *bytes = malloc(LARGE);
	struct target *target = new_target(&arch_x86_64);

	memset(bytes, 'a', LARGE);
	add(target, BASE, bytes, LARGE, LARGE, RW);
	/* Cut into pieces of SEARCH_MATCH_MAX, wherever blocks end. */
	search_in(target, regex("a+"), BASE + 100, BASE + LARGE);
	assert_int_equal(found.count, (LARGE - 100 + SEARCH_MATCH_MAX - 1) / SEARCH_MATCH_MAX);
	for (size_t i = 0; i + 1 < found.count; i++)
		assert_int_equal(found.at[i + 1] - found.at[i], SEARCH_MATCH_MAX);
	search_in(target, regex("a{4097}"), BASE, BASE + LARGE);
	assert_int_equal(result.count, 0);
	search_in(target, regex("a{4096}"), BASE, BASE + LARGE);
	assert_int_equal(result.count, LARGE / 4096);
	target_destroy(target);
	free(bytes);
}

static void costly_expressions(void **state)
{
	char bytes[PAGE];
	struct target *target = new_target(&arch_x86_64);
	struct error *error;

	memset(bytes, 'a', sizeof(bytes));
	bytes[50] = 'x';
	memset(bytes + 51, '.', sizeof(bytes) - 51);
	add(target, BASE, bytes, sizeof(bytes), sizeof(bytes), RW);
	/* Some places take too long; others are searched all the same. */
	assert_null(try_search(target, regex("(a+)+y|x"), BASE, BASE + PAGE, 9, 0));
	assert_int_equal(result.count, 1);
	assert_in_range(result.gave_up, 1, 50);
	memset(bytes, 'a', sizeof(bytes));
	assert_null(fake_target_write(target, BASE, bytes, sizeof(bytes)));
	error = try_search(target, regex("(a+)+[yz]"), BASE, BASE + PAGE, 9, 0);
	assert_true(error_is(error, ERROR_FAILED));
	error_destroy(error);
	target_destroy(target);
}

/* ---- holes ---- */

static void mappings_that_adjoin(void **state)
{
	struct target *target = new_target(&arch_x86_64);
	char page[PAGE];

	memset(page, '.', PAGE);
	memcpy(page + PAGE - 3, "abc", 3);
	add(target, BASE, page, PAGE, PAGE, RW);
	memcpy(page, "def", 3);
	add(target, BASE + PAGE, page, PAGE, PAGE, PERM_READ);
	add(target, BASE + 3 * PAGE, page, PAGE, PAGE, RW);
	search_in(target, text("abcdef"), BASE, BASE + 4 * PAGE);
	assert_found("ffd");
	/* Not across a gap, which is missing. */
	assert_int_equal(result.scan.missing.size, 1);
	assert_int_equal(result.scan.missing.data[0].start, BASE + 2 * PAGE);
	assert_int_equal(result.scan.missing_bytes, PAGE);
	search_in(target, text("abcdef"), BASE, BASE + PAGE);
	assert_found("");
	target_destroy(target);
}

static void untouched_pages(void **state)
{
	struct target *target = new_target(&arch_x86_64);
	char page[PAGE];

	memset(page, '.', PAGE);
	page[PAGE - 1] = 'a';
	page[0] = 'b';
	add(target, BASE, page, PAGE, 4 * PAGE, RW);
	add(target, BASE + 4 * PAGE, page, PAGE, PAGE, RW);
	search_in(target, hex("61 00 00"), BASE, BASE + 8 * PAGE);
	assert_found("fff");
	search_in(target, hex("00 00 62"), BASE, BASE + 8 * PAGE);
	assert_found("3ffe");
	search_in(target, regex("\\x00+b"), BASE, BASE + 8 * PAGE);
	assert_int_equal(result.count, 1);
	assert_int_equal(found.at[0] + found.size[0], BASE + 4 * PAGE + 1);
	/* What lies in them alone does not count. */
	search_in(target, hex("00 00"), BASE, BASE + 5 * PAGE);
	assert_found("");
	assert_int_equal(result.scan.bytes, 2 * PAGE);
	search_in(target, hex("00 62"), BASE + 3 * PAGE, BASE + 5 * PAGE);
	assert_found("3fff");
	search_in(target, hex("61 00"), BASE, BASE + PAGE + 1);
	assert_found("fff");
	search_in(target, hex("61 00"), BASE, BASE + PAGE);
	assert_found("");
	target_destroy(target);
}

static void unreadable_pages(void **state)
{
	struct target *target = new_target(&arch_x86_64);
	char page[PAGE];

	memset(page, 'a', PAGE);
	for (unsigned i = 0; i < 6; i++)
		add(target, BASE + i * PAGE, page, PAGE, PAGE, i % 2 ? 0 : RW);
	search_in(target, text("aaa"), BASE, BASE + 6 * PAGE);
	assert_int_equal(result.count, 3 * (PAGE / 3));
	assert_int_equal(result.scan.missing_bytes, 3 * PAGE);
	assert_int_equal(result.scan.missing.size, 3);
	assert_int_equal(result.scan.missing.data[2].start, BASE + 5 * PAGE);
	search_in(target, regex("a{3}"), BASE, BASE + 6 * PAGE);
	assert_int_equal(result.count, 3 * (PAGE / 3));
	target_destroy(target);
}

/* Reading it would make pages of it. */
static void shared_memory(void **state)
{
	struct target *target = new_target(&arch_x86_64);
	char page[PAGE];

	memset(page, 'a', PAGE);
	add(target, BASE, page, PAGE, 3 * PAGE, RW | PERM_SHARED);
	add(target, BASE + 3 * PAGE, page, PAGE, PAGE, RW);
	assert_null(fake_target_write(target, BASE + 2 * PAGE, page, PAGE));
	search_in(target, text("aaaa"), BASE, BASE + 4 * PAGE);
	assert_int_equal(result.count, 3 * PAGE / 4);
	assert_int_equal(result.scan.bytes, 3 * PAGE);
	assert_int_equal(result.scan.left_out, PAGE);
	/* What is in the page that was left out is not known. */
	search_in(target, hex("61 00"), BASE, BASE + 4 * PAGE);
	assert_found("");
	search_in(target, hex("00 61"), BASE, BASE + 4 * PAGE);
	assert_found("");
	target_destroy(target);
}

/* Every other page of many: more pieces than a block has at once. */
static void many_pieces(void **state)
{
	enum { PAGES = 700 };
	struct target *target = new_target(&arch_x86_64);
	size_t expected = 0;

	add(target, BASE, "", 0, PAGES * PAGE, RW);
	for (unsigned i = 0; i < PAGES; i += 1 + i % 3) {
		assert_null(fake_target_write(target, BASE + i * PAGE + PAGE - 5, "magic", 5));
		expected++;
	}
	search_in(target, text("magic"), BASE, BASE + PAGES * PAGE);
	assert_int_equal(result.count, expected);
	target_destroy(target);
}

static void contexts(void **state)
{
	struct target *target = new_target(&arch_x86_64);

	add(target, BASE, "0123456789", 10, PAGE, RW);
	assert_null(try_search(target, text("456"), BASE, BASE + 10, 9, 2));
	assert_string_equal(found.context, "2345678");
	assert_int_equal(found.before, 2);
	assert_null(try_search(target, text("01"), BASE, BASE + 10, 9, 4));
	assert_string_equal(found.context, "012345");
	assert_null(try_search(target, regex("9"), BASE, BASE + 10, 9, 4));
	assert_string_equal(found.context, "56789");
	target_destroy(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts),
		cmocka_unit_test(wildcards),
		cmocka_unit_test(utf16),
		cmocka_unit_test(wrong_patterns),
		cmocka_unit_test(expressions),
		cmocka_unit_test(pointers),
		cmocka_unit_test(across_blocks),
		cmocka_unit_test(runs_across_blocks),
		cmocka_unit_test(random_patterns),
		cmocka_unit_test(longest_matches),
		cmocka_unit_test(costly_expressions),
		cmocka_unit_test(mappings_that_adjoin),
		cmocka_unit_test(untouched_pages),
		cmocka_unit_test(unreadable_pages),
		cmocka_unit_test(shared_memory),
		cmocka_unit_test(many_pieces),
		cmocka_unit_test(contexts),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	search_result_deinit(&result);
	return failed;
}
