/* The readers of perf script's and SystemTap's stacks: a line for each frame, leaf first. */
#include <string.h>

#include "stack_text.h"

static bool has_nul(struct piece piece)
{
	return piece.length && memchr(piece.text, '\0', piece.length);
}

/* Cuts `+0x12` or `+0x12/0x34` off its end. */
static struct piece without_offset(struct piece name)
{
	uint64_t value;
	size_t plus;

	if (piece_find_last(name, '+', &plus) && piece_begins(piece_from(name, plus + 1), "0x") &&
	    piece_hex(piece_from(name, plus + 1), &value))
		name.length = plus;
	return name;
}

/* ---- perf script ---- */

struct perf_frame {
	uint64_t address;
	struct piece symbol, module;
	bool inlined;
};

/* The part in parentheses at the end: `(/lib/libc.so.6)`, `(/tmp/a (deleted))`. */
static bool split_parentheses(struct piece line, struct piece *before, struct piece *inside)
{
	size_t depth = 0;

	if (!line.length || line.text[line.length - 1] != ')')
		return false;
	for (size_t at = line.length; at-- > 0;) {
		if (line.text[at] == ')')
			depth++;
		else if (line.text[at] == '(' && --depth == 0) {
			*before = piece_trim((struct piece){ line.text, at });
			*inside = (struct piece){ line.text + at + 1, line.length - at - 2 };
			return true;
		}
	}
	return false;
}

/* Digits of an address that stands at the beginning of a line, where a command's name would. */
#define ADDRESS_DIGITS 8

static bool split_perf_frame(struct piece line, struct perf_frame *ret)
{
	bool indented = line.length && (line.text[0] == ' ' || line.text[0] == '\t');
	struct piece rest;
	size_t hex;

	if (!line.length || has_nul(line))
		return false;
	line = piece_trim(line);
	hex = piece_hex(line, &ret->address);
	if (!hex || hex >= line.length || (line.text[hex] != ' ' && line.text[hex] != '\t'))
		return false;
	line = piece_trim(piece_from(line, hex));
	ret->symbol = line;
	ret->module = (struct piece){ 0 };
	ret->inlined = false;
	if (split_parentheses(line, &rest, &ret->module)) {
		ret->symbol = rest;
		ret->inlined = ret->module.length == 7 && piece_begins(ret->module, "inlined");
	}
	if (!indented && (hex < ADDRESS_DIGITS || !ret->module.length))
		return false;
	if (ret->inlined || (ret->module.length == 9 && piece_begins(ret->module, "[unknown]")))
		ret->module.length = 0;
	return true;
}

bool stack_text_is_perf_frame(struct piece line)
{
	struct perf_frame frame;
	int64_t number;

	/* A folded stack that is indented and has but one frame is none: `  beef 5`. */
	return split_perf_frame(line, &frame) &&
	       (frame.module.length || frame.inlined || !piece_number(frame.symbol, &number));
}

static bool ends_with(struct piece piece, const char *end)
{
	size_t length = strlen(end);

	return piece.length > length && !memcmp(piece.text + piece.length - length, end, length);
}

/* `vmlinux`, `/boot/vmlinux-6.1.0`, `/lib/modules/6.1.0/kernel/fs/ext4.ko.xz`. */
static bool is_kernel_file(struct piece module)
{
	size_t slash;

	if (ends_with(module, ".ko") || ends_with(module, ".ko.xz") ||
	    ends_with(module, ".ko.zst") || ends_with(module, ".ko.gz"))
		return true;
	if (piece_find_last(module, '/', &slash))
		module = piece_from(module, slash + 1);
	return piece_begins(module, "vmlinux");
}

static bool is_kernel(const struct perf_frame *frame)
{
	const struct piece *module = &frame->module;

	return piece_begins(*module, "[kernel") || piece_begins(*module, "[guest.kernel") ||
	       is_kernel_file(*module) ||
	       /* A kernel module, by its name only. */
	       (module->length > 2 && module->text[0] == '[' && frame->address >> 63 &&
		!piece_begins(*module, "[v"));
}

struct error *stack_text_perf_end(struct stack_reader *reader)
{
	struct error *error = NULL;

	if (!reader->begun)
		return NULL;
	reader->begun = false;
	if (reader->skip) {
		reader->frames.size = 0;
		return NULL;
	}
	/* Its command is what flame graphs of whole systems begin with. */
	if (reader->command.length)
		error = stack_reader_frame(reader, reader->command, (struct piece){ 0 }, 0, false,
					   false);
	return error ? error : stack_reader_stack(reader, reader->period, true);
}

/* More than there are between the process and the event: thread, CPU, flags, time, period. */
#define HEADER_WORDS 8

static struct piece next_word(struct piece *line)
{
	struct piece word;
	size_t end = 0;

	*line = piece_trim(*line);
	while (end < line->length && line->text[end] != ' ' && line->text[end] != '\t')
		end++;
	word = (struct piece){ line->text, end };
	*line = piece_from(*line, end);
	return word;
}

/* `:u`, `:ppp` and the like say where it was counted; a tracepoint's `kmem:mm_page_alloc` is a
 * name. */
static struct piece without_modifiers(struct piece event)
{
	static const char modifiers[] = "ukhHGpPSDWe";
	size_t colon;

	if (!piece_find_last(event, ':', &colon) || colon + 1 == event.length)
		return event;
	for (size_t i = colon + 1; i < event.length; i++)
		if (!memchr(modifiers, event.text[i], sizeof(modifiers) - 1))
			return event;
	event.length = colon;
	return event;
}

/* `[000] 12.3456:      10 page-faults:u: `: the event is the first word with a colon that is no
 * time, and a whole number before it the period. */
static void split_event(struct piece line, struct piece *event, int64_t *period)
{
	bool has_period = false;
	int64_t number;

	for (unsigned i = 0; i < HEADER_WORDS && piece_trim(line).length; i++) {
		struct piece word = next_word(&line);
		struct piece name = { word.text, word.length - 1 };

		if (word.text[word.length - 1] != ':') {
			has_period =
				!memchr(word.text, '.', word.length) && piece_number(word, &number);
		} else if (!piece_number(name, &(int64_t){ 0 })) {
			*event = without_modifiers(name);
			if (has_period)
				*period = number;
			return;
		} else {
			has_period = false;
		}
	}
}

/* Of several events the first is taken: there is no sum of cycles and page faults. */
static void begin_sample(struct stack_reader *reader, struct piece command, struct piece rest)
{
	struct piece event = { 0 };
	int64_t period = 0;

	split_event(rest, &event, &period);
	if (!reader->event.length) {
		reader->event = event;
		reader->has_periods = period > 0;
	}
	reader->skip = event.length != reader->event.length ||
		       (event.length && memcmp(event.text, reader->event.text, event.length));
	reader->other_events += reader->skip;
	reader->begun = true;
	reader->command = command;
	reader->period = period > 0 ? period : 1;
}

/* `comm  1234/1235 [000] 12.3456: 1 page-faults:`: the command stands before the first number. */
static bool split_header(struct piece line, struct piece *command, struct piece *rest)
{
	line = piece_trim(line);
	if (!line.length || has_nul(line))
		return false;
	for (size_t at = 1; at < line.length; at++) {
		size_t end = at;

		if (line.text[at - 1] != ' ' && line.text[at - 1] != '\t')
			continue;
		while (end < line.length && ((line.text[end] >= '0' && line.text[end] <= '9') ||
					     (line.text[end] == '/' && end > at)))
			end++;
		if (end > at && (end == line.length || line.text[end] == ' ')) {
			*command = piece_trim((struct piece){ line.text, at });
			*rest = piece_from(line, end);
			return true;
		}
	}
	return false;
}

struct error *stack_text_perf_line(struct stack_reader *reader, struct piece line)
{
	struct perf_frame frame = { 0 };
	struct piece trimmed = piece_trim(line), command, rest;
	struct error *error;

	if (!trimmed.length)
		return stack_text_perf_end(reader);
	if (trimmed.text[0] == '#')
		return NULL;
	if (split_perf_frame(line, &frame)) {
		if (!reader->begun) {
			reader->bad = true;
			return NULL;
		}
		if (frame.symbol.length == 9 && piece_begins(frame.symbol, "[unknown]"))
			frame.symbol.length = 0;
		/* One function, one frame, and one for what is unknown of a module. */
		return stack_reader_frame(reader, without_offset(frame.symbol), frame.module, 0,
					  is_kernel(&frame), frame.inlined);
	}
	error = stack_text_perf_end(reader);
	if (error)
		return error;
	if (!split_header(line, &command, &rest)) {
		reader->bad = true;
		return NULL;
	}
	begin_sample(reader, command, rest);
	return NULL;
}

/* ---- stap ---- */

struct stap_frame {
	uint64_t address;
	struct piece symbol, module;
};

/* sprint_usyms(): `main+0x1 [a]`. */
static bool split_brief_stap_frame(struct piece line, struct stap_frame *ret)
{
	size_t bracket;
	struct piece name;

	if (!line.length || line.text[line.length - 1] != ']' ||
	    !piece_find_last(line, '[', &bracket))
		return false;
	name = piece_trim((struct piece){ line.text, bracket });
	ret->symbol = without_offset(name);
	ret->module = (struct piece){ line.text + bracket + 1, line.length - bracket - 2 };
	return ret->symbol.length && ret->symbol.length < name.length;
}

/* ` 0x40 : main+0x1/0x2 [/bin/a]`, ` 0x40 [/bin/a+0x40/0x1000]`, ` 0x40 : 0x40`. */
static bool split_stap_frame(struct piece line, struct stap_frame *ret)
{
	size_t hex, bracket;

	*ret = (struct stap_frame){ 0 };
	line = piece_trim(line);
	if (has_nul(line))
		return false;
	if (!piece_begins(line, "0x"))
		return split_brief_stap_frame(line, ret);
	hex = piece_hex(line, &ret->address);
	if (!hex)
		return false;
	line = piece_trim(piece_from(line, hex));
	if (piece_begins(line, ":"))
		line = piece_trim(piece_from(line, 1));
	else if (line.length && !piece_begins(line, "["))
		return false;
	/* `(inexact)` and the like. */
	if (line.length && line.text[line.length - 1] == ')' &&
	    piece_find_last(line, ']', &bracket))
		line.length = bracket + 1;
	ret->symbol = line;
	if (line.length && line.text[line.length - 1] == ']' &&
	    piece_find_last(line, '[', &bracket)) {
		ret->module = (struct piece){ line.text + bracket + 1, line.length - bracket - 2 };
		ret->module = without_offset(ret->module);
		ret->symbol = piece_trim((struct piece){ line.text, bracket });
	}
	ret->symbol = without_offset(ret->symbol);
	if (piece_begins(ret->symbol, "0x"))
		ret->symbol.length = 0;
	return true;
}

bool stack_text_is_stap_frame(struct piece line)
{
	struct stap_frame frame;

	return split_stap_frame(line, &frame);
}

static struct error *end_stap_stack(struct stack_reader *reader, int64_t count)
{
	if (!reader->frames.size)
		return NULL;
	return stack_reader_stack(reader, count, true);
}

struct error *stack_text_stap_end(struct stack_reader *reader)
{
	return end_stap_stack(reader, 1);
}

struct error *stack_text_stap_line(struct stack_reader *reader, struct piece line)
{
	struct piece trimmed = piece_trim(line);
	struct stap_frame frame;
	int64_t count;

	if (!trimmed.length)
		return end_stap_stack(reader, 1);
	if (split_stap_frame(line, &frame))
		return stack_reader_frame(reader, frame.symbol, frame.module,
					  frame.symbol.length ? 0 : frame.address,
					  piece_begins(frame.module, "kernel"), false);
	if (reader->frames.size && piece_number(trimmed, &count))
		return end_stap_stack(reader, count);
	reader->bad = true;
	return NULL;
}
