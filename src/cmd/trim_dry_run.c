/* `memprobe trim --dry-run`. */
#include "trim_dry_run.h"

#include <inttypes.h>

#include "memprobe/num.h"
#include "memprobe/records.h"
#include "memprobe/trim_forecast.h"

struct output {
	const struct command_context *context;
	const struct heap *heap;
	const struct trim_forecast *forecast;
	uint64_t rss;
	bool rss_known;
};

struct arena_row {
	uint64_t index, address, released, top, top_kept, free, pinned, blocks, bytes;
	bool is_main;
};

static const struct record_column arena_columns[] = {
	RECORD(arena_row, index, "index", "ARENA", RECORD_NUMBER),
	RECORD(arena_row, address, "address", NULL, RECORD_ADDRESS),
	RECORD(arena_row, is_main, "main", NULL, RECORD_BOOL),
	RECORD(arena_row, released, "released", "RELEASED", RECORD_SIZE),
	RECORD(arena_row, top, "released_top", NULL, RECORD_SIZE),
	RECORD(arena_row, top_kept, "top_kept", NULL, RECORD_SIZE),
	RECORD(arena_row, free, "free", "FREE", RECORD_SIZE),
	RECORD(arena_row, pinned, "pinned", "KEPT", RECORD_SIZE),
	RECORD(arena_row, blocks, "pinning_blocks", "BY BLOCKS", RECORD_NUMBER),
	RECORD(arena_row, bytes, "pinning_bytes", "OF SIZE", RECORD_SIZE),
	RECORD(arena_row, top_kept, NULL, "TOP KEPT", RECORD_SIZE, .rank = 1),
	{ 0 },
};

struct arena_source {
	const struct output *output;
	struct arena_row row;
};

static const void *arena_row(void *data, size_t i)
{
	struct arena_source *source = data;
	const struct heap_arena *arena = &source->output->heap->arenas.data[i];
	const struct trim_arena *trim = &source->output->forecast->arenas.data[i];

	source->row = (struct arena_row){
		.index = i,
		.address = arena->address,
		.released = trim->inner + trim->top,
		.top = trim->top,
		.top_kept = trim->top_kept,
		.free = trim->free,
		.pinned = trim->pinned,
		.blocks = trim->pinning_blocks,
		.bytes = trim->pinning_bytes,
		.is_main = arena->is_main,
	};
	return &source->row;
}

static json_t *json_state(const void *data)
{
	const struct trim_pin *pin = data;

	return json_string(pin->state == HEAP_TCACHE ? "tcache" : "in use");
}

static void state_cell(struct table *table, const void *data)
{
	const struct trim_pin *pin = data;

	table_cell_text(table, pin->state == HEAP_TCACHE ? "tcache" : "in use");
}

static const struct record_column pin_columns[] = {
	RECORD(trim_pin, address, "address", "BLOCK", RECORD_ADDRESS),
	RECORD(trim_pin, size, "size", "SIZE", RECORD_SIZE),
	{ .key = "state", .kind = RECORD_OTHER, .json = json_state },
	RECORD(trim_pin, arena, "arena", "ARENA", RECORD_INT),
	RECORD(trim_pin, pins, "pins", "KEEPS", RECORD_SIZE),
	{ .heading = "STATE", .kind = RECORD_OTHER, .cell = state_cell },
	{ 0 },
};

static struct records arenas_of(struct arena_source *source)
{
	return (struct records){
		.columns = arena_columns,
		.count = source->output->forecast->arenas.size,
		.row = arena_row,
		.data = source,
	};
}

static struct records pins_of(const struct output *output)
{
	return (struct records){
		.columns = pin_columns,
		.rows = output->forecast->pins.data,
		.count = output->forecast->pins.size,
		.size = sizeof(*output->forecast->pins.data),
	};
}

static json_t *json(struct command_context *context, const struct output *output)
{
	const struct trim_forecast *forecast = output->forecast;
	struct arena_source source = { output, { 0 } };
	const struct records arenas = arenas_of(&source), pins = pins_of(output);
	json_t *document = command_json(context);
	uint64_t after = output->rss - min_u64(forecast->released, output->rss);

	json_object_set_new(document, "dry_run", json_true());
	json_object_set_new(document, "returned", json_null());
	json_object_set_new(document, "rss_before",
			    output->rss_known ? json_number(output->rss) : json_null());
	json_object_set_new(document, "rss_after",
			    output->rss_known ? json_number(after) : json_null());
	json_object_set_new(document, "released", json_number(forecast->released));
	json_object_set_new(document, "arenas", records_array(&arenas));
	json_object_set_new(document, "pinned_by", records_array(&pins));
	return document;
}

static struct error *print(FILE *out, void *data)
{
	const struct output *output = data;
	struct table_style style = command_style(output->context);
	struct arena_source source = { output, { 0 } };
	const struct records arenas = arenas_of(&source), pins = pins_of(output);
	cleanup(table) struct table *table = records_table(&arenas, style);
	cleanup(table) struct table *blocks = records_table(&pins, style);
	char text[TABLE_SIZE_MAX];
	struct error *error;

	fprintf(out, "trim: malloc_trim would give back %s\n\n",
		table_size(style, output->forecast->released, text));
	error = table_print(table, out);
	if (error || !pins.count)
		return error;
	fprintf(out, "\nblocks that prevent most of it\n\n");
	return table_print(blocks, out);
}

struct error *trim_dry_run(struct command_context *context, uint64_t pad, uint64_t rss,
			   bool rss_known)
{
	cleanup(heap) struct heap *heap = NULL;
	struct trim_forecast forecast = { 0 };
	struct output output = {
		.context = context,
		.forecast = &forecast,
		.rss = rss,
		.rss_known = rss_known,
	};
	struct error *error = heap_open(context->target, NULL, &heap);

	if (error)
		return error;
	if (!heap->ops->trim_is_foretold)
		return error_create(ERROR_UNSUPPORTED,
				    "what trim would give back cannot be foretold for %s",
				    heap->ops->title);
	command_warn_of_heap(context, heap);
	output.heap = heap;
	error = trim_forecast(heap, pad, &forecast);
	if (!error && context->json)
		error = command_write_json(context, json(context, &output));
	else if (!error)
		error = command_print(context, print, &output);
	trim_forecast_deinit(&forecast);
	return error;
}
