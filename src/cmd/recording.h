/*
 * recording.h - how long a recording command records, what a terminal sees meanwhile, and what all
 * of them say about it.
 *
 *	recording_run(context, &source, data, &recording);
 *	recording_profile(&recording, &profile);
 *	recording_warn(&outcome);
 *	recording_write(&recording, &output, profile, document, &outcome);
 *
 * recording_run() is, for who does more meanwhile:
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
#include "profile_output.h"

#define RECORDING_OPTIONS                                                                     \
	{                                                                                     \
		"duration", 'd', "TIME", "record for TIME (default: until Ctrl-C or its end)" \
	}

#define RECORDING_MEMORY_OPTION                                                              \
	{                                                                                    \
		"max-memory", 0, "SIZE", "what is recorded takes at most SIZE; then it ends" \
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

/* What recording_run() polls. */
struct recording_source {
	const char *noun; /* of what it counts: `faults` */
	/* *alive_ret false: there is nothing more to come. */
	struct error *(*poll)(void *data, int timeout_ms, bool *alive_ret);
	uint64_t (*events)(const void *data); /* so far */
};

/* From -d's beginning to its end, Ctrl-C, or the target's end. */
struct error *recording_run(struct command_context *context, const struct recording_source *source,
			    void *data, struct recording *ret);

/* What became of events. */
struct recording_outcome {
	const char *noun;
	uint64_t events, lost, truncated, cut; /* the latter two as in faults.h */
	bool by_rings;			       /* those of perf: what is lost found them full */
	size_t ring_limited;		       /* perf_ring_limited() of them */
	bool cut_short;			       /* for want of memory */
	pid_t pid;
	bool execed; /* the target has replaced its program */
};

/* Says as warnings what is missing. */
void recording_warn(const struct recording_outcome *outcome);

/* profile_output_write() of a recording; with events lost, the exit status says so. */
struct error *recording_write(const struct recording *recording, struct profile_output *output,
			      const struct profile *profile, json_t *document,
			      const struct recording_outcome *outcome);

/* --max-memory; 0: not given. */
struct error *recording_max_memory(const struct command_context *context, uint64_t *ret);

/* --stack-size, a multiple of 8; 0: not given. */
struct error *recording_stack_size(const struct command_context *context, uint32_t *ret);

#endif
