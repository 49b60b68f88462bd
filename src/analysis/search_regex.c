/*
 * Regular expressions. The expression runs over windows of a block: it begins in the window, and
 * sees SEARCH_MATCH_MAX bytes more. So no attempt costs more than a window's length, and what
 * matches does not depend on where blocks end.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "memprobe/num.h"
#include "search_pattern.h"

#define WINDOW	       8192u
#define MATCH_LIMIT    200000u /* steps for one place: a millisecond */
#define DEPTH_LIMIT    10000u  /* without the compiler only */
#define HEAP_LIMIT_KIB 4096u
#define STACK_MIN      (32u << 10)
#define STACK_MAX      (1u << 20)

struct search_code {
	pcre2_code *code;
	bool compiled; /* to machine code */
};

struct search_machine {
	pcre2_match_data *match;
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
};

void search_code_destroy(struct search_code *code)
{
	if (!code)
		return;
	pcre2_code_free(code->code);
	free(code);
}

static struct error *compile(const char *text, struct search_code *code)
{
	uint32_t options = PCRE2_MULTILINE | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP |
			   PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
	PCRE2_SIZE offset;
	int number;

	code->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options, &number,
				   &offset, NULL);
	if (!code->code) {
		PCRE2_UCHAR message[256] = "";

		pcre2_get_error_message(number, message, sizeof(message));
		return error_create(ERROR_USAGE, "'%s' is no regular expression: %s at offset %zu",
				    text, (const char *)message, (size_t)offset);
	}
	/* Slower without. */
	code->compiled = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
	return NULL;
}

struct error *search_regex(const char *text, struct search_pattern **ret)
{
	cleanup(search_pattern) struct search_pattern *pattern = calloc(1, sizeof(*pattern));
	struct search_code *code = calloc(1, sizeof(*code));
	uint32_t behind = 0;
	struct error *error;

	if (!pattern || !code) {
		free(code);
		return &error_no_memory;
	}
	pattern->kind = SEARCH_REGEX;
	pattern->code = code;
	if (!*text)
		return error_create(ERROR_USAGE, "the pattern is empty");
	error = compile(text, code);
	if (error)
		return error;
	pcre2_pattern_info(code->code, PCRE2_INFO_MAXLOOKBEHIND, &behind);
	/* ^, \b and their like look at one byte. */
	pattern->before = max_u64(min_u64(behind + 1, SEARCH_MATCH_MAX), SEARCH_MATCH_MAX - 1);
	pattern->after = SEARCH_MATCH_MAX;
	*ret = take_pointer(pattern);
	return NULL;
}

/* ---- running ---- */

void search_machine_destroy(struct search_machine *machine)
{
	if (!machine)
		return;
	pcre2_match_data_free(machine->match);
	pcre2_match_context_free(machine->context);
	pcre2_jit_stack_free(machine->stack);
	free(machine);
}

static struct error *machine_create(const struct search_code *code, struct search_machine **ret)
{
	struct search_machine *machine = calloc(1, sizeof(*machine));

	if (!machine)
		return &error_no_memory;
	machine->match = pcre2_match_data_create(1, NULL);
	machine->context = pcre2_match_context_create(NULL);
	if (code->compiled)
		machine->stack = pcre2_jit_stack_create(STACK_MIN, STACK_MAX, NULL);
	if (!machine->match || !machine->context || (code->compiled && !machine->stack)) {
		search_machine_destroy(machine);
		return &error_no_memory;
	}
	pcre2_set_match_limit(machine->context, MATCH_LIMIT);
	pcre2_set_depth_limit(machine->context, DEPTH_LIMIT);
	pcre2_set_heap_limit(machine->context, HEAP_LIMIT_KIB);
	if (machine->stack)
		pcre2_jit_stack_assign(machine->context, NULL, machine->stack);
	*ret = machine;
	return NULL;
}

/* What is searched: @size bytes, of which the attempt may see. */
struct subject {
	const struct search_code *code;
	struct search_machine *machine;
	const uint8_t *bytes;
	size_t size;
};

enum outcome { OUTCOME_NONE, OUTCOME_MATCH, OUTCOME_GAVE_UP, OUTCOME_NO_MEMORY };

/* A match that begins in [from, last], with nothing behind @end to be seen. */
static enum outcome attempt(const struct subject *subject, size_t from, size_t last, size_t end,
			    size_t *start_ret, size_t *end_ret)
{
	struct search_machine *machine = subject->machine;
	const PCRE2_SIZE *found = pcre2_get_ovector_pointer(machine->match);
	int result;

	pcre2_set_offset_limit(machine->context, last);
	result = pcre2_match(subject->code->code, subject->bytes, end, from,
			     PCRE2_NOTEMPTY | PCRE2_NOTEOL, machine->match, machine->context);
	if (result == PCRE2_ERROR_NOMATCH)
		return OUTCOME_NONE;
	if (result == PCRE2_ERROR_NOMEMORY)
		return OUTCOME_NO_MEMORY;
	if (result < 0)
		return OUTCOME_GAVE_UP;
	/* \K may set the start behind the end, or before where it was looked for. */
	if (found[0] < from || found[1] <= found[0])
		return OUTCOME_NONE;
	*start_ret = found[0];
	*end_ret = found[1];
	return OUTCOME_MATCH;
}

/* The first match that begins in [*from, last]; on giving up, *from is the place. */
static enum outcome next_match(const struct subject *subject, size_t *from, size_t last,
			       size_t *start_ret, size_t *end_ret)
{
	size_t until = last;

	for (;;) {
		size_t end = min_u64(subject->size, until + 1 + SEARCH_MATCH_MAX);
		enum outcome outcome = attempt(subject, *from, until, end, start_ret, end_ret);

		if (outcome == OUTCOME_MATCH && *end_ret - *start_ret > SEARCH_MATCH_MAX) {
			size_t place = *start_ret;

			outcome = attempt(subject, place, place, place + SEARCH_MATCH_MAX,
					  start_ret, end_ret);
			/* It takes more than can be. */
			if (outcome == OUTCOME_NONE && place < last) {
				*from = place + 1;
				until = last;
				continue;
			}
		}
		if (outcome == OUTCOME_GAVE_UP && until > *from) {
			until = *from + (until - *from) / 2;
			continue;
		}
		if (outcome == OUTCOME_NONE && until < last) {
			*from = until + 1;
			until = last;
			continue;
		}
		return outcome;
	}
}

static struct error *search_window(const struct subject *subject, size_t *from, size_t last,
				   uint64_t address, uint64_t untouched, struct hits *hits)
{
	while (*from <= last) {
		size_t start = 0, end = 0;
		enum outcome outcome = next_match(subject, from, last, &start, &end);
		struct error *error = NULL;

		if (outcome == OUTCOME_NO_MEMORY)
			return &error_no_memory;
		if (outcome == OUTCOME_NONE)
			break;
		if (outcome == OUTCOME_GAVE_UP) {
			++*from;
			if (++hits->gave_up > SEARCH_GIVE_UP_MAX)
				return search_too_hard();
			continue;
		}
		if (address + end > untouched)
			error = hits_add(hits, address + start, end - start);
		if (error)
			return error;
		*from = end;
	}
	return NULL;
}

struct error *regex_search(const struct search_code *code, const struct scan_block *block,
			   uint64_t from, struct hits *hits)
{
	/* Where the subject begins, what is not seen of before. */
	uint64_t base = block->start - block->before;
	struct subject subject = { code, hits->machine, block->bytes - block->before,
				   block->before + (block->end - block->start) + block->after };
	size_t at = from - base, end = block->end - base;
	struct error *error = NULL;

	if (!hits->machine) {
		error = machine_create(code, &hits->machine);
		subject.machine = hits->machine;
	}
	while (!error && at < end) {
		size_t last = min_u64(end, at + WINDOW) - 1;

		error = search_window(&subject, &at, last, base, block->start, hits);
		at = max_u64(at, last + 1);
	}
	return error;
}
