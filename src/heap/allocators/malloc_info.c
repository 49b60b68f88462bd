#include "memprobe/malloc_info.h"

#include <string.h>

#define ATTRIBUTES_MAX 8
#define DEPTH_MAX      8
#define ARENAS_MAX     65536

/* ---- tokens ---- */

/* Bytes of the text, not terminated. */
struct slice {
	const char *start;
	size_t size;
};

struct attribute {
	struct slice name, value;
};

enum tag_kind { TAG_OPEN, TAG_CLOSE, TAG_EMPTY };

struct tag {
	enum tag_kind kind;
	struct slice name;
	struct attribute attributes[ATTRIBUTES_MAX];
	size_t attribute_count;
};

struct tokenizer {
	const char *text, *cursor, *end;
};

static bool slice_is(struct slice slice, const char *word)
{
	return slice.size == strlen(word) && !memcmp(slice.start, word, slice.size);
}

static struct error *broken(const struct tokenizer *tokenizer, const char *what)
{
	return error_create(ERROR_FAILED, "malloc_info's XML is broken at byte %zu: %s",
			    (size_t)(tokenizer->cursor - tokenizer->text), what);
}

static bool at_end(const struct tokenizer *tokenizer)
{
	return tokenizer->cursor == tokenizer->end;
}

static bool take_char(struct tokenizer *tokenizer, char wanted)
{
	if (at_end(tokenizer) || *tokenizer->cursor != wanted)
		return false;
	tokenizer->cursor++;
	return true;
}

static void skip_blanks(struct tokenizer *tokenizer)
{
	while (!at_end(tokenizer) && memchr(" \t\r\n", *tokenizer->cursor, 4))
		tokenizer->cursor++;
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

static bool take_name(struct tokenizer *tokenizer, struct slice *ret)
{
	ret->start = tokenizer->cursor;
	while (!at_end(tokenizer) && is_name_char(*tokenizer->cursor))
		tokenizer->cursor++;
	ret->size = tokenizer->cursor - ret->start;
	return ret->size > 0;
}

/* name="value" */
static bool take_attribute(struct tokenizer *tokenizer, struct attribute *ret)
{
	if (!take_name(tokenizer, &ret->name) || !take_char(tokenizer, '=') ||
	    !take_char(tokenizer, '"'))
		return false;
	ret->value.start = tokenizer->cursor;
	while (!at_end(tokenizer) && !memchr("\"<>&", *tokenizer->cursor, 4))
		tokenizer->cursor++;
	ret->value.size = tokenizer->cursor - ret->value.start;
	return take_char(tokenizer, '"');
}

/* The next tag; blanks before it are all the text that may stand between tags. */
static struct error *take_tag(struct tokenizer *tokenizer, struct tag *ret)
{
	*ret = (struct tag){ .kind = TAG_OPEN };
	skip_blanks(tokenizer);
	if (at_end(tokenizer))
		return broken(tokenizer, "it ends too early");
	if (!take_char(tokenizer, '<'))
		return broken(tokenizer, "a tag was expected");
	if (take_char(tokenizer, '/'))
		ret->kind = TAG_CLOSE;
	if (!take_name(tokenizer, &ret->name))
		return broken(tokenizer, "a tag without a name");
	for (;;) {
		skip_blanks(tokenizer);
		if (take_char(tokenizer, '>'))
			return NULL;
		if (ret->kind == TAG_OPEN && take_char(tokenizer, '/')) {
			ret->kind = TAG_EMPTY;
			return take_char(tokenizer, '>') ? NULL
							 : broken(tokenizer, "'>' was expected");
		}
		if (ret->kind == TAG_CLOSE || ret->attribute_count == ATTRIBUTES_MAX ||
		    !take_attribute(tokenizer, &ret->attributes[ret->attribute_count++]))
			return broken(tokenizer, "not an attribute");
	}
}

/* ---- figures ---- */

struct parser {
	struct tokenizer tokenizer;
	struct heap_stats *stats;
	struct slice open[DEPTH_MAX]; /* the elements we are in */
	size_t depth;
	bool in_heap, in_sizes;
	struct arena_stats *arena;	   /* with in_heap */
	uint64_t rest, rest_chunks;	   /* of the arena, then of the totals */
	uint64_t flag_bits, all_flag_bits; /* what glibc counted too much */
};

static const struct slice *attribute_of(const struct tag *tag, const char *name)
{
	for (size_t i = 0; i < tag->attribute_count; i++)
		if (slice_is(tag->attributes[i].name, name))
			return &tag->attributes[i].value;
	return NULL;
}

static bool tag_is(const struct tag *tag, const char *name, const char *type)
{
	const struct slice *value = attribute_of(tag, "type");

	return slice_is(tag->name, name) && value && slice_is(*value, type);
}

static struct error *number_of(const struct parser *parser, const struct tag *tag, const char *name,
			       uint64_t *ret)
{
	const struct slice *slice = attribute_of(tag, name);
	uint64_t number = 0;

	if (!slice || slice->size == 0)
		return broken(&parser->tokenizer, "a number is missing");
	for (size_t i = 0; i < slice->size; i++) {
		unsigned digit = (unsigned char)slice->start[i] - '0';

		if (digit > 9 || __builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, digit, &number))
			return broken(&parser->tokenizer, "not a number");
	}
	*ret = number;
	return NULL;
}

static struct error *count_and_size(const struct parser *parser, const struct tag *tag,
				    uint64_t *count_ret, uint64_t *size_ret)
{
	struct error *error = number_of(parser, tag, "count", count_ret);

	return error ? error : number_of(parser, tag, "size", size_ret);
}

/* A class of free chunks in <sizes>; an odd upper bound shows that flag bits were summed up. */
static struct error *take_size_class(struct parser *parser, const struct tag *tag)
{
	uint64_t to, count;
	struct error *error = number_of(parser, tag, "to", &to);

	if (!error)
		error = number_of(parser, tag, "count", &count);
	if (error)
		return error;
	/* glibc writes all ones for the bounds of a class it found empty. */
	if (to % 2 && count && __builtin_add_overflow(parser->flag_bits, count, &parser->flag_bits))
		return broken(&parser->tokenizer, "too many chunks");
	return NULL;
}

static struct error *take_figure(struct parser *parser, const struct tag *tag)
{
	struct heap_figures *figures =
		parser->in_heap ? &parser->arena->figures : &parser->stats->totals;

	if (tag_is(tag, "total", "fast"))
		return count_and_size(parser, tag, &figures->fast_chunks, &figures->fast);
	if (tag_is(tag, "total", "rest"))
		return count_and_size(parser, tag, &parser->rest_chunks, &parser->rest);
	if (tag_is(tag, "system", "current"))
		return number_of(parser, tag, "size", &figures->system);
	if (tag_is(tag, "system", "max"))
		return number_of(parser, tag, "size", &figures->system_max);
	if (!parser->in_heap && tag_is(tag, "total", "mmap"))
		return count_and_size(parser, tag, &parser->stats->mmapped_count,
				      &parser->stats->mmapped_bytes);
	return NULL;
}

/* Sums up what was read of an arena, or of all. */
static struct error *finish_figures(struct parser *parser, struct heap_figures *figures,
				    uint64_t flag_bits)
{
	if (parser->rest == STAT_UNKNOWN || figures->system == STAT_UNKNOWN)
		return broken(&parser->tokenizer, "figures are missing");
	/* Later versions may do without fast bins. */
	if (figures->fast == STAT_UNKNOWN)
		figures->fast = figures->fast_chunks = 0;
	if (flag_bits > parser->rest ||
	    __builtin_add_overflow(parser->rest - flag_bits, figures->fast, &figures->free) ||
	    __builtin_add_overflow(parser->rest_chunks, figures->fast_chunks,
				   &figures->free_chunks) ||
	    figures->free > figures->system)
		return broken(&parser->tokenizer, "the figures contradict each other");
	figures->in_use = figures->system - figures->free;
	parser->rest = parser->rest_chunks = STAT_UNKNOWN;
	return NULL;
}

/* ---- structure ---- */

static struct error *open_heap(struct parser *parser, const struct tag *tag)
{
	uint64_t index;
	struct error *error = number_of(parser, tag, "nr", &index);

	if (error)
		return error;
	if (index != parser->stats->arenas.size || index >= ARENAS_MAX)
		return broken(&parser->tokenizer, "an arena is out of order");
	error = heap_stats_add_arena(parser->stats, index, &parser->arena);
	if (error)
		return error;
	parser->arena->is_main = index == 0;
	parser->in_heap = true;
	parser->flag_bits = 0;
	return NULL;
}

static struct error *close_heap(struct parser *parser)
{
	parser->in_heap = false;
	if (__builtin_add_overflow(parser->all_flag_bits, parser->flag_bits,
				   &parser->all_flag_bits))
		return broken(&parser->tokenizer, "too many chunks");
	return finish_figures(parser, &parser->arena->figures, parser->flag_bits);
}

static struct error *open_element(struct parser *parser, const struct tag *tag)
{
	const struct slice *version = attribute_of(tag, "version");

	if (parser->depth == DEPTH_MAX)
		return broken(&parser->tokenizer, "nested too deep");
	if (parser->depth == 0 && (!slice_is(tag->name, "malloc") || !version))
		return broken(&parser->tokenizer, "not the output of malloc_info");
	if (parser->depth == 0 && !slice_is(*version, "1"))
		return error_create(ERROR_UNSUPPORTED, "malloc_info's XML is of version %.*s",
				    (int)(version->size < 16 ? version->size : 16), version->start);
	parser->open[parser->depth++] = tag->name;
	if (parser->depth == 2 && slice_is(tag->name, "heap"))
		return open_heap(parser, tag);
	if (parser->depth == 3 && parser->in_heap && slice_is(tag->name, "sizes"))
		parser->in_sizes = true;
	return NULL;
}

static struct error *close_element(struct parser *parser, const struct tag *tag)
{
	const struct slice *open;

	if (parser->depth == 0)
		return broken(&parser->tokenizer, "an end without a start");
	open = &parser->open[--parser->depth];
	if (open->size != tag->name.size || memcmp(open->start, tag->name.start, open->size))
		return broken(&parser->tokenizer, "the end of something else");
	if (parser->depth == 2)
		parser->in_sizes = false;
	if (parser->depth == 1 && parser->in_heap)
		return close_heap(parser);
	if (parser->depth == 0)
		return finish_figures(parser, &parser->stats->totals, parser->all_flag_bits);
	return NULL;
}

static struct error *take_empty(struct parser *parser, const struct tag *tag)
{
	if (parser->in_sizes && parser->depth == 3 &&
	    (slice_is(tag->name, "size") || slice_is(tag->name, "unsorted")))
		return take_size_class(parser, tag);
	if (parser->depth == (parser->in_heap ? 2 : 1))
		return take_figure(parser, tag);
	return parser->depth ? NULL : broken(&parser->tokenizer, "not the output of malloc_info");
}

struct error *malloc_info_parse(const char *text, size_t size, struct heap_stats *ret)
{
	struct parser parser = {
		.tokenizer = { text, text, text + size },
		.stats = ret,
		.rest = STAT_UNKNOWN,
		.rest_chunks = STAT_UNKNOWN,
	};
	struct error *error;

	do {
		struct tag tag;

		error = take_tag(&parser.tokenizer, &tag);
		if (error)
			return error;
		if (tag.kind == TAG_OPEN)
			error = open_element(&parser, &tag);
		else if (tag.kind == TAG_CLOSE)
			error = close_element(&parser, &tag);
		else
			error = take_empty(&parser, &tag);
		if (error)
			return error;
	} while (parser.depth);
	skip_blanks(&parser.tokenizer);
	if (!at_end(&parser.tokenizer))
		return broken(&parser.tokenizer, "something follows its end");
	return NULL;
}
