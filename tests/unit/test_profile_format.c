/* What profiles look like in each format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <zlib.h>

#include "memprobe/sites_json.h"
#include "memprobe/sites_table.h"
#include "profiles.h"

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("no '%s' in:\n%s", part, text);
}

static void assert_lacks(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("'%s' is in:\n%s", part, text);
}

static struct profile *small_profile(void)
{
	struct profile *profile = profiles_new();

	profiles_add(profile, "main;serve;malloc", 3, 300);
	profiles_add(profile, "main;grow_k;page_fault_[k]", 1, 4096);
	profiles_add(profile, "main;serve;malloc", 1, 100);
	profile_sort(profile);
	return profile;
}

/* ---- folded ---- */

static void folded_has_a_line_for_each_stack(void **state)
{
	cleanup(profile) struct profile *profile = small_profile();
	cleanup(free) char *text = profiles_written(profile, "folded", NULL, NULL);

	assert_string_equal(text, "main;grow_k;page_fault_[k] 4096\nmain;serve;malloc 400\n");
}

static void folded_escapes_what_ends_a_frame(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	const int64_t values[PROFILE_COLUMNS] = { 1, 5 };
	uint32_t frame, stack;
	char *text;

	assert_null(profile_add_label(profile, "a;b\nc 7", 7, &frame));
	assert_null(profile_add_stack(profile, &frame, 1, &stack));
	assert_null(profile_add_site(profile, stack, values));
	text = profiles_written(profile, "folded", NULL, NULL);
	assert_string_equal(text, "a\\x3bb\\x0ac 7 5\n");
	free(text);
}

static void folded_leaves_out_what_it_cannot_hold(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	char *text = profiles_written(profile, "folded", NULL, NULL);

	assert_string_equal(text, "");
	free(text);
	profiles_add(profile, "gone", 1, -5);
	profiles_add(profile, "nothing", 1, 0);
	profiles_add(profile, "", 1, 7);
	text = profiles_written(profile, "folded", NULL, NULL);
	assert_string_equal(text, "[no stack] 7\n");
	free(text);
}

/* ---- JSON ---- */

static void json_is_read_as_it_was_written(void **state)
{
	cleanup(profile) struct profile *profile = small_profile();
	cleanup(profile) struct profile *again = profiles_new();
	json_t *document = json_object(), *site;
	size_t left_out;
	char *text;

	assert_null(profile_set_column(profile, PROFILE_UNREACHABLE_BYTES, "unreachable_space",
				       "bytes"));
	profile->sites.data[0].values[PROFILE_UNREACHABLE_BYTES] = 11;
	profile->duration_us = 1500000;
	profile->lost = 2;
	assert_null(sites_json_add(document, profile, true));
	assert_true(json_real_value(json_object_get(document, "duration")) == 1.5);
	assert_int_equal(json_integer_value(json_object_get(document, "lost")), 2);
	site = json_array_get(json_object_get(document, "sites"), 1);
	assert_int_equal(json_integer_value(json_object_get(site, "bytes")), 400);
	assert_int_equal(json_integer_value(json_object_get(site, "count")), 4);
	assert_string_equal(json_string_value(json_array_get(json_object_get(site, "frames"), 1)),
			    "serve");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(document, "totals"), "bytes")),
		4496);
	assert_null(sites_json_read(document, again, &left_out));
	assert_int_equal(left_out, 0);
	assert_true(profile_has(again, PROFILE_UNREACHABLE_BYTES));
	assert_false(profile_has(again, PROFILE_ALL_BYTES));
	assert_int_equal(profile_total(again, PROFILE_UNREACHABLE_BYTES), 11);
	text = profiles_written(again, "folded", NULL, NULL);
	assert_string_equal(text, "main;grow_k;page_fault_[k] 4096\nmain;serve;malloc 400\n");
	free(text);
	json_decref(document);
}

static void json_that_is_no_site_is_left_out(void **state)
{
	static const char *const texts[] = {
		"{\"sites\": [{\"frames\": [\"a\"], \"bytes\": 1}, 7, {}, {\"frames\": [7], "
		"\"bytes\": 1}, {\"frames\": \"a\", \"bytes\": 1}, {\"frames\": [], \"bytes\": 2.5}]}",
		"{\"sites\": {}}",
		"{}",
	};
	cleanup(profile) struct profile *profile = profiles_new();
	size_t left_out;

	for (size_t i = 0; i < 3; i++) {
		json_t *document = json_loads(texts[i], 0, NULL);
		struct error *error = sites_json_read(document, profile, &left_out);

		assert_non_null(document);
		if (i)
			assert_true(error_is(error, ERROR_FAILED));
		else
			assert_null(error);
		error_destroy(error);
		json_decref(document);
	}
	assert_int_equal(left_out, 5);
	assert_int_equal(profile->sites.size, 1);
	assert_false(profile_has(profile, PROFILE_COUNT));
}

/* ---- pprof: what is in it is for the live tests, with go or a decoder of their own ---- */

static void pprof_is_gzip(void **state)
{
	cleanup(profile) struct profile *profile = small_profile();
	cleanup(profile) struct profile *empty = profiles_new();
	size_t size;
	char *bytes = profiles_written(profile, "pprof", NULL, &size);

	assert_true(size > 20);
	assert_memory_equal(bytes, "\x1f\x8b\x08", 3);
	free(bytes);
	bytes = profiles_written(empty, "pprof", NULL, &size);
	assert_memory_equal(bytes, "\x1f\x8b\x08", 3);
	free(bytes);
}

static size_t unzip(const char *bytes, size_t size, char *out, size_t room)
{
	z_stream stream = {
		.next_in = (Bytef *)bytes,
		.avail_in = size,
		.next_out = (Bytef *)out,
		.avail_out = room,
	};

	assert_int_equal(inflateInit2(&stream, 15 + 16), Z_OK);
	assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END);
	inflateEnd(&stream);
	return room - stream.avail_out;
}

static void assert_has_bytes(const char *bytes, size_t size, const char *part, size_t part_size)
{
	assert_non_null(memmem(bytes, size, part, part_size));
}

#define ASSERT_HAS_BYTES(part) assert_has_bytes(message, size, part, sizeof(part) - 1)

/* main at 0x401010 calls outer at 0x7f0000001020, into which inner is inlined; then [?] in no
 * module.
 */
static void pprof_has_addresses_and_mappings(void **state)
{
	const struct profile_frame frames[] = {
		{ .function = "main", .module = "/bin/a", .address = 0x401010, .line = 3 },
		{ .function = "outer",
		  .module = "/l.so",
		  .address = 0x7f0000001020,
		  .file = "o.c" },
		{ .function = "inner",
		  .module = "/l.so",
		  .address = 0x7f0000001020,
		  .inlined = true },
		{ .module = "/gone.so", .address = 0x99, .build_id = "ee" },
	};
	const struct profile_mapping mappings[] = {
		{ 0x7f0000000000, 0x7f0000002000, 0x1000, "/l.so", "beef" },
		{ 0x400000, 0x402000, 0, "/bin/a", NULL },
		{ 0x500000, 0x502000, 0, "/unused", NULL },
	};
	const int64_t values[PROFILE_COLUMNS] = { -1, 300 };
	cleanup(profile) struct profile *profile = profiles_new();
	char message[4096], *zipped;
	uint32_t ids[4], stack;
	size_t size;

	for (size_t i = 0; i < 4; i++)
		assert_null(profile_add_frame(profile, &frames[i], &ids[i]));
	for (size_t i = 0; i < 3; i++)
		assert_null(profile_add_mapping(profile, &mappings[i]));
	assert_null(profile_add_stack(profile, ids, 4, &stack));
	assert_null(profile_add_site(profile, stack, values));
	assert_null(profile_intern(profile, "/bin/a", &profile->exe));
	profile->period = 512;
	zipped = profiles_written(profile, "pprof", NULL, &size);
	size = unzip(zipped, size, message, sizeof(message));
	free(zipped);
	/* sample: locations 1, 2, 3; values -1, 300 */
	ASSERT_HAS_BYTES("\x12\x13\x0a\x03\x01\x02\x03\x12\x0c"
			 "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xac\x02");
	/* location 1: the module without a range, 0x99, a name made of the module's */
	ASSERT_HAS_BYTES("\x22\x0b\x08\x01\x10\x04\x18\x99\x01\x22\x02\x08\x01");
	ASSERT_HAS_BYTES("\x32\x09"
			 "[gone.so]");
	/* Its mapping, 4, has a path and a build-id, and no functions for all that. */
	ASSERT_HAS_BYTES("\x1a\x06\x08\x04\x28");
	/* location 2: the third range by address; inner, then outer */
	ASSERT_HAS_BYTES("\x22\x14\x08\x02\x10\x03\x18\xa0\xa0\x80\x80\x80\xe0\x1f"
			 "\x22\x02\x08\x02\x22\x02\x08\x03");
	/* location 3: line 3 of function 4 */
	ASSERT_HAS_BYTES("\x22\x0f\x08\x03\x10\x01\x18\x90\xa0\x80\x02\x22\x04\x08\x04\x10\x03");
	ASSERT_HAS_BYTES("\x32\x04"
			 "beef");
	ASSERT_HAS_BYTES("\x32\x05"
			 "/l.so");
	ASSERT_HAS_BYTES("\x60\x80\x04"); /* the period */
	assert_null(memmem(message, size, "/unused", 7));
	/* The program's own mapping stands before the others: 0x400000-0x402000, 0x7f... */
	assert_true(memmem(message, size, "\x10\x80\x80\x80\x02\x18\x80\xc0\x80\x02", 10) <
		    memmem(message, size, "\x10\x80\x80\x80\x80\x80\xe0\x1f", 8));
}

/* ---- SVG ---- */

static void svg_has_the_tree(void **state)
{
	cleanup(profile) struct profile *profile = small_profile();
	struct profile_options options = { .title = "A <b> & \"c\"", .min_width = -1 };
	cleanup(free) char *text = profiles_written(profile, "svg", &options, NULL);

	assert_has(text, "A &lt;b&gt; &amp; &quot;c&quot;");
	assert_has(text, "data-f=\"0,0,4496\"><title>all\n4.4K (4,496 bytes), 100.00 %, count 5<");
	assert_has(text, "data-f=\"1,0,4496\"><title>main\n");
	assert_has(text, "data-f=\"2,4096,400\"><title>serve\n400 bytes, 8.90 %, count 4<");
	assert_has(text, "data-layout=\"fluid,flame,");
}

static void svg_escapes_names(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	char *text;

	profiles_add(profile, "a<script>\"&'", 1, 1);
	profiles_add(profile, "\x01\x1b[0m\xff\xef\xbf\xbf]]>", 1, 1);
	text = profiles_written(profile, "svg", NULL, NULL);
	assert_has(text, "<title>a&lt;script&gt;&quot;&amp;'\n");
	assert_has(text, "<title>\\x01\\x1b[0m\\xff\xef\xbf\xbd]]&gt;\n");
	free(text);
}

static void svg_has_a_title_by_itself(void **state)
{
	cleanup(profile) struct profile *profile = small_profile();
	char *text = profiles_written(profile, "svg", NULL, NULL);

	assert_has(text, ">Flame graph</text>");
	free(text);
	assert_null(profile_intern(profile, "a&b", &profile->name));
	profile->pid = 314;
	text = profiles_written(profile, "svg", NULL, NULL);
	assert_has(text, ">a&amp;b (314)</text>");
	free(text);
}

static void svg_has_short_names(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	struct profile_options options = { .width = 400, .min_width = -1 };
	char *text;

	profiles_add(profile, "f(int)", 1, 9);
	profiles_add(profile, "std::vector<int, std::allocator<int> >::push_back(int const&)", 1,
		     8);
	text = profiles_written(profile, "svg", &options, NULL);
	assert_has(text,
		   "data-s=\"std::vector&lt;&gt;::push_back\"><title>std::vector&lt;int, std");
	assert_has(text, ">std::vector&lt;&gt;::push_ba\xe2\x80\xa6</text>");
	assert_has(text, ">f(int)</text>");
	free(text);
}

static void svg_merges_from_the_leaf(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	struct profile_options options = { .reverse = true, .inverted = true, .min_width = -1 };
	char *text;

	profiles_add(profile, "main;a;malloc", 1, 10);
	profiles_add(profile, "main;b;malloc", 1, 20);
	text = profiles_written(profile, "svg", &options, NULL);
	assert_has(text, "data-f=\"1,0,30\"><title>malloc\n");
	assert_has(text, "data-f=\"2,10,20\"><title>b\n");
	assert_has(text, ",icicle,");
	free(text);
}

static void svg_leaves_out_what_is_too_narrow(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	struct profile_options options = { .min_width = 10 };
	char *text;

	profiles_add(profile, "wide", 1, 1000000);
	profiles_add(profile, "narrow", 1, 1);
	text = profiles_written(profile, "svg", &options, NULL);
	assert_lacks(text, "narrow");
	assert_has(text, "<title>all\n977K (1,000,001 bytes)");
	free(text);
	options.min_width = 0;
	text = profiles_written(profile, "svg", &options, NULL);
	assert_has(text, "<title>narrow\n");
	free(text);
}

static void svg_shows_growth(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	cleanup(profile) struct profile *old = profiles_new();
	char *text;

	profiles_add(old, "a", 1, 100);
	profiles_add(old, "gone", 1, 60);
	profiles_add(profile, "a", 1, 150);
	profiles_add(profile, "b", 1, 10);
	assert_null(profile_compare(profile, old));
	text = profiles_written(profile, "svg", NULL, NULL);
	assert_has(text, "<title>a\n150 bytes, 93.75 %, count 1; +50 bytes, +50.0 %</title>");
	assert_has(text, "; +10 bytes, new</title>");
	assert_has(text, "<title>all\n160 bytes, 100.00 %, count 2; +0 bytes, +0.0 %</title>");
	/* As wide as it was, and nothing more. */
	assert_has(text, "data-f=\"1,160,60\" data-v=\"0\"><title>gone\n"
			 "0 bytes, 0.00 %, count 0; \xe2\x88\x92"
			 "60 bytes, -100.0 %</title>"
			 "<rect class=\"c0 old\"");
	assert_has(text, "data-f=\"0,0,220\" data-v=\"160\"><title>all\n");
	free(text);
}

static void svg_shows_what_is_unreachable(void **state)
{
	cleanup(profile) struct profile *profile = small_profile();
	char *text;

	assert_null(profile_set_column(profile, PROFILE_UNREACHABLE_BYTES, "unreachable_space",
				       "bytes"));
	profile->sites.data[1].values[PROFILE_UNREACHABLE_BYTES] = 100;
	text = profiles_written(profile, "svg", NULL, NULL);
	assert_has(text, "unreachable 100 bytes, 25.0 % of it</title>");
	assert_has(text, "data-u=\"0.2500\"");
	free(text);
}

static void svg_of_nothing_is_one(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	char *text = profiles_written(profile, "svg", NULL, NULL);

	assert_has(text, "<title>all\n0 bytes, 0.00 %");
	free(text);
	profiles_add(profile, "below", 1, -5);
	profiles_add(profile, "huge", 1, INT64_MAX);
	profiles_add(profile, "too", 1, INT64_MAX);
	text = profiles_written(profile, "svg", NULL, NULL);
	assert_has(text, "huge\n");
	assert_lacks(text, "below\n");
	free(text);
}

static void svg_takes_deep_stacks(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	const int64_t values[PROFILE_COLUMNS] = { 1, 5 };
	enum { DEPTH = 100000 };
	cleanup(free) uint32_t *frames = calloc(DEPTH, sizeof(*frames));
	uint32_t stack;
	char *text;

	assert_null(profile_add_label(profile, "recursion", 9, &frames[0]));
	assert_null(profile_add_stack(profile, frames, DEPTH, &stack));
	assert_null(profile_add_site(profile, stack, values));
	text = profiles_written(profile, "svg", NULL, NULL);
	assert_has(text, "data-f=\"4096,0,5\"");
	free(text);
}

/* ---- the table ---- */

static void table_names_what_matters(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	const struct sites_table_options pipe = { .style.bytes = true },
					 terminal = { .top = 1, .style.width = 80 };
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	profiles_add(
		profile,
		"main;Server::run(int);std::vector<char, std::allocator<char> >::push_back(char "
		"const&);operator new(unsigned long);malloc",
		2, 2048);
	profiles_add(profile, "main;malloc", 1, 10);
	assert_null(sites_table_print(profile, &pipe, out));
	fputs("--\n", out);
	assert_null(sites_table_print(profile, &terminal, out));
	fclose(out);
	assert_string_equal(text, "BYTES       %  COUNT  FUNCTION          CALLED BY\n"
				  " 2048   99.5%      2  Server::run(int)  main\n"
				  "   10    0.5%      1  main\n"
				  "-------------------------------------------------\n"
				  " 2058  100.0%      3  total\n"
				  "--\n"
				  "BYTES       %  COUNT  FUNCTION          CALLED BY\n"
				  " 2.0K   99.5%      2  Server::run(int)  main\n"
				  "-------------------------------------------------\n"
				  " 2.0K  100.0%      3  total\n"
				  "and 1 more site\n");
	free(text);
}

/* The lines of the table for a terminal of this width, none of which is longer. */
static char *table_of(const struct profile *profile, unsigned width)
{
	const struct sites_table_options terminal = { .style.width = width };
	char *text = NULL, *line, *end;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_null(sites_table_print(profile, &terminal, out));
	fclose(out);
	for (line = text; (end = strchr(line, '\n')); line = end + 1)
		assert_true(end - line <= width);
	return text;
}

/* They hide nothing that the row shows: what is behind the frame that matters, and no more. */
static void table_merges_what_looks_alike(void **state)
{
	cleanup(profile) struct profile *profile = profiles_new();
	const struct sites_table_options pipe = { .top = 2 }, calls = { .leaf = "CALL" };
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	profiles_add(profile, "main;run;malloc;sysmalloc", 1, 10);
	profiles_add(profile, "main;go", 1, 15);
	profiles_add(profile, "main;run;malloc", 2, 20);
	profiles_add(profile, "[truncated];malloc;sysmalloc", 1, 5);
	assert_null(sites_table_print(profile, &pipe, out));
	fputs("--\n", out);
	assert_null(sites_table_print(profile, &calls, out));
	fclose(out);
	assert_string_equal(text, "BYTES       %  COUNT  FUNCTION  CALLED BY\n"
				  "   30   60.0%      3  run       main\n"
				  "   15   30.0%      1  go        main\n"
				  "-----------------------------------------\n"
				  "   50  100.0%      5  total\n"
				  "and 1 more site\n"
				  "--\n"
				  "BYTES       %  COUNT  CALL       FUNCTION  CALLED BY\n"
				  "   20   40.0%      2  malloc     run       main\n"
				  "   15   30.0%      1  go         main\n"
				  "   10   20.0%      1  sysmalloc  run       main\n"
				  "    5   10.0%      1  sysmalloc  malloc    [truncated]\n"
				  "------------------------------------------------------\n"
				  "   50  100.0%      5  total\n");
	free(text);
}

static void table_gives_names_what_is_left(void **state)
{
	cleanup(profile) struct profile *callers = profiles_new(), *function = profiles_new(),
					*both = profiles_new();
	char *text;

	/* 22 columns of figures and gaps; the rest is for names. */
	profiles_add(callers, "main;first_caller;second_caller;third_caller;short_one", 1, 10);
	text = table_of(callers, 82);
	assert_has(text, "  short_one  third_caller < second_caller < first_caller < ...\n");
	free(text);
	profiles_add(function, "main;the_longest_of_all_names_that_anybody_has_given", 1, 10);
	text = table_of(function, 80);
	assert_has(text, "  the_longest_of_all_names_that_anybody_has_given  main\n");
	free(text);
	text = table_of(function, 64);
	assert_has(text, "  the_longest_of_all_names_tha...  main\n");
	free(text);
	profiles_add(both,
		     "main;first_caller;second_caller;third_caller;"
		     "the_longest_of_all_names_that_anybody_has_given",
		     1, 10);
	text = table_of(both, 80);
	assert_has(text, "  third_caller < ...\n");
	free(text);
}

static void assert_matters(const char *stack, size_t expected)
{
	cleanup(profile) struct profile *profile = profiles_new();
	const uint32_t *frames;
	size_t depth;

	profiles_add(profile, stack, 1, 1);
	frames = profile_stack_frames(profile, 0, &depth);
	assert_int_equal(site_frame_of_interest(profile, frames, depth), expected);
}

static void what_matters_is_no_allocator(void **state)
{
	assert_matters("main;run;malloc", 1);
	assert_matters("main;run;xmalloc;malloc", 1);
	assert_matters("main;memcached_run;__memset_avx2_unaligned;asm_exc_page_fault_[k]", 1);
	assert_matters("main;core::Engine::run();std::string::_M_create(unsigned long&);je_arena",
		       1);
	assert_matters("main;exec_query;palloc;AllocSetAlloc;malloc", 1);
	assert_matters(
		"main;app::f;alloc::vec::Vec<T>::push;alloc::raw_vec::finish_grow;__rust_alloc", 1);
	/* Nothing but allocators: the leaf. */
	assert_matters("malloc", 0);
	assert_matters("calloc;malloc", 1);
}

static void assert_fit(const char *name, size_t columns, const char *expected)
{
	cleanup(free) char *fitting = function_name_fit(name, columns);

	assert_non_null(fitting);
	assert_string_equal(fitting, expected);
}

static void long_names_are_shortened(void **state)
{
	static const char push[] = "void std::vector<Entry, std::allocator<Entry> >::"
				   "_M_realloc_insert<Entry const&>(Entry*, Entry const&)";

	assert_fit("main", 10, "main");
	assert_fit("Server::handle(Request const&)", 20, "Server::handle");
	assert_fit(push, 45, "void std::vector<>::_M_realloc_insert<>");
	assert_fit(push, 35, "std::vector<>::_M_realloc_insert<>");
	assert_fit(push, 20, "_M_realloc_insert<>");
	assert_fit(push, 10, "_M_real...");
	assert_fit("one::two::three<A::B>::four()", 17, "three<>::four");
	assert_fit("(anonymous namespace)::run(int)", 0, "(anonymous namespace)::run");
	assert_fit("bool operator< <int>(A<int> const&, B)", 0, "operator< <>");
	assert_fit("A::operator()(int) const", 0, "A::operator()");
	assert_fit("A<B>::operator->() const", 0, "A<>::operator->");
	assert_fit("operator new(unsigned long)", 0, "operator new");
	assert_fit("f<A<B>", 0, "f<>");
	assert_fit("(", 0, "(");
	assert_fit("", 0, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(folded_has_a_line_for_each_stack),
		cmocka_unit_test(folded_escapes_what_ends_a_frame),
		cmocka_unit_test(folded_leaves_out_what_it_cannot_hold),
		cmocka_unit_test(json_is_read_as_it_was_written),
		cmocka_unit_test(json_that_is_no_site_is_left_out),
		cmocka_unit_test(pprof_is_gzip),
		cmocka_unit_test(pprof_has_addresses_and_mappings),
		cmocka_unit_test(svg_has_the_tree),
		cmocka_unit_test(svg_escapes_names),
		cmocka_unit_test(svg_has_a_title_by_itself),
		cmocka_unit_test(svg_has_short_names),
		cmocka_unit_test(svg_merges_from_the_leaf),
		cmocka_unit_test(svg_leaves_out_what_is_too_narrow),
		cmocka_unit_test(svg_shows_growth),
		cmocka_unit_test(svg_shows_what_is_unreachable),
		cmocka_unit_test(svg_of_nothing_is_one),
		cmocka_unit_test(svg_takes_deep_stacks),
		cmocka_unit_test(table_names_what_matters),
		cmocka_unit_test(table_merges_what_looks_alike),
		cmocka_unit_test(table_gives_names_what_is_left),
		cmocka_unit_test(what_matters_is_no_allocator),
		cmocka_unit_test(long_names_are_shortened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
