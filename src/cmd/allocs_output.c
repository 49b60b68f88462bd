#include "allocs_output.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/process.h"

/* ---- warnings ---- */

static void warn_of_lost_samples(const struct trace_counters *counters)
{
	if (counters->lost_allocs)
		log_warn("%" PRIu64
			 " allocations were lost: the rings were full, or they came from "
			 "an operator new whose return cannot be probed",
			 counters->lost_allocs);
	if (counters->lost_frees)
		log_warn("%" PRIu64 " frees were lost: what counts as not freed may be too much",
			 counters->lost_frees);
}

static void warn_of_lost(const struct trace_counters *counters)
{
	if (counters->lost_threads)
		log_warn("%" PRIu64 " allocations were lost: there were too many threads at a time",
			 counters->lost_threads);
	if (counters->lost_allocs > counters->lost_threads)
		log_warn("%" PRIu64 " allocations were lost: the tables were full",
			 counters->lost_allocs - counters->lost_threads);
	if (counters->lost_frees)
		log_warn("%" PRIu64 " frees were missed: their blocks counted as not freed until "
			 "their addresses came back",
			 counters->lost_frees);
}

void allocs_warn(struct allocs_run *run)
{
	const struct trace_report *report = trace_report(run->session);
	const struct trace_counters *counters = &run->data->counters;

	command_stopped(run->context,
			max_u64(report->attach_stopped_us, report->detach_stopped_us));
	if (report->leftovers_removed)
		log_warn("removed what a memprobe that was killed had left in the process");
	if (run->gone)
		log_warn(process_has_ended(run->context->target->process)
				 ? "the process has ended: what was recorded is as of its end"
				 : "the process has replaced its program: what was recorded is of "
				   "the former");
	if (report->refused)
		log_warn("%s: uprobes have recorded instead of the agent, for 1 to 2 us a call",
			 report->refused);
	if (report->engine == TRACE_ENGINE_UPROBE)
		warn_of_lost_samples(counters);
	else
		warn_of_lost(counters);
	if (counters->truncated)
		log_warn("%" PRIu64 " of %" PRIu64 " stacks could not be followed to their end",
			 counters->truncated, counters->recorded);
	if (report->children_cleaned)
		command_hint(run->context,
			     "removed the agent from %u processes forked during the recording",
			     report->children_cleaned);
	if (report->remaining)
		log_warn("%" PRIu64 " bytes stay in the process, idle: %s; the next `memprobe "
			 "allocs` removes them",
			 report->remaining,
			 report->remaining_reason ? report->remaining_reason : "in use");
	if (report->thinned)
		log_warn("the figures are estimates: when the tables were as large as they may be "
			 "(--max-memory), samples were taken less often");
	if (counters->lost_allocs || counters->lost_frees || counters->lapses ||
	    report->remaining || report->thinned || report->cut_short || report->children_left)
		run->context->status = ERROR_PARTIAL;
}

/* ---- JSON ---- */

static json_t *json_hooks(const struct trace_report *report)
{
	json_t *hooks = json_array();

	vec_for_each (hook, &report->hooks)
		json_array_append_new(
			hooks, json_pack("{s:o, s:o, s:o, s:b, s:o}", "name", json_text(hook->name),
					 "module", json_text(hook->module), "address",
					 hook->address ? json_address(hook->address) : json_null(),
					 "hooked", hook->hooked, "reason",
					 hook->reason ? json_text(hook->reason) : json_null()));
	return hooks;
}

static json_t *json_counters(const struct trace_counters *counters)
{
	return json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "calls",
		(json_int_t)counters->calls, "recorded", (json_int_t)counters->recorded, "freed",
		(json_int_t)counters->freed, "lost_allocs", (json_int_t)counters->lost_allocs,
		"lost_frees", (json_int_t)counters->lost_frees, "lost_threads",
		(json_int_t)counters->lost_threads, "filtered", (json_int_t)counters->filtered,
		"truncated", (json_int_t)counters->truncated, "threads",
		(json_int_t)counters->threads, "lapses", (json_int_t)counters->lapses,
		"table_memory", (json_int_t)counters->table_memory);
}

json_t *allocs_document(struct allocs_run *run)
{
	const struct trace_report *report = trace_report(run->session);
	const struct trace_counters *counters = &run->data->counters;
	json_t *document = command_json(run->context);
	json_t *figures = json_pack(
		"{s:s, s:b, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:b, s:o, s:o}", "engine",
		report->engine == TRACE_ENGINE_UPROBE ? "uprobe" : "agent", "net", !run->all,
		"rate", (json_int_t)report->rate, "allocs", (json_int_t)counters->recorded, "frees",
		(json_int_t)counters->freed, "older", (double)run->older_ms / 1e3,
		"attach_stopped_us", (json_int_t)report->attach_stopped_us, "detach_stopped_us",
		(json_int_t)report->detach_stopped_us, "remaining", (json_int_t)report->remaining,
		"leftovers_removed", report->leftovers_removed, "counters", json_counters(counters),
		"hooks", json_hooks(report));

	json_object_set_new(figures, "children_cleaned", json_integer(report->children_cleaned));
	json_object_set_new(figures, "children_left", json_integer(report->children_left));
	if (figures && report->refused)
		json_object_set_new(figures, "agent_refused", json_text(report->refused));

	if (figures && run->reach.fates)
		json_object_set_new(figures, "freed_meanwhile",
				    json_integer((json_int_t)run->reach.freed));
	if (figures && run->pool.file) {
		json_object_set_new(figures, "pool", json_text(run->pool.file->name));
		json_object_set_new(figures, "contexts", allocs_pool_json(&run->pool, run->data));
	}
	if (!document || !figures || json_object_update(document, figures)) {
		json_decref(document);
		document = NULL;
	}
	json_decref(figures);
	return document;
}

/* ---- for people ---- */

static void hint_of_reach(const struct allocs_run *run)
{
	char text[SIZE_TEXT_MAX];

	if (!run->reach.fates)
		return;
	if (run->reach.unreachable)
		command_hint(run->context, "nothing points to %s of it in %" PRId64 " blocks: %s",
			     format_size((uint64_t)profile_total(run->profile,
								 PROFILE_UNREACHABLE_BYTES),
					 text),
			     profile_total(run->profile, PROFILE_UNREACHABLE_COUNT),
			     run->pool.file ? "leaked, where their contexts stay"
					    : "these are leaked");
	else if (run->data->blocks.size > run->reach.freed)
		command_hint(run->context, "something points to each of its blocks");
	if (run->by_record && trace_report(run->session)->rate > 1)
		command_hint(run->context,
			     "what only blocks outside of the sample point to counts as reachable");
	if (run->reach.freed)
		command_hint(run->context,
			     "%" PRIu64 " of the recorded blocks were freed between the end of "
			     "the recording and the search: they are taken off",
			     run->reach.freed);
}

/* What was looked at: a program may allocate by something else. */
static void hint_of_hooks(const struct allocs_run *run)
{
	const struct trace_report *report = trace_report(run->session);
	const char *module = NULL;
	char names[200] = "";

	vec_for_each (hook, &report->hooks) {
		size_t length = strlen(names);

		if (!hook->hooked)
			continue;
		module = hook->module;
		if (length + strlen(hook->name) + 8 > sizeof(names)) {
			snprintf(names + length, sizeof(names) - length, " ...");
			break;
		}
		snprintf(names + length, sizeof(names) - length, "%s%s", length ? ", " : "",
			 hook->name);
	}
	if (module)
		command_hint(run->context,
			     "no block came from %s of %s: what the program may allocate by other "
			     "functions is not recorded",
			     names, module);
}

/* Why there is nothing. */
static void hint_of_nothing(const struct allocs_run *run)
{
	const struct trace_counters *counters = &run->data->counters;

	/* When sampling, few and small ones may pass. */
	if (!counters->recorded && !counters->filtered && !counters->lost_allocs &&
	    (trace_report(run->session)->rate <= 1 || !counters->calls))
		hint_of_hooks(run);
	if (counters->recorded > counters->freed && run->older_ms)
		command_hint(run->context, "no block that is not freed was %.1f s old at the end",
			     (double)run->older_ms / 1e3);
	else if (counters->recorded && !run->all)
		command_hint(run->context, "all of it was freed again: --all shows who allocates");
}

void allocs_hint(const struct allocs_run *run)
{
	const struct trace_report *report = trace_report(run->session);
	const struct trace_counters *counters = &run->data->counters;
	uint64_t live = 0;
	char rate[SIZE_TEXT_MAX];

	vec_for_each (site, &run->data->sites)
		live += site->samples;
	command_hint(run->context,
		     "%.1f s: %" PRIu64 " blocks recorded, %" PRIu64
		     " of them freed again; threads were held for at most %.1f ms",
		     (double)run->clock.duration_us / 1e6, counters->recorded, counters->freed,
		     (double)max_u64(report->attach_stopped_us, report->detach_stopped_us) / 1e3);
	if (report->rate > 1)
		command_hint(run->context,
			     "a sample was taken every %s: the figures are estimates, from %" PRIu64
			     " live blocks; --sample 1 records every one",
			     format_size(report->rate, rate), live);
	if (!live)
		hint_of_nothing(run);
	hint_of_reach(run);
	if (run->pool.file)
		allocs_pool_hint(run->context, &run->pool, run->data);
}
