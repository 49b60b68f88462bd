#include "memprobe/cmd.h"

#include <inttypes.h>
#include <string.h>

#include "frozen_leaks.h"
#include "leaks_output.h"
#include "memprobe/num.h"
#include "profile_output.h"

static const struct command_option options[] = {
	{ "exit-code", 0, NULL, "exit with 10 if there are leaks" },
	{ "suppressions", 0, "FILE", "leaks that are known: lines type:, text:, hex: or size:" },
	{ "retain", 0, "ADDR", "who points to the block at this address, up to a root" },
	OPTION_NO_FORK,
	PROFILE_FORMAT_OPTIONS,
	{ "top", 0, "N", "the N groups that hold most (default: 20 in a table, else all; 0: all)" },
	{ NULL, 0, NULL, NULL },
};

/* What a run works on. */
struct leaks_run {
	struct command_context *context;
	struct profile_output output;
	struct frozen_leaks leaks;
};

/* ---- leaks ---- */

static struct error *run_find(struct leaks_run *run, struct suppression_vec *known)
{
	struct command_context *context = run->context;
	struct leak_result result = { 0 };
	struct leak_report report = { 0 };
	struct heap_coverage coverage;
	const struct heap *heap = run->leaks.frozen.heap;
	struct error *error = leaks_find(heap, &run->leaks.options, &result);

	if (!error)
		error = leak_report_build(heap, &result, known, &report);
	frozen_heap_release(context, &run->leaks.frozen);
	if (!error)
		frozen_leaks_warn(context, &result);
	frozen_heap_warn_of_types(report.types);
	if (!error)
		heap_coverage_read(context->target, heap, &coverage);
	if (!error)
		error = leak_report_write(context, &report, &coverage, &run->output);
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
	const struct heap *heap = run->leaks.frozen.heap;
	struct heap_chunk chunk;
	struct error *error;

	if (!heap_find(heap, address, &chunk) || chunk.state != HEAP_IN_USE)
		return error_hint(
			error_create(ERROR_FAILED, "no block in use at 0x%" PRIx64, address),
			"`memprobe leaks` and `memprobe heap` print addresses of blocks");
	error = leaks_retain(heap, &run->leaks.options, chunk.index, &chain, &referrers);
	command_stopped(run->context, snapshot_stopped_us(run->leaks.frozen.snapshot));
	if (!error)
		error = retain_write(run->context, heap, &run->leaks.options, &chunk, &chain,
				     &referrers);
	retain_step_vec_deinit(&chain);
	retain_step_vec_deinit(&referrers);
	return error;
}

static struct error *run(struct command_context *context)
{
	struct leaks_run run = { .context = context };
	const char *retain_text = command_option(context, "retain");
	const char *known_path = command_option(context, "suppressions");
	struct suppression_vec known = { 0 };
	uint64_t address = 0;
	struct error *error = profile_output_choose(context, &run.output);

	if (!error && retain_text && run.output.format)
		error = error_create(ERROR_USAGE, "--retain is a table or JSON, not %s",
				     run.output.format->what);
	if (!error && retain_text)
		error = parse_address(retain_text, &address);
	if (!error && known_path)
		error = suppressions_read(known_path, &known);
	if (!error)
		error = frozen_leaks_open(context, &run.leaks);
	if (!error)
		error = retain_text ? run_retain(&run, address) : run_find(&run, &known);
	frozen_leaks_close(context, &run.leaks);
	suppressions_deinit(&known);
	return error;
}

const struct command cmd_leaks = {
	.name = "leaks",
	.arguments = "",
	.summary = "blocks that nothing points to any more; --retain: who points to a block",
	.target = TARGET_ANY,
	.options = options,
	.stops = true,
	.run = run,
};
