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
		log_warn("%" PRIu64 " frees were lost: the live figures may be too high",
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
		log_warn("%" PRIu64 " frees were missed: their blocks counted as live until their "
			 "addresses were reused",
			 counters->lost_frees);
}

void allocs_warn(struct allocs_run *run)
{
	const struct trace_report *report = trace_report(run->session);
	const struct trace_counters *counters = &run->data->counters;

	command_stopped(run->context,
			max_u64(report->attach_stopped_us, report->detach_stopped_us));
	if (report->leftovers_removed)
		log_warn("removed the agent of an earlier memprobe that was killed");
	if (run->gone && process_has_ended(run->context->target->process))
		log_warn("%d has ended: the figures are those at its end",
			 (int)run->context->target->pid);
	else if (run->gone)
		log_warn("%d called exec(): the recording covers the old program",
			 (int)run->context->target->pid);
	if (report->refused)
		log_warn("%s: uprobes recorded instead of the agent, at 1 to 2 us a call",
			 report->refused);
	if (report->engine == TRACE_ENGINE_UPROBE)
		warn_of_lost_samples(counters);
	else
		warn_of_lost(counters);
	if (counters->truncated)
		log_warn("%" PRIu64 " of %" PRIu64
			 " stacks are cut: some code has no unwind information",
			 counters->truncated, counters->recorded);
	if (report->remaining)
		log_warn("%" PRIu64 " bytes stay in the process, idle: %s; the next `memprobe "
			 "allocs` removes them",
			 report->remaining,
			 report->remaining_reason ? report->remaining_reason : "in use");
	if (report->thinned)
		log_warn("the figures are estimates: the tables reached --max-memory, so fewer "
			 "samples were taken; a larger --max-memory keeps more");
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

static void summarize_reach(const struct allocs_run *run, struct table_style style, FILE *out)
{
	char items[ITEMS_TEXT_MAX], size[TABLE_SIZE_MAX];

	if (!run->reach.fates)
		return;
	format_items((uint64_t)profile_total(run->profile, PROFILE_UNREACHABLE_COUNT), "block",
		     items);
	table_size(style, (uint64_t)profile_total(run->profile, PROFILE_UNREACHABLE_BYTES), size);
	if (run->reach.unreachable)
		fprintf(out, "\n%s in %s is unreachable: %s", size, items,
			run->pool.file ? "leaked, where their contexts stay" : "leaked");
	else if (run->data->blocks.size > run->reach.freed)
		fputs("\nall live blocks are reachable", out);
	if (run->by_record && trace_report(run->session)->rate > 1)
		fputs("\nblocks that only blocks outside of the sample point to count as reachable",
		      out);
	if (run->reach.freed)
		fprintf(out, "\n%s freed before the search for pointers: not counted",
			format_items(run->reach.freed, "recorded block", items));
}

/* What was looked at: a program may allocate by something else. */
static void summarize_hooks(const struct allocs_run *run, FILE *out)
{
	const char *module = NULL;
	unsigned count = 0;

	vec_for_each (hook, &trace_report(run->session)->hooks) {
		if (!hook->hooked)
			continue;
		fprintf(out, "%s%s", count++ ? ", " : "\nnothing was allocated by ", hook->name);
		module = hook->module;
	}
	if (module)
		fprintf(out, " of %s; other functions are not recorded", module);
}

/* Why there is nothing. */
static void summarize_nothing(const struct allocs_run *run, FILE *out)
{
	const struct trace_counters *counters = &run->data->counters;

	/* When sampling, few and small ones may pass. */
	if (!counters->recorded && !counters->filtered && !counters->lost_allocs &&
	    (trace_report(run->session)->rate <= 1 || !counters->calls))
		summarize_hooks(run, out);
	if (counters->recorded > counters->freed && run->older_ms)
		fprintf(out, "\nno live block is %.1f s old", (double)run->older_ms / 1e3);
}

static uint64_t count_live(const struct allocs_run *run)
{
	uint64_t live = 0;

	vec_for_each (site, &run->data->sites)
		live += site->samples;
	return live;
}

static void summarize(const struct allocs_run *run, FILE *out)
{
	const struct trace_report *report = trace_report(run->session);
	const struct trace_counters *counters = &run->data->counters;
	struct table_style style = command_style(run->context);
	uint64_t live = count_live(run);
	char items[2][ITEMS_TEXT_MAX], count[COUNT_TEXT_MAX], size[TABLE_SIZE_MAX];
	char time[TIME_TEXT_MAX];

	fprintf(out, "allocs: %s%s in %s %s after %.1f s\n",
		report->rate > 1 && live ? "about " : "",
		table_size(style, (uint64_t)profile_total(run->profile, run->profile->weight),
			   size),
		format_items(
			(uint64_t)profile_total(run->profile, profile_weight_count(run->profile)),
			"block", items[0]),
		run->all ? "allocated" : "live", (double)run->clock.duration_us / 1e6);
	fprintf(out, "%s recorded, %s freed; longest stop of a thread: %s",
		format_items(counters->recorded, "block", items[0]),
		format_count(counters->freed, count),
		format_time(max_u64(report->attach_stopped_us, report->detach_stopped_us), time));
	if (report->rate > 1)
		fprintf(out, "\nestimated from %s: one sample every %s",
			format_items(live, "live block", items[1]),
			table_size(style, report->rate, size));
	if (report->children_cleaned)
		fprintf(out, "\nthe agent was removed from %s",
			format_items(report->children_cleaned, "forked process", items[1]));
	if (!live)
		summarize_nothing(run, out);
	summarize_reach(run, style, out);
	if (run->pool.file)
		allocs_pool_summarize(&run->pool, run->data, style, out);
}

struct error *allocs_summarize(struct allocs_run *run)
{
	size_t size;
	FILE *out = open_memstream(&run->summary, &size);

	if (!out)
		return &error_no_memory;
	summarize(run, out);
	if (fclose(out))
		return &error_no_memory;
	run->output.summary = run->summary;
	return NULL;
}

void allocs_hint(const struct allocs_run *run)
{
	const struct trace_counters *counters = &run->data->counters;

	if (!count_live(run) && counters->recorded && !run->all && !run->older_ms)
		command_hint(run->context, "all blocks were freed: --all shows who allocates");
	else if (trace_report(run->session)->rate > 1)
		command_hint(run->context, "--sample 1 records every block");
}
