/* `memprobe trim --dry-run`. */
#include "trim_dry_run.h"

#include <inttypes.h>

#include "memprobe/num.h"
#include "memprobe/table.h"
#include "memprobe/trim_forecast.h"

struct output {
	const struct command_context *context;
	const struct heap *heap;
	const struct trim_forecast *forecast;
	uint64_t rss;
	bool rss_known;
};

static json_t *json_arena(const struct output *output, size_t index)
{
	const struct heap_arena *arena = &output->heap->arenas.data[index];
	const struct trim_arena *trim = &output->forecast->arenas.data[index];
	json_t *object = json_object();

	json_object_set_new(object, "index", json_number(index));
	json_object_set_new(object, "address", json_address(arena->address));
	json_object_set_new(object, "main", json_boolean(arena->is_main));
	json_object_set_new(object, "released", json_number(trim->inner + trim->top));
	json_object_set_new(object, "released_top", json_number(trim->top));
	json_object_set_new(object, "top_kept", json_number(trim->top_kept));
	json_object_set_new(object, "free", json_number(trim->free));
	json_object_set_new(object, "pinned", json_number(trim->pinned));
	json_object_set_new(object, "pinning_blocks", json_number(trim->pinning_blocks));
	json_object_set_new(object, "pinning_bytes", json_number(trim->pinning_bytes));
	return object;
}

static json_t *json_pin(const struct trim_pin *pin)
{
	json_t *object = json_object();

	json_object_set_new(object, "address", json_address(pin->address));
	json_object_set_new(object, "size", json_number(pin->size));
	json_object_set_new(object, "state",
			    json_string(pin->state == HEAP_TCACHE ? "tcache" : "in use"));
	json_object_set_new(object, "arena", json_number(pin->arena));
	json_object_set_new(object, "pins", json_number(pin->pins));
	return object;
}

static json_t *json(struct command_context *context, const struct output *output)
{
	const struct trim_forecast *forecast = output->forecast;
	json_t *document = command_json(context), *arenas = json_array(), *pins = json_array();
	uint64_t after = output->rss - min_u64(forecast->released, output->rss);

	for (size_t i = 0; i < forecast->arenas.size; i++)
		json_array_append_new(arenas, json_arena(output, i));
	vec_for_each (pin, &forecast->pins)
		json_array_append_new(pins, json_pin(pin));
	json_object_set_new(document, "dry_run", json_true());
	json_object_set_new(document, "returned", json_null());
	json_object_set_new(document, "rss_before",
			    output->rss_known ? json_number(output->rss) : json_null());
	json_object_set_new(document, "rss_after",
			    output->rss_known ? json_number(after) : json_null());
	json_object_set_new(document, "released", json_number(forecast->released));
	json_object_set_new(document, "arenas", arenas);
	json_object_set_new(document, "pinned_by", pins);
	return document;
}

static struct error *print_arenas(FILE *out, const struct output *output)
{
	static const char *const headings[] = { "RELEASED",  "FREE",	 "PINNED",
						"BY BLOCKS", "OF BYTES", "TOP KEPT" };
	cleanup(table) struct table *table = table_create(command_style(output->context));

	if (!table)
		return &error_no_memory;
	table_column(table, "ARENA", TABLE_RIGHT);
	for (size_t i = 0; i < sizeof(headings) / sizeof(headings[0]); i++)
		table_column(table, headings[i], TABLE_RIGHT);
	for (size_t i = 0; i < output->forecast->arenas.size; i++) {
		const struct trim_arena *arena = &output->forecast->arenas.data[i];

		table_cell(table, "%zu", i);
		table_cell_size(table, arena->inner + arena->top);
		table_cell_size(table, arena->free);
		table_cell_size(table, arena->pinned);
		table_cell(table, "%" PRIu64, arena->pinning_blocks);
		table_cell_size(table, arena->pinning_bytes);
		table_cell_size(table, arena->top_kept);
	}
	return table_print(table, out);
}

static struct error *print_pins(FILE *out, const struct output *output)
{
	cleanup(table) struct table *table = table_create(command_style(output->context));

	if (!table)
		return &error_no_memory;
	table_column(table, "BLOCK", TABLE_LEFT);
	table_column(table, "SIZE", TABLE_RIGHT);
	table_column(table, "ARENA", TABLE_RIGHT);
	table_column(table, "PINS", TABLE_RIGHT);
	table_column(table, "STATE", TABLE_LEFT);
	vec_for_each (pin, &output->forecast->pins) {
		table_cell(table, "0x%" PRIx64, pin->address);
		table_cell(table, "%" PRIu64, pin->size);
		table_cell(table, "%u", pin->arena);
		table_cell_size(table, pin->pins);
		table_cell(table, "%s", pin->state == HEAP_TCACHE ? "thread cache" : "in use");
	}
	return table_print(table, out);
}

static struct error *print(FILE *out, void *data)
{
	const struct output *output = data;
	char text[SIZE_TEXT_MAX];
	struct error *error;

	fprintf(out, "malloc_trim would give back %s\n\n",
		format_size(output->forecast->released, text));
	error = print_arenas(out, output);
	if (error || !output->forecast->pins.size)
		return error;
	fprintf(out, "\nblocks that keep most pages from coming back\n\n");
	return print_pins(out, output);
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
