#include "find_output.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/records.h"

#define MISSING_NAMED 4

/* ---- what could not be searched ---- */

void command_note_scan(struct command_context *context, const struct scan_result *scan)
{
	char text[SIZE_TEXT_MAX];

	for (size_t i = 0; i < scan->missing.size && i < MISSING_NAMED; i++)
		log_warn("0x%" PRIx64 "-0x%" PRIx64 " is not mapped or not readable",
			 scan->missing.data[i].start, scan->missing.data[i].end);
	if (scan->missing.size > MISSING_NAMED)
		log_warn("%zu ranges are missing, %s in all", scan->missing.size,
			 format_size(scan->missing_bytes, text));
	if (scan->left_out)
		log_warn("%s of shared memory that the process has not touched is left out",
			 format_size(scan->left_out, text));
	if (scan->missing_bytes)
		context->status = ERROR_PARTIAL;
}

json_t *command_json_ranges(const struct range_vec *missing)
{
	static const struct record_column range_columns[] = {
		RECORD(range, start, "start", NULL, RECORD_ADDRESS),
		RECORD(range, end, "end", NULL, RECORD_ADDRESS),
		{ 0 },
	};
	const struct records records = {
		.columns = range_columns,
		.rows = missing->data,
		.count = missing->size,
		.size = sizeof(*missing->data),
	};

	return records_array(&records);
}

/* ---- matches ---- */

struct error *find_report_add(void *data, const struct search_match *match)
{
	struct find_report *report = data;
	size_t size = match->before + match->size + match->after;
	struct find_match new = {
		.address = match->address,
		.size = match->size,
		.context = malloc(size),
		.before = match->before,
		.after = match->after,
	};
	struct error *error;

	if (!new.context)
		return &error_no_memory;
	memcpy(new.context, match->bytes - match->before, size);
	error = find_match_vec_append(&report->matches, &new);
	if (error)
		free(new.context);
	return error;
}

void find_report_deinit(struct find_report *report)
{
	vec_for_each (match, &report->matches)
		free(match->context);
	find_match_vec_deinit(&report->matches);
}

static const char *state_name(const struct find_match *match)
{
	static const char *const names[] = {
		[HEAP_IN_USE] = "in use", [HEAP_FREE] = "free", [HEAP_FAST] = "fast bin",
		[HEAP_TCACHE] = "tcache", [HEAP_TOP] = "top",	[HEAP_OWN] = "allocator",
	};

	return names[match->chunk.state];
}

static bool is_printable(uint8_t byte)
{
	return byte >= 0x20 && byte < 0x7f;
}

/* What is no ASCII shows as dots; the caller frees it. */
static char *as_text(const struct find_match *match)
{
	size_t size = match->before + match->size + match->after;
	char *text = malloc(size + 1);

	if (!text)
		return NULL;
	for (size_t i = 0; i < size; i++)
		text[i] = is_printable(match->context[i]) ? (char)match->context[i] : '.';
	text[size] = '\0';
	return text;
}

/* Without blanks, or with one in front of the match and one behind it. */
static char *as_hex(const struct find_match *match, bool blanks)
{
	static const char digits[] = "0123456789abcdef";
	size_t size = match->before + match->size + match->after;
	char *text = malloc(2 * size + 3), *at = text;

	if (!text)
		return NULL;
	for (size_t i = 0; i < size; i++) {
		if (blanks && i && (i == match->before || i == match->before + match->size))
			*at++ = ' ';
		*at++ = digits[match->context[i] >> 4];
		*at++ = digits[match->context[i] & 15];
	}
	*at = '\0';
	return text;
}

/* ---- the matches ---- */

enum { PART_CHUNKS = 1, PART_OBJECTS = 2 };

struct match_row {
	const struct find_match *match;
	uint64_t address, size, mapping; /* JSON_UNKNOWN, as below; texts: NULL */
	const char *type, *path, *label, *name, *state, *object;
	pid_t tid;
	uint64_t chunk, chunk_size, context_start;
	bool as_bytes;
};

static const char *mapping_name(const struct mapping *mapping)
{
	const char *slash;

	if (!mapping)
		return "(unmapped)";
	if (mapping->label)
		return mapping->label;
	slash = mapping->path[0] == '/' ? strrchr(mapping->path, '/') : NULL;
	return slash ? slash + 1 : mapping->path[0] ? mapping->path : "-";
}

static void chunk_cell(struct table *table, const void *data)
{
	const struct find_match *match = ((const struct match_row *)data)->match;

	if (!match->in_chunk)
		table_cell_text(table, "-");
	else if (match->address >= match->chunk.address)
		table_cell(table, "%" PRIx64 "+%" PRIu64, match->chunk.address,
			   match->address - match->chunk.address);
	else
		table_cell(table, "%" PRIx64, match->chunk.address);
}

static void context_cell(struct table *table, const void *data)
{
	const struct match_row *row = data;
	cleanup(free) char *text = row->as_bytes ? as_hex(row->match, true) : as_text(row->match);

	table_cell_text(table, text ? text : "?");
}

static json_t *json_match_text(const void *data)
{
	cleanup(free) char *text = as_text(((const struct match_row *)data)->match);

	return text ? json_string(text) : NULL;
}

static json_t *json_match_hex(const void *data)
{
	cleanup(free) char *hex = as_hex(((const struct match_row *)data)->match, false);

	return hex ? json_string(hex) : NULL;
}

static const struct record_column columns[] = {
	RECORD(match_row, address, "address", "ADDRESS", RECORD_HEX),
	RECORD(match_row, size, "size", NULL, RECORD_SIZE),
	RECORD(match_row, mapping, "mapping", NULL, RECORD_ADDRESS),
	RECORD(match_row, type, "type", "TYPE", RECORD_TEXT),
	RECORD(match_row, path, "path", NULL, RECORD_TEXT, .optional = true),
	RECORD(match_row, label, "label", NULL, RECORD_TEXT, .optional = true),
	RECORD(match_row, tid, "tid", NULL, RECORD_ID, .optional = true),
	RECORD(match_row, name, NULL, "MAPPING", RECORD_TEXT),
	RECORD(match_row, chunk, "chunk", "CHUNK", RECORD_ADDRESS, .cell = chunk_cell,
	       .optional = true, .part = PART_CHUNKS),
	RECORD(match_row, chunk_size, "chunk_size", "SIZE", RECORD_SIZE, .optional = true,
	       .part = PART_CHUNKS, .rank = 2),
	RECORD(match_row, state, "state", "STATE", RECORD_TEXT, .optional = true,
	       .part = PART_CHUNKS, .rank = 1),
	RECORD(match_row, object, "object", "OBJECT", RECORD_TEXT, .optional = true,
	       .part = PART_OBJECTS),
	RECORD(match_row, match, "context", "CONTEXT", RECORD_OTHER, .cell = context_cell,
	       .json = json_match_text),
	RECORD(match_row, match, "context_hex", NULL, RECORD_OTHER, .json = json_match_hex),
	RECORD(match_row, context_start, "context_start", NULL, RECORD_ADDRESS),
	{ 0 },
};

struct source {
	const struct find_report *report;
	struct match_row row;
};

static const void *match_row(void *data, size_t i)
{
	struct source *source = data;
	const struct find_match *match = &source->report->matches.data[i];
	const struct mapping *mapping = match->mapping;

	source->row = (struct match_row){
		.match = match,
		.address = match->address,
		.size = match->size,
		.mapping = mapping ? mapping->start : JSON_UNKNOWN,
		.type = mapping ? mapping_type_name(mapping->type) : NULL,
		.path = mapping && mapping->path[0] ? mapping->path : NULL,
		.label = mapping ? mapping->label : NULL,
		.tid = mapping ? mapping->tid : 0,
		.name = mapping_name(mapping),
		.chunk = match->in_chunk ? match->chunk.address : JSON_UNKNOWN,
		.chunk_size = match->in_chunk ? match->chunk.size : JSON_UNKNOWN,
		.state = match->in_chunk ? state_name(match) : NULL,
		.object = match->object,
		.context_start = match->address - match->before,
		.as_bytes = source->report->as_bytes,
	};
	return &source->row;
}

static struct records records_of(struct source *source)
{
	unsigned without = PART_CHUNKS | PART_OBJECTS;

	vec_for_each (match, &source->report->matches) {
		without &= match->in_chunk ? ~(unsigned)PART_CHUNKS : ~0u;
		without &= match->object ? ~(unsigned)PART_OBJECTS : ~0u;
	}
	return (struct records){
		.columns = columns,
		.without = without,
		.count = source->report->matches.size,
		.row = match_row,
		.data = source,
	};
}

/* ---- output ---- */

static struct error *write_json(struct command_context *context, const struct find_report *report)
{
	struct source source = { report, { 0 } };
	const struct records records = records_of(&source);
	json_t *document = command_json(context);

	json_object_set_new(document, "count", json_number(report->count));
	json_object_set_new(document, "matches", records_array(&records));
	json_object_set_new(document, "matches_left_out",
			    json_number(report->count - report->matches.size));
	json_object_set_new(document, "searched", json_number(report->scan->bytes));
	json_object_set_new(document, "missing", command_json_ranges(&report->scan->missing));
	return command_write_json(context, document);
}

struct output {
	const struct command_context *context;
	const struct find_report *report;
};

static struct error *print_report(FILE *out, void *data)
{
	const struct output *output = data;
	const struct find_report *report = output->report;
	uint64_t left_out = report->count - report->matches.size;
	struct table_style style = command_style(output->context);
	struct source source = { report, { 0 } };
	const struct records records = records_of(&source);
	cleanup(table) struct table *table = NULL;
	char items[ITEMS_TEXT_MAX], size[TABLE_SIZE_MAX];
	struct error *error = NULL;

	if (report->count_only) {
		fprintf(out, "%" PRIu64 "\n", report->count);
		return NULL;
	}
	fprintf(out, "find: %s in %s of memory\n", format_items(report->count, "match", items),
		table_size(style, report->scan->bytes, size));
	if (!report->matches.size)
		return NULL;
	fputc('\n', out);
	table = records_table(&records, style);
	error = table_print(table, out);
	if (!error && left_out)
		fprintf(out, "and %" PRIu64 " more\n", left_out);
	return error;
}

struct error *find_report_write(struct command_context *context, const struct find_report *report)
{
	struct output output = { context, report };

	if (context->json)
		return write_json(context, report);
	return command_print(context, print_report, &output);
}
