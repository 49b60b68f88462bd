#include "memprobe/cmd.h"

#include <inttypes.h>
#include <string.h>

#include "find_output.h"
#include "memprobe/classify.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/object_type.h"

#define MAX_DEFAULT   1000
#define CONTEXT_TEXT  24
#define CONTEXT_BYTES 8
#define OBJECT_HEAD   64 /* bytes of a block that may tell its type */

static const struct command_option options[] = {
	{ "hex", 0, NULL, "PATTERN is bytes in hexadecimal, ? for any digit: 'de ad ?? b?'" },
	{ "regex", 0, NULL, "PATTERN is a regular expression (PCRE2), over bytes" },
	{ "pointer", 0, NULL, "PATTERN is what is pointed to: an address, a range, a type" },
	{ "utf16", 0, NULL, "look for the text as UTF-16LE" },
	{ "in", 0, "WHERE", "search this range or type of mapping only (heap, arena, ...)" },
	{ "count", 'c', NULL, "print how many matches there are, and nothing else" },
	{ "context", 0, "N", "show N bytes around a match (default 24; 8 around bytes)" },
	{ "max", 0, "N", "show the first N matches (default 1000; 0: all)" },
	{ "exit-code", 0, NULL, "exit with 10 if there is a match" },
	{ NULL, 0, NULL, NULL },
};

struct find {
	struct command_context *context;
	struct search_pattern *pattern;
	struct mapping_vec maps;
	struct range_vec ranges;
	struct search_result result;
	struct find_report report;
	struct heap *heap;
	struct object_types *types;
	uint64_t max, around;
};

static void find_deinit(struct find *find)
{
	find_report_deinit(&find->report);
	heap_destroy(find->heap);
	object_types_destroy(find->types);
	search_result_deinit(&find->result);
	search_pattern_destroy(find->pattern);
	range_vec_deinit(&find->ranges);
	mappings_deinit(&find->maps);
}

/* ---- the command line ---- */

/* An address alone is one of one byte. */
static struct error *parse_pointed(struct command_context *context, struct range_vec *ret)
{
	const char *text = context->arguments[0];
	enum mapping_type type;
	struct error *error;
	uint64_t address;
	int used;

	if (context->argument_count == 1 && !mapping_type_parse(text, &type) &&
	    !strpbrk(text, "+,- ")) {
		error = parse_address(text, &address);
		if (!error && address == UINT64_MAX)
			error = error_create(ERROR_USAGE, "there is no such address: %s", text);
		return error ? error : ranges_add(ret, address, address + 1);
	}
	if (context->argument_count == 1)
		return command_parse_where(context, text, NULL, ret);
	error = command_parse_ranges(context, 0, &used, ret);
	if (!error && used < context->argument_count)
		error = error_create(ERROR_USAGE, "'%s' is one argument too many",
				     context->arguments[used]);
	return error;
}

static struct error *parse_pattern(struct find *find)
{
	struct command_context *context = find->context;
	bool hex = command_option(context, "hex"), regex = command_option(context, "regex");
	bool pointer = command_option(context, "pointer"), utf16 = command_option(context, "utf16");
	struct range_vec pointed = { 0 };
	struct error *error;

	if (hex + regex + pointer + utf16 > 1)
		return error_create(ERROR_USAGE,
				    "--hex, --regex, --pointer and --utf16 exclude each other");
	if (!pointer && context->argument_count > 1)
		return error_hint(error_create(ERROR_USAGE, "'%s' is one argument too many",
					       context->arguments[1]),
				  "put quotes around a pattern with blanks");
	find->report.as_bytes = hex || pointer;
	if (hex)
		return search_hex(context->arguments[0], &find->pattern);
	if (regex)
		return search_regex(context->arguments[0], &find->pattern);
	if (!pointer)
		return search_text(context->arguments[0], utf16, &find->pattern);
	error = parse_pointed(context, &pointed);
	if (!error)
		error = search_pointers(&pointed, context->target->arch->word_size, &find->pattern);
	range_vec_deinit(&pointed);
	return error;
}

static struct error *parse(struct find *find)
{
	struct command_context *context = find->context;
	const char *max = command_option(context, "max"),
		   *around = command_option(context, "context");
	struct error *error = NULL;

	find->max = MAX_DEFAULT;
	find->around = command_option(context, "hex") || command_option(context, "pointer")
			       ? CONTEXT_BYTES
			       : CONTEXT_TEXT;
	if (max)
		error = parse_u64(max, &find->max);
	if (!error && around)
		error = parse_u64(around, &find->around);
	if (!error && find->around > SEARCH_CONTEXT_MAX)
		error = error_create(ERROR_USAGE, "--context is at most %u", SEARCH_CONTEXT_MAX);
	if (!error)
		error = parse_pattern(find);
	if (error)
		return error;
	find->report.count_only = command_option(context, "count") != NULL;
	if (!find->max)
		find->max = UINT64_MAX;
	if (find->report.count_only)
		find->max = 0;
	return NULL;
}

/* ---- what matches lie in ---- */

/* A block that malloc has mapped may be joined with a neighbour, and then is no mmap-chunk. */
static bool may_be_of_malloc(const struct mapping *mapping)
{
	return mapping->type == MAPPING_HEAP || mapping->type == MAPPING_ARENA ||
	       mapping->type == MAPPING_MMAP_CHUNK || mapping->type == MAPPING_ANON;
}

/* The heap is read only if something lies in it, and there may be no allocator that can be. */
static struct error *open_heap(struct find *find)
{
	struct heap_options heap_options = { .maps = &find->maps, .tries = 2 };
	struct error *error;
	bool wanted = false;

	vec_for_each (match, &find->report.matches)
		wanted = wanted || (match->mapping && may_be_of_malloc(match->mapping));
	if (!wanted || command_interrupted())
		return NULL;
	error = heap_open(find->context->target, &heap_options, &find->heap);
	if (error_is(error, ERROR_NO_MEMORY) || !error)
		return error;
	log_warn("the blocks that matches lie in are not known: %s", error->message);
	error_destroy(error);
	return NULL;
}

/* Without its type, a match is as good. */
static struct error *describe_object(struct find *find, struct find_match *match)
{
	uint8_t bytes[OBJECT_HEAD];
	size_t size = min_u64(match->chunk.size, sizeof(bytes));
	const struct object_type *type = NULL;
	struct error *error;

	if (match->chunk.state != HEAP_IN_USE)
		return NULL;
	error = target_read(find->context->target, match->chunk.address, bytes, size);
	if (!error)
		error = object_types_of_block(find->types, match->chunk.address, match->chunk.size,
					      bytes, size, &type);
	if (error && !error_is(error, ERROR_NO_MEMORY)) {
		error_destroy(error);
		error = NULL;
	}
	match->object = type ? type->name : NULL;
	return error;
}

static struct error *describe(struct find *find)
{
	struct error *error;

	vec_for_each (match, &find->report.matches)
		match->mapping = mappings_find(&find->maps, match->address);
	error = open_heap(find);
	if (error || !find->heap)
		return error;
	if (find->heap->is_inconsistent)
		log_warn("the heap changed while it was read: the chunks shown are approximate");
	error = object_types_create(find->context->target, &find->types);
	vec_for_each (match, &find->report.matches) {
		match->in_chunk = heap_find(find->heap, match->address, &match->chunk);
		if (!error && match->in_chunk)
			error = describe_object(find, match);
	}
	return error;
}

/* ---- the command ---- */

static struct error *search(struct find *find)
{
	struct command_context *context = find->context;
	struct search_request request = {
		.target = context->target,
		.maps = &find->maps,
		.ranges = &find->ranges,
		.pattern = find->pattern,
		.list = find->max,
		.context = find->around,
		.interrupted = command_interrupted,
		.match = find_report_add,
		.data = &find->report,
	};
	/* Types take threads and looks at memory, and serve those only who see them. */
	struct error *error =
		find->max ? target_read_classified(context->target, MAPS_PLAIN, &find->maps)
			  : target_read_maps(context->target, MAPS_PLAIN, &find->maps);

	if (!error)
		error = command_parse_where(context, command_option(context, "in"), &find->maps,
					    &find->ranges);
	if (!error)
		error = search_run(&request, &find->result);
	if (error)
		return error;
	if (!find->result.scan.bytes && find->result.scan.missing_bytes)
		return error_create(ERROR_FAILED, "cannot read any of 0x%" PRIx64 "-0x%" PRIx64,
				    find->ranges.data[0].start, find->ranges.data[0].end);
	find->report.count = find->result.count;
	find->report.scan = &find->result.scan;
	return NULL;
}

static struct error *finish(struct find *find)
{
	struct command_context *context = find->context;
	struct error *error;

	command_note_scan(context, &find->result.scan);
	if (find->result.gave_up) {
		log_warn("the regular expression took too long at %" PRIu64
			 " places, which were passed over",
			 find->result.gave_up);
		context->status = ERROR_PARTIAL;
	}
	error = describe(find);
	if (!error)
		error = find_report_write(context, &find->report);
	if (!error && find->report.count && command_option(context, "exit-code"))
		context->status = 10;
	return error;
}

static struct error *run(struct command_context *context)
{
	struct find find = { .context = context };
	struct error *error = parse(&find);

	if (!error)
		error = search(&find);
	if (!error)
		error = finish(&find);
	find_deinit(&find);
	return error;
}

const struct command cmd_find = {
	.name = "find",
	.arguments = "PATTERN",
	.summary = "where a text, bytes, or a pointer stand in memory, and in which block",
	.target = TARGET_ANY,
	.options = options,
	.arguments_min = 1,
	.arguments_max = 2,
	.run = run,
};
