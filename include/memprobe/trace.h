/*
 * trace.h - records the allocations of a living process, with stacks.
 *
 * An agent (src/agent/) is mapped into the target and the entries of its allocator's functions are
 * led through it. It unwinds and keeps the table of live blocks in memory that memprobe shares with
 * the target: nothing is streamed, so that nothing has to keep up.
 *
 *	trace_attach(target, &options, &session);
 *	every 50 to 100 ms:	trace_tick(session, &alive);
 *	at any time:		trace_read(session, &wanted, &data);
 *	trace_detach(session);	trace_report(session)->...
 *	trace_destroy(session);
 *
 * SIGKILL of memprobe at any instant leaves the target correct. Its hooks pass everything through
 * once the lease, which trace_tick() renews, is over (TRACE_LEASE_US); the next trace_attach()
 * removes what a killed memprobe left, or trace_remove_leftovers().
 *
 * Errors: ERROR_UNSUPPORTED (architecture, Go, no function that could be hooked, seccomp or address
 * space forbid it: the message says what), ERROR_PERMISSION, ERROR_BUSY (another memprobe records,
 * or no safe point within the timeout), ERROR_NO_TARGET and ERROR_FAILED (it has exited).
 */
#ifndef MEMPROBE_TRACE_H
#define MEMPROBE_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/target.h"
#include "memprobe/vec.h"

/* For how long the hooks record when nobody renews the lease: with what it takes until the next
 * call looks, they are to be idle within 2 s of memprobe's end. And the pause between two ticks. */
#define TRACE_LEASE_US 1500000
#define TRACE_TICK_US  50000

/*
 * Who records. The agent is meant above. Where it is refused, probes of the kernel (uprobes) at the
 * same functions tell memprobe of every call, which unwinds the stacks and keeps the table itself:
 * nothing is injected, but each call costs 1 to 2 us, whatever the rate, and what memprobe does not
 * keep up with is lost, and counted. They need root or CAP_PERFMON. They are taken out by
 * trace_detach(), or by the kernel when memprobe ends, however that comes about: either takes some
 * 50 ms for each probe, CPU and thread.
 */
enum trace_engine {
	TRACE_ENGINE_AUTO, /* the agent; uprobes where it is refused */
	TRACE_ENGINE_AGENT,
	TRACE_ENGINE_UPROBE,
};

struct pool_file;

struct trace_options {
	enum trace_engine engine;
	/* Mean bytes between two samples. 1: every block, exactly. 0: chosen, and changed while it
	 * records, so that there are about a thousand samples a second. */
	uint64_t rate;
	/* Only blocks of min_size <= requested bytes <= max_size; max_size 0: no limit. */
	uint64_t min_size, max_size;
	/* Also counts what was freed again: trace_site.all_count, all_bytes. */
	bool all;
	/* The functions of this pool are recorded in place of malloc's, by the agent only; lent for
	 * the session's life. NULL: malloc. */
	const struct pool_file *pool;
	unsigned depth_max; /* frames of a stack; 0: TRACE_DEPTH_MAX */
	/* Bytes that the tables may take, which count as the target's: when they are getting full
	 * samples are taken less often. 0: a quarter of what the memory cgroups of the target and
	 * of this process leave, at most 1 GiB. */
	uint64_t memory_max;
	uint64_t timeout_us;   /* of attaching and of detaching; 0: 10 s */
	uint64_t max_pause_us; /* as in stop.h */
	/* Copied with each allocation by TRACE_ENGINE_UPROBE: deeper stacks are cut. A multiple of
	 * 8; 0: what they need. */
	uint32_t stack_bytes;
	bool (*interrupted)(void); /* asked while attaching: true gives up. May be NULL. */
};

#define TRACE_DEPTH_MAX 256

/* A function of the target that allocates or frees. */
struct trace_hook {
	char *name;	  /* owned; aliases of one address: the first name */
	char *module;	  /* owned; path as the target sees it */
	uint64_t address; /* 0: the allocator has no such function */
	bool hooked;
	char *reason; /* owned; why it is not hooked; NULL if it is */
};

VEC_DEFINE(trace_hook_vec, struct trace_hook)

/* What it took, and what it left. Valid until trace_destroy(). */
struct trace_report {
	enum trace_engine engine; /* that records: never TRACE_ENGINE_AUTO */
	char *refused;		  /* owned; why it is not the agent; NULL: it is, or was not
				   * wanted */
	const char *allocator;	  /* struct allocator.name; NULL: unknown */
	struct trace_hook_vec hooks;
	uint64_t rate;		    /* as in trace_options, never 0: the one that holds now */
	uint64_t attach_stopped_us; /* the longest time that a thread was held to attach */
	uint64_t detach_stopped_us; /* ... and to detach */
	unsigned attach_stops, detach_stops; /* stops of all threads, retries included */
	uint64_t tables_us;	/* spent on unwind tables before anything was stopped */
	uint64_t table_bytes;	/* of unwind tables, as they stand in the target */
	bool leftovers_removed; /* of a predecessor that had been killed */
	/* The agent's own memory in the target, as long as it is there; 0: it has none. */
	uint64_t area_start, area_end;
	/* Processes that were forked while the target was recorded, and out of which trace_detach()
	 * has taken the agent, or could not. */
	unsigned children_cleaned, children_left;
	bool cut_short; /* the recording has ended for want of memory */
	bool thinned;	/* the tables got full: the rate is coarser than was asked for */
	/* After trace_detach(): bytes that stay mapped in the target, idle, and why (owned; NULL:
	 * nothing remains). */
	uint64_t remaining;
	char *remaining_reason;
};

/* Since the recording began; exact. */
struct trace_counters {
	uint64_t calls;			  /* of hooked functions, within a few hundred a thread */
	uint64_t recorded;		  /* blocks that got an entry */
	uint64_t freed;			  /* of these */
	double bytes;			  /* allocated in all; an estimate unless the rate is 1 */
	uint64_t lost_allocs, lost_frees; /* of which there is no trace: a table was full */
	uint64_t filtered;		  /* outside of [min_size, max_size] */
	uint64_t truncated;		  /* stacks that could not be followed to their end */
	uint64_t threads;		  /* that have recorded something so far */
	uint64_t lost_threads;		  /* of lost_allocs: there was no slot for the thread */
	/* How often memprobe did not come round to renew the lease: what was allocated or freed
	 * until it did is missing. */
	uint64_t lapses;
	double bytes_per_second; /* allocated, over the last second of ticks */
	uint64_t table_memory;	 /* bytes that the tables take now */
	uint64_t time_us;	 /* since the recording began */
};

/* A block that has not been freed yet. */
struct trace_block {
	uint64_t address, size; /* as asked for */
	uint64_t context;	/* of a pool, that it belongs to; 0: none, or of malloc */
	uint64_t number;	/* grows from block to block; see trace_number() */
	uint32_t site;		/* index into trace_data.sites */
	uint32_t age_ms;
	/* How many blocks of its size it stands for: 1 with rate 1, else 1/(1-exp(-size/rate)),
	 * with the rate of that moment. */
	double weight;
};

VEC_DEFINE(trace_block_vec, struct trace_block)

/* One call stack. Counts and bytes are estimates unless the rate is 1. */
struct trace_site {
	/* Leaf first: return addresses, pcs[0] behind the call of the allocator. Owned by the
	 * trace_data. */
	const uint64_t *pcs;
	uint32_t depth;
	bool truncated;	  /* the stack goes on beyond */
	uint64_t samples; /* live blocks that were recorded */
	double live_count, live_bytes;
	double all_count, all_bytes; /* with trace_options.all; freed ones included */
};

VEC_DEFINE(trace_site_vec, struct trace_site)

/* What is live of a pool's context. */
struct trace_context {
	uint64_t address; /* 0: of none */
	uint64_t samples;
	double live_count, live_bytes;
};

VEC_DEFINE(trace_context_vec, struct trace_context)

struct trace_wanted {
	bool blocks;	   /* trace_data.blocks; else sums by site only */
	uint32_t older_ms; /* of live blocks, only those of at least this age */
};

struct trace_data {
	struct trace_site_vec sites; /* those without anything live or all are left out */
	struct trace_block_vec blocks;
	struct trace_context_vec contexts; /* with a pool; those without anything live left out */
	struct trace_counters counters;
	uint64_t *pcs; /* private: what sites point into */
};

struct trace_session;

/* @target must outlive the session. NULL @options: the defaults. */
struct error *trace_attach(struct target *target, const struct trace_options *options,
			   struct trace_session **ret);

/*
 * Renews the lease, makes room in the tables, learns new modules. *alive_ret false: the target has
 * exited or replaced its program; what was recorded can still be read.
 */
struct error *trace_tick(struct trace_session *session, bool *alive_ret);

/* NULL @wanted: sums by site. While the target runs it is what was live at about that instant. */
struct error *trace_read(struct trace_session *session, const struct trace_wanted *wanted,
			 struct trace_data **ret);
void trace_data_destroy(struct trace_data *data);
CLEANUP_DEFINE(trace_data, struct trace_data *, trace_data_destroy)

/* The counters alone: cheap, for every refresh of a screen. */
struct error *trace_count(struct trace_session *session, struct trace_counters *ret);

/*
 * A mark in the recording: what is allocated from now on gets a higher number, and of a block with
 * one that is not higher the allocator has returned by now. Renews the lease.
 */
uint64_t trace_number(struct trace_session *session);

/* Stops recording at once, holding nobody: what trace_read() gives no longer changes. Idempotent.
 */
void trace_pause(struct trace_session *session);

/*
 * Takes the hooks and the agent out. What cannot go, since a thread is in a hooked function, is
 * left behind, idle, and told in the report: that is no error. The data can be read afterwards.
 */
struct error *trace_detach(struct trace_session *session);

const struct trace_report *trace_report(const struct trace_session *session);

/*
 * The target as symbolizer_create() wants it, with every module that was there at some time of the
 * recording, files held open: it does not need the target to live. Of two modules that were at one
 * place the earlier is kept. The session owns it.
 */
struct target *trace_modules(struct trace_session *session);

/* Detaches first if that has not been done. */
void trace_destroy(struct trace_session *session);
CLEANUP_DEFINE(trace, struct trace_session *, trace_destroy)

/* ---- what a killed memprobe left ---- */

struct trace_leftover {
	uint64_t address, size; /* of the agent and all its mappings together */
	unsigned hooks;		/* functions that still lead into it */
	bool recording;		/* a memprobe is at work with it */
	bool active;		/* its hooks record: they stop when the lease is over, */
	bool lapsed;		/* as it is: each thread does some calls more at most */
	bool inherited; /* a copy, never active, from the parent that forked while recorded */
	/* False: it is of another version of memprobe, which alone can remove it. */
	bool known;
};

VEC_DEFINE(trace_leftover_vec, struct trace_leftover)

/* Reads only. Appends nothing where there is nothing. */
struct error *trace_find_leftovers(struct target *target, struct trace_leftover_vec *ret);

/*
 * Removes them, but for those that still record (ERROR_BUSY). What a thread stands in stays and is
 * counted in *remaining_ret (bytes).
 */
struct error *trace_remove_leftovers(struct target *target, uint64_t timeout_us,
				     uint64_t *remaining_ret);

#endif
