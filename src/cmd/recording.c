#include "recording.h"

#include <inttypes.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/log.h"
#include "memprobe/num.h"

#define STACK_LEAST 512u
#define STACK_MOST  65536u

static uint64_t clock_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

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
	ret->begin_us = clock_us(CLOCK_MONOTONIC);
	ret->time_us = clock_us(CLOCK_REALTIME);
	log_debug("%d: recording begins", context->target->pid);
	if (!ret->duration_us && isatty(STDERR_FILENO))
		command_hint(context, "recording until Ctrl-C");
	return NULL;
}

static uint64_t elapsed_us(const struct recording *recording)
{
	return clock_us(CLOCK_MONOTONIC) - recording->begin_us;
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
