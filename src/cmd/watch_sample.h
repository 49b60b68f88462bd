/*
 * watch_sample.h - one look of `watch` at one process: as JSON, CSV, a line of text, and back.
 */
#ifndef WATCH_SAMPLE_H
#define WATCH_SAMPLE_H

#include "memprobe/cgroup.h"
#include "memprobe/json_value.h"
#include "memprobe/table.h"
#include "memprobe/process_usage.h"

/* A process, and what comes after it under the same name. */
struct watch_sample {
	unsigned series; /* which of the watched ones */
	double time;	 /* seconds since 1970 */
	double seconds;	 /* since the start of the recording; by a clock that never jumps */
	int pid;
	struct usage usage;
	bool has_group;
	char group_path[512];
	uint64_t group_usage, group_limit, group_oom_kills; /* CGROUP_UNKNOWN: unknown, or none */
};

json_t *watch_sample_json(const struct watch_sample *sample);

/* False: @text is no such line; whatever it is, no harm is done. */
bool watch_sample_parse(const char *text, struct watch_sample *ret);

void watch_csv_heading(FILE *out);
void watch_csv_row(FILE *out, const struct watch_sample *sample);

void watch_text_heading(FILE *out);
/* @before: the one before it of the series, or NULL. */
void watch_text_row(FILE *out, struct table_style style, const struct watch_sample *sample,
		    const struct watch_sample *before);

#endif
