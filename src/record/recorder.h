/*
 * recorder.h - what records allocations. Private to record/.
 *
 * To add a recorder: 1. a file with its const struct recorder_ops; 2. a row in the table of
 * recorders (trace.c), in the order in which they are tried; 3. its name in enum trace_engine and
 * in the choices of --engine (cmd_allocs.c), with the manual.
 */
#ifndef RECORD_RECORDER_H
#define RECORD_RECORDER_H

#include "memprobe/call.h"
#include "memprobe/trace.h"

struct recorder_ops {
	enum trace_engine engine;
	/* What can be foreseen, before anything is done; NULL: nothing. ERROR_BUSY (threads would
	 * be held for too long) lets the next one try. */
	struct error *(*check)(struct target *target, const struct trace_options *options);
	/*
	 * Begins to record; *ret is what the others get. @options have no zeros where there are
	 * defaults, but for rate and memory_max. Fills in @report, as far as it comes; both outlive
	 * the recorder. ERROR_UNSUPPORTED and ERROR_PERMISSION let the next one try.
	 */
	struct error *(*attach)(struct target *target, const struct trace_options *options,
				struct trace_report *report, void **ret);
	/* As trace_tick(). Ends a recording that gets no further: report.cut_short. */
	struct error *(*poll)(void *recorder, bool *alive_ret);
	/* As trace_count() and trace_read(), into zeroed @data. */
	struct error *(*count)(void *recorder, struct trace_counters *ret);
	struct error *(*read)(void *recorder, const struct trace_wanted *wanted,
			      struct trace_data *data);
	/* As trace_number(), trace_pause(), trace_modules(). */
	uint64_t (*mark)(void *recorder);
	void (*pause)(void *recorder);
	struct target *(*modules)(void *recorder);
	/* As trace_detach(), once; then still read. */
	struct error *(*detach)(void *recorder);
	void (*destroy)(void *recorder);
};

/*
 * leftovers.c: for who is to set probes at functions. What a killed memprobe's agent has left goes,
 * and no agent sets its hooks there until *@ret is closed: the kernel takes a probe out by the byte
 * that the file has there, were it in the midst of a hook. NULL: into whom nobody may call gets no
 * agent.
 */
struct error *recorder_keep_agents_out(struct target *target, uint64_t timeout_us,
				       bool *removed_ret, struct call_session **ret);

extern const struct recorder_ops recorder_agent, recorder_uprobe;

#endif
