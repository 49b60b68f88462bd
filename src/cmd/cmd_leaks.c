#include "memprobe/cmd.h"

#include <inttypes.h>
#include <string.h>

#include "frozen_heap.h"
#include "leaks_output.h"
#include "memprobe/leaks.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "profile_output.h"

#define TOP_DEFAULT 20

static const struct command_option options[] = {
	{ "top", 0, "N", "show the N groups that hold most (default 20; 0: all)" },
	{ "exit-code", 0, NULL, "exit with 10 if there are leaks" },
	{ "suppressions", 0, "FILE", "leaks that are known: lines type:, text:, hex: or size:" },
	{ "retain", 0, "ADDR", "who points to the block at this address, up to a root" },
	OPTION_NO_FORK,
	{ NULL, 0, NULL, NULL },
};

/* What a run works on. */
struct leaks_run {
	struct command_context *context;
	struct frozen_heap frozen;
	struct thread_vec threads;
	struct leak_prescan *prescan;
	struct leak_options options;
};

static void run_deinit(struct leaks_run *run)
{
	leak_prescan_destroy(run->prescan);
	frozen_heap_close(run->context, &run->frozen);
	thread_vec_deinit(&run->threads);
}

static struct error *prepare(struct leaks_run *run)
{
	struct error *error = leak_prescan_create(&run->prescan);
	const struct snapshot *snapshot;

	if (!error)
		error = frozen_heap_open(run->context, leak_prescan_observer(run->prescan),
					 &run->frozen);
	if (error)
		return error;
	snapshot = run->frozen.snapshot;
	error = target_read_threads(snapshot->target, &run->threads);
	if (error_is(error, ERROR_UNSUPPORTED)) {
		error_destroy(error);
		error = NULL;
	}
	if (error)
		return error;
	run->options.threads = &run->threads;
	run->options.prescan = run->prescan;
	if (snapshot->threads.size)
		run->options.states = &snapshot->threads;
	vec_for_each (tid, &snapshot->missed)
		log_warn("thread %d did not stop: what only its registers hold counts as leaked",
			 (int)*tid);
	return NULL;
}

/* ---- leaks ---- */

static struct error *run_find(struct leaks_run *run, uint64_t top, struct suppression_vec *known)
{
	struct command_context *context = run->context;
	struct leak_result result = { 0 };
	struct leak_report report = { 0 };
	struct error *error = leaks_find(run->frozen.heap, &run->options, &result);

	if (!error)
		error = leak_report_build(run->frozen.heap, &result, known, &report);
	/* From here on the target may go on, should it have been held. */
	command_stopped(context, snapshot_stopped_us(run->frozen.snapshot));
	if (!error && result.missing_bytes) {
		log_warn("%" PRIu64 " bytes of blocks could not be read: what only they point to "
			 "counts as leaked",
			 result.missing_bytes);
		context->status = 6;
	}
	frozen_heap_warn_of_types(report.types);
	if (!error)
		error = leak_report_write(context, &report, top);
	if (!error && report.leaked_count && command_option(context, "exit-code"))
		context->status = 10;
	leak_report_deinit(&report);
	leak_result_deinit(&result);
	return error;
}

/* ---- one block ---- */

static struct error *run_retain(struct leaks_run *run, uint64_t address)
{
	struct retain_step_vec chain = { 0 }, referrers = { 0 };
	struct heap_chunk chunk;
	struct error *error;

	if (!heap_find(run->frozen.heap, address, &chunk) || chunk.state != HEAP_IN_USE)
		return error_hint(
			error_create(ERROR_FAILED, "no block in use at 0x%" PRIx64, address),
			"`memprobe leaks` and `memprobe heap` print addresses of blocks");
	error = leaks_retain(run->frozen.heap, &run->options, chunk.index, &chain, &referrers);
	command_stopped(run->context, snapshot_stopped_us(run->frozen.snapshot));
	if (!error)
		error = retain_write(run->context, run->frozen.heap, &chunk, &chain, &referrers);
	retain_step_vec_deinit(&chain);
	retain_step_vec_deinit(&referrers);
	return error;
}

static struct error *run(struct command_context *context)
{
	struct leaks_run run = { .context = context };
	const char *top_text = command_option(context, "top");
	const char *retain_text = command_option(context, "retain");
	const char *known_path = command_option(context, "suppressions");
	struct suppression_vec known = { 0 };
	uint64_t top = TOP_DEFAULT, address = 0;
	struct error *error =
		profile_output_refuse(context, "`memprobe allocs TARGET --reachable` records them");

	if (!error && top_text)
		error = parse_u64(top_text, &top);
	if (!error && retain_text)
		error = parse_address(retain_text, &address);
	if (!error && known_path)
		error = suppressions_read(known_path, &known);
	if (!error)
		error = prepare(&run);
	if (!error)
		error = retain_text ? run_retain(&run, address) : run_find(&run, top, &known);
	run_deinit(&run);
	suppressions_deinit(&known);
	return error;
}

const struct command cmd_leaks = {
	.name = "leaks",
	.arguments = "",
	.summary = "blocks that nothing points to any more; --retain: who points to a block",
	.target = TARGET_ANY,
	.options = options,
	.run = run,
};
