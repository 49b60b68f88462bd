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
	struct profile_stacks *stacks;
};

static void run_deinit(struct faults_run *run)
{
	profile_stacks_destroy(run->stacks);
	profile_destroy(run->profile);
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

static void hint(const struct faults_run *run)
{
	const struct faults_result *result = &run->result;
	char before[SIZE_TEXT_MAX], after[SIZE_TEXT_MAX], fresh[SIZE_TEXT_MAX], gone[SIZE_TEXT_MAX];

	if (!result->after_known)
		return;
	format_size(result->rss_before, before);
	format_size(result->rss_after, after);
	format_size(result->new_bytes, fresh);
	format_size(result->gone_bytes, gone);
	command_hint(run->context,
		     "RSS %s before, %s after: %s new, %s of what was there gone; %" PRIu64
		     " fault%s in %.1f s",
		     before, after, fresh, gone, result->events, result->events == 1 ? "" : "s",
		     (double)run->clock.duration_us / 1e6);
	if (result->child_events)
		command_hint(run->context, "and %" PRIu64 " fault%s of processes that it forked",
			     result->child_events, result->child_events == 1 ? "" : "s");
}

static struct error *write_out(struct faults_run *run)
{
	const struct faults_result *result = &run->result;
	const struct recording_outcome outcome = { .noun = "faults",
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
	error = recording_write(&run->clock, &run->output, run->profile,
				run->context->json ? document(run) : NULL, &outcome);
	if (!error)
		hint(run);
	return error;
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
	.summary = "record page faults with stacks: who brought the memory that is still there",
	.notes =
		"Nothing in the target is stopped or changed. What is new at the end is charged to the\n"
		"last fault on its page; so the sites and what is gone add up to the change of RSS.\n",
	.target = TARGET_LIVE,
	.options = options,
	.records = RECORDS_ALWAYS,
	.run = run_faults,
};
