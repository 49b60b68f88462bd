#include "memprobe/cmd.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"
#include "profile_input.h"
#include "profile_output.h"

#define WIDTH_MOST 100000

static const struct command_option options[] = {
	{ "title", 0, "TEXT", "above the graph" },
	{ "subtitle", 0, "TEXT", "below the title" },
	{ "color", 0, "mem|hot|io|...", "the colours: a palette of flamegraph.pl, diff, or reach" },
	{ "countname", 0, "NAME", "what the numbers count (default samples; bytes for mem, JSON)" },
	{ "reverse", 0, NULL, "merge from the leaf: who calls this function, in all?" },
	{ "inverted", 0, NULL, "the root on top" },
	{ "diff", 0, "FILE", "colour by growth against this older input" },
	{ "width", 0, "PIXELS", "of the graph (default 1200, and the window's in a browser)" },
	{ "min-width", 0, "PIXELS", "leave out frames narrower than this (default 0.1)" },
	PROFILE_OUTPUT_OPTIONS,
	{ NULL, 0, NULL, NULL },
};

/* ---- options ---- */

/* What --color means to the other commands: of a table here. */
static bool is_of_terminal(const char *color)
{
	return !strcmp(color, "always") || !strcmp(color, "never");
}

static struct error *parse_color(const char *text, enum flame_color *ret)
{
	static const struct {
		const char *name;
		enum flame_color color;
	} colors[] = {
		/* As flamegraph.pl has them; those of languages tell by suffixes that perf's
		 * scripts add, which memprobe's frames do not have. */
		{ "mem", FLAME_COLOR_MEM },
		{ "hot", FLAME_COLOR_HOT },
		{ "io", FLAME_COLOR_IO },
		{ "red", FLAME_COLOR_RED },
		{ "green", FLAME_COLOR_GREEN },
		{ "blue", FLAME_COLOR_BLUE },
		{ "aqua", FLAME_COLOR_AQUA },
		{ "yellow", FLAME_COLOR_YELLOW },
		{ "purple", FLAME_COLOR_PURPLE },
		{ "orange", FLAME_COLOR_ORANGE },
		{ "wakeup", FLAME_COLOR_AQUA },
		{ "java", FLAME_COLOR_HOT },
		{ "js", FLAME_COLOR_HOT },
		{ "perl", FLAME_COLOR_HOT },
		/* Our own. */
		{ "diff", FLAME_COLOR_DIFF },
		{ "reach", FLAME_COLOR_REACH },
		{ "auto", FLAME_COLOR_AUTO },
	};

	for (size_t i = 0; i < sizeof(colors) / sizeof(colors[0]); i++) {
		if (!strcmp(colors[i].name, text)) {
			*ret = colors[i].color;
			return NULL;
		}
	}
	return error_create(
		ERROR_USAGE,
		"--color takes mem, hot, io, red, green, blue, aqua, yellow, purple, orange, "
		"wakeup, java, js, perl, diff or reach, not '%s'",
		text);
}

static struct error *parse_widths(struct command_context *context, struct profile_options *ret)
{
	const char *width = command_option(context, "width");
	const char *least = command_option(context, "min-width");
	uint64_t pixels = 0;
	struct error *error = width ? parse_u64(width, &pixels) : NULL;
	char *end;

	if (error)
		return error;
	if (width && (pixels == 0 || pixels > WIDTH_MOST))
		return error_create(ERROR_USAGE, "a width of %s pixels cannot be drawn", width);
	ret->width = (unsigned)pixels;
	if (!least)
		return NULL;
	ret->min_width = strtod(least, &end);
	if (end == least || *end || !(ret->min_width >= 0 && ret->min_width <= WIDTH_MOST))
		return error_create(ERROR_USAGE, "'%s' is not a width in pixels", least);
	return NULL;
}

static struct error *parse_options(struct command_context *context, struct profile_output *ret)
{
	const char *color = command_option(context, "color");
	struct profile_options *drawing = &ret->options;
	struct error *error = profile_output_choose(context, ret);

	if (!error && color && !is_of_terminal(color))
		error = parse_color(color, &drawing->color);
	if (!error)
		error = parse_widths(context, drawing);
	if (!error && color && is_of_terminal(color))
		context->color = !strcmp(color, "always");
	drawing->title = command_option(context, "title");
	drawing->subtitle = command_option(context, "subtitle");
	drawing->count_name = command_option(context, "countname");
	drawing->reverse = command_option(context, "reverse") != NULL;
	drawing->inverted = command_option(context, "inverted") != NULL;
	if (!error && !ret->format && !context->json && !ret->table &&
	    !command_style(context).width)
		ret->format = profile_format_by_name("svg");
	return error;
}

/* ---- running ---- */

/* Text tells nothing of its numbers: the options do. */
static struct error *name_values(struct profile *profile, const struct profile_options *drawing)
{
	const char *name = drawing->count_name;

	if (!name && drawing->color == FLAME_COLOR_MEM && !profile_has(profile, PROFILE_COUNT))
		name = "bytes";
	return name ? profile_set_column(profile, PROFILE_BYTES,
					 strcmp(name, "bytes") ? name : "inuse_space", name)
		    : NULL;
}

/* By name: addresses differ from run to run. */
static struct error *compare(struct command_context *context, struct profile **profile,
			     const char *old_path)
{
	cleanup(profile) struct profile *old = NULL;
	cleanup(profile) struct profile *old_names = NULL;
	struct profile *names = NULL;
	struct error *error = profile_input_read(context, old_path, true, &old);

	if (!error)
		error = profile_by_name(old, &old_names);
	if (!error)
		error = profile_by_name(*profile, &names);
	if (error)
		return error;
	profile_destroy(*profile);
	*profile = names;
	return profile_compare(names, old_names);
}

/* What the weights count, in the singular. */
static const char *unit_of(const struct profile *profile)
{
	const char *unit = profile->columns[profile->weight].unit;

	return unit && !strcmp(unit, "bytes") ? "byte" : "sample";
}

static struct error *run(struct command_context *context)
{
	const char *path = context->arguments[0], *old_path = command_option(context, "diff");
	cleanup(profile) struct profile *profile = NULL;
	char items[2][ITEMS_TEXT_MAX], summary[2 * ITEMS_TEXT_MAX + 20];
	struct profile_output output;
	struct error *error = parse_options(context, &output);

	if (!error && old_path && !strcmp(path, "-") && !strcmp(old_path, "-"))
		error = error_create(ERROR_USAGE, "only one input can be standard input");
	if (!error && output.options.color == FLAME_COLOR_DIFF && !old_path)
		error = error_create(ERROR_USAGE, "--color=diff needs --diff FILE");
	if (!error)
		error = profile_input_read(context, path, false, &profile);
	if (!error)
		error = name_values(profile, &output.options);
	if (!error && old_path)
		error = compare(context, &profile, old_path);
	if (error)
		return error;
	profile_sort(profile);
	if (!output.format) {
		snprintf(summary, sizeof(summary), "flame: %s at %s",
			 format_items((uint64_t)profile_total(profile, profile->weight),
				      unit_of(profile), items[0]),
			 format_items(profile->sites.size, "site", items[1]));
		output.summary = summary;
	}
	return profile_output_write(context, &output, profile, NULL);
}

const struct command cmd_flame = {
	.name = "flame",
	.arguments = "IN",
	.summary = "stacks of a file as an interactive flame graph, or in another format",
	.notes =
		"IN (- is stdin) has folded stacks, pprof (Go, gperftools, jeprof), JSON of memprobe, or\n"
		"what perf script or stap's print_usyms() print; the format is detected automatically.\n",
	.target = TARGET_NONE,
	.options = options,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
