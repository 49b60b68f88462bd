/*
 * recording.h - how long a recording command records, and what a terminal sees meanwhile.
 *
 *	recording_start(context, &recording);
 *	while (recording_goes_on(&recording)) {
 *		... wait at most recording_wait_ms() ...
 *		recording_progress(&recording, "%" PRIu64 " faults", count);
 *	}
 *	recording_stop(&recording);
 */
#ifndef CMD_RECORDING_H
#define CMD_RECORDING_H

#include "memprobe/cmd.h"
#include "memprobe/profile.h"

#define RECORDING_OPTIONS                                                                     \
	{                                                                                     \
		"duration", 'd', "TIME", "record for TIME (default: until Ctrl-C or its end)" \
	}

struct recording {
	struct command_context *context;
	uint64_t begin_us;    /* monotonic clock */
	uint64_t duration_us; /* wanted; 0: unlimited; after recording_stop() what it was */
	uint64_t shown_us;    /* when progress was shown; 0: never */
	uint64_t time_us;     /* of the begin, since the epoch */
};

/* -d; 0: not given. ERROR_USAGE: it is no time, or 0. */
struct error *recording_duration(const struct command_context *context, uint64_t *us_ret);

/* Reads -d, with its errors. */
struct error *recording_start(struct command_context *context, struct recording *ret);

/* False: the time is over, or Ctrl-C came. */
bool recording_goes_on(const struct recording *recording);

/* Until then, at most @most. */
int recording_wait_ms(const struct recording *recording, int most);

/* At most once a second, on a terminal, after the first second: `recording PID: 3 s, ...`. */
void recording_progress(struct recording *recording, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Clears the line of progress. */
void recording_stop(struct recording *recording);

/* A profile that says what was recorded, and when: empty else. */
struct error *recording_profile(const struct recording *recording, struct profile **ret);

/* --stack-size, a multiple of 8; 0: not given. */
struct error *recording_stack_size(const struct command_context *context, uint32_t *ret);

#endif
