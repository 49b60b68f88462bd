/*
 * memory_ledger.h - the accounts of memory_calls.h, whatever engine the calls come from.
 */
#ifndef RECORD_MEMORY_LEDGER_H
#define RECORD_MEMORY_LEDGER_H

#include "memprobe/hash_index.h"
#include "memprobe/memory_calls.h"
#include "sample_stacks.h"
#include "range_map.h"

/* A call of the target that has returned. */
struct memory_call_event {
	enum memory_call call;
	uint64_t args[6];
	uint64_t result;
	bool failed;
	const struct perf_sample *sample; /* where it was made: registers and stack */
};

/* A place that was given out anew while a site still has it in the books. */
struct memory_owed {
	uint64_t start, end;
	uint32_t site;
	pid_t tid;     /* that was given it */
	uint64_t time; /* then */
};

VEC_DEFINE(memory_owed_vec, struct memory_owed)

/* To be zeroed but for what is said to be the caller's. */
struct memory_ledger {
	struct sample_stacks *stacks; /* the caller's */
	uint64_t min_size;	      /* the caller's */
	uint64_t brk;		      /* the caller may set it at the beginning; 0: not known */
	struct memory_call_site_vec sites;
	struct hash_index index;
	/* Whose each range is that was mapped during the recording: values are sites. */
	struct range_map mapped;
	struct memory_owed_vec owed;
	const struct memory_call_event *event; /* that is being noted */
	uint64_t events, mapped_bytes, unmapped_bytes;
};

/*
 * The calls have to come in the order in which they returned, samples with their time. That is not
 * quite the order in which they worked: of two threads, one may get the place that the other has
 * left, and return before it.
 */
struct error *memory_ledger_note(struct memory_ledger *ledger,
				 const struct memory_call_event *event);

void memory_ledger_deinit(struct memory_ledger *ledger);

#endif
