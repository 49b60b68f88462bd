/*
 * oom_output.h - the OOM killer's kills as text and as JSON.
 */
#ifndef OOM_OUTPUT_H
#define OOM_OUTPUT_H

#include "memprobe/cmd.h"
#include "memprobe/oom.h"

struct oom_output {
	struct command_context *context;
	struct oom_log log;
	const char *source; /* what was read, e.g. `/dev/kmsg` */
	uint64_t top;	    /* rows of tables */
	bool all;	    /* details of every kill, not of the last only */
};

/* The kernel's choice in the last report, of at least one. */
const struct oom_kill *oom_output_last(const struct oom_log *log);

struct error *oom_output_text(FILE *out, void *output);
struct error *oom_output_json(struct oom_output *output);

#endif
