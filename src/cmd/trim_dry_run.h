/*
 * trim_dry_run.h - what a trim would give back.
 */
#ifndef TRIM_DRY_RUN_H
#define TRIM_DRY_RUN_H

#include "memprobe/cmd.h"

struct error *trim_dry_run(struct command_context *context, uint64_t pad, uint64_t rss,
			   bool rss_known);

#endif
