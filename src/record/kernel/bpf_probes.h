/*
 * bpf_probes.h - records of the kernel's programs (bpf(2)) at uprobes in a process, or at the end
 * of its system calls. Private to record/.
 */
#ifndef RECORD_BPF_PROBES_H
#define RECORD_BPF_PROBES_H

#include "perf_events.h"

/* ---- bpf_program.c: what the kernel writes at a probe ---- */

struct bpf_record {
	uint64_t spec;
	uint64_t thread; /* its process's id in the upper half; in the first namespace */
	uint64_t time;	 /* ns, CLOCK_MONOTONIC */
	uint64_t stack_size;
	uint64_t registers[]; /* those of the spec, as perf_places has them; then the stack */
};

/* What programs and reader share. */
struct bpf_shared {
	uint64_t stack_bytes; /* wanted: the least of the sizes that is not less is copied */
	uint64_t lost[PERF_SPECS_MAX]; /* hits for which there was no room */
};

struct bpf_record_options {
	int ring, shared; /* descriptors */
	int number;	  /* of the spec; -1: the probe's cookie is it */
	uint64_t registers;
	const uint32_t *sizes; /* of the stack, ascending, multiples of 8 */
	unsigned size_count;   /* 0: no stack */
};

struct error *bpf_record_program(const struct bpf_record_options *options, int *fd_ret);

/*
 * The same at the end of system calls of @target, attached: a record's spec is the index of the
 * call's number in @numbers (-1: none). It runs at the end of any call of any process, and is done
 * with most of them in some 20 ns. options->number is nothing.
 */
struct error *bpf_record_program_for_calls(const struct bpf_record_options *options,
					   const struct target *target, const int *numbers,
					   unsigned count, int *fd_ret);

/* ---- bpf_probes.c: the probes of all threads at once ---- */

/*
 * Programs (bpf(2)) that run at every hit in the process's memory, whichever thread it is, born
 * before or later: one for all entries and one for all returns, or, before Linux 6.12, one for each
 * probe, with an event of perf's. (Events that samples come from would be
 * one for each thread and CPU, every hit would ask them all, and new threads could not inherit
 * them: the kernel reads the path of the file anew then, from the memory of the target, and
 * pthread_create(3) fails.)
 */
struct bpf_probes;

/*
 * @stack_bytes: of a stack, always; 0: what samples need, see bpf_probes_want_stack().
 * ERROR_PERMISSION, ERROR_UNSUPPORTED: the kernel forbids such programs, or has none.
 */
struct error *bpf_probes_open(struct target *target, const struct perf_spec *specs, unsigned count,
			      uint32_t stack_bytes, struct bpf_probes **ret);
/*
 * Instead of at places in programs, at the end of the system calls @numbers of the target: specs
 * have registers only, all the same.
 */
struct error *bpf_probes_open_calls(struct target *target, const struct perf_spec *specs,
				    const int *numbers, unsigned count, uint32_t stack_bytes,
				    struct bpf_probes **ret);
void bpf_probes_close(struct bpf_probes *probes);

/* Visits what has come. */
struct error *bpf_probes_poll(struct bpf_probes *probes, perf_visit *visit, void *data);
/* The last time: waits for those that are still being written. */
struct error *bpf_probes_finish(struct bpf_probes *probes, perf_visit *visit, void *data);
void bpf_probes_lost(const struct bpf_probes *probes, uint64_t *ret);
/* How much of a stack is copied from now on, where that was left open; at most PERF_STACK_MAX. */
void bpf_probes_want_stack(struct bpf_probes *probes, uint32_t bytes);
/* The process has replaced its program. */
bool bpf_probes_ended(const struct bpf_probes *probes);
/* The thread that stands for all has ended, and others have not: nothing more comes. */
bool bpf_probes_blind(const struct bpf_probes *probes);

#endif
