#include "memprobe/sites_table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/table.h"

/* What a terminal's width has to leave for the names, whatever the figures take. */
#define NAMES_LEAST 40
#define FIGURE	    10 /* columns that a figure's column takes, about */

struct layout {
	const struct profile *profile;
	const struct sites_table_options *options;
	struct table *table;
	int64_t total;
	size_t function_width, callers_width; /* 0: as they are */
	bool rate;
};

static bool is_bytes(const struct profile *profile, enum profile_column column)
{
	const char *unit = profile->columns[column].unit;

	return unit && !strcmp(unit, "bytes");
}

static void put_value(const struct layout *layout, enum profile_column column, int64_t value)
{
	char text[SIZE_TEXT_MAX];
	uint64_t size = value < 0 ? -(uint64_t)value : (uint64_t)value;

	if (layout->options->width && is_bytes(layout->profile, column))
		table_cell(layout->table, "%s%s", value < 0 ? "-" : "", format_size(size, text));
	else
		table_cell(layout->table, "%" PRId64, value);
}

/* Behind the weight, its count and its rate. */
static const struct {
	enum profile_column column;
	const char *heading;
} more[] = {
	{ PROFILE_BYTES, "LIVE" },
	{ PROFILE_ALL_BYTES, "ALL" },
	{ PROFILE_UNREACHABLE_BYTES, "UNREACHABLE" },
	{ PROFILE_OLD_BYTES, "OLD" },
	{ PROFILE_NET_BYTES, "NET" },
};

#define MORE (sizeof(more) / sizeof(more[0]))

static bool is_shown(const struct profile *profile, enum profile_column column)
{
	return column != profile->weight && profile_has(profile, column);
}

/* The figures of a row, of a site or of all. */
static void put_figures(const struct layout *layout, const int64_t values[PROFILE_COLUMNS])
{
	enum profile_column weight = layout->profile->weight;
	enum profile_column count = profile_weight_count(layout->profile);
	int64_t bytes = values[weight];

	put_value(layout, weight, bytes);
	table_cell(layout->table, "%.1f%%",
		   layout->total ? 100.0 * (double)bytes / (double)layout->total : 0);
	if (profile_has(layout->profile, count))
		put_value(layout, count, values[count]);
	if (layout->rate)
		put_value(layout, weight,
			  (int64_t)((double)bytes / ((double)layout->profile->duration_us / 1e6)));
	for (size_t i = 0; i < MORE; i++)
		if (is_shown(layout->profile, more[i].column))
			put_value(layout, more[i].column, values[more[i].column]);
}

static size_t put_headings(const struct layout *layout)
{
	const struct profile *profile = layout->profile;
	enum profile_column weight = profile->weight;
	size_t count = 2;

	table_column(layout->table, is_bytes(profile, weight) ? "BYTES" : "VALUE", TABLE_RIGHT);
	table_column(layout->table, "%", TABLE_RIGHT);
	if (profile_has(profile, profile_weight_count(profile)))
		table_column(layout->table, "COUNT", TABLE_RIGHT), count++;
	if (layout->rate)
		table_column(layout->table, "PER S", TABLE_RIGHT), count++;
	for (size_t i = 0; i < MORE; i++)
		if (is_shown(profile, more[i].column))
			table_column(layout->table, more[i].heading, TABLE_RIGHT), count++;
	if (layout->options->leaf)
		table_column(layout->table, layout->options->leaf, TABLE_LEFT);
	table_column(layout->table, "FUNCTION", TABLE_LEFT);
	table_column(layout->table, "CALLED BY", TABLE_LEFT);
	return count;
}

static struct error *put_function(const struct layout *layout, const struct profile_frame *frame)
{
	char buffer[PROFILE_NAME_MAX];
	const char *name = profile_frame_name(frame, buffer);
	cleanup(free) char *fitting = NULL;

	if (!layout->function_width) {
		table_cell_text(layout->table, name);
		return NULL;
	}
	fitting = function_name_fit(name, layout->function_width);
	if (!fitting)
		return &error_no_memory;
	table_cell_text(layout->table, fitting);
	return NULL;
}

/* From the one who called to the root, as far as the width goes. */
static struct error *put_callers(const struct layout *layout, const uint32_t *frames, size_t depth)
{
	cleanup(free) char *text = NULL;
	size_t size, used = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return &error_no_memory;
	for (size_t i = depth; i-- > 0;) {
		const struct profile_frame *frame = &layout->profile->frames.data[frames[i]];
		char buffer[PROFILE_NAME_MAX];
		const char *name = profile_frame_name(frame, buffer);
		cleanup(free) char *brief =
			layout->callers_width ? function_name_fit(name, 0) : strdup(name);
		size_t length = brief ? strlen(brief) : 0;

		if (layout->callers_width && used + length + 3 > layout->callers_width) {
			fputs(used ? " < .." : "..", out);
			break;
		}
		fprintf(out, "%s%s", used ? " < " : "", brief ? brief : "");
		used += length + 3;
	}
	if (fclose(out))
		return &error_no_memory;
	table_cell_text(layout->table, text);
	return NULL;
}

static struct error *put_site(const struct layout *layout, const struct profile_site *site)
{
	size_t depth, at;
	const uint32_t *frames = profile_stack_frames(layout->profile, site->stack, &depth);
	struct error *error;

	put_figures(layout, site->values);
	if (layout->options->leaf) {
		error = depth ? put_function(layout, &layout->profile->frames.data[frames[--depth]])
			      : NULL;
		if (error)
			return error;
	}
	if (!depth) {
		table_cell_text(layout->table, "[no stack]");
		table_cell_text(layout->table, "");
		return NULL;
	}
	at = site_frame_of_interest(layout->profile, frames, depth);
	error = put_function(layout, &layout->profile->frames.data[frames[at]]);
	return error ? error : put_callers(layout, frames, at);
}

static void put_totals(const struct layout *layout)
{
	int64_t totals[PROFILE_COLUMNS];

	for (size_t i = 0; i < PROFILE_COLUMNS; i++)
		totals[i] = profile_total(layout->profile, i);
	table_rule(layout->table);
	put_figures(layout, totals);
	table_cell_text(layout->table, "total");
	if (layout->options->leaf)
		table_cell_text(layout->table, "");
	table_cell_text(layout->table, "");
}

struct error *sites_table_print(const struct profile *profile,
				const struct sites_table_options *options, FILE *out)
{
	cleanup(table) struct table *table = table_create();
	struct layout layout = {
		.profile = profile,
		.options = options,
		.table = table,
		.total = profile_total(profile, profile->weight),
		.rate = profile->duration_us != 0,
	};
	size_t figures, names, shown = profile->sites.size;
	struct error *error = NULL;

	if (!table)
		return &error_no_memory;
	if (options->top && options->top < shown)
		shown = options->top;
	figures = put_headings(&layout) * FIGURE;
	if (options->width) {
		names = options->width > figures + NAMES_LEAST ? options->width - figures
							       : NAMES_LEAST;
		layout.function_width = names / 2;
		layout.callers_width = names - names / 2;
	}
	for (size_t i = 0; i < shown && !error; i++)
		error = put_site(&layout, &profile->sites.data[i]);
	if (error)
		return error;
	put_totals(&layout);
	error = table_print(table, out, options->color);
	if (!error && shown < profile->sites.size)
		fprintf(out, "and %zu more site%s\n", profile->sites.size - shown,
			profile->sites.size - shown == 1 ? "" : "s");
	return error;
}
