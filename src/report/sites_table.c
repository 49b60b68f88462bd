#include "memprobe/sites_table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/table.h"

/* What a terminal's width has to leave for the names, whatever the figures take. */
#define NAMES_LEAST 40
#define GAP	    2 /* between two columns of a table */

struct layout {
	const struct profile *profile;
	const struct sites_table_options *options;
	struct table *table;
	int64_t total;
	size_t shown;
	size_t leaf_width, function_width, callers_width; /* 0: as they are */
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

	if (is_bytes(layout->profile, column) && !layout->options->style.bytes)
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

/* One that may be left out on a narrow terminal. */
static void add_figure(const struct layout *layout, const char *heading, unsigned rank)
{
	table_column(layout->table, heading, TABLE_RIGHT);
	table_column_fit(layout->table, TABLE_KEEP, rank);
}

static void put_figure_headings(const struct layout *layout)
{
	const struct profile *profile = layout->profile;
	enum profile_column weight = profile->weight;

	table_column(layout->table, is_bytes(profile, weight) ? "BYTES" : "VALUE", TABLE_RIGHT);
	table_column(layout->table, "%", TABLE_RIGHT);
	if (profile_has(profile, profile_weight_count(profile)))
		add_figure(layout, "COUNT", 2);
	if (layout->rate)
		add_figure(layout, "PER S", 3);
	for (size_t i = 0; i < MORE; i++)
		if (is_shown(profile, more[i].column))
			add_figure(layout, more[i].heading, 1);
}

static void put_headings(const struct layout *layout)
{
	put_figure_headings(layout);
	if (layout->options->leaf)
		table_column(layout->table, layout->options->leaf, TABLE_LEFT);
	table_column(layout->table, "FUNCTION", TABLE_LEFT);
	table_column(layout->table, "CALLED BY", TABLE_LEFT);
}

static struct error *put_function(const struct layout *layout, const struct profile_frame *frame,
				  size_t width)
{
	char buffer[PROFILE_NAME_MAX];
	const char *name = profile_frame_name(frame, buffer);
	cleanup(free) char *fitting = NULL;

	if (!width) {
		table_cell_text(layout->table, name);
		return NULL;
	}
	fitting = function_name_fit(name, width);
	if (!fitting)
		return &error_no_memory;
	table_cell_text(layout->table, fitting);
	return NULL;
}

#define BETWEEN	 " < "
#define LEFT_OUT "..."

/* Of the first, who matters most, there is at least a part. */
#define FIRST_LEAST 12

static void put_last_caller(const char *name, size_t used, size_t others, size_t width, FILE *out)
{
	size_t tail = others ? strlen(BETWEEN LEFT_OUT) : 0;
	cleanup(free) char *fitting = NULL;

	if (!used && width >= tail + FIRST_LEAST)
		fitting = function_name_fit(name, width - tail);
	if (fitting)
		fprintf(out, "%s%s", fitting, others ? BETWEEN LEFT_OUT : "");
	else
		fputs(used ? BETWEEN LEFT_OUT : LEFT_OUT, out);
}

/* From the one who called to the root, as far as @width goes; 0: all. The caller frees it. */
static struct error *name_callers(const struct profile *profile, const uint32_t *frames,
				  size_t depth, bool briefly, size_t width, char **ret)
{
	size_t size, used = 0, between = strlen(BETWEEN);
	char *text = NULL;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return &error_no_memory;
	for (size_t i = depth; i-- > 0;) {
		const struct profile_frame *frame = &profile->frames.data[frames[i]];
		char buffer[PROFILE_NAME_MAX];
		const char *name = profile_frame_name(frame, buffer);
		cleanup(free) char *brief = briefly ? function_name_fit(name, 0) : strdup(name);
		size_t needed = used + (used ? between : 0) + (brief ? strlen(brief) : 0);

		/* Of all but the last there has to be room to say that others follow. */
		if (width && needed + (i ? between + strlen(LEFT_OUT) : 0) > width) {
			put_last_caller(name, used, i, width, out);
			break;
		}
		fprintf(out, "%s%s", used ? BETWEEN : "", brief ? brief : "");
		used = needed;
	}
	if (fclose(out)) {
		free(text);
		return &error_no_memory;
	}
	*ret = text;
	return NULL;
}

static struct error *put_callers(const struct layout *layout, const uint32_t *frames, size_t depth)
{
	cleanup(free) char *text = NULL;
	struct error *error =
		name_callers(layout->profile, frames, depth, layout->options->style.width,
			     layout->callers_width, &text);

	if (!error)
		table_cell_text(layout->table, text);
	return error;
}

static struct error *put_site(const struct layout *layout, const struct profile_site *site)
{
	size_t depth, at;
	const uint32_t *frames = profile_stack_frames(layout->profile, site->stack, &depth);
	struct error *error;

	put_figures(layout, site->values);
	if (layout->options->leaf) {
		error = depth ? put_function(layout, &layout->profile->frames.data[frames[--depth]],
					     layout->leaf_width)
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
	error = put_function(layout, &layout->profile->frames.data[frames[at]],
			     layout->function_width);
	return error ? error : put_callers(layout, frames, at);
}

static void put_total_figures(const struct layout *layout)
{
	int64_t totals[PROFILE_COLUMNS];

	for (size_t i = 0; i < PROFILE_COLUMNS; i++)
		totals[i] = profile_total(layout->profile, i);
	put_figures(layout, totals);
}

static void put_totals(const struct layout *layout)
{
	table_rule(layout->table);
	put_total_figures(layout);
	table_cell_text(layout->table, "total");
	if (layout->options->leaf)
		table_cell_text(layout->table, "");
	table_cell_text(layout->table, "");
}

/* ---- how wide the names may be ---- */

static void widen(size_t *width, size_t needed)
{
	if (needed > *width)
		*width = needed;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* The widths that the names have by themselves. */
static struct error *measure_names(const struct layout *layout, size_t *leaf_ret,
				   size_t *function_ret, size_t *callers_ret)
{
	const struct profile *profile = layout->profile;
	char buffer[PROFILE_NAME_MAX];

	for (size_t i = 0; i < layout->shown; i++) {
		cleanup(free) char *callers = NULL;
		size_t depth, at;
		const uint32_t *frames =
			profile_stack_frames(profile, profile->sites.data[i].stack, &depth);
		struct error *error;

		if (depth && layout->options->leaf) {
			const struct profile_frame *leaf = &profile->frames.data[frames[--depth]];

			widen(leaf_ret, strlen(profile_frame_name(leaf, buffer)));
		}
		if (!depth)
			continue;
		at = site_frame_of_interest(profile, frames, depth);
		widen(function_ret,
		      strlen(profile_frame_name(&profile->frames.data[frames[at]], buffer)));
		error = name_callers(profile, frames, at, layout->options->style.width,
				     layout->options->style.width, &callers);
		if (error)
			return error;
		widen(callers_ret, strlen(callers));
	}
	return NULL;
}

/* The figures take what they take. */
static struct error *measure_figures(const struct layout *layout, size_t *ret)
{
	cleanup(table) struct table *table = table_create(layout->options->style);
	struct layout figures = *layout;

	if (!table)
		return &error_no_memory;
	figures.table = table;
	put_figure_headings(&figures);
	for (size_t i = 0; i < layout->shown; i++)
		put_figures(&figures, layout->profile->sites.data[i].values);
	put_total_figures(&figures);
	*ret = table_width(table);
	return NULL;
}

/* No column gets more than it needs; of two that need more than there is each gets half. */
static struct error *fit_names(struct layout *layout)
{
	size_t figures = 0, leaf = 0, function = strlen("FUNCTION"), callers = strlen("CALLED BY"),
	       room;
	struct error *error = measure_figures(layout, &figures);

	if (layout->options->leaf)
		leaf = strlen(layout->options->leaf);
	if (!error)
		error = measure_names(layout, &leaf, &function, &callers);
	if (error)
		return error;
	figures += 2 * GAP + (leaf ? GAP : 0);
	room = layout->options->style.width > figures + NAMES_LEAST
		       ? layout->options->style.width - figures
		       : NAMES_LEAST;
	layout->leaf_width = least(leaf, room / 3);
	room -= layout->leaf_width;
	layout->callers_width = least(callers, room - least(function, room / 2));
	layout->function_width = least(function, room - layout->callers_width);
	return NULL;
}

struct error *site_text(const struct profile *profile, const uint32_t *frames, size_t depth,
			size_t width, char **ret)
{
	size_t most = depth ? site_frame_of_interest(profile, frames, depth) + 1 : 0;

	return name_callers(profile, frames, most, width, width, ret);
}

static struct error *print_sites(const struct profile *profile,
				 const struct sites_table_options *options, FILE *out)
{
	cleanup(table) struct table *table = table_create(options->style);
	struct layout layout = {
		.profile = profile,
		.options = options,
		.table = table,
		.total = profile_total(profile, profile->weight),
		.shown = profile->sites.size,
		.rate = profile->duration_us != 0,
	};
	struct error *error = NULL;

	if (!table)
		return &error_no_memory;
	if (options->top && options->top < layout.shown)
		layout.shown = options->top;
	put_headings(&layout);
	if (options->style.width)
		error = fit_names(&layout);
	for (size_t i = 0; i < layout.shown && !error; i++)
		error = put_site(&layout, &profile->sites.data[i]);
	if (error)
		return error;
	put_totals(&layout);
	error = table_print(table, out);
	if (!error && layout.shown < profile->sites.size)
		fprintf(out, "and %zu more site%s\n", profile->sites.size - layout.shown,
			profile->sites.size - layout.shown == 1 ? "" : "s");
	return error;
}

struct error *sites_table_print(const struct profile *profile,
				const struct sites_table_options *options, FILE *out)
{
	cleanup(profile) struct profile *by_site = NULL;
	/* Rows that would look the same are one. */
	struct error *error = profile_by_site(profile, options->leaf != NULL, &by_site);

	return error ? error : print_sites(by_site, options, out);
}
