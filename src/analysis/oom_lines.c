/*
 * Lines out of bytes, and records out of lines: a line with a prefix begins a record; one without
 * may be what a terminal or a mailer wrapped.
 */
#include <string.h>

#include "oom_parser.h"
#include "oom_prefix.h"

/* Narrower terminals than that wrap nothing that matters. */
#define WIDTH_LEAST 40U
/* Lines of one message at most. */
#define RECORD_LINES_MAX 64U

/* ---- cleaning ---- */

/* What shows that a line goes on: arrows with hooks and their like, in UTF-8. */
static size_t wrap_mark(const char *text, size_t size)
{
	static const char *const marks[] = {
		"\xe2\x86\xaa", "\xe2\x86\xa9", "\xe2\x86\xb3", "\xe2\x86\xb5",
		"\xe2\xa4\xb7", "\xe2\x8f\x8e", "\xc2\xbb",
	};

	for (size_t i = 0; i < sizeof(marks) / sizeof(*marks); i++) {
		size_t length = strlen(marks[i]);

		if (size >= length && !memcmp(text, marks[i], length))
			return length;
	}
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Length of `\x1b[...m` and its like; 0: none. */
static size_t terminal_sequence(const char *text, size_t size)
{
	size_t i = 2;

	if (size < 3 || text[0] != '\x1b' || text[1] != '[')
		return 0;
	while (i < size && i < 24 && text[i] >= 0x20 && text[i] < 0x40)
		i++;
	return i < size && text[i] >= 0x40 && text[i] < 0x7f ? i + 1 : 0;
}

/*
 * Length of what /dev/kmsg escapes, line breaks, backslashes and bytes that are not ASCII, or
 * rsyslog, line breaks; 0: none. systemd escapes others in the names of cgroups, which stay.
 */
static size_t escape_sequence(const char *text, size_t size, char *ret)
{
	int high = size >= 4 && text[0] == '\\' && text[1] == 'x' ? hex_digit(text[2]) : -1;
	int low = high >= 0 ? hex_digit(text[3]) : -1;
	unsigned char c = (unsigned char)(high * 16 + low);

	if (size >= 4 && !memcmp(text, "#012", 4))
		c = '\n';
	else if (low < 0 || (c != '\n' && c != '\\' && c < 0x80))
		return 0;
	*ret = (char)c;
	return 4;
}

/* In place: without colours and control characters; no-break spaces, which web pages have, are
 * blanks. Returns the new size. */
static size_t clean(char *text, size_t size)
{
	size_t to = 0;

	for (size_t i = 0; i < size; i++) {
		size_t skip = terminal_sequence(text + i, size - i);
		char c = text[i];

		if (skip) {
			i += skip - 1;
		} else if (escape_sequence(text + i, size - i, &c)) {
			text[to++] = c;
			i += 3;
		} else if (size - i >= 2 && !memcmp(text + i, "\xc2\xa0", 2)) {
			text[to++] = ' ';
			i++;
		} else if (c == '\t' || ((unsigned char)c >= ' ' && c != 0x7f)) {
			text[to++] = c;
		}
	}
	return to;
}

/* ---- records ---- */

static struct error *read_record(struct oom_parser *parser, bool is_whole)
{
	size_t used = 0;
	struct error *error =
		oom_record_read(parser, parser->record, parser->record_size, is_whole, &used);

	if (is_whole)
		used = parser->record_size;
	memmove(parser->record, parser->record + used, parser->record_size - used);
	parser->record_size -= used;
	return error;
}

/* @size is OOM_LINE_MAX at most. */
static struct error *add_to_record(struct oom_parser *parser, const char *text, size_t size,
				   bool is_wrapped)
{
	struct error *error = NULL;

	if (parser->record_size + size + 1 > OOM_RECORD_MAX)
		error = read_record(parser, false);
	if (is_wrapped && parser->record_size)
		parser->record[parser->record_size++] = SCAN_WRAP;
	memcpy(parser->record + parser->record_size, text, size);
	parser->record_size += size;
	parser->record_lines++;
	return error;
}

/* Whether a line without prefix, and without a mark, is the rest of the one before. */
static bool is_rest(const struct oom_parser *parser, const char *text, size_t size, size_t width)
{
	if (!parser->record_size || !size || parser->record_lines >= RECORD_LINES_MAX ||
	    oom_record_begins(parser, text, size))
		return false;
	/* Two lines as wide as a terminal, or this one, too; or the rest of a word. */
	if (parser->last_width >= WIDTH_LEAST && parser->last_width == parser->widest &&
	    (parser->widest_count > 1 || width == parser->widest || !memchr(text, ' ', size)))
		return true;
	return oom_record_may_go_on(parser);
}

static struct error *begin_record(struct oom_parser *parser, const struct log_prefix *prefix)
{
	struct error *error = read_record(parser, true);

	parser->record_lines = 0;
	parser->record_has_prefix = prefix->is_found;
	if (prefix->is_found) {
		memcpy(parser->time, prefix->time, sizeof(parser->time));
		parser->has_wall_time = prefix->has_wall_time;
	}
	return error;
}

/* A physical line, or a piece of one that is too long: the last unless it @goes_on. */
static struct error *take_line(struct oom_parser *parser, bool goes_on)
{
	char *text = parser->line;
	size_t width = parser->line_size, size, mark;
	bool is_wrapped = parser->line_goes_on;
	struct log_prefix prefix = { 0 };
	struct error *error = NULL;

	/* As it stood on the terminal. */
	width -= width && text[width - 1] == '\r';
	size = clean(text, parser->line_size);
	if (!is_wrapped) {
		log_prefix_parse(text, size, &prefix);
		text += prefix.length;
		size -= prefix.length;
		mark = prefix.is_found ? 0 : wrap_mark(text, size);
		if (mark) {
			mark += size > mark && text[mark] == ' ';
			text += mark;
			size -= mark;
			is_wrapped = true;
		}
		is_wrapped = is_wrapped || (!prefix.is_found && is_rest(parser, text, size, width));
	}
	if (size && text[size - 1] == '\\')
		size--;
	for (size_t back = 2; back <= 3; back++)
		if (size >= back && wrap_mark(text + size - back, back) == back)
			size -= back;
	if (!is_wrapped)
		error = begin_record(parser, &prefix);
	if (!error)
		error = add_to_record(parser, text, size, is_wrapped && !parser->line_goes_on);
	parser->last_width = width;
	if (width >= parser->widest) {
		parser->widest_count = width == parser->widest ? parser->widest_count + 1 : 1;
		parser->widest = width;
	}
	parser->line_size = 0;
	parser->line_goes_on = goes_on;
	return error;
}

struct error *oom_lines_feed(struct oom_parser *parser, const char *bytes, size_t size)
{
	struct error *error = NULL;

	while (size && !error) {
		const char *newline = memchr(bytes, '\n', size);
		size_t length = newline ? (size_t)(newline - bytes) : size;
		size_t room = OOM_LINE_MAX - parser->line_size;

		if (length > room) {
			length = room;
			newline = NULL;
		}
		memcpy(parser->line + parser->line_size, bytes, length);
		parser->line_size += length;
		bytes += length;
		size -= length;
		if (newline) {
			bytes++;
			size--;
			error = take_line(parser, false);
		} else if (parser->line_size == OOM_LINE_MAX) {
			error = take_line(parser, true);
		}
	}
	return error;
}

struct error *oom_lines_finish(struct oom_parser *parser)
{
	struct error *error = parser->line_size ? take_line(parser, false) : NULL;

	return error ? error : read_record(parser, true);
}
