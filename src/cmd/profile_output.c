#include "profile_output.h"

#include <string.h>
#include <unistd.h>

#include "memprobe/io.h"
#include "memprobe/num.h"
#include "memprobe/sites_json.h"
#include "memprobe/sites_table.h"

#define TOP_DEFAULT  20
#define TABLE_ENDING ".txt"

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), end_length = strlen(end);

	return length > end_length && !strcmp(text + length - end_length, end);
}

static struct error *choose_by_name(struct command_context *context, const char *name,
				    struct profile_output *ret)
{
	context->json = !strcmp(name, "json");
	ret->table = !strcmp(name, "table");
	if (context->json || ret->table)
		return NULL;
	ret->format = profile_format_by_name(name);
	if (!ret->format)
		return error_hint(error_create(ERROR_USAGE, "no format is called '%s'", name),
				  "there are table, json, folded, svg and pprof");
	return NULL;
}

/* An ending that says nothing, such as `.bogus`, is a slip: what it meant would not be written. */
static struct error *unknown_ending(const char *path)
{
	const char *base = strrchr(path, '/');
	const char *dot = strrchr(base ? base + 1 : path, '.');

	if (!dot || dot == path || dot[-1] == '/')
		return NULL;
	return error_create(ERROR_USAGE, "no format is known by the ending of %s", path);
}

static struct error *refuse_ending(const char *path)
{
	struct error *error = unknown_ending(path);
	char known[128] = "";
	size_t used = 0;

	for (const struct profile_format *const *format = profile_formats; *format; format++)
		if (used < sizeof(known))
			used += snprintf(known + used, sizeof(known) - used, ", %s",
					 (*format)->ending);
	return error ? error_hint(error,
				  "there are " TABLE_ENDING " (a table), .json%s; or use --format",
				  known)
		     : NULL;
}

static struct error *choose(struct command_context *context, struct profile_output *ret)
{
	const char *name = command_option(context, "format");
	const char *path = context->output_path;

	if (command_option(context, "folded")) {
		if (name && strcmp(name, "folded"))
			return error_create(ERROR_USAGE, "-f and --format=%s exclude each other",
					    name);
		name = "folded";
	}
	if (context->json) {
		if (name && strcmp(name, "json"))
			return error_create(ERROR_USAGE,
					    "--json and --format=%s exclude each other", name);
		return NULL;
	}
	if (name)
		return choose_by_name(context, name, ret);
	if (command_prints_to_stdout(context))
		return NULL;
	context->json = ends_with(path, ".json");
	ret->format = profile_format_by_ending(path);
	ret->table = ends_with(path, TABLE_ENDING);
	return context->json || ret->format || ret->table ? NULL : refuse_ending(path);
}

struct error *profile_output_choose(struct command_context *context, struct profile_output *ret)
{
	const char *top = command_option(context, "top");
	struct error *error;

	*ret = (struct profile_output){ .options.min_width = -1, .top = TOP_DEFAULT };
	if (top) {
		error = parse_u64(top, &ret->top);
		if (error)
			return error;
	}
	error = choose(context, ret);
	if (!error && ret->format && ret->format->binary && command_prints_to_stdout(context) &&
	    isatty(STDOUT_FILENO))
		return error_hint(
			error_create(ERROR_USAGE, "%s is not for a terminal", ret->format->name),
			"add -o FILE%s", ret->format->ending);
	/* What took an hour to record must not be lost for a slip in a path. */
	if (!error && context->output_path)
		error = output_check(context->output_path);
	return error;
}

struct print {
	const struct command_context *context;
	const struct profile_output *output;
	const struct profile *profile;
};

static struct error *print_profile(FILE *out, void *data)
{
	const struct print *print = data;
	struct sites_table_options table = {
		.leaf = print->output->leaf,
		.top = print->output->top,
		.style = command_style(print->context),
	};

	if (print->output->format)
		return profile_write(print->profile, print->output->format, &print->output->options,
				     out);
	if (print->output->summary)
		fprintf(out, "%s\n\n", print->output->summary);
	return sites_table_print(print->profile, &table, out);
}

struct error *profile_output_write(struct command_context *context,
				   const struct profile_output *output,
				   const struct profile *profile, json_t *document)
{
	struct print print = { context, output, profile };
	cleanup(profile) struct profile *by_name = NULL;
	struct error *error = NULL;

	/* Tables and JSON show names only. */
	if (!output->format)
		error = profile_by_name(profile, &by_name);
	if (by_name)
		print.profile = by_name;
	if (!error && !context->json) {
		json_decref(document);
		error = command_print(context, print_profile, &print);
		if (!error && output->format && output->summary)
			command_note(context, "%s", output->summary);
		return error;
	}
	if (!error && !document)
		document = command_json(context);
	if (!error)
		error = document ? sites_json_add(document, print.profile, output->recorded)
				 : &error_no_memory;
	if (!error)
		return command_write_json(context, document);
	json_decref(document);
	return error;
}
