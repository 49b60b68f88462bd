#include "memprobe/cmd.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "memprobe/classify.h"
#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/maps_view.h"
#include "memprobe/num.h"
#include "memprobe/permit.h"
#include "memprobe/stack_use.h"

#define SIZES_SHOWN   20
#define CHANGES_SHOWN 40

static const struct command_option options[] = {
	{ "by-type", 0, NULL, "one row for each type of mapping" },
	{ "by-size", 0, NULL, "the largest first, and how many are of one size" },
	{ "by-file", 0, NULL, "one row for each mapped file" },
	{ "every", 0, "TIME", "look again every TIME and show what changed" },
	{ "count", 0, "N", "with --every: look N times" },
	{ "no-usage", 0, NULL, "addresses and sizes only; much faster" },
	{ NULL, 0, NULL, NULL },
};

struct maps_run {
	struct command_context *context;
	struct mapping_vec maps;
	bool usage;
	uint64_t every_us; /* 0: look once */
	uint64_t count;	   /* 0: no limit */
};

static struct error *read_mappings(struct maps_run *run, struct mapping_vec *ret)
{
	struct target *target = run->context->target;
	struct error *error =
		target_read_classified(target, run->usage ? MAPS_USAGE : MAPS_PLAIN, ret);
	struct permit_facts facts;

	if (error || ret->size || !target->process)
		return error;
	/* An empty file: of a kernel thread, a zombie, or who is just exiting. */
	error = permit_collect(target->process, &facts);
	if (!error)
		error = permit_error(&facts, PERMIT_MAPS, 0);
	return error ? error : error_create(ERROR_FAILED, "%s has no mappings", target->name);
}

static int compare_sizes(const void *left, const void *right)
{
	const struct mapping *a = *(const struct mapping *const *)left;
	const struct mapping *b = *(const struct mapping *const *)right;
	uint64_t size_a = a->end - a->start, size_b = b->end - b->start;

	if (size_a != size_b)
		return size_a > size_b ? -1 : 1;
	return a->start < b->start ? -1 : a->start > b->start;
}

static struct error *order_mappings(const struct mapping_vec *maps, bool by_size,
				    const struct mapping ***ret)
{
	const struct mapping **order = calloc(maps->size + 1, sizeof(*order));

	if (!order)
		return &error_no_memory;
	for (size_t i = 0; i < maps->size; i++)
		order[i] = &maps->data[i];
	if (by_size)
		qsort(order, maps->size, sizeof(*order), compare_sizes);
	*ret = order;
	return NULL;
}

/* ---- one look ---- */

typedef struct error *grouping(const struct mapping_vec *maps, struct map_group_vec *ret);

static struct error *print_groups(const struct maps_view *view, const struct mapping_vec *maps,
				  grouping *group, const char *heading, FILE *out)
{
	struct map_group_vec groups = { 0 };
	struct map_sum total = maps_total(maps);
	struct error *error = group(maps, &groups);

	if (!error && heading)
		error = maps_view_groups(view, heading, &groups, &total, out);
	else if (!error)
		error = maps_view_sizes(view, &groups, SIZES_SHOWN, out);
	map_group_vec_deinit(&groups);
	return error;
}

static void print_answer(const struct maps_view *view, const struct mapping_vec *maps, FILE *out)
{
	struct map_sum total = maps_total(maps);
	char items[ITEMS_TEXT_MAX], size[TABLE_SIZE_MAX];

	fprintf(out, "maps: %s in %s", table_size(view->style, total.size, size),
		format_items(total.count, "mapping", items));
	if (view->usage)
		fprintf(out, ", %s resident", table_size(view->style, total.rss, size));
	if (view->usage && total.swap)
		fprintf(out, ", %s in swap", table_size(view->style, total.swap, size));
	fputs("\n\n", out);
}

static struct error *print_table(FILE *out, void *data)
{
	struct maps_run *run = data;
	bool by_size = command_option(run->context, "by-size");
	struct maps_view view = { command_style(run->context), run->usage };
	cleanup(free) const struct mapping **order = NULL;
	struct error *error;

	print_answer(&view, &run->maps, out);
	if (command_option(run->context, "by-type"))
		return print_groups(&view, &run->maps, maps_by_type, "TYPE", out);
	if (command_option(run->context, "by-file"))
		return print_groups(&view, &run->maps, maps_by_file, "FILE", out);
	if (by_size) {
		error = print_groups(&view, &run->maps, maps_by_size, NULL, out);
		if (error)
			return error;
		fputc('\n', out);
	}
	error = order_mappings(&run->maps, by_size, &order);
	return error ? error : maps_view_mappings(&view, &run->maps, order, out);
}

static struct error *set_groups(json_t *document, const char *name, const char *key,
				const struct mapping_vec *maps, grouping *group, bool usage)
{
	struct map_group_vec groups = { 0 };
	struct error *error = group(maps, &groups);

	if (!error)
		json_object_set_new(document, name, maps_json_groups(&groups, key, usage));
	map_group_vec_deinit(&groups);
	return error;
}

static struct error *make_document(struct maps_run *run, const struct mapping_vec *maps,
				   json_t **ret)
{
	struct command_context *context = run->context;
	json_t *document = command_json(context);
	cleanup(free) const struct mapping **order = NULL;
	struct map_sum total = maps_total(maps);
	struct error *error = order_mappings(maps, command_option(context, "by-size"), &order);

	if (!error)
		json_object_set_new(document, "mappings",
				    maps_json_mappings(maps, order, run->usage));
	if (!error)
		error = set_groups(document, "types", "type", maps, maps_by_type, run->usage);
	if (!error && command_option(context, "by-file"))
		error = set_groups(document, "files", "path", maps, maps_by_file, run->usage);
	if (!error && command_option(context, "by-size"))
		error = set_groups(document, "sizes", "type", maps, maps_by_size, run->usage);
	json_object_set_new(document, "totals", maps_json_sum(&total, run->usage));
	if (error)
		json_decref(document);
	else
		*ret = document;
	return error;
}

/* Story: virtual memory used up by stacks that reserve much and use little. */
static void remark_on_stacks(const struct maps_run *run)
{
	uint64_t stacks = 0, space = stack_use_space_32(&run->maps);

	vec_for_each (mapping, &run->maps)
		if (mapping->type == MAPPING_THREAD_STACK)
			stacks += mapping->end - mapping->start;
	if (run->context->target->arch->bits == 32 && stacks > space / 4)
		command_hint(run->context,
			     "`memprobe threads %s` shows how much of their stacks, %d %% of the "
			     "address space, threads use",
			     run->context->target_text, (int)(stacks * 100 / space));
}

static struct error *show_once(struct maps_run *run)
{
	json_t *document = NULL;
	struct error *error = read_mappings(run, &run->maps);

	if (error)
		return error;
	if (run->context->json) {
		error = make_document(run, &run->maps, &document);
		return error ? error : command_write_json(run->context, document);
	}
	error = command_print(run->context, print_table, run);
	if (!error)
		remark_on_stacks(run);
	return error;
}

/* ---- again and again ---- */

static double seconds_now(void)
{
	return (double)(clock_real_us() / 1000) / 1e3;
}

/* Local, to be held against a log. */
static void print_time(FILE *out)
{
	time_t now = time(NULL);
	char text[32] = "?";
	struct tm local;

	if (localtime_r(&now, &local))
		strftime(text, sizeof(text), "%F %T", &local);
	fputs(text, out);
}

static struct error *print_changes(struct maps_run *run, FILE *out, const struct mapping_vec *now)
{
	struct maps_view view = { command_style(run->context), run->usage };
	char items[ITEMS_TEXT_MAX];
	struct map_change_vec changes = { 0 };
	json_t *document = NULL;
	struct error *error = maps_compare(&run->maps, now, &changes);

	if (!error && !run->context->json) {
		print_time(out);
		fprintf(out, "  %s\n",
			changes.size ? format_items(changes.size, "change", items) : "no change");
		if (changes.size) {
			error = maps_view_changes(&view, &changes, CHANGES_SHOWN, out);
			fputc('\n', out);
		}
	} else if (!error) {
		error = make_document(run, now, &document);
		if (!error) {
			json_object_set_new(document, "time", json_real(seconds_now()));
			json_object_set_new(document, "changes",
					    maps_json_changes(&changes, run->usage));
			json_dumpf(document, out, JSON_COMPACT);
			fputc('\n', out);
			json_decref(document);
		}
	}
	map_change_vec_deinit(&changes);
	if (!error && (fflush(out) || ferror(out)))
		error = error_errno(ERROR_FAILED, errno, "cannot write the changes");
	return error;
}

/* The target's end also ends the recording; that is no failure. */
static bool has_ended(const struct maps_run *run)
{
	struct process_status status;
	struct error *error = process_read_status(run->context->target->process, 0, &status);

	error_destroy(error);
	return error || status.state == 'Z' || status.state == 'X';
}

static struct error *print_every(FILE *out, void *data)
{
	struct maps_run *run = data;
	uint64_t next_us = clock_us();
	struct error *error = NULL;

	for (uint64_t i = 0; !error && (!run->count || i < run->count); i++) {
		struct mapping_vec now = { 0 };

		next_us += run->every_us;
		if (!command_sleep_until(next_us))
			break;
		error = read_mappings(run, &now);
		if (!error)
			error = print_changes(run, out, &now);
		mappings_deinit(&run->maps);
		run->maps = now;
	}
	if (error && error != &error_no_memory && has_ended(run)) {
		log_warn("the target has ended: the figures are of the time before");
		error_destroy(error);
		error = NULL;
	}
	return error;
}

static struct error *parse_every(struct maps_run *run)
{
	const char *every = command_option(run->context, "every");
	const char *count = command_option(run->context, "count");
	struct error *error = every ? parse_time(every, &run->every_us) : NULL;

	if (!error && count)
		error = parse_u64(count, &run->count);
	if (error)
		return error;
	if (every && !run->every_us)
		return error_create(ERROR_USAGE, "--every takes a time above 0");
	if (every &&
	    (command_option(run->context, "by-type") || command_option(run->context, "by-size") ||
	     command_option(run->context, "by-file")))
		return error_create(ERROR_USAGE,
				    "--every follows single mappings: it goes with no --by-...");
	if (count && !every)
		return error_create(ERROR_USAGE, "--count needs --every");
	if (count && !run->count)
		return error_create(ERROR_USAGE, "--count takes a number above 0");
	if (every && !run->context->target->process)
		return error_create(ERROR_UNSUPPORTED, "%s does not change any more",
				    run->context->target_text);
	return NULL;
}

static struct error *run_maps(struct command_context *context)
{
	struct maps_run run = { .context = context, .usage = !command_option(context, "no-usage") };
	int groupings = !!command_option(context, "by-type") +
			!!command_option(context, "by-size") + !!command_option(context, "by-file");
	struct error *error = parse_every(&run);

	if (!error && groupings > 1)
		error = error_create(ERROR_USAGE, "--by-type, --by-size and --by-file exclude "
						  "each other");
	if (!error && !run.every_us)
		error = show_once(&run);
	if (!error && run.every_us) {
		error = read_mappings(&run, &run.maps);
		if (!error)
			error = command_print(context, print_every, &run);
	}
	mappings_deinit(&run.maps);
	return error;
}

const struct command cmd_maps = {
	.name = "maps",
	.arguments = "",
	.summary = "what the address space is made of: size, RSS, PSS, dirty, swap per mapping",
	.target = TARGET_ANY,
	.options = options,
	.records = RECORDS_WITH_EVERY,
	.run = run_maps,
};
