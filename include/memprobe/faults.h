/*
 * faults.h - records page faults with stacks, and tells which of the pages they brought are still
 * there at the end.
 *
 *	faults_begin(target, &options, &recording);
 *	repeat:	faults_poll(recording, timeout_ms, &alive);
 *	faults_end(recording, &result);
 *	faults_destroy(recording);
 *
 * What is new at the end and was not there at the beginning is charged to the last fault on that
 * page; pages without a fault of their own (huge pages, fault-around, mremap, MAP_POPULATE) to what
 * brought them, else to nobody, which is said. So
 *
 *	sum of the sites + unattributed - gone == rss_after - rss_before
 *
 * exactly, by the page tables themselves. Nothing is stopped. Errors: those of perf_events.h and
 * pages.h.
 */
#ifndef MEMPROBE_FAULTS_H
#define MEMPROBE_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/stack_set.h"
#include "memprobe/target.h"
#include "memprobe/vec.h"

struct faults_options {
	bool all;	      /* every fault, not what is left of it */
	uint32_t stack_bytes; /* copied with each fault; 0: 8 KiB */
	size_t ring_bytes;    /* as in perf_options */
	/* Bytes that what is recorded may take in this process; 0: a quarter of what the memory
	 * cgroups of the target and of this process leave, at most 1 GiB. When they are reached, or
	 * hardly anything is left there, the recording ends, as if the target did; said. */
	uint64_t memory_max;
};

/* One call stack. Of pages that are still there (count: pages), or with `all` of all faults (count:
 * faults; bytes: a page each). */
struct fault_site {
	uint32_t stack; /* in faults_result.stacks */
	uint64_t count, bytes;
};

VEC_DEFINE(fault_site_vec, struct fault_site)

struct faults_result {
	const struct stack_set *stacks; /* the recording owns it */
	struct target *modules;		/* to symbolize them by; the recording's, too */
	struct fault_site_vec sites;	/* one for each stack */
	uint64_t events;		/* faults of this process, in user and kernel mode */
	uint64_t child_events; /* of processes that it forked meanwhile: not in the sites */
	uint64_t lost;	       /* for which the rings had no room */
	size_t ring_limited;   /* perf_ring_limited() */
	uint64_t truncated;    /* stacks that could not be followed to their end */
	uint64_t cut;	       /* of these: as it seems, for want of copied bytes */
	uint64_t rss_before, rss_after; /* bytes */
	uint64_t new_bytes,
		gone_bytes;    /* pages that came and are there; that were there and are not */
	uint64_t swapped_out;  /* of gone_bytes: now in swap */
	uint64_t unattributed; /* of new_bytes: nobody knows who brought them */
	bool after_known; /* false: the target ended before its pages could be read; no net figures
			   */
	bool user_only;	  /* faults taken in the kernel (read(2) into fresh memory) were not seen */
	bool zero_unknown;  /* as in pages.h */
	bool calls_unknown; /* mremap and MAP_POPULATE could not be watched */
	bool cut_short;	    /* it has ended for want of memory */
	bool execed;	    /* the process has replaced its program: the recording ended there */
};

void faults_result_deinit(struct faults_result *result);

struct faults_recording;

/* @target must outlive it. */
struct error *faults_begin(struct target *target, const struct faults_options *options,
			   struct faults_recording **ret);

/* *alive_ret false: the target has ended, or replaced its program. */
struct error *faults_poll(struct faults_recording *recording, int timeout_ms, bool *alive_ret);

/* Faults of this process so far. */
uint64_t faults_events(const struct faults_recording *recording);

/* Ends the recording; *ret has to be zeroed. */
struct error *faults_end(struct faults_recording *recording, struct faults_result *ret);

void faults_destroy(struct faults_recording *recording);
CLEANUP_DEFINE(faults, struct faults_recording *, faults_destroy)

#endif
