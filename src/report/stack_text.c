#include "stack_text.h"

#include <string.h>

/* Lines that are looked at to tell the format. */
#define LOOK_LINES 200

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\v' || byte == '\f';
}

static bool is_digit(char byte)
{
	return byte >= '0' && byte <= '9';
}

/* ---- pieces ---- */

struct piece piece_from(struct piece piece, size_t begin)
{
	if (begin > piece.length)
		begin = piece.length;
	return (struct piece){ piece.text + begin, piece.length - begin };
}

struct piece piece_trim(struct piece piece)
{
	while (piece.length && is_blank(piece.text[0]))
		piece = piece_from(piece, 1);
	while (piece.length && is_blank(piece.text[piece.length - 1]))
		piece.length--;
	return piece;
}

bool piece_find_last(struct piece piece, char byte, size_t *at_ret)
{
	const char *found = piece.length ? memrchr(piece.text, byte, piece.length) : NULL;

	if (found)
		*at_ret = found - piece.text;
	return found;
}

bool piece_begins(struct piece piece, const char *prefix)
{
	size_t length = strlen(prefix);

	return piece.length >= length && !memcmp(piece.text, prefix, length);
}

static int hex_digit(char byte)
{
	if (is_digit(byte))
		return byte - '0';
	if (byte >= 'a' && byte <= 'f')
		return byte - 'a' + 10;
	if (byte >= 'A' && byte <= 'F')
		return byte - 'A' + 10;
	return -1;
}

size_t piece_hex(struct piece piece, uint64_t *value_ret)
{
	size_t prefix = piece_begins(piece, "0x") ? 2 : 0, at = prefix;
	uint64_t value = 0;

	while (at < piece.length && at < prefix + 16 && hex_digit(piece.text[at]) >= 0)
		value = value << 4 | (unsigned)hex_digit(piece.text[at++]);
	if (at == prefix || (at < piece.length && hex_digit(piece.text[at]) >= 0))
		return 0;
	*value_ret = value;
	return at;
}

bool piece_number(struct piece piece, int64_t *value_ret)
{
	int64_t value = 0;
	size_t at = 0;
	bool up = false;

	for (; at < piece.length && is_digit(piece.text[at]); at++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, piece.text[at] - '0', &value))
			return false;
	if (!at)
		return false;
	if (at < piece.length && piece.text[at] == '.') {
		up = at + 1 < piece.length && piece.text[at + 1] >= '5';
		for (at++; at < piece.length && is_digit(piece.text[at]);)
			at++;
	}
	if (at < piece.length)
		return false;
	*value_ret = profile_sum(value, up);
	return true;
}

/* ---- frames and stacks ---- */

struct error *stack_reader_frame(struct stack_reader *reader, struct piece function,
				 struct piece module, uint64_t address, bool kernel, bool inlined)
{
	struct profile_frame frame = { .address = address, .kernel = kernel, .inlined = inlined };
	struct error *error = NULL;
	uint32_t id;

	if (function.length)
		error = profile_intern_bytes(reader->profile, function.text, function.length,
					     &frame.function);
	if (!error && module.length)
		error = profile_intern_bytes(reader->profile, module.text, module.length,
					     &frame.module);
	if (!error)
		error = profile_add_frame(reader->profile, &frame, &id);
	return error ? error : profile_id_vec_append(&reader->frames, &id);
}

struct error *stack_reader_stack(struct stack_reader *reader, int64_t value, bool leaf_first)
{
	const int64_t values[PROFILE_COLUMNS] = { [PROFILE_BYTES] = value };
	uint32_t *frames = reader->frames.data, stack;
	size_t depth = reader->frames.size;
	struct error *error;

	for (size_t i = 0; leaf_first && i < depth / 2; i++) {
		uint32_t frame = frames[i];

		frames[i] = frames[depth - 1 - i];
		frames[depth - 1 - i] = frame;
	}
	error = profile_add_stack(reader->profile, frames, depth, &stack);
	reader->frames.size = 0;
	return error ? error : profile_add_site(reader->profile, stack, values);
}

/* ---- folded ---- */

static struct error *add_label(struct stack_reader *reader, struct piece label)
{
	uint32_t id;
	struct error *error = profile_add_label(reader->profile, label.text, label.length, &id);

	return error ? error : profile_id_vec_append(&reader->frames, &id);
}

struct error *stack_text_folded_line(struct stack_reader *reader, struct piece line)
{
	struct error *error = NULL;
	struct piece stack;
	int64_t value;
	size_t at;

	line = piece_trim(line);
	if (!line.length)
		return NULL;
	at = line.length;
	while (at && !is_blank(line.text[at - 1]))
		at--;
	stack = piece_trim((struct piece){ line.text, at });
	if (!stack.length || memchr(line.text, '\0', line.length) ||
	    !piece_number(piece_from(line, at), &value)) {
		reader->bad = true;
		return NULL;
	}
	while (stack.length && !error) {
		const char *end = memchr(stack.text, ';', stack.length);
		struct piece name = { stack.text, end ? (size_t)(end - stack.text) : stack.length };

		stack = piece_from(stack, name.length + 1);
		if (name.length)
			error = add_label(reader, name);
	}
	return error ? error : stack_reader_stack(reader, value, false);
}

/* ---- the text ---- */

/* Takes a line off @text, without its end. */
static struct piece next_line(struct piece *text)
{
	const char *end = memchr(text->text, '\n', text->length);
	struct piece line = { text->text, end ? (size_t)(end - text->text) : text->length };

	*text = piece_from(*text, line.length + 1);
	return line;
}

/* By the frames: whatever stands between them differs with versions and options. */
static enum stack_text_format guess_format(struct piece text)
{
	size_t perf = 0, stap = 0, folded = 0;

	for (unsigned i = 0; i < LOOK_LINES && text.length; i++) {
		struct piece line = next_line(&text);
		size_t blank;
		int64_t value;

		if (stack_text_is_stap_frame(line))
			stap++;
		else if (stack_text_is_perf_frame(line))
			perf++;
		else if (line.length && !is_blank(line.text[0]) &&
			 piece_find_last(line, ' ', &blank) &&
			 piece_number(piece_from(line, blank + 1), &value))
			folded++;
	}
	if (stap > perf && stap > folded)
		return STACK_TEXT_STAP;
	/* What is recorded of a tracepoint may end its line with a number. */
	return perf && perf >= folded ? STACK_TEXT_PERF : STACK_TEXT_FOLDED;
}

struct error *stack_text_read(const char *text, size_t size, struct profile *profile,
			      struct stack_text_result *ret)
{
	static const struct {
		struct error *(*line)(struct stack_reader *reader, struct piece line);
		struct error *(*end)(struct stack_reader *reader);
	} readers[] = {
		[STACK_TEXT_FOLDED] = { stack_text_folded_line, NULL },
		[STACK_TEXT_PERF] = { stack_text_perf_line, stack_text_perf_end },
		[STACK_TEXT_STAP] = { stack_text_stap_line, stack_text_stap_end },
	};
	struct piece left = { text, size };
	struct stack_reader reader = { .profile = profile };
	struct stack_text_result result = { .format = guess_format(left) };
	struct error *error = NULL;

	for (size_t number = 1; left.length && !error; number++) {
		struct piece line = next_line(&left);

		reader.bad = false;
		error = readers[result.format].line(&reader, line);
		result.lines += piece_trim(line).length != 0;
		if (reader.bad && !result.left_out++)
			result.first_left = number;
	}
	if (!error && readers[result.format].end)
		error = readers[result.format].end(&reader);
	result.other_events = reader.other_events;
	if (!error && reader.has_periods)
		error = profile_intern_bytes(profile, reader.event.text, reader.event.length,
					     &result.event);
	profile_id_vec_deinit(&reader.frames);
	if (!error)
		*ret = result;
	return error;
}
