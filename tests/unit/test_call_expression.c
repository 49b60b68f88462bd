/* `FUNCTION(ARGUMENT, ...)` as users type it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/call_expression.h"

static struct call_expression parse(const char *text)
{
	struct call_expression expression;
	struct error *error = call_expression_parse(text, &expression);

	if (error)
		fail_msg("%s: %s", text, error->message);
	return expression;
}

static void assert_value(const char *argument, uint64_t value)
{
	struct call_expression expression;
	char text[256];

	snprintf(text, sizeof(text), "f(%s)", argument);
	expression = parse(text);
	assert_int_equal(expression.count, 1);
	assert_int_equal(expression.arguments[0].kind, ARGUMENT_INTEGER);
	if (expression.arguments[0].value != value)
		fail_msg("%s: %llx", argument, (unsigned long long)expression.arguments[0].value);
	call_expression_deinit(&expression);
}

static void assert_string(const char *argument, const char *bytes, size_t size)
{
	struct call_expression expression;
	char text[256];

	snprintf(text, sizeof(text), "f(%s)", argument);
	expression = parse(text);
	assert_int_equal(expression.arguments[0].kind, ARGUMENT_STRING);
	assert_int_equal(expression.arguments[0].size, size);
	assert_memory_equal(expression.arguments[0].bytes, bytes, size + 1);
	call_expression_deinit(&expression);
}

static void assert_refused(const char *text, unsigned column)
{
	struct call_expression expression;
	struct error *error = call_expression_parse(text, &expression);
	char start[32];

	if (!error)
		fail_msg("accepted: %s", text);
	assert_int_equal(error->code, ERROR_USAGE);
	snprintf(start, sizeof(start), "column %u of ", column);
	if (strncmp(error->message, start, strlen(start)))
		fail_msg("not at column %u: %s", column, error->message);
	error_destroy(error);
}

static void test_names(void **state)
{
	static const char *const names[] = { "getpid", "_ZN3foo3barEv", "a.part$0", "_",
					     "0x7f001234" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct call_expression expression;
		char text[64];

		snprintf(text, sizeof(text), " %s ( ) ; ", names[i]);
		expression = parse(text);
		assert_string_equal(expression.function, names[i]);
		assert_int_equal(expression.count, 0);
		call_expression_deinit(&expression);
	}
}

static void test_integers(void **state)
{
	assert_value("0", 0);
	assert_value("97", 97);
	assert_value("+97", 97);
	assert_value("-1", UINT64_MAX);
	assert_value("0x7fFF", 0x7fff);
	assert_value("-0x10", -0x10);
	assert_value("0644", 0644);
	assert_value("12ul", 12);
	assert_value("18446744073709551615", UINT64_MAX);
	assert_value("-9223372036854775808", UINT64_C(1) << 63);
	assert_value("NULL", 0);
	assert_value("true", 1);
	assert_value("false", 0);
}

static void test_characters(void **state)
{
	assert_value("'a'", 'a');
	assert_value("'\\n'", '\n');
	assert_value("'\\''", '\'');
	assert_value("'\\0'", 0);
	assert_value("'\\xff'", (uint64_t)-1);
	assert_value("' '", ' ');
}

static void test_strings(void **state)
{
	assert_string("\"\"", "", 0);
	assert_string("\"abc\"", "abc", 3);
	assert_string("\"a, (b)\"", "a, (b)", 6);
	assert_string("\"\\\"\\\\\\t\\e\"", "\"\\\t\033", 4);
	assert_string("\"a\\0b\"", "a\0b", 3);
	assert_string("\"\\x41\\1012\"", "AA2", 3);
	assert_string("\"\303\251\"", "\303\251", 2);
}

static void test_many_arguments(void **state)
{
	struct call_expression expression = parse("f(1,\"two\" , 3,'4',0x5 ,-6)");

	assert_int_equal(expression.count, 6);
	assert_string_equal(expression.arguments[1].bytes, "two");
	assert_int_equal(expression.arguments[3].value, '4');
	assert_int_equal((int64_t)expression.arguments[5].value, -6);
	call_expression_deinit(&expression);
	assert_refused("f(1,2,3,4,5,6,7)", 15);
}

static void test_errors(void **state)
{
	assert_refused("", 1);
	assert_refused("  ", 3);
	assert_refused("getpid", 7);
	assert_refused("getpid(", 8);
	assert_refused("getpid() x", 10);
	assert_refused("1getpid()", 1);
	assert_refused("f(,)", 3);
	assert_refused("f(1,)", 5);
	assert_refused("f(1 2)", 5);
	assert_refused("f(x)", 3);
	assert_refused("f(1.5)", 3);
	assert_refused("f(0x)", 3);
	assert_refused("f(08)", 3);
	assert_refused("f(12ab)", 3);
	assert_refused("f(-)", 3);
	assert_refused("f(18446744073709551616)", 3);
	assert_refused("f(-9223372036854775809)", 3);
	assert_refused("f('')", 3);
	assert_refused("f('ab')", 3);
	assert_refused("f('", 3);
	assert_refused("f(\"abc)", 3);
	assert_refused("f(\"abc\\", 8);
	assert_refused("f(\"\\q\")", 5);
	assert_refused("f(\"\\x\")", 6);
	assert_refused("f(\"\\777\")", 7);
}

/* Every beginning of a call is refused without a crash. */
static void test_truncated(void **state)
{
	static const char text[] = "write(1, \"te\\x41\\n\", 'x', -0x10)";

	for (size_t size = 0; size < sizeof(text) - 1; size++) {
		char *copy = strndup(text, size);
		struct call_expression expression;
		struct error *error = call_expression_parse(copy, &expression);

		assert_non_null(error);
		error_destroy(error);
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	       cmocka_unit_test(test_integers),
		cmocka_unit_test(test_characters),     cmocka_unit_test(test_strings),
		cmocka_unit_test(test_many_arguments), cmocka_unit_test(test_errors),
		cmocka_unit_test(test_truncated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
