#include "memprobe/cmd.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "allocs_output.h"
#include "allocs_record_reach.h"
#include "allocs_profile.h"
#include "allocs_reach.h"
#include "allocs_screen.h"
#include "frozen_heap.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/process.h"
#include "memprobe/trace.h"
#include "profile_output.h"
#include "profile_stacks.h"
#include "recording.h"

static const struct command_option options[] = {
	RECORDING_OPTIONS,
	{ "all", 0, NULL, "also what was freed again: all that was allocated" },
	{ "sample", 0, "SIZE",
	  "one sample every SIZE bytes (default: by the rate; 1: every block)" },
	{ "min-size", 0, "SIZE", "no blocks below SIZE" },
	{ "max-size", 0, "SIZE", "no blocks above SIZE" },
	{ "older", 0, "TIME", "only live blocks that are at least TIME old" },
	{ "reachable", 0, NULL, "mark live blocks that nothing points to" },
	{ "pool", 0, "FILE|NAME", "a pool's functions in place of malloc's: postgres, apr ..." },
	{ "engine", 0, "auto|agent|uprobe", "what records" },
	{ "stack-size", 0, "SIZE", "with uprobes: how much of a stack is copied" },
	{ "max-memory", 0, "SIZE", "its tables take at most SIZE; then fewer samples are taken" },
	OPTION_NO_FORK,
	PROFILE_OUTPUT_OPTIONS,
	{ NULL, 0, NULL, NULL },
};

static void run_deinit(struct allocs_run *run)
{
	allocs_pool_deinit(&run->pool);
	profile_stacks_destroy(run->stacks);
	profile_destroy(run->profile);
	free(run->summary);
	allocs_reach_deinit(&run->reach);
	trace_data_destroy(run->data);
	trace_destroy(run->session);
	pool_file_destroy(run->pool.file);
}

/* ---- the command line ---- */

static struct error *read_size(const struct command_context *context, const char *name,
			       uint64_t *ret)
{
	const char *text = command_option(context, name);
	struct error *error = text ? parse_size(text, ret) : NULL;

	if (!error && text && !*ret)
		error = error_create(ERROR_USAGE, "--%s takes at least 1", name);
	return error;
}

static struct error *read_older(const struct command_context *context, uint32_t *ms_ret)
{
	const char *text = command_option(context, "older");
	uint64_t us = 0;
	struct error *error = text ? parse_time(text, &us) : NULL;

	if (!error && us / 1000 > UINT32_MAX / 2)
		error = error_create(ERROR_USAGE, "--older %s is too long", text);
	if (!error)
		*ms_ret = (uint32_t)(us / 1000);
	return error;
}

static struct error *read_engine(const struct command_context *context, enum trace_engine *ret)
{
	static const char *const names[] = { [TRACE_ENGINE_AUTO] = "auto",
					     [TRACE_ENGINE_AGENT] = "agent",
					     [TRACE_ENGINE_UPROBE] = "uprobe" };
	const char *engine = command_option(context, "engine");

	for (unsigned i = 0; engine && i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(engine, names[i]))
			continue;
		*ret = (enum trace_engine)i;
		return NULL;
	}
	return engine ? error_create(ERROR_USAGE, "no engine is called '%s'", engine) : NULL;
}

static struct error *open_pool(struct allocs_run *run, struct trace_options *ret)
{
	struct error *error = allocs_pool_open(run->context, &run->pool);

	ret->pool = run->pool.file;
	if (error || !ret->pool)
		return error;
	if (ret->engine == TRACE_ENGINE_UPROBE)
		return error_create(ERROR_USAGE,
				    "--pool needs the agent: when uprobes tell that a context was "
				    "emptied, what was below it cannot be read any more");
	ret->engine = TRACE_ENGINE_AGENT;
	return NULL;
}

static struct error *read_options(struct allocs_run *run, struct trace_options *ret)
{
	struct command_context *context = run->context;
	uint64_t duration;
	struct error *error = profile_output_choose(context, &run->output);

	ret->all = run->all = command_option(context, "all") != NULL;
	run->reachable = command_option(context, "reachable") != NULL;
	ret->timeout_us = context->timeout_us;
	ret->max_pause_us = context->max_pause_us;
	ret->interrupted = command_interrupted;
	if (!error)
		error = recording_duration(context, &duration);
	if (!error)
		error = read_size(context, "sample", &ret->rate);
	if (!error)
		error = read_size(context, "min-size", &ret->min_size);
	if (!error)
		error = read_size(context, "max-size", &ret->max_size);
	if (!error)
		error = read_size(context, "max-memory", &ret->memory_max);
	if (!error)
		error = read_older(context, &run->older_ms);
	if (!error)
		error = read_engine(context, &ret->engine);
	if (!error)
		error = recording_stack_size(context, &ret->stack_bytes);
	if (!error)
		error = open_pool(run, ret);
	if (!error && ret->max_size && ret->max_size < ret->min_size)
		error = error_create(ERROR_USAGE, "--max-size is below --min-size");
	return error;
}

/* ---- recording ---- */

/* What has been recorded by then is written whatever happens here. */
static void follow(struct allocs_run *run, struct allocs_screen *screen)
{
	struct error *error = NULL;
	bool alive = true;

	while (!error && alive && !trace_report(run->session)->cut_short &&
	       recording_goes_on(&run->clock)) {
		struct trace_counters counters;

		usleep((unsigned)recording_wait_ms(&run->clock, TRACE_TICK_US / 1000) * 1000u);
		error = trace_tick(run->session, &alive);
		if (screen)
			allocs_screen_show(screen);
		else if (!error && !(error = trace_count(run->session, &counters)))
			recording_progress(&run->clock,
					   "%" PRIu64 " blocks recorded, %" PRIu64 " freed again",
					   counters.recorded, counters.freed);
	}
	if (error) {
		log_warn("the recording ended early: %s", error->message);
		error_destroy(error);
		run->context->status = ERROR_PARTIAL;
	}
	run->gone = !alive;
}

static struct error *record(struct allocs_run *run, const struct trace_options *trace_options)
{
	cleanup(allocs_screen) struct allocs_screen *screen = NULL;
	struct command_context *context = run->context;
	struct error *error = trace_attach(context->target, trace_options, &run->session);

	if (!error)
		error = recording_start(context, &run->clock);
	if (!error && allocs_screen_wanted(context, &run->output))
		error = allocs_screen_create(context, run->session, run->all, &screen);
	if (error)
		return error;
	follow(run, screen);
	recording_stop(&run->clock);
	return NULL;
}

static void tell(struct allocs_run *run, const char *what, struct error *error)
{
	if (!error)
		return;
	log_warn("%s%s", what, error->message);
	error_destroy(error);
	run->context->status = ERROR_PARTIAL;
}

static const char not_found_out[] = "cannot search for pointers to the blocks: ";

/* Where the heap can be walked, the agent leaves before: its own memory is none of the program's.
 */
static struct error *take(struct allocs_run *run)
{
	const struct trace_wanted wanted = { .blocks = run->reachable, .older_ms = run->older_ms };
	struct error *error;

	command_interrupt_obeyed();
	if (run->reachable && run->gone)
		tell(run, not_found_out, error_create(ERROR_NO_TARGET, "the process has ended"));
	else if (run->reachable && run->by_record)
		tell(run, not_found_out,
		     allocs_record_reach_find(run->context, run->session, &wanted, &run->data,
					      &run->reach));
	trace_pause(run->session);
	tell(run, "", trace_detach(run->session));
	error = run->data ? NULL : trace_read(run->session, &wanted, &run->data);
	if (!error && run->pool.file && !run->gone)
		error = allocs_pool_learn(&run->pool, run->context->target);
	if (!error && run->reachable && !run->gone && !run->by_record)
		tell(run, not_found_out, allocs_reach_find(run->context, run->data, &run->reach));
	return error;
}

static struct error *make_profile(struct allocs_run *run)
{
	const struct allocs_columns columns = {
		.all = run->all,
		.reach = run->reach.fates ? &run->reach : NULL,
	};
	const struct trace_counters *counters = &run->data->counters;
	struct error *error = recording_profile(&run->clock, &run->profile);

	if (!error)
		error = allocs_profile_set_columns(run->profile, &columns);
	if (!error)
		error = profile_stacks_create(trace_modules(run->session), run->profile,
					      &run->stacks);
	if (!error)
		error = allocs_profile_fill(run->profile, run->stacks, run->data, &columns);
	if (error)
		return error;
	run->profile->period = trace_report(run->session)->rate;
	run->profile->events = counters->recorded + counters->lost_allocs;
	run->profile->lost = counters->lost_allocs + counters->lost_frees;
	return NULL;
}

static struct error *choose_search(struct allocs_run *run)
{
	bool walks = false;
	struct error *error = NULL;

	if (!run->pool.file)
		error = allocs_reach_walks(run->context->target, &walks);
	run->by_record = !walks;
	return error;
}

static struct error *run_allocs(struct command_context *context)
{
	struct allocs_run run = { .context = context };
	struct trace_options trace_options = { 0 };
	struct error *error = read_options(&run, &trace_options);

	if (!error && run.reachable)
		error = choose_search(&run);
	if (!error)
		error = record(&run, &trace_options);
	if (!error)
		error = take(&run);
	if (!error)
		error = make_profile(&run);
	if (!error) {
		allocs_warn(&run);
		error = allocs_summarize(&run);
	}
	if (!error) {
		run.output.recorded = true;
		run.output.options.subtitle =
			run.all ? "all that was allocated" : "allocated and not freed";
		error = profile_output_write(context, &run.output, run.profile,
					     context->json ? allocs_document(&run) : NULL);
	}
	if (!error)
		allocs_hint(&run);
	run_deinit(&run);
	return error;
}

const struct command cmd_allocs = {
	.name = "allocs",
	.arguments = "",
	.summary = "record allocations with stacks: who allocated what has not been freed",
	.notes =
		"Maps an agent into the target, hooks the allocator's functions, and removes both at the\n"
		"end. All threads are stopped twice, for about a millisecond. Where the agent is refused,\n"
		"uprobes of the kernel record, at 1 to 2 us a call.\n",
	.target = TARGET_LIVE,
	.options = options,
	.records = RECORDS_ALWAYS,
	.stops = true,
	.run = run_allocs,
};
