#include "mallinfo_output.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/table.h"

/* More tids than this are counted instead of listed. */
#define THREADS_SHOWN 4

/* ---- JSON ---- */

static void add_figures(json_t *object, const struct heap_figures *figures)
{
	const struct {
		const char *key;
		uint64_t value;
	} rows[] = {
		{ "system", figures->system }, { "system_max", figures->system_max },
		{ "in_use", figures->in_use }, { "in_use_chunks", figures->in_use_chunks },
		{ "free", figures->free },     { "free_chunks", figures->free_chunks },
		{ "fast", figures->fast },     { "fast_chunks", figures->fast_chunks },
		{ "tcache", figures->tcache }, { "tcache_chunks", figures->tcache_chunks },
		{ "top", figures->top },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		json_object_set_new(object, rows[i].key, json_number(rows[i].value));
}

static json_t *json_threads(const struct arena_stats *arena)
{
	json_t *threads;

	if (!arena->threads_known)
		return json_null();
	threads = json_array();
	vec_for_each (tid, &arena->threads)
		json_array_append_new(threads, json_integer(*tid));
	return threads;
}

/* Copies of malloc in the process: dlmopen(), MALLOC_CHECK_, a static one in a plugin. */
static bool has_libcs(const struct heap_stats *stats)
{
	return stats->arenas.size && stats->arenas.data[stats->arenas.size - 1].libc != 0;
}

static json_t *json_arena(const struct arena_stats *arena, bool has_libcs)
{
	json_t *object = json_object();

	json_object_set_new(object, "index", json_integer(arena->index));
	json_object_set_new(object, "address",
			    arena->address ? json_address(arena->address) : json_null());
	json_object_set_new(object, "main", json_boolean(arena->is_main));
	add_figures(object, &arena->figures);
	json_object_set_new(object, "threads", json_threads(arena));
	if (has_libcs)
		json_object_set_new(object, "libc",
				    arena->module ? json_text(arena->module) : json_null());
	return object;
}

json_t *mallinfo_json(struct command_context *context, const char *method,
		      const struct heap_stats *stats, const struct heap_coverage *coverage,
		      const char *text)
{
	json_t *document = command_json(context), *arenas = json_array();
	json_t *mmapped = json_object(), *totals = json_object();
	struct heap_stats unknown;

	heap_stats_init(&unknown);
	if (!stats)
		stats = &unknown;
	json_object_set_new(document, "method", json_string(method));
	vec_for_each (arena, &stats->arenas)
		json_array_append_new(arenas, json_arena(arena, has_libcs(stats)));
	json_object_set_new(document, "arenas", arenas);
	json_object_set_new(mmapped, "count", json_number(stats->mmapped_count));
	json_object_set_new(mmapped, "bytes", json_number(stats->mmapped_bytes));
	json_object_set_new(document, "mmapped", mmapped);
	add_figures(totals, &stats->totals);
	vec_for_each (extra, &stats->extras)
		json_object_set_new(totals, extra->name, json_number(extra->value));
	json_object_set_new(document, "totals", totals);
	if (coverage)
		json_object_set_new(document, "coverage", heap_coverage_json(coverage));
	if (text)
		json_object_set_new(document, "text", json_text(text));
	return document;
}

/* ---- the table ---- */

struct output {
	const struct command_context *context;
	const struct heap_stats *stats;
	const char *allocator, *method;
	const struct heap_coverage *coverage; /* NULL: not known */
};

static void threads_cell(struct table *table, const struct arena_stats *arena)
{
	char text[THREADS_SHOWN * 12] = "-";
	size_t length = 0;

	if (arena->threads_known)
		text[0] = '0';

	if (arena->threads.size > THREADS_SHOWN) {
		table_cell(table, "%zu threads", arena->threads.size);
		return;
	}
	vec_for_each (tid, &arena->threads)
		length += snprintf(text + length, sizeof(text) - length, "%s%d", length ? " " : "",
				   (int)*tid);
	table_cell(table, "%s", text);
}

static void figure_cells(struct table *table, const struct heap_figures *figures)
{
	table_cell_size(table, figures->system);
	table_cell_size(table, figures->in_use);
	table_cell_size(table, figures->free);
	if (figures->free == STAT_UNKNOWN || figures->system == STAT_UNKNOWN)
		table_cell(table, "-");
	else if (!figures->system)
		table_cell(table, "0%%");
	else
		table_cell(table, "%.0f%%",
			   100.0 * (double)figures->free / (double)figures->system);
	table_cell_size(table, figures->fast);
	table_cell_size(table, figures->tcache);
	table_cell_size(table, figures->top);
}

/* Files of the same name are told apart by a number. */
static void libc_cell(struct table *table, const struct arena_stats *arena)
{
	const char *path = arena->module ? arena->module : "-", *name = strrchr(path, '/');

	if (arena->libc)
		table_cell(table, "%s (%u)", name ? name + 1 : path, arena->libc + 1);
	else
		table_cell_text(table, name ? name + 1 : path);
}

static struct error *print_arenas(FILE *out, const struct output *output)
{
	static const char *const headings[] = { "SYSTEM", "IN USE", "FREE", "FREE%",
						"FAST",	  "TCACHE", "TOP" };
	cleanup(table) struct table *table = table_create(command_style(output->context));

	if (!table)
		return &error_no_memory;
	table_column(table, "ARENA", TABLE_RIGHT);
	table_column(table, "ADDRESS", TABLE_LEFT);
	for (size_t i = 0; i < sizeof(headings) / sizeof(headings[0]); i++)
		table_column(table, headings[i], TABLE_RIGHT);
	table_column(table, "THREADS", TABLE_LEFT);
	if (has_libcs(output->stats))
		table_column(table, "MALLOC OF", TABLE_LEFT);
	vec_for_each (arena, &output->stats->arenas) {
		table_cell(table, "%u", arena->index);
		if (arena->address)
			table_cell(table, "0x%" PRIx64, arena->address);
		else
			table_cell(table, "-");
		figure_cells(table, &arena->figures);
		threads_cell(table, arena);
		if (has_libcs(output->stats))
			libc_cell(table, arena);
	}
	table_rule(table);
	table_cell(table, "total");
	table_cell(table, "%s", "");
	figure_cells(table, &output->stats->totals);
	table_cell(table, "%s", "");
	if (has_libcs(output->stats))
		table_cell(table, "%s", "");
	return table_print(table, out);
}

static struct error *print(FILE *out, void *data)
{
	const struct output *output = data;
	const struct heap_stats *stats = output->stats;
	char text[SIZE_TEXT_MAX];
	struct error *error;

	fprintf(out, "%s, %s\n\n", output->allocator,
		strcmp(output->method, "walk") ? "by its own functions" : "read from outside");
	error = print_arenas(out, output);
	if (error)
		return error;
	if (stats->mmapped_count != STAT_UNKNOWN)
		fprintf(out,
			"\nmapped block by block, beside the arenas: %" PRIu64 " block%s, %s\n",
			stats->mmapped_count, stats->mmapped_count == 1 ? "" : "s",
			format_size(stats->mmapped_bytes, text));
	if (output->coverage)
		heap_coverage_print(out, output->coverage);
	if (stats->extras.size)
		fputc('\n', out);
	vec_for_each (extra, &stats->extras)
		fprintf(out, "%s: %s\n", extra->name, format_size(extra->value, text));
	return NULL;
}

struct error *mallinfo_print(struct command_context *context, const char *method,
			     const struct heap_stats *stats, const struct heap_coverage *coverage,
			     const char *allocator)
{
	struct output output = { context, stats, allocator, method, coverage };

	return command_print(context, print, &output);
}
