#include "recording.h"

#include <inttypes.h>
#include <stdarg.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

#define POLL_MS	    50
#define STACK_LEAST 512u
#define STACK_MOST  65536u

struct error *recording_duration(const struct command_context *context, uint64_t *us_ret)
{
	const char *text = command_option(context, "duration");
	uint64_t us = 0;
	struct error *error = text ? parse_time(text, &us) : NULL;

	if (error)
		return error;
	if (text && !us)
		return error_create(ERROR_USAGE, "nothing is recorded in no time");
	*us_ret = us;
	return NULL;
}

struct error *recording_start(struct command_context *context, struct recording *ret)
{
	struct error *error;

	*ret = (struct recording){ .context = context };
	error = recording_duration(context, &ret->duration_us);
	if (error)
		return error;
	ret->begin_us = clock_us();
	ret->time_us = clock_real_us();
	log_debug("%d: recording begins", context->target->pid);
	if (!ret->duration_us && isatty(STDERR_FILENO))
		command_hint(context, "recording until Ctrl-C");
	return NULL;
}

static uint64_t elapsed_us(const struct recording *recording)
{
	return clock_us() - recording->begin_us;
}

bool recording_goes_on(const struct recording *recording)
{
	return !command_interrupted() &&
	       (!recording->duration_us || elapsed_us(recording) < recording->duration_us);
}

int recording_wait_ms(const struct recording *recording, int most)
{
	uint64_t elapsed = elapsed_us(recording), left;

	if (!recording->duration_us)
		return most;
	left = recording->duration_us > elapsed ? (recording->duration_us - elapsed + 999) / 1000
						: 0;
	if (!left)
		left = 1;
	return left < (uint64_t)most ? (int)left : most;
}

void recording_progress(struct recording *recording, const char *format, ...)
{
	const struct command_context *context = recording->context;
	uint64_t elapsed = elapsed_us(recording);
	va_list arguments;

	if (context->quiet || elapsed < recording->shown_us + 1000000u || !isatty(STDERR_FILENO))
		return;
	recording->shown_us = elapsed;
	fprintf(stderr, "\r\033[Krecording %d: %" PRIu64 " s, ", context->target->pid,
		elapsed / 1000000u);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fflush(stderr);
}

void recording_stop(struct recording *recording)
{
	recording->duration_us = elapsed_us(recording);
	if (recording->shown_us)
		fputs("\r\033[K", stderr);
}

struct error *recording_run(struct command_context *context, const struct recording_source *source,
			    void *data, struct recording *ret)
{
	bool alive = true;
	struct error *error = recording_start(context, ret);

	if (error)
		return error;
	while (!error && alive && recording_goes_on(ret)) {
		error = source->poll(data, recording_wait_ms(ret, POLL_MS), &alive);
		recording_progress(ret, "%" PRIu64 " %s", source->events(data), source->noun);
	}
	recording_stop(ret);
	return error;
}

struct error *recording_profile(const struct recording *recording, struct profile **ret)
{
	const struct target *target = recording->context->target;
	struct error *error = profile_create(ret);

	if (!error)
		error = profile_intern(*ret, target->name, &(*ret)->name);
	if (!error)
		error = profile_intern(*ret, target->exe, &(*ret)->exe);
	if (error)
		return error;
	(*ret)->time_us = recording->time_us;
	(*ret)->duration_us = recording->duration_us;
	(*ret)->period = 1;
	(*ret)->pid = target->pid;
	return NULL;
}

struct error *recording_max_memory(const struct command_context *context, uint64_t *ret)
{
	const char *text = command_option(context, "max-memory");
	struct error *error = text ? parse_size(text, ret) : NULL;

	if (!error && text && !*ret)
		error = error_create(ERROR_USAGE, "--max-memory takes at least 1");
	return error;
}

struct error *recording_stack_size(const struct command_context *context, uint32_t *ret)
{
	const char *text = command_option(context, "stack-size");
	uint64_t bytes = 0;
	struct error *error = text ? parse_size(text, &bytes) : NULL;

	if (!error && text && (bytes < STACK_LEAST || bytes > STACK_MOST))
		error = error_create(ERROR_USAGE, "a stack size is 512 to 64K");
	/* The kernel takes at most 8 bytes less than 64 KiB. */
	if (!error)
		*ret = (uint32_t)(bytes > STACK_MOST - 8 ? STACK_MOST - 8 : bytes) & ~7u;
	return error;
}

/* ---- saying it ---- */

static void warn_of_lost(const struct recording_outcome *outcome)
{
	char size[SIZE_TEXT_MAX];

	if (!outcome->by_rings) {
		log_warn("%" PRIu64 " %s were lost: there were more than memprobe could follow",
			 outcome->lost, outcome->noun);
	} else if (outcome->ring_limited) {
		format_size(outcome->ring_limited, size);
		log_warn(
			"%" PRIu64 " %s were lost: the rings of %s for each CPU were full; "
			"--stack-size 1K makes more fit, and CAP_IPC_LOCK, a higher `ulimit -l` or "
			"a larger /proc/sys/kernel/perf_event_mlock_kb allow larger rings",
			outcome->lost, outcome->noun, size);
	} else {
		log_warn("%" PRIu64 " %s were lost: the rings were full; --stack-size 1K makes "
			 "more fit",
			 outcome->lost, outcome->noun);
	}
}

void recording_warn(const struct recording_outcome *outcome)
{
	if (outcome->lost)
		warn_of_lost(outcome);
	if (outcome->execed)
		log_warn("%d called exec(): the recording covers the old program",
			 (int)outcome->pid);
	/* The reason is that of most. */
	if (outcome->truncated)
		log_warn("%" PRIu64 " of %" PRIu64 " stacks are cut: %s", outcome->truncated,
			 outcome->events,
			 outcome->cut >= outcome->truncated - outcome->cut
				 ? "try --stack-size 64K"
				 : "some code has no unwind information");
}

struct error *recording_write(const struct recording *recording, struct profile_output *output,
			      const struct profile *profile, json_t *document,
			      const struct recording_outcome *outcome)
{
	struct error *error;

	output->recorded = true;
	error = profile_output_write(recording->context, output, profile, document);
	if (!error && (outcome->lost || outcome->cut_short))
		recording->context->status = ERROR_PARTIAL;
	return error;
}
