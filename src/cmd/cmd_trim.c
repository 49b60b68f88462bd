#include "memprobe/cmd.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/allocator_calls.h"
#include "memprobe/io.h"
#include "memprobe/num.h"
#include "trim_dry_run.h"

static const struct command_option options[] = {
	{ "pad", 0, "SIZE", "free bytes to leave at the top of the heap (glibc; default 0)" },
	{ "dry-run", 0, NULL, "what would come back; changes nothing" },
	{ NULL, 0, NULL, NULL },
};

struct trim {
	struct table_style style;
	bool has_returned;
	int64_t returned;
	uint64_t rss_before, rss_after;
};

/*
 * Resident bytes. From smaps_rollup, which counts pages; status and statm lag behind by up to 64
 * pages a thread (kernel before 6.2, split RSS counters).
 */
static struct error *read_rss(struct target *target, uint64_t *ret)
{
	struct process_status status;
	cleanup(free) char *text = NULL;
	const char *line;
	size_t size;
	cleanup(close) int fd = target_open_proc(target, "smaps_rollup");
	struct error *error = fd < 0 ? NULL : read_fd(fd, "smaps_rollup", &text, &size);

	line = error || !text ? NULL : strstr(text, "\nRss:");
	error_destroy(error);
	if (line) {
		*ret = strtoull(line + sizeof("\nRss:") - 1, NULL, 10) * 1024;
		return NULL;
	}
	error = process_read_status(target->process, 0, &status);
	if (!error)
		*ret = status.vm_rss;
	return error;
}

static struct error *print(FILE *out, void *data)
{
	const struct trim *trim = data;
	uint64_t before = trim->rss_before, after = trim->rss_after;
	char text[3][TABLE_SIZE_MAX];

	fprintf(out, "trim: %s %s; RSS %s before, %s after\n",
		table_size(trim->style, after > before ? after - before : before - after, text[0]),
		after > before ? "grown" : "released", table_size(trim->style, before, text[1]),
		table_size(trim->style, after, text[2]));
	return NULL;
}

static json_t *json(struct command_context *context, const struct trim *trim)
{
	json_t *document = command_json(context);

	json_object_set_new(document, "returned",
			    trim->has_returned ? json_integer(trim->returned) : json_null());
	json_object_set_new(document, "rss_before", json_number(trim->rss_before));
	json_object_set_new(document, "rss_after", json_number(trim->rss_after));
	json_object_set_new(
		document, "released",
		json_integer((json_int_t)trim->rss_before - (json_int_t)trim->rss_after));
	return document;
}

static struct error *do_trim(struct command_context *context, const struct allocator *allocator,
			     uint64_t pad, struct trim *trim)
{
	cleanup(call) struct call_session *session = NULL;
	struct allocator_caller caller = { .target = context->target, .allocator = *allocator };
	struct error *error = command_open_call(context, &session);

	if (error)
		return error;
	caller.session = session;
	trim->returned = INT64_MIN;
	error = read_rss(context->target, &trim->rss_before);
	if (!error)
		error = allocator->ops->trim(&caller, pad, &trim->returned);
	trim->has_returned = trim->returned != INT64_MIN;
	command_stopped(context, call_stopped_us(session));
	return error ? error : read_rss(context->target, &trim->rss_after);
}

static bool can_trim(const struct allocator_ops *ops)
{
	return ops->trim != NULL;
}

static struct error *find_allocator(struct target *target, struct allocator *ret)
{
	struct error *error = allocator_detect(target, ret);
	char titles[ALLOCATOR_TITLES_MAX];

	if (error || (ret->ops && can_trim(ret->ops)))
		return error;
	allocator_titles(can_trim, titles);
	return error_hint(error_create(ERROR_UNSUPPORTED,
				       "%s has no function that gives memory back",
				       ret->name ? ret->name : "the target's allocator"),
			  "memprobe knows how to trim %s", titles);
}

static struct error *forecast(struct command_context *context, uint64_t pad)
{
	struct target *target = context->target;
	struct error *error = NULL;
	uint64_t rss = 0;

	if (target->process)
		error = read_rss(target, &rss);
	return error ? error : trim_dry_run(context, pad, rss, target->process != NULL);
}

static struct error *run(struct command_context *context)
{
	const char *pad_text = command_option(context, "pad");
	struct allocator allocator;
	struct trim trim = { .style = command_style(context) };
	struct error *error = NULL;
	uint64_t pad = 0;

	if (pad_text)
		error = parse_size(pad_text, &pad);
	if (error)
		return error;
	if (pad > UINT32_MAX && context->target->arch->word_size == 4)
		return error_create(ERROR_USAGE, "--pad is larger than the target's address space");
	if (command_option(context, "dry-run"))
		return forecast(context, pad);
	if (!context->target->process)
		return error_hint(
			error_create(ERROR_UNSUPPORTED, "only a live process can give memory back"),
			"--dry-run shows what this one would have given back");
	error = find_allocator(context->target, &allocator);
	if (error)
		return error;
	if (pad && !allocator.ops->trim_has_pad)
		return error_create(ERROR_UNSUPPORTED, "%s knows no --pad", allocator.name);
	error = do_trim(context, &allocator, pad, &trim);
	if (error)
		return error;
	if (context->json)
		return command_write_json(context, json(context, &trim));
	return command_print(context, print, &trim);
}

const struct command cmd_trim = {
	.name = "trim",
	.arguments = "",
	.summary = "give the allocator's free memory back to the system",
	.target = TARGET_ANY,
	.options = options,
	.stops = true,
	.run = run,
};
