#include "memprobe/cmd.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/log.h"
#include "memprobe/memory_calls.h"
#include "memprobe/num.h"
#include "profile_output.h"
#include "profile_stacks.h"
#include "recording.h"

static const struct command_option options[] = {
	RECORDING_OPTIONS,
	{ "min-size", 0, "SIZE", "only calls for at least SIZE" },
	{ "engine", 0, "auto|tracepoints|ptrace", "what records" },
	{ "stack-size", 0, "SIZE",
	  "of each stack, copy SIZE (default: what is needed; at most 64K)" },
	RECORDING_MEMORY_OPTION,
	PROFILE_OUTPUT_OPTIONS,
	{ NULL, 0, NULL, NULL },
};

struct syscalls_run {
	struct command_context *context;
	struct profile_output output;
	struct recording clock;
	struct memory_calls_recording *recording;
	struct memory_calls_result result;
	struct profile *profile;
	char *summary;
	struct profile_stacks *stacks;
};

static void run_deinit(struct syscalls_run *run)
{
	profile_stacks_destroy(run->stacks);
	profile_destroy(run->profile);
	free(run->summary);
	memory_calls_result_deinit(&run->result);
	memory_calls_destroy(run->recording);
}

static const char *const engine_names[] = { [MEMORY_CALLS_AUTO] = "auto",
					    [MEMORY_CALLS_TRACEPOINTS] = "tracepoints",
					    [MEMORY_CALLS_PTRACE] = "ptrace" };

static struct error *read_engine(const struct command_context *context,
				 enum memory_calls_engine *ret)
{
	const char *engine = command_option(context, "engine");

	for (unsigned i = 0; engine && i < sizeof(engine_names) / sizeof(engine_names[0]); i++) {
		if (strcmp(engine, engine_names[i]))
			continue;
		*ret = (enum memory_calls_engine)i;
		return NULL;
	}
	return engine ? error_create(ERROR_USAGE, "no engine is called '%s'", engine) : NULL;
}

static struct error *begin(struct syscalls_run *run)
{
	const char *least = command_option(run->context, "min-size");
	struct memory_calls_options options = { .max_pause_us = run->context->max_pause_us };
	struct error *error = recording_stack_size(run->context, &options.stack_bytes);
	const struct error *refusal;

	if (!error)
		error = recording_max_memory(run->context, &options.memory_max);
	if (!error && least)
		error = parse_size(least, &options.min_size);
	if (!error)
		error = read_engine(run->context, &options.engine);
	if (!error)
		error = memory_calls_begin(run->context->target, &options, &run->recording);
	if (error)
		return error;
	refusal = memory_calls_refusal(run->recording);
	if (refusal)
		log_warn("%s", refusal->message);
	if (refusal && refusal->hint)
		command_hint(run->context, "%s", refusal->hint);
	if (memory_calls_engine(run->recording) == MEMORY_CALLS_PTRACE)
		log_warn("recording by ptrace, which stops a thread twice for each of its system "
			 "calls: these take dozens of times longer meanwhile");
	return NULL;
}

static struct error *poll(void *data, int timeout_ms, bool *alive_ret)
{
	return memory_calls_poll(data, timeout_ms, alive_ret);
}

static uint64_t events(const void *data)
{
	return memory_calls_events(data);
}

static struct error *record(struct syscalls_run *run)
{
	static const struct recording_source source = { "calls", poll, events };
	struct error *error = begin(run);

	if (!error)
		error = recording_run(run->context, &source, run->recording, &run->clock);
	if (!error)
		error = memory_calls_end(run->recording, &run->result);
	command_stopped(run->context, run->result.stopped_us);
	return error;
}

/* The call itself, with its flags, is the leaf of its stack. */
static struct error *add_site(struct syscalls_run *run, const struct memory_call_site *site)
{
	const int64_t values[PROFILE_COLUMNS] = { [PROFILE_COUNT] = (int64_t)site->count,
						  [PROFILE_BYTES] = (int64_t)site->bytes,
						  [PROFILE_NET_BYTES] = (int64_t)site->net };
	struct profile_frame frame = { 0 };
	bool truncated;
	uint32_t stack, leaf;
	char text[256];
	size_t depth;
	const uint64_t *pcs = stack_set_get(run->result.stacks, site->stack, &depth, &truncated);
	struct error *error;

	memory_call_text(site, text, sizeof(text));
	frame.function = text;
	error = profile_add_frame(run->profile, &frame, &leaf);
	if (!error)
		error = profile_stacks_add_leaf(run->stacks, pcs, depth, truncated, leaf, &stack);
	return error ? error : profile_add_site(run->profile, stack, values);
}

static struct error *make_profile(struct syscalls_run *run)
{
	struct error *error = recording_profile(&run->clock, &run->profile);
	struct profile *profile = run->profile;

	if (!error)
		error = profile_set_column(profile, PROFILE_COUNT, "calls", "count");
	if (!error)
		error = profile_set_column(profile, PROFILE_BYTES, "asked_space", "bytes");
	if (!error)
		error = profile_set_column(profile, PROFILE_NET_BYTES, "mapped_space", "bytes");
	if (!error)
		error = profile_stacks_create(run->result.modules, profile, &run->stacks);
	vec_for_each (site, &run->result.sites)
		if (!error)
			error = add_site(run, site);
	if (error)
		return error;
	profile->events = run->result.events;
	profile->lost = run->result.lost;
	profile_sort(profile);
	return NULL;
}

/* ---- saying it ---- */

static void warn_of_failed(const struct memory_calls_result *result)
{
	uint64_t failed = 0;

	vec_for_each (site, &result->sites)
		failed += site->failed;
	if (failed)
		log_warn("%" PRIu64 " of the calls failed: they count for no bytes", failed);
}

static json_t *document(struct syscalls_run *run)
{
	const struct memory_calls_result *result = &run->result;
	json_t *document = command_json(run->context), *calls = json_object();
	json_t *children = result->children_known ? json_integer((json_int_t)result->child_events)
						  : json_null();
	json_t *figures =
		json_pack("{s:s, s:I, s:I, s:o, s:I, s:b}", "engine", engine_names[result->engine],
			  "mapped", (json_int_t)result->mapped, "unmapped",
			  (json_int_t)result->unmapped, "child_events", children, "truncated",
			  (json_int_t)result->truncated, "ended", result->ended);
	bool good = document && calls && figures;

	for (unsigned call = 0; good && call < MEMORY_CALLS; call++) {
		uint64_t count = 0, failed = 0, bytes = 0;

		vec_for_each (site, &result->sites)
			if (site->call == call) {
				count += site->count;
				failed += site->failed;
				bytes += site->bytes;
			}
		good = !json_object_set_new(calls, memory_call_name(call),
					    json_pack("{s:I, s:I, s:I}", "count", (json_int_t)count,
						      "failed", (json_int_t)failed, "bytes",
						      (json_int_t)bytes));
	}
	if (!good || json_object_update(document, figures) ||
	    json_object_set(document, "calls", calls)) {
		json_decref(document);
		document = NULL;
	}
	json_decref(figures);
	json_decref(calls);
	return document;
}

static void put_summary(const struct syscalls_run *run, FILE *out)
{
	const struct memory_calls_result *result = &run->result;
	struct table_style style = command_style(run->context);
	char size[2][TABLE_SIZE_MAX], items[ITEMS_TEXT_MAX];

	fprintf(out, "syscalls: %s mapped, %s unmapped; %s in %.1f s",
		table_size(style, result->mapped, size[0]),
		table_size(style, result->unmapped, size[1]),
		format_items(result->events, "call", items), (double)run->clock.duration_us / 1e6);
	if (result->child_events)
		fprintf(out, "\n%s in forked processes, not counted",
			format_items(result->child_events, "call", items));
}

static struct error *summarize(struct syscalls_run *run)
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

static struct error *write_out(struct syscalls_run *run)
{
	const struct memory_calls_result *result = &run->result;
	const struct recording_outcome outcome = { .pid = run->context->target->pid,
						   .noun = "calls",
						   .events = result->events,
						   .lost = result->lost,
						   .truncated = result->truncated,
						   .cut = result->cut,
						   .by_rings =
							   result->engine != MEMORY_CALLS_PTRACE,
						   .ring_limited = result->ring_limited,
						   .cut_short = result->cut_short,
						   .execed = result->execed };
	struct error *error;

	warn_of_failed(result);
	if (result->ended)
		log_warn("the process has ended: NET is as of its end");
	recording_warn(&outcome);
	run->output.leaf = "CALL";
	run->output.options.subtitle = "memory that system calls asked for";
	error = summarize(run);
	return error ? error
		     : recording_write(&run->clock, &run->output, run->profile,
				       run->context->json ? document(run) : NULL, &outcome);
}

static struct error *run_syscalls(struct command_context *context)
{
	struct syscalls_run run = { .context = context };
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

const struct command cmd_syscalls = {
	.name = "syscalls",
	.arguments = "",
	.summary = "record mmap, munmap, mremap, brk, madvise and mprotect with stacks",
	.notes =
		"Calls of libc itself (arenas, large blocks, thread stacks) included. By the\n"
		"kernel's tracepoints nothing in the target is stopped or changed; where they may not be\n"
		"used, by ptrace, which is slow.\n",
	.target = TARGET_LIVE,
	.options = options,
	.records = RECORDS_ALWAYS,
	.stops = true,
	.run = run_syscalls,
};
