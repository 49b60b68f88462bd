/*
 * allocs_output.h - a run of `allocs`, and what is said about it beside its sites.
 */
#ifndef ALLOCS_OUTPUT_H
#define ALLOCS_OUTPUT_H

#include "allocs_pool.h"
#include "allocs_reach.h"
#include "memprobe/cmd.h"
#include "memprobe/trace.h"
#include "profile_output.h"
#include "profile_stacks.h"
#include "recording.h"

struct allocs_run {
	struct command_context *context;
	struct profile_output output;
	struct recording clock;
	bool all, reachable;
	bool by_record; /* what is reachable is found out by the record */
	bool gone;	/* the target has ended or replaced its program meanwhile */
	uint32_t older_ms;
	struct trace_session *session;
	struct trace_data *data;
	struct allocs_reach reach; /* fates NULL: not known */
	struct allocs_pool pool;   /* file NULL: none */
	struct profile *profile;
	char *summary; /* owned */
	struct profile_stacks *stacks;
};

/* What is missing or was left, as warnings; sets the exit status for it. */
void allocs_warn(struct allocs_run *run);

/* NULL: out of memory. */
json_t *allocs_document(struct allocs_run *run);

/* Says in words what was recorded and how: run->output.summary. */
struct error *allocs_summarize(struct allocs_run *run);

/* What to run next. */
void allocs_hint(const struct allocs_run *run);

#endif
