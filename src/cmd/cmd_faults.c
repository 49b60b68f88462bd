#include "memprobe/cmd.h"

#include <inttypes.h>

#include "memprobe/faults.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "profile_output.h"
#include "profile_stacks.h"
#include "recording.h"

static const struct command_option options[] = {
	RECORDING_OPTIONS,
	{ "all", 0, NULL, "every fault, instead of the pages that are still there at the end" },
	{ "stack-size", 0, "SIZE", "of each stack, copy SIZE (default 8K, at most 64K)" },
	RECORDING_MEMORY_OPTION,
	PROFILE_OUTPUT_OPTIONS,
	{ NULL, 0, NULL, NULL },
};

struct faults_run {
	struct command_context *context;
	struct profile_output output;
	struct recording clock;
	bool all;
	struct faults_recording *recording;
	struct faults_result result;
	struct profile *profile;
	char *summary;
	struct profile_stacks *stacks;
};

static void run_deinit(struct faults_run *run)
{
	profile_stacks_destroy(run->stacks);
	profile_destroy(run->profile);
	free(run->summary);
	faults_result_deinit(&run->result);
	faults_destroy(run->recording);
}

/* ---- recording ---- */

static struct error *poll(void *data, int timeout_ms, bool *alive_ret)
{
	return faults_poll(data, timeout_ms, alive_ret);
}

static uint64_t events(const void *data)
{
	return faults_events(data);
}

static struct error *record(struct faults_run *run)
{
	static const struct recording_source source = { "faults", poll, events };
	struct faults_options options = { .all = run->all };
	struct error *error = recording_stack_size(run->context, &options.stack_bytes);

	if (!error)
		error = recording_max_memory(run->context, &options.memory_max);
	if (!error)
		error = faults_begin(run->context->target, &options, &run->recording);
	if (!error)
		error = recording_run(run->context, &source, run->recording, &run->clock);
	return error ? error : faults_end(run->recording, &run->result);
}

/* ---- what was recorded, as a profile ---- */

/* What has no stack of its own. */
static struct error *add_named_site(struct profile *profile, const char *name, uint64_t bytes)
{
	const struct profile_frame frame = { .function = name };
	const int64_t values[PROFILE_COLUMNS] = {
		[PROFILE_COUNT] = (int64_t)(bytes / PAGE_SIZE), [PROFILE_BYTES] = (int64_t)bytes
	};
	uint32_t id, stack;
	struct error *error;

	if (!bytes)
		return NULL;
	error = profile_add_frame(profile, &frame, &id);
	if (!error)
		error = profile_add_stack(profile, &id, 1, &stack);
	return error ? error : profile_add_site(profile, stack, values);
}

static struct error *add_sites(struct faults_run *run)
{
	vec_for_each (site, &run->result.sites) {
		const int64_t values[PROFILE_COLUMNS] = { [PROFILE_COUNT] = (int64_t)site->count,
							  [PROFILE_BYTES] = (int64_t)site->bytes };
		bool truncated;
		uint32_t stack;
		size_t depth;
		const uint64_t *pcs =
			stack_set_get(run->result.stacks, site->stack, &depth, &truncated);
		struct error *error =
			profile_stacks_add(run->stacks, pcs, depth, truncated, &stack);

		if (!error)
			error = profile_add_site(run->profile, stack, values);
		if (error)
			return error;
	}
	return NULL;
}

static struct error *make_profile(struct faults_run *run)
{
	const struct faults_result *result = &run->result;
	struct error *error = recording_profile(&run->clock, &run->profile);
	struct profile *profile = run->profile;

	if (!error)
		error = profile_set_column(profile, PROFILE_COUNT, run->all ? "faults" : "pages",
					   "count");
	if (!error)
		error = profile_set_column(profile, PROFILE_BYTES,
					   run->all ? "faulted" : "resident_growth", "bytes");
	if (!error)
		error = profile_stacks_create(run->result.modules, profile, &run->stacks);
	if (!error)
		error = add_sites(run);
	if (!error)
		error = add_named_site(profile, "[unattributed]", result->unattributed);
	if (error)
		return error;
	profile->events = result->events;
	profile->lost = result->lost;
	profile_sort(profile);
	return NULL;
}

/* ---- saying it ---- */

static void warn(const struct faults_run *run, const struct recording_outcome *outcome)
{
	const struct faults_result *result = &run->result;

	recording_warn(outcome);
	if (result->user_only)
		log_warn("faults that the kernel took (read(2) into fresh memory) could not be "
			 "seen: that takes CAP_PERFMON or perf_event_paranoid at most 1");
	if (result->calls_unknown && result->unattributed)
		log_warn("what mremap and MAP_POPULATE brought is unattributed: watching them "
			 "takes tracefs and CAP_PERFMON");
	if (result->zero_unknown)
		log_warn("this kernel does not tell the zero page from memory: pages that were "
			 "only read count as resident");
	if (!result->execed && !result->after_known && !run->all)
		log_warn("the process has ended: nothing of it is in memory any more; --all counts "
			 "its faults nevertheless");
}

static json_t *document(struct faults_run *run)
{
	const struct faults_result *result = &run->result;
	json_t *document = command_json(run->context);
	json_t *figures = json_pack(
		"{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "net", !run->all, "rss_before",
		(json_int_t)result->rss_before, "rss_after", (json_int_t)result->rss_after, "new",
		(json_int_t)result->new_bytes, "gone", (json_int_t)result->gone_bytes,
		"swapped_out", (json_int_t)result->swapped_out, "unattributed",
		(json_int_t)result->unattributed, "child_events", (json_int_t)result->child_events,
		"truncated", (json_int_t)result->truncated);

	if (!document || !figures || json_object_update(document, figures)) {
		json_decref(document);
		document = NULL;
	} else if (!result->after_known) {
		json_object_set_new(document, "rss_after", json_null());
	}
	json_decref(figures);
	return document;
}

static void put_summary(const struct faults_run *run, FILE *out)
{
	const struct faults_result *result = &run->result;
	struct table_style style = command_style(run->context);
	char size[4][TABLE_SIZE_MAX], items[ITEMS_TEXT_MAX];

	fprintf(out, "faults: %s %s; %s in %.1f s",
		table_size(style, (uint64_t)profile_total(run->profile, PROFILE_BYTES), size[0]),
		run->all ? "faulted in" : "of new memory is resident",
		format_items(result->events, "fault", items), (double)run->clock.duration_us / 1e6);
	if (result->after_known)
		fprintf(out, "\nRSS %s before, %s after: %s new, %s gone",
			table_size(style, result->rss_before, size[0]),
			table_size(style, result->rss_after, size[1]),
			table_size(style, result->new_bytes, size[2]),
			table_size(style, result->gone_bytes, size[3]));
	if (result->child_events)
		fprintf(out, "\n%s in forked processes, not counted",
			format_items(result->child_events, "fault", items));
}

static struct error *summarize(struct faults_run *run)
{
	size_t size;
	FILE *out = open_memstream(&run->summary, &size);

	if (!out)
		return &error_no_memory;
	put_summary(run, out);
	if (fclose(out))
		return &error_no_memory;
	run->output.summary = run->summary;
	return NULL;
}

static struct error *write_out(struct faults_run *run)
{
	const struct faults_result *result = &run->result;
	const struct recording_outcome outcome = { .pid = run->context->target->pid,
						   .noun = "faults",
						   .events = result->events,
						   .lost = result->lost,
						   .truncated = result->truncated,
						   .cut = result->cut,
						   .by_rings = true,
						   .ring_limited = result->ring_limited,
						   .cut_short = result->cut_short,
						   .execed = result->execed };
	struct error *error;

	warn(run, &outcome);
	run->output.options.subtitle =
		run->all ? "page faults" : "new pages that are still in memory";
	error = summarize(run);
	return error ? error
		     : recording_write(&run->clock, &run->output, run->profile,
				       run->context->json ? document(run) : NULL, &outcome);
}

static struct error *run_faults(struct command_context *context)
{
	struct faults_run run = { .context = context,
				  .all = command_option(context, "all") != NULL };
	struct error *error = profile_output_choose(context, &run.output);

	if (!error)
		error = record(&run);
	if (!error)
		error = make_profile(&run);
	if (!error)
		error = write_out(&run);
	run_deinit(&run);
	return error;
}

const struct command cmd_faults = {
	.name = "faults",
	.arguments = "",
	.summary =
		"record page faults with stacks: which code touched the pages that are still resident",
	.notes =
		"Nothing in the target is stopped or changed. A page that is new at the end counts for\n"
		"the last fault on it, so the sites and the pages gone add up to the change of RSS.\n",
	.target = TARGET_LIVE,
	.options = options,
	.records = RECORDS_ALWAYS,
	.run = run_faults,
};
