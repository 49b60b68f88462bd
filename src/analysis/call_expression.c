#include "memprobe/call_expression.h"

#include <string.h>

struct reader {
	const char *text, *cursor;
};

static struct error *wrong(const struct reader *reader, const char *at, const char *what)
{
	return error_hint(error_create(ERROR_USAGE, "column %zu of '%s': %s",
				       (size_t)(at - reader->text) + 1, reader->text, what),
			  "a call looks like 'write(1, \"text\\n\", 5)'");
}

static void skip_blanks(struct reader *reader)
{
	reader->cursor += strspn(reader->cursor, " \t\n");
}

static bool take_char(struct reader *reader, char wanted)
{
	skip_blanks(reader);
	if (*reader->cursor != wanted)
		return false;
	reader->cursor++;
	return true;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' ||
	       c == '$' || c == '.';
}

static int digit_value(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 16;
}

/* ---- integers ---- */

static struct error *take_integer(struct reader *reader, struct call_argument *ret)
{
	const char *start = reader->cursor;
	bool negative = *reader->cursor == '-';
	int base = 10, digits = 0;
	uint64_t value = 0;

	if (*reader->cursor == '-' || *reader->cursor == '+')
		reader->cursor++;
	if (reader->cursor[0] == '0' && (reader->cursor[1] == 'x' || reader->cursor[1] == 'X')) {
		base = 16;
		reader->cursor += 2;
	} else if (reader->cursor[0] == '0') {
		base = 8;
	}
	for (; digit_value(*reader->cursor) < base; reader->cursor++, digits++)
		if (__builtin_mul_overflow(value, base, &value) ||
		    __builtin_add_overflow(value, digit_value(*reader->cursor), &value))
			return wrong(reader, start, "the number is larger than 64 bits");
	reader->cursor += strspn(reader->cursor, "uUlL");
	if (*reader->cursor == '.')
		return wrong(reader, start, "floating-point arguments are not supported");
	if (!digits || is_name_char(*reader->cursor))
		return wrong(reader, start, "not a number");
	if (negative && value > UINT64_C(1) << 63)
		return wrong(reader, start, "the number is larger than 64 bits");
	ret->kind = ARGUMENT_INTEGER;
	ret->value = negative ? -value : value;
	return NULL;
}

/* ---- characters and strings ---- */

static struct error *take_hex_escape(struct reader *reader, char *ret)
{
	int value = 0, digits = 0;

	for (; digits < 2 && digit_value(*reader->cursor) < 16; reader->cursor++, digits++)
		value = value * 16 + digit_value(*reader->cursor);
	if (!digits)
		return wrong(reader, reader->cursor, "\\x takes hexadecimal digits");
	*ret = (char)value;
	return NULL;
}

static struct error *take_octal_escape(struct reader *reader, char *ret)
{
	int value = 0;

	for (int i = 0; i < 3 && digit_value(*reader->cursor) < 8; i++)
		value = value * 8 + digit_value(*reader->cursor++);
	if (value > 0xff)
		return wrong(reader, reader->cursor - 1, "an octal escape ends at \\377");
	*ret = (char)value;
	return NULL;
}

/* What follows a backslash. */
static struct error *take_escape(struct reader *reader, char *ret)
{
	static const char letters[] = "abfnrtve\\'\"?";
	static const char meanings[] = "\a\b\f\n\r\t\v\033\\'\"?";
	const char *letter;

	if (digit_value(*reader->cursor) < 8)
		return take_octal_escape(reader, ret);
	if (*reader->cursor == 'x') {
		reader->cursor++;
		return take_hex_escape(reader, ret);
	}
	letter = *reader->cursor ? strchr(letters, *reader->cursor) : NULL;
	if (!letter)
		return wrong(reader, reader->cursor, "not an escape of C");
	reader->cursor++;
	*ret = meanings[letter - letters];
	return NULL;
}

/* One character up to @quote, which is not taken. */
static struct error *take_quoted_char(struct reader *reader, char *ret)
{
	if (*reader->cursor != '\\') {
		*ret = *reader->cursor++;
		return NULL;
	}
	reader->cursor++;
	return take_escape(reader, ret);
}

static struct error *take_character(struct reader *reader, struct call_argument *ret)
{
	const char *start = reader->cursor++;
	struct error *error;
	char value;

	if (!*reader->cursor || *reader->cursor == '\'')
		return wrong(reader, start, "a character is missing");
	error = take_quoted_char(reader, &value);
	if (error)
		return error;
	if (*reader->cursor++ != '\'')
		return wrong(reader, start, "not one character between single quotes");
	ret->kind = ARGUMENT_INTEGER;
	ret->value = (uint64_t)(int64_t)(signed char)value;
	return NULL;
}

static struct error *take_string(struct reader *reader, struct call_argument *ret)
{
	const char *start = reader->cursor++;
	char *bytes = malloc(strlen(reader->cursor) + 1);

	if (!bytes)
		return &error_no_memory;
	ret->kind = ARGUMENT_STRING;
	ret->bytes = bytes;
	for (ret->size = 0; *reader->cursor != '"'; ret->size++) {
		struct error *error = *reader->cursor
					      ? take_quoted_char(reader, &bytes[ret->size])
					      : wrong(reader, start, "the string has no end");

		if (error)
			return error;
	}
	reader->cursor++;
	bytes[ret->size] = '\0';
	return NULL;
}

/* ---- the call ---- */

static struct error *take_word(struct reader *reader, struct call_argument *ret)
{
	static const struct {
		const char *word;
		uint64_t value;
	} words[] = { { "NULL", 0 }, { "nullptr", 0 }, { "false", 0 }, { "true", 1 } };
	const char *start = reader->cursor;

	while (is_name_char(*reader->cursor))
		reader->cursor++;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strlen(words[i].word) == (size_t)(reader->cursor - start) &&
		    !memcmp(words[i].word, start, reader->cursor - start)) {
			ret->kind = ARGUMENT_INTEGER;
			ret->value = words[i].value;
			return NULL;
		}
	}
	return wrong(reader, start, "an argument is a number, 'c', \"text\", NULL, true or false");
}

static struct error *take_argument(struct reader *reader, struct call_argument *ret)
{
	char c;

	skip_blanks(reader);
	c = *reader->cursor;
	if (c == '"')
		return take_string(reader, ret);
	if (c == '\'')
		return take_character(reader, ret);
	if (is_digit(c) || c == '-' || c == '+')
		return take_integer(reader, ret);
	return take_word(reader, ret);
}

static struct error *take_arguments(struct reader *reader, struct call_expression *expression)
{
	if (take_char(reader, ')'))
		return NULL;
	do {
		struct error *error;

		if (expression->count == CALL_ARGUMENTS_MAX)
			return wrong(reader, reader->cursor, "more than six arguments");
		error = take_argument(reader, &expression->arguments[expression->count++]);
		if (error)
			return error;
	} while (take_char(reader, ','));
	return take_char(reader, ')') ? NULL
				      : wrong(reader, reader->cursor, "',' or ')' was expected");
}

static struct error *parse(struct reader *reader, struct call_expression *expression)
{
	const char *start;
	struct error *error;

	skip_blanks(reader);
	start = reader->cursor;
	while (is_name_char(*reader->cursor))
		reader->cursor++;
	if (reader->cursor == start || (is_digit(*start) && strncmp(start, "0x", 2)))
		return wrong(reader, start, "the name or 0x address of a function was expected");
	expression->function = strndup(start, reader->cursor - start);
	if (!expression->function)
		return &error_no_memory;
	if (!take_char(reader, '('))
		return wrong(reader, reader->cursor, "'(' was expected");
	error = take_arguments(reader, expression);
	if (error)
		return error;
	take_char(reader, ';');
	skip_blanks(reader);
	return *reader->cursor ? wrong(reader, reader->cursor, "something follows the call") : NULL;
}

struct error *call_expression_parse(const char *text, struct call_expression *ret)
{
	struct reader reader = { text, text };
	struct call_expression expression = { 0 };
	struct error *error = parse(&reader, &expression);

	if (error)
		call_expression_deinit(&expression);
	else
		*ret = expression;
	return error;
}

void call_expression_deinit(struct call_expression *expression)
{
	free(expression->function);
	for (size_t i = 0; i < expression->count; i++)
		free(expression->arguments[i].bytes);
	*expression = (struct call_expression){ 0 };
}
