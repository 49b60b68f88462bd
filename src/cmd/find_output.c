#include "find_output.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/table.h"

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

json_t *command_json_missing(const struct scan_result *scan)
{
	json_t *array = json_array();

	vec_for_each (range, &scan->missing) {
		json_t *object = json_object();

		json_object_set_new(object, "start", json_address(range->start));
		json_object_set_new(object, "end", json_address(range->end));
		json_array_append_new(array, object);
	}
	return array;
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

/* ---- JSON ---- */

static json_t *json_match(const struct find_match *match)
{
	const struct mapping *mapping = match->mapping;
	cleanup(free) char *text = as_text(match);
	cleanup(free) char *hex = as_hex(match, false);
	json_t *object = json_object();

	json_object_set_new(object, "address", json_address(match->address));
	json_object_set_new(object, "size", json_number(match->size));
	json_object_set_new(object, "mapping",
			    mapping ? json_address(mapping->start) : json_null());
	json_object_set_new(object, "type",
			    mapping ? json_string(mapping_type_name(mapping->type)) : json_null());
	if (mapping && mapping->path[0])
		json_object_set_new(object, "path", json_text(mapping->path));
	if (mapping && mapping->label)
		json_object_set_new(object, "label", json_text(mapping->label));
	if (mapping && mapping->tid)
		json_object_set_new(object, "tid", json_integer(mapping->tid));
	if (match->in_chunk) {
		json_object_set_new(object, "chunk", json_address(match->chunk.address));
		json_object_set_new(object, "chunk_size", json_number(match->chunk.size));
		json_object_set_new(object, "state", json_string(state_name(match)));
	}
	if (match->object)
		json_object_set_new(object, "object", json_text(match->object));
	json_object_set_new(object, "context", text ? json_string(text) : NULL);
	json_object_set_new(object, "context_hex", hex ? json_string(hex) : NULL);
	json_object_set_new(object, "context_start", json_address(match->address - match->before));
	return object;
}

static struct error *write_json(struct command_context *context, const struct find_report *report)
{
	json_t *document = command_json(context), *matches = json_array();

	vec_for_each (match, &report->matches)
		json_array_append_new(matches, json_match(match));
	json_object_set_new(document, "count", json_number(report->count));
	json_object_set_new(document, "matches", matches);
	json_object_set_new(document, "matches_left_out",
			    json_number(report->count - report->matches.size));
	json_object_set_new(document, "searched", json_number(report->scan->bytes));
	json_object_set_new(document, "missing", command_json_missing(report->scan));
	return command_write_json(context, document);
}

/* ---- the table ---- */

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

static void chunk_cells(struct table *table, const struct find_match *match)
{
	if (!match->in_chunk) {
		for (unsigned i = 0; i < 3; i++)
			table_cell_text(table, "-");
		return;
	}
	if (match->address >= match->chunk.address)
		table_cell(table, "%" PRIx64 "+%" PRIu64, match->chunk.address,
			   match->address - match->chunk.address);
	else
		table_cell(table, "%" PRIx64, match->chunk.address);
	table_cell(table, "%" PRIu64, match->chunk.size);
	table_cell_text(table, state_name(match));
}

struct output {
	const struct command_context *context;
	const struct find_report *report;
};

static struct error *print_matches(FILE *out, const struct output *output)
{
	const struct find_report *report = output->report;
	cleanup(table) struct table *table = table_create(command_style(output->context));
	bool chunks = false, objects = false;

	if (!table)
		return &error_no_memory;
	vec_for_each (match, &report->matches) {
		chunks = chunks || match->in_chunk;
		objects = objects || match->object;
	}
	table_column(table, "ADDRESS", TABLE_LEFT);
	table_column(table, "TYPE", TABLE_LEFT);
	table_column(table, "MAPPING", TABLE_LEFT);
	if (chunks) {
		table_column(table, "CHUNK", TABLE_LEFT);
		table_column(table, "SIZE", TABLE_RIGHT);
		table_column(table, "STATE", TABLE_LEFT);
	}
	if (objects)
		table_column(table, "OBJECT", TABLE_LEFT);
	table_column(table, "CONTEXT", TABLE_LEFT);
	vec_for_each (match, &report->matches) {
		cleanup(free) char *text = report->as_bytes ? as_hex(match, true) : as_text(match);

		if (!text)
			return &error_no_memory;
		table_cell_hex(table, match->address);
		table_cell_text(table,
				match->mapping ? mapping_type_name(match->mapping->type) : "-");
		table_cell_text(table, mapping_name(match->mapping));
		if (chunks)
			chunk_cells(table, match);
		if (objects)
			table_cell_text(table, match->object ? match->object : "-");
		table_cell_text(table, text);
	}
	return table_print(table, out);
}

static struct error *print_report(FILE *out, void *data)
{
	const struct output *output = data;
	const struct find_report *report = output->report;
	uint64_t left_out = report->count - report->matches.size;
	char text[SIZE_TEXT_MAX];
	struct error *error = NULL;

	if (report->count_only) {
		fprintf(out, "%" PRIu64 "\n", report->count);
		return NULL;
	}
	fprintf(out, "%" PRIu64 " match%s in %s\n", report->count, report->count == 1 ? "" : "es",
		format_size(report->scan->bytes, text));
	if (report->matches.size) {
		fputc('\n', out);
		error = print_matches(out, output);
	}
	if (!error && report->matches.size && left_out)
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
