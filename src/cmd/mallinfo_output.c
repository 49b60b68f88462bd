#include "mallinfo_output.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/records.h"

/* More tids than this are counted instead of listed. */
#define THREADS_SHOWN 4

/* clang-format off */
#define FIGURE_COLUMNS(row)                                                                       \
	RECORD(row, figures.system, "system", "SYSTEM", RECORD_SIZE),                             \
	RECORD(row, figures.system_max, "system_max", NULL, RECORD_SIZE),                         \
	RECORD(row, figures.in_use, "in_use", "IN USE", RECORD_SIZE),                             \
	RECORD(row, figures.in_use_chunks, "in_use_chunks", NULL, RECORD_NUMBER),                 \
	RECORD(row, figures.free, "free", "FREE", RECORD_SIZE),                                   \
	{ .heading = "FREE%", .kind = RECORD_OTHER, .cell = share_cell, .right = true, .rank = 1 }, \
	RECORD(row, figures.free_chunks, "free_chunks", NULL, RECORD_NUMBER),                     \
	RECORD(row, figures.fast, "fast", "FAST", RECORD_SIZE, .rank = 4),                        \
	RECORD(row, figures.fast_chunks, "fast_chunks", NULL, RECORD_NUMBER),                     \
	RECORD(row, figures.tcache, "tcache", "TCACHE", RECORD_SIZE, .rank = 2),                  \
	RECORD(row, figures.tcache_chunks, "tcache_chunks", NULL, RECORD_NUMBER),                 \
	RECORD(row, figures.top, "top", "TOP", RECORD_SIZE, .rank = 3)
/* clang-format on */

/* The libc column is there only where there are several. */
enum { PART_LIBC = 1, PART_ARENA = 2 };

static void share_cell(struct table *table, const void *data)
{
	const struct heap_figures *figures = &((const struct arena_stats *)data)->figures;

	if (figures->free == STAT_UNKNOWN || figures->system == STAT_UNKNOWN)
		table_cell_text(table, "-");
	else if (!figures->system)
		table_cell_text(table, "0%");
	else
		table_cell(table, "%.0f%%",
			   100.0 * (double)figures->free / (double)figures->system);
}

static json_t *json_threads(const void *data)
{
	const struct arena_stats *arena = data;
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

static void threads_cell(struct table *table, const void *data)
{
	const struct arena_stats *arena = data;
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

/* Files of the same name are told apart by a number. */
static void libc_cell(struct table *table, const void *data)
{
	const struct arena_stats *arena = data;
	const char *path = arena->module ? arena->module : "-", *name = strrchr(path, '/');

	if (arena->libc)
		table_cell(table, "%s (%u)", name ? name + 1 : path, arena->libc + 1);
	else
		table_cell_text(table, name ? name + 1 : path);
}

static json_t *json_arena_address(const void *data)
{
	const struct arena_stats *arena = data;

	return arena->address ? json_address(arena->address) : json_null();
}

static void address_cell(struct table *table, const void *data)
{
	const struct arena_stats *arena = data;

	if (arena->address)
		table_cell(table, "0x%" PRIx64, arena->address);
	else
		table_cell_text(table, "-");
}

static const struct record_column columns[] = {
	RECORD(arena_stats, index, "index", "ARENA", RECORD_INT, .part = PART_ARENA),
	RECORD(arena_stats, address, "address", "ADDRESS", RECORD_ADDRESS, .cell = address_cell,
	       .json = json_arena_address, .part = PART_ARENA, .rank = 5),
	RECORD(arena_stats, is_main, "main", NULL, RECORD_BOOL, .part = PART_ARENA),
	FIGURE_COLUMNS(arena_stats),
	{ .key = "threads",
	  .heading = "THREADS",
	  .kind = RECORD_OTHER,
	  .cell = threads_cell,
	  .json = json_threads,
	  .part = PART_ARENA },
	RECORD(arena_stats, module, "libc", "MALLOC OF", RECORD_TEXT, .cell = libc_cell,
	       .part = PART_LIBC),
	{ 0 },
};

static struct records records_of(const struct heap_stats *stats)
{
	return (struct records){
		.columns = columns,
		.without = has_libcs(stats) ? 0 : PART_LIBC,
		.rows = stats->arenas.data,
		.count = stats->arenas.size,
		.size = sizeof(*stats->arenas.data),
	};
}

json_t *mallinfo_json(struct command_context *context, const char *method,
		      const struct heap_stats *stats, const struct heap_coverage *coverage,
		      const char *text)
{
	json_t *document = command_json(context);
	json_t *mmapped = json_object(), *totals = json_object();
	struct heap_stats unknown;
	struct arena_stats total = { 0 };
	struct records records;

	heap_stats_init(&unknown);
	if (!stats)
		stats = &unknown;
	json_object_set_new(document, "method", json_string(method));
	records = records_of(stats);
	json_object_set_new(document, "arenas", records_array(&records));
	json_object_set_new(mmapped, "count", json_number(stats->mmapped_count));
	json_object_set_new(mmapped, "bytes", json_number(stats->mmapped_bytes));
	json_object_set_new(document, "mmapped", mmapped);
	total.figures = stats->totals;
	records_set(totals, columns, PART_ARENA | PART_LIBC, &total);
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

static struct error *print_arenas(FILE *out, const struct output *output)
{
	const struct records records = records_of(output->stats);
	const struct arena_stats total = { .figures = output->stats->totals };
	cleanup(table) struct table *table =
		records_table(&records, command_style(output->context));

	records_total(table, columns, records.without, &total);
	return table_print(table, out);
}

static void print_answer(FILE *out, const struct output *output)
{
	const struct heap_figures *totals = &output->stats->totals;
	struct table_style style = command_style(output->context);
	char text[TABLE_SIZE_MAX];

	fputs("mallinfo: ", out);
	if (totals->in_use != STAT_UNKNOWN)
		fprintf(out, "%s in use", table_size(style, totals->in_use, text));
	if (totals->in_use != STAT_UNKNOWN && totals->free != STAT_UNKNOWN)
		fputs(", ", out);
	if (totals->free != STAT_UNKNOWN)
		fprintf(out, "%s free", table_size(style, totals->free, text));
	if (totals->system != STAT_UNKNOWN)
		fprintf(out, " of %s", table_size(style, totals->system, text));
	fprintf(out, " (%s, %s)\n\n", output->allocator,
		strcmp(output->method, "walk") ? "by its own functions" : "read from outside");
}

static struct error *print(FILE *out, void *data)
{
	const struct output *output = data;
	const struct heap_stats *stats = output->stats;
	struct table_style style = command_style(output->context);
	char text[TABLE_SIZE_MAX], count[COUNT_TEXT_MAX];
	struct error *error;

	print_answer(out, output);
	error = print_arenas(out, output);
	if (error)
		return error;
	if (stats->mmapped_count != STAT_UNKNOWN)
		fprintf(out, "\nmmapped chunks: %s%s%s%s\n",
			format_count(stats->mmapped_count, count), stats->mmapped_count ? " (" : "",
			stats->mmapped_count ? table_size(style, stats->mmapped_bytes, text) : "",
			stats->mmapped_count ? ")" : "");
	if (output->coverage)
		heap_coverage_print(out, style, output->coverage);
	if (stats->extras.size)
		fputc('\n', out);
	vec_for_each (extra, &stats->extras)
		fprintf(out, "%s: %s\n", extra->name, table_size(style, extra->value, text));
	return NULL;
}

struct error *mallinfo_print(struct command_context *context, const char *method,
			     const struct heap_stats *stats, const struct heap_coverage *coverage,
			     const char *allocator)
{
	struct output output = { context, stats, allocator, method, coverage };

	return command_print(context, print, &output);
}
