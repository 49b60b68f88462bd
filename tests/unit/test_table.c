/* Tables and the escaping of foreign text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/table.h"

static void assert_text(char *text, const char *expected)
{
	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}

static void printable_escapes_what_moves_the_cursor(void **state)
{
	assert_text(text_printable("plain text"), "plain text");
	assert_text(text_printable("a\033[31mb\n"), "a\\x1b[31mb\\x0a");
	assert_text(text_printable("\x7f"), "\\x7f");
	assert_text(text_printable("bj\xc3\xb6rn"), "bj\xc3\xb6rn");
	/* C1 control, right-to-left override */
	assert_text(text_printable("\xc2\x9b"), "\\xc2\\x9b");
	assert_text(text_printable("\xe2\x80\xae"), "\\xe2\\x80\\xae");
}

static void printable_escapes_broken_utf8(void **state)
{
	assert_text(text_printable("\xff!"), "\\xff!");
	assert_text(text_printable("\xc3"), "\\xc3");
	assert_text(text_printable("\xc0\xaf"), "\\xc0\\xaf");
	assert_text(text_printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");
	assert_text(text_printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
	assert_text(text_printable("\xe2\x82"), "\\xe2\\x82");
}

static void utf8_replaces_only_what_is_none(void **state)
{
	assert_text(text_utf8("bj\xc3\xb6rn \xf0\x9f\x98\x80"), "bj\xc3\xb6rn \xf0\x9f\x98\x80");
	assert_text(text_utf8("a\xff"
			      "b\xc3"),
		    "a\xef\xbf\xbd"
		    "b\xef\xbf\xbd");
	assert_text(text_utf8(""), "");
}

static const struct table_style plain;

static void assert_prints(struct table *table, const char *expected)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_null(table_print(table, out));
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
	table_destroy(table);
}

static struct table *two_columns(void)
{
	struct table *table = table_create(plain);

	table_column(table, "NAME", TABLE_LEFT);
	table_column(table, "SIZE", TABLE_RIGHT);
	return table;
}

static void columns_are_aligned(void **state)
{
	struct table *table = two_columns();

	table_cell(table, "%s", "longer name");
	table_cell_size(table, 0);
	table_cell(table, "%s", "nobody knows");
	table_cell_size(table, TABLE_UNKNOWN);
	table_cell(table, "%s", "x");
	table_cell_size(table, 1536);
	table_rule(table);
	table_cell(table, "%s", "");
	table_cell_size(table, 2048);
	assert_prints(table, "NAME          SIZE\n"
			     "longer name      0\n"
			     "nobody knows     -\n"
			     "x             1.5K\n"
			     "------------------\n"
			     "              2.0K\n");
}

static void widths_count_columns_of_a_terminal(void **state)
{
	struct table *table = two_columns();

	table_cell(table, "%s", "\xe6\x97\xa5\xe6\x9c\xac"); /* two wide characters */
	table_cell(table, "%s", "1");
	table_cell(table, "%s", "e\xcc\x81t\xc3\xa9"); /* one of them combining */
	table_cell(table, "%s", "2");
	assert_prints(table, "NAME  SIZE\n"
			     "\xe6\x97\xa5\xe6\x9c\xac     1\n"
			     "e\xcc\x81t\xc3\xa9      2\n");
}

static void foreign_cells_are_made_safe(void **state)
{
	struct table *table = table_create(plain);
	char longer[600];

	memset(longer, 'x', sizeof(longer));
	longer[599] = '\0';
	longer[0] = '\n';
	table_column(table, "A", TABLE_LEFT);
	table_cell(table, "%s", "two\nlines\033[2J");
	assert_prints(table, "A\ntwo\\x0alines\\x1b[2J\n");
	table = table_create(plain);
	table_column(table, "A", TABLE_LEFT);
	table_cell(table, "%s", longer);
	longer[0] = 'x';
	{
		char expected[700];

		snprintf(expected, sizeof(expected), "A\n\\x0a%s\n", longer + 1);
		assert_prints(table, expected);
	}
}

static void colour_only_dresses_headings_and_rules(void **state)
{
	struct table *table = table_create((struct table_style){ .color = true });

	table_column(table, "A", TABLE_LEFT);
	table_cell(table, "%s", "b");
	table_rule(table);
	assert_prints(table, "\033[1mA\033[0m\nb\n\033[2m-\033[0m\n");
}

static void an_unfinished_row_before_a_rule_is_an_error(void **state)
{
	struct table *table = two_columns();

	table_cell(table, "%s", "only one");
	table_rule(table);
	assert_non_null(table_print(table, stdout));
	table_destroy(table);
	table_destroy(NULL);
}

/* ---- on a terminal ---- */

static struct table *wide(unsigned width, bool bytes)
{
	struct table *table = table_create((struct table_style){ .width = width, .bytes = bytes });

	table_column(table, "ADDRESS", TABLE_LEFT);
	table_column_fit(table, TABLE_KEEP, 0);
	table_column(table, "SIZE", TABLE_RIGHT);
	table_column(table, "SWAP", TABLE_RIGHT);
	table_column_fit(table, TABLE_KEEP, 1);
	table_column(table, "NAME", TABLE_LEFT);
	table_column_fit(table, TABLE_PATH, 0);
	table_cell(table, "0x7f0000000000");
	table_cell_size(table, 1536);
	table_cell_size(table, 0);
	table_cell(table, "/usr/lib/x86_64-linux-gnu/libsomething_long.so.6");
	table_cell(table, "0x10");
	table_cell_size(table, 5033164);
	table_cell_size(table, TABLE_UNKNOWN);
	table_cell(table, "[heap]");
	return table;
}

static void a_pipe_gets_all(void **state)
{
	assert_prints(
		wide(0, false),
		"ADDRESS         SIZE  SWAP  NAME\n"
		"0x7f0000000000  1.5K     0  /usr/lib/x86_64-linux-gnu/libsomething_long.so.6\n"
		"0x10            4.8M     -  [heap]\n");
	assert_prints(wide(0, true), "ADDRESS            SIZE  SWAP  NAME\n"
				     "0x7f0000000000     1536     0  "
				     "/usr/lib/x86_64-linux-gnu/libsomething_long.so.6\n"
				     "0x10            5033164     -  [heap]\n");
}

static void paths_lose_their_folders_then_their_ends(void **state)
{
	assert_prints(wide(60, false), "ADDRESS         SIZE  SWAP  NAME\n"
				       "0x7f0000000000  1.5K     0  libsomething_long.so.6\n"
				       "0x10            4.8M     -  [heap]\n");
	assert_prints(wide(44, false), "ADDRESS         SIZE  SWAP  NAME\n"
				       "0x7f0000000000  1.5K     0  libsomething_...\n"
				       "0x10            4.8M     -  [heap]\n");
}

static void columns_are_left_out_by_rank(void **state)
{
	assert_prints(wide(40, false), "ADDRESS         SIZE  NAME\n"
				       "0x7f0000000000  1.5K  libsomething_lo...\n"
				       "0x10            4.8M  [heap]\n"
				       "no room for SWAP\n");
}

static void the_widest_text_is_cut_first(void **state)
{
	struct table *table = table_create((struct table_style){ .width = 40 });

	table_column(table, "A", TABLE_LEFT);
	table_column(table, "B", TABLE_LEFT);
	table_cell(table, "short");
	table_cell(table, "0123456789012345678901234567890123456789");
	table_cell(table, "not so short");
	table_cell(table, "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"
			  "567890123456789012345678901234567890");
	assert_prints(table, "A             B\n"
			     "short         01234567890123456789012...\n"
			     "not so short  \xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"
			     "567890123456789012...\n");
}

static void texts_to_be_read_are_wrapped(void **state)
{
	struct table *table = table_create((struct table_style){ .width = 30 });

	table_column(table, "CHECK", TABLE_LEFT);
	table_column(table, "DETAIL", TABLE_LEFT);
	table_column_fit(table, TABLE_WRAP, 0);
	table_cell(table, "yama");
	table_cell(table, "ptrace_scope is 1: only processes that memprobe started itself");
	table_cell(table, "user");
	table_cell(table, "uid 0");
	assert_prints(table, "CHECK  DETAIL\n"
			     "yama   ptrace_scope is 1: only\n"
			     "       processes that memprobe\n"
			     "       started itself\n"
			     "user   uid 0\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(printable_escapes_what_moves_the_cursor),
		cmocka_unit_test(printable_escapes_broken_utf8),
		cmocka_unit_test(utf8_replaces_only_what_is_none),
		cmocka_unit_test(columns_are_aligned),
		cmocka_unit_test(widths_count_columns_of_a_terminal),
		cmocka_unit_test(foreign_cells_are_made_safe),
		cmocka_unit_test(colour_only_dresses_headings_and_rules),
		cmocka_unit_test(an_unfinished_row_before_a_rule_is_an_error),
		cmocka_unit_test(a_pipe_gets_all),
		cmocka_unit_test(paths_lose_their_folders_then_their_ends),
		cmocka_unit_test(columns_are_left_out_by_rank),
		cmocka_unit_test(the_widest_text_is_cut_first),
		cmocka_unit_test(texts_to_be_read_are_wrapped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
