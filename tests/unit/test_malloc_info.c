/* The reader of malloc_info's XML: a real text of glibc 2.36, then everything that may go wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../victims/mallinfo2.h"
#include "memprobe/malloc_info.h"

static const char sample[] =
	"<malloc version=\"1\">\n"
	"<heap nr=\"0\">\n"
	"<sizes>\n"
	"</sizes>\n"
	"<total type=\"fast\" count=\"0\" size=\"0\"/>\n"
	"<total type=\"rest\" count=\"1\" size=\"129536\"/>\n"
	"<system type=\"current\" size=\"135168\"/>\n"
	"<system type=\"max\" size=\"135169\"/>\n"
	"<aspace type=\"total\" size=\"135168\"/>\n"
	"<aspace type=\"mprotect\" size=\"135168\"/>\n"
	"</heap>\n"
	"<heap nr=\"1\">\n"
	"<sizes>\n"
	"  <size from=\"17\" to=\"32\" total=\"32\" count=\"1\"/>\n"
	"  <size from=\"97\" to=\"112\" total=\"112\" count=\"1\"/>\n"
	"  <unsorted from=\"177\" to=\"11057\" total=\"832853\" count=\"149\"/>\n"
	"</sizes>\n"
	"<total type=\"fast\" count=\"2\" size=\"144\"/>\n"
	"<total type=\"rest\" count=\"150\" size=\"835109\"/>\n"
	"<system type=\"current\" size=\"1675264\"/>\n"
	"<system type=\"max\" size=\"1675264\"/>\n"
	"<aspace type=\"total\" size=\"1675264\"/>\n"
	"<aspace type=\"mprotect\" size=\"1675264\"/>\n"
	"<aspace type=\"subheaps\" size=\"1\"/>\n"
	"</heap>\n"
	"<total type=\"fast\" count=\"2\" size=\"144\"/>\n"
	"<total type=\"rest\" count=\"151\" size=\"964645\"/>\n"
	"<total type=\"mmap\" count=\"1\" size=\"1052672\"/>\n"
	"<system type=\"current\" size=\"1810432\"/>\n"
	"<system type=\"max\" size=\"1810433\"/>\n"
	"<aspace type=\"total\" size=\"1810432\"/>\n"
	"<aspace type=\"mprotect\" size=\"1810432\"/>\n"
	"</malloc>\n";

/* Parses an exact copy, so that a sanitizer sees a read behind its end. */
static struct error *parse(const char *text, size_t size, struct heap_stats *ret)
{
	char *copy = malloc(size ? size : 1);
	struct error *error;

	memcpy(copy, text, size);
	heap_stats_init(ret);
	error = malloc_info_parse(copy, size, ret);
	free(copy);
	return error;
}

static void assert_refused(const char *text, size_t size, enum error_code code)
{
	struct heap_stats stats;
	struct error *error = parse(text, size, &stats);

	if (!error || error->code != code)
		fail_msg("%s: %.*s", error ? error->message : "accepted", (int)size, text);
	error_destroy(error);
	heap_stats_deinit(&stats);
}

/* The sample with its first @old replaced by @new. */
static void assert_refused_with(const char *old, const char *new)
{
	const char *place = strstr(sample, old);
	char text[4096];
	int size;

	assert_non_null(place);
	size = snprintf(text, sizeof(text), "%.*s%s%s", (int)(place - sample), sample, new,
			place + strlen(old));
	assert_refused(text, size, ERROR_FAILED);
}

static void test_sample(void **state)
{
	struct heap_stats stats;
	const struct heap_figures *figures;

	assert_null(parse(sample, sizeof(sample) - 1, &stats));
	assert_int_equal(stats.arenas.size, 2);
	figures = &stats.arenas.data[0].figures;
	assert_true(stats.arenas.data[0].is_main);
	assert_int_equal(figures->system, 135168);
	assert_int_equal(figures->system_max, 135169);
	assert_int_equal(figures->free, 129536);
	assert_int_equal(figures->free_chunks, 1);
	assert_int_equal(figures->in_use, 135168 - 129536);
	figures = &stats.arenas.data[1].figures;
	assert_false(stats.arenas.data[1].is_main);
	assert_int_equal(stats.arenas.data[1].index, 1);
	assert_int_equal(figures->fast, 144);
	assert_int_equal(figures->fast_chunks, 2);
	/* 149 flag bits were counted as bytes. */
	assert_int_equal(figures->free, 835109 - 149 + 144);
	assert_int_equal(figures->free % 16, 0);
	assert_int_equal(figures->free_chunks, 152);
	assert_true(figures->in_use_chunks == STAT_UNKNOWN);
	assert_true(figures->tcache == STAT_UNKNOWN);
	assert_true(figures->top == STAT_UNKNOWN);
	figures = &stats.totals;
	assert_int_equal(figures->system, 1810432);
	assert_int_equal(figures->system_max, 1810433);
	assert_int_equal(figures->free, 964645 - 149 + 144);
	assert_int_equal(figures->free,
			 stats.arenas.data[0].figures.free + stats.arenas.data[1].figures.free);
	assert_int_equal(stats.mmapped_count, 1);
	assert_int_equal(stats.mmapped_bytes, 1052672);
	heap_stats_deinit(&stats);
}

static void test_truncated(void **state)
{
	/* But for its last newline, every byte counts. */
	for (size_t size = 0; size < sizeof(sample) - 2; size++)
		assert_refused(sample, size, ERROR_FAILED);
}

static void test_broken(void **state)
{
	assert_refused_with("<malloc version=\"1\">", "<mallet version=\"1\">");
	assert_refused_with("<malloc version=\"1\">", "<malloc>");
	assert_refused_with("nr=\"0\"", "nr=\"7\"");
	assert_refused_with("nr=\"0\"", "nr=\"\"");
	assert_refused_with("nr=\"1\"", "nr=\"0\"");
	assert_refused_with("<sizes>", "<sizes");
	assert_refused_with("</sizes>", "</heap>");
	assert_refused_with("</heap>", "");
	assert_refused_with("size=\"129536\"", "size=\"-1\"");
	assert_refused_with("size=\"129536\"", "size=\"12a\"");
	assert_refused_with("size=\"129536\"", "size=\"99999999999999999999\"");
	assert_refused_with("size=\"129536\"", "size=\"135169\"");
	assert_refused_with("size=\"129536\"", "size=129536");
	assert_refused_with("size=\"129536\"", "");
	assert_refused_with("count=\"1\" size", "size");
	assert_refused_with("count=\"149\"", "count=\"835110\"");
	assert_refused_with("count=\"149\"", "count=\"18446744073709551615\"");
	assert_refused_with("<system type=\"current\" size=\"135168\"/>", "");
	assert_refused_with("<total type=\"rest\"", "<total type=\"&lt;\"");
	assert_refused_with("</heap>\n<total", "</heap>text<total");
	assert_refused_with("<sizes>", "<sizes a=\"\" b=\"\" c=\"\" d=\"\" e=\"\" f=\"\" g=\"\" "
				       "h=\"\" i=\"\">");
	assert_refused_with("<sizes>", "<a><a><a><a><a><a><a><a><a>");
	assert_refused_with("</malloc>", "</malloc><malloc version=\"1\">");
	assert_refused_with("</malloc>", "</malloc>x");
}

static void test_version(void **state)
{
	static const char text[] = "<malloc version=\"2\"></malloc>";

	assert_refused(text, sizeof(text) - 1, ERROR_UNSUPPORTED);
}

static void test_unknown_is_skipped(void **state)
{
	static const char text[] =
		"<malloc version=\"1\"><new a=\"b\"><deep/></new><heap nr=\"0\" color=\"red\">"
		"<sizes/><total type=\"rest\" count=\"1\" size=\"16\"/><new/>"
		"<system type=\"current\" size=\"4096\"/></heap>"
		"<total type=\"rest\" count=\"1\" size=\"16\"/>"
		"<system type=\"current\" size=\"4096\"/></malloc>";
	struct heap_stats stats;

	assert_null(parse(text, sizeof(text) - 1, &stats));
	assert_int_equal(stats.arenas.data[0].figures.in_use, 4080);
	assert_int_equal(stats.arenas.data[0].figures.fast, 0);
	assert_true(stats.mmapped_count == STAT_UNKNOWN);
	heap_stats_deinit(&stats);
}

/* No byte that is changed makes it crash, hang, or give figures that contradict each other. */
static void test_mutations(void **state)
{
	static const char bytes[] = "\"<>/= \0"
				    "0"
				    "9"
				    "a";
	char text[sizeof(sample)];

	memcpy(text, sample, sizeof(sample));
	for (size_t i = 0; i < sizeof(sample) - 1; i++) {
		for (size_t j = 0; j < sizeof(bytes) - 1; j++) {
			struct heap_stats stats;
			struct error *error;

			text[i] = bytes[j];
			error = parse(text, sizeof(sample) - 1, &stats);
			if (!error)
				assert_true(stats.totals.in_use + stats.totals.free ==
					    stats.totals.system);
			error_destroy(error);
			heap_stats_deinit(&stats);
		}
		text[i] = sample[i];
	}
}

#ifndef __SANITIZE_ADDRESS__
/* This process's own malloc, against mallinfo2(). */
static void test_own(void **state)
{
	static char text[1 << 18];
	static void *blocks[2000];
	struct heap_stats stats;
	struct mallinfo2 info;
	FILE *file = fmemopen(text, sizeof(text), "w");
	char buffer[BUFSIZ];

	setvbuf(file, buffer, _IOFBF, sizeof(buffer));
	for (size_t i = 0; i < 2000; i++)
		blocks[i] = malloc(24 + i * 7 % 5000);
	for (size_t i = 0; i < 2000; i += 2)
		free(blocks[i]);
	assert_int_equal(malloc_info(0, file), 0);
	info = mallinfo2();
	fclose(file);
	assert_null(parse(text, strlen(text), &stats));
	assert_int_equal(stats.totals.system, info.arena);
	assert_int_equal(stats.totals.free, info.fordblks);
	assert_int_equal(stats.totals.in_use, info.uordblks);
	assert_int_equal(stats.totals.fast, info.fsmblks);
	assert_int_equal(stats.mmapped_bytes, info.hblkhd);
	heap_stats_deinit(&stats);
	for (size_t i = 1; i < 2000; i += 2)
		free(blocks[i]);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sample),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_unknown_is_skipped),
		cmocka_unit_test(test_mutations),
#ifndef __SANITIZE_ADDRESS__
		cmocka_unit_test(test_own),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
