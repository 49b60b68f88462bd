/*
 * memory_calls.h - records the system calls that map memory, with stacks: mmap, munmap, mremap,
 * brk, madvise, mprotect, libc's own included.
 *
 *	memory_calls_begin(target, &options, &recording);
 *	repeat:	memory_calls_poll(recording, timeout_ms, &alive);
 *	memory_calls_end(recording, &result);
 *	memory_calls_destroy(recording);
 *
 * At the exit of a call its arguments are still in the registers. They come from a program of the
 * kernel's (bpf(2)) at the tracepoint sys_exit; where that is not allowed, from samples (perf(2))
 *of the tracepoints syscalls:sys_exit_*, at twice the cost, and none of 32-bit processes. Nothing
 *is stopped by either. Where these may not be used, they come by syscall_tracer.h, which is dozens
 *of times slower. Errors: those of perf_events.h and syscall_tracer.h.
 */
#ifndef MEMPROBE_MEMORY_CALLS_H
#define MEMPROBE_MEMORY_CALLS_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/stack_set.h"
#include "memprobe/target.h"
#include "memprobe/vec.h"

enum memory_call {
	MEMORY_CALL_MMAP,
	MEMORY_CALL_MUNMAP,
	MEMORY_CALL_MREMAP,
	MEMORY_CALL_BRK,
	MEMORY_CALL_MADVISE,
	MEMORY_CALL_MPROTECT,
	MEMORY_CALLS
};

/* `mmap` ... */
const char *memory_call_name(enum memory_call call);

enum memory_calls_engine { MEMORY_CALLS_AUTO, MEMORY_CALLS_TRACEPOINTS, MEMORY_CALLS_PTRACE };

struct memory_calls_options {
	enum memory_calls_engine engine; /* auto: tracepoints where they may be used */
	uint64_t min_size;		 /* smaller calls are left out, by what they ask for */
	uint32_t stack_bytes;		 /* copied with each call; 0: 8 KiB */
	size_t ring_bytes;		 /* as in perf_options */
	uint64_t memory_max;		 /* as in faults_options */
	uint64_t max_pause_us;		 /* as in stop.h */
};

/* Calls of one kind, with the same flags, from one stack. */
struct memory_call_site {
	uint32_t stack; /* in memory_calls_result.stacks */
	enum memory_call call;
	/* mmap, mprotect: prot. madvise: the advice. */
	uint32_t mode;
	uint32_t flags;		/* mmap, mremap */
	uint64_t count, failed; /* failed ones are not in the figures below */
	uint64_t bytes;		/* that they asked for. brk: by which the break grew or shrank */
	uint64_t net; /* bytes of what mmap, mremap and brk mapped that are still mapped */
};

VEC_DEFINE(memory_call_site_vec, struct memory_call_site)

struct memory_calls_result {
	const struct stack_set *stacks; /* the recording owns it */
	struct target *modules;		/* to symbolize them by; the recording's, too */
	struct memory_call_site_vec sites;
	uint64_t events; /* calls of this process; the small ones that were left out included */
	enum memory_calls_engine engine;	     /* that has recorded */
	uint64_t child_events, lost, truncated, cut; /* as in faults.h */
	size_t ring_limited;			     /* by samples: perf_ring_limited() */
	bool children_known;			     /* else child_events says nothing */
	uint64_t stopped_us; /* the longest that ptrace held a thread at once; tracepoints: 0 */
	uint64_t mapped, unmapped; /* bytes that came into and went out of the address space */
	bool cut_short;		   /* it has ended for want of memory */
	bool execed;
	bool ended; /* the process has: what is called mapped was so at its end */
};

void memory_calls_result_deinit(struct memory_calls_result *result);

struct memory_calls_recording;

/* @target must outlive it. */
struct error *memory_calls_begin(struct target *target, const struct memory_calls_options *options,
				 struct memory_calls_recording **ret);

/* What records, and, if that was chosen for want of another, why. NULL: it was not. */
enum memory_calls_engine memory_calls_engine(const struct memory_calls_recording *recording);
const struct error *memory_calls_refusal(const struct memory_calls_recording *recording);

/* *alive_ret false: the target has ended, or replaced its program. */
struct error *memory_calls_poll(struct memory_calls_recording *recording, int timeout_ms,
				bool *alive_ret);

/* Calls of this process so far. */
uint64_t memory_calls_events(const struct memory_calls_recording *recording);

/* Ends the recording; *ret has to be zeroed. */
struct error *memory_calls_end(struct memory_calls_recording *recording,
			       struct memory_calls_result *ret);

void memory_calls_destroy(struct memory_calls_recording *recording);
CLEANUP_DEFINE(memory_calls, struct memory_calls_recording *, memory_calls_destroy)

/*
 * `mmap(PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS)` into @text: the call of a site with its
 * flags, as C writes them.
 */
void memory_call_text(const struct memory_call_site *site, char *text, size_t size);

#endif
