/*
 * pprof_read.h - profiles in pprof's format, as Go, gperftools, jemalloc's jeprof and memprobe
 * itself write them.
 */
#ifndef MEMPROBE_PPROF_READ_H
#define MEMPROBE_PPROF_READ_H

#include "memprobe/profile.h"

/* Whether these bytes are one, compressed by gzip or not. */
bool pprof_is(const void *bytes, size_t size);

/*
 * Adds its samples to @profile, which gets the columns that they have. PROFILE_BYTES is
 * `inuse_space` if there is one, else what the file says is shown first, else the last one.
 * Samples that refer to nothing are left out and counted. ERROR_FAILED: it is broken or too large.
 */
struct error *pprof_read(const void *bytes, size_t size, struct profile *profile,
			 size_t *left_out_ret);

#endif
