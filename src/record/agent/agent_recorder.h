/* session.h - what the parts of the recording share. Private to record/. */
#ifndef RECORD_AGENT_RECORDER_H
#define RECORD_AGENT_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/abi.h"
#include "record/functions.h"
#include "record/history.h"
#include "record/memory_guard.h"
#include "memprobe/call.h"
#include "memprobe/stop.h"
#include "memprobe/trace.h"
#include "memprobe/unwind_table.h"
#include "record/recorder.h"

/* ---- tables.c: the memory that is shared with the target ---- */

struct table_level {
	uint64_t offset;
	uint64_t count;	 /* entries: buckets or stacks */
	uint64_t owners; /* with pools: offset of the buckets' struct agent_owner */
};

/*
 * What grows has a file of its own, which ends where its memory does: were there more of it, a
 * target that locks what it has mapped (mlockall(2)) would have all of the reservation filled.
 */
enum tables_part_name {
	TABLES_HEAD, /* also the contexts, and the unwind table at its end */
	TABLES_FRAMES,
	TABLES_STACKS,
	TABLES_LIVE,
	TABLES_PARTS,
};

struct tables_part {
	int fd;		     /* -1: not yet */
	uint64_t start, end; /* offsets; the file begins at the first */
	uint64_t length;     /* of the file */
	int own_fd;	     /* has what stood in the first `moved` bytes of it; -1: nothing */
	uint64_t moved;
};

/* Offsets are those from the beginning of the whole, as it lies in the target. */
struct tables {
	struct tables_part parts[TABLES_PARTS];
	uint64_t size; /* of all, reserved but not allocated */
	uint64_t allocated, allocated_max;
	uint64_t limit; /* allocated_max is never more; less while the memory cgroups leave less */
	uint8_t *head;	/* mapped: struct agent_shm and the counters */
	uint64_t counters_offset, head_size;
	struct table_level live[AGENT_LEVELS], stacks[AGENT_LEVELS];
	unsigned live_levels, stack_levels; /* there is room for */
	unsigned live_ready, stack_ready;   /* have memory behind them */
	uint64_t frames_offset, frames_words, frames_ready;
	uint64_t contexts_offset, contexts_count; /* with pools: struct agent_context */
	uint64_t unwind_offset, unwind_capacity, unwind_ready;
	uint8_t *unwind; /* mapped */
	size_t unwind_copied;
	bool is_little;	 /* limit is */
	int full;	 /* errno of what could not be allocated; 0: all could */
	unsigned filled; /* per cent, of the fullest that cannot grow any more; 0: all can */
};

void tables_init(struct tables *tables);
/* Sizes for a target; @space: bytes of its address space that may be reserved. */
void tables_plan(struct tables *tables, bool exact, bool pools, uint64_t space,
		 uint64_t memory_max);
/* Takes over the files, which are empty, and gives them their first memory. Nothing is done to a
 * file that is another. */
struct error *tables_open(struct tables *tables, int fds[TABLES_PARTS]);
/* Where everything is, for a target that has them at @base. Adds to config->pools. */
void tables_describe(const struct tables *tables, uint64_t base, struct agent_config *config);
/* Memory for what will soon be used. @live: blocks in the live table now. True: limits changed. */
bool tables_grow(struct tables *tables, uint64_t live);
/* Brings the target's copy of the unwind table up to date. */
struct error *tables_publish_unwind(struct tables *tables, const struct unwind_table *table);
bool tables_read(const struct tables *tables, uint64_t offset, void *buffer, size_t size);
/*
 * Takes what the target has of them in memory away from it, into files of our own: the pages go
 * from its address space without one of its threads being held for that. Nobody is to use the
 * tables any more. Where there is no memory to move them through they stay.
 */
void tables_take(struct tables *tables);
/* Gives all memory back, also that which forked children map. */
void tables_close(struct tables *tables);

static inline const struct agent_shm *tables_shm(const struct tables *tables)
{
	return (const struct agent_shm *)tables->head;
}

static inline const struct agent_counters *tables_counters(const struct tables *tables)
{
	return (const struct agent_counters *)(tables->head + tables->counters_offset);
}

/* ---- hold.c: stops at a moment when nobody is where something changes ---- */

struct text_range {
	uint64_t start, end;
};

VEC_DEFINE(text_range_vec, struct text_range)

struct hold {
	struct target *target;
	struct unwind_table *unwind; /* NULL: made when it is needed; then owned */
	bool owns_unwind;
	/* Nobody may be in, or return to, one of these. */
	const struct text_range *ranges;
	size_t range_count;
	/* Rather than leaving things undone, transfers may be cut short. */
	bool may_cut;
	/* The agent's struct agent_ctl and the place that originals return to; 0: there is none. */
	uint64_t ctl, return_point;
	/* Called with all threads held. */
	struct error *(*work)(void *data);
	void *data;
	bool (*interrupted)(void);
	bool once;	   /* no second try */
	uint64_t deadline; /* clock_us() */

	uint64_t stopped_us; /* the longest time that a thread was held */
	unsigned stops;	     /* in all runs */
	unsigned tries;	     /* in this one */
	bool is_late;	     /* half of the time to the deadline is over */
	pid_t last_pid;	     /* sharers_last_pid() before the stop */
	char reason[160];    /* who was in the way last */
	bool done;
	struct error *error;
};

/* Tries until it is done: ERROR_BUSY, with the reason, if that was not to be by the deadline. */
struct error *hold_run(struct hold *hold);
void hold_deinit(struct hold *hold);

/* ---- install.c: the agent's mappings ---- */

/*
 * Words in CTL: how much of a mapping is to be taken away again by the script that made it; 0 once
 * it stays.
 */
#define INSTALL_UNDO_IMAGE (offsetof(struct agent_ctl, spare) + 8)
#define INSTALL_UNDO_NEAR  (offsetof(struct agent_ctl, spare) + 16)

struct install {
	struct call_session *session;
	int memory;	      /* /proc/PID/mem, read and write */
	uint64_t image;	      /* where it is, with CTL behind it; the tables follow */
	uint64_t image_space; /* of all of these */
	uint64_t near;	      /* the hooks */
	uint64_t near_size;
	const uint8_t *near_bytes;
	struct agent_config config;
	struct tables *tables;
	int memfds[TABLES_PARTS];
	bool needs_tsc;	     /* there is no other clock for the lease */
	bool committed;	     /* there is an agent, which leave_run() is to take out */
	uint32_t tid_offset; /* agent_ctl.tid_offset, found out */
};

/* The agent as it is to be copied begins with its header. */
static inline const struct agent_header *image_header(void)
{
	return (const struct agent_header *)agent_image;
}

/* A free place for @size bytes from which all of @text can be reached by a 32-bit offset. */
struct error *install_find_near(struct target *target, const struct text_range *text, uint64_t size,
				uint64_t *ret);
struct error *install_run(struct install *install);

/* ---- hooks.c ---- */

#define NEAR_SLOT 256 /* bytes of the near area for each function */

struct hooks {
	struct function_vec functions;
	uint64_t text_start, text_end; /* struct agent_config.allocator_* */
	uint64_t near;
	uint8_t *near_bytes; /* owned */
	size_t near_size;
	unsigned count; /* of functions that can be hooked; their slots */
};

/*
 * Works out every hook, for an agent at @image that is to work in @mode (AGENT_EXACT,
 * AGENT_SAMPLING); fills in config->slots. What cannot be hooked gets a reason.
 */
struct error *hooks_plan(struct hooks *hooks, uint64_t image, uint32_t mode,
			 struct agent_config *config);
/* hold.work: they take effect. */
struct hooks_change {
	int memory; /* /proc/PID/mem */
	uint64_t image;
	struct agent_config *config;
	unsigned foreign; /* slots that somebody else has written over meanwhile */
};
struct error *hooks_set(void *hooks_change);
struct error *hooks_clear(void *hooks_change);
void hooks_deinit(struct hooks *hooks);

/* ---- leave.c: takes an agent out, be it ours or a predecessor's ---- */

struct leave {
	struct target *target;
	struct call_session *session; /* NULL: opened for it */
	struct unwind_table *unwind;  /* may be NULL */
	int memory;
	uint64_t image;
	struct agent_config config; /* as it is in the target */
	uint64_t timeout_us;
	struct tables *tables; /* in use by nobody once the hooks are gone; NULL: not known */

	uint64_t stopped_us;
	unsigned stops;
	uint64_t remaining; /* bytes */
	char reason[200];
};

struct error *leave_run(struct leave *leave);
/* Reads the config of the agent at @image. */
struct error *leave_read_config(int memory, uint64_t image, struct agent_config *ret);

/* ---- leftovers.c ---- */

/* Opens /proc/PID/mem for reading and writing; the caller closes it. */
struct error *agent_open_memory(struct target *target, int *ret);
/* Writes down in @config who we are, and that it is for @target. */
void agent_sign(struct agent_config *config, const struct target *target);
/* Removes what is there; ERROR_BUSY if somebody records, or it is still in use. @session: open on
 * the target. */
struct error *leftovers_clear(struct call_session *session, uint64_t timeout_us, bool *removed_ret);

/* ---- agent_attach.c ---- */

#define AGENT_RATES_MAX 32

/* What was counted up to the last look at the rate. */
struct rate_former {
	double estimate; /* of bytes allocated */
	uint64_t allocs, bytes;
	uint64_t samples;
	uint64_t since; /* clock_us() */
};

/* The clock of a target: how to get from ours to it. Without @address, the time stamp counter. */
struct lease_clock {
	uint64_t address; /* of clock_gettime() in its vdso; 0: it has none */
	int64_t offset;	  /* ns: its monotonic time less ours (time namespaces) */
};

struct agent_recorder {
	struct target *target;
	const struct trace_options *options;
	struct trace_report *report;
	struct hooks hooks;
	struct tables tables;
	struct agent_config config;
	struct unwind_table *unwind;
	struct history *history;
	int memory;	/* /proc/PID/mem: bound to the program that was running at the start */
	uint64_t image; /* of the agent in the target; 0: none */
	uint32_t epoch; /* agent_ctl.epoch */
	bool hooked;	/* some function led into the agent at some time */
	bool attached, paused;
	bool gone; /* exited, or another program now */

	uint64_t begin_us;	    /* clock_us() when the recording began */
	uint64_t end_us;	    /* when it ended; 0: it goes on */
	uint64_t clock_us_0, tsc_0; /* taken together */
	struct lease_clock clock;   /* by which the agent tells that memprobe lives */
	uint32_t tid_offset;	    /* agent_ctl.tid_offset */
	struct agent_range (*ranges)[AGENT_RANGES]; /* [2]: what has been published, by turns */
	uint64_t ranges_sequence;		    /* of the last one; 0: none */
	uint32_t ranges_count;
	unsigned maps_rest; /* ticks for which the maps are left alone: reading them takes long */
	unsigned ticks;
	uint64_t lapses;
	uint64_t rates[AGENT_RATES_MAX]; /* that were in use, by their index in the tables */
	unsigned rate_count;
	unsigned thin_at; /* tables.filled from which on the rate is made coarser; 0: not yet */
	struct rate_former former;
	uint64_t recorded_bytes; /* by the last agent_count(): of the blocks recorded */
	uint64_t rate_us;	 /* since when rate_bytes had been allocated */
	double rate_bytes, bytes_per_second;
	uint64_t *doubt_since; /* of each thread slot, clock_us(); 0: no doubt */
};

/* ---- children.c ---- */

/* Takes the agent out of all that were forked with it; said of each that keeps it. */
struct error *children_clean(struct agent_recorder *agent);

/* ---- memory_limit.c ---- */

/* What the tables may take. ERROR_FAILED: there is too little for any recording. */
struct error *memory_limit(const struct agent_recorder *agent, uint64_t *ret);
/* Whether so little is left that the recording had better end; said. Else the tables may grow by a
 * share of it. */
bool memory_is_short(struct agent_recorder *agent);

/* ---- rate.c: report.rate ---- */

void rate_begin(struct agent_recorder *agent);
/* Samples that were taken, of whatever size. */
uint64_t rate_samples(const struct trace_counters *counters);
/* Makes it so coarse that @samples in @us would have been few enough. */
void rate_slow_down(struct agent_recorder *agent, uint64_t samples, uint64_t us);
/* Tells the agent. False: the target has exited, or is another program now. */
bool rate_put(struct agent_recorder *agent);
/* The one with the @index that stands in the tables. */
uint64_t rate_of(const struct agent_recorder *agent, unsigned index);
/* Bytes allocated in all, for @allocs that were recorded, @bytes together. */
double rate_estimate(const struct agent_recorder *agent, uint64_t allocs, uint64_t bytes);
/* Makes it coarser, from every block on if need be, where the tables are getting full and cannot
 * grow. */
void rate_thin_out(struct agent_recorder *agent, const struct trace_counters *counters);
/* While recording: changes the rate if the target has changed, unless the user has set it. */
void rate_follow(struct agent_recorder *agent, const struct trace_counters *counters);

/* ---- what struct recorder_ops has (recorder.h) ---- */

struct error *agent_poll(void *agent_recorder, bool *alive_ret);
struct error *agent_count(void *agent_recorder, struct trace_counters *ret);
struct error *agent_read(void *agent_recorder, const struct trace_wanted *wanted,
			 struct trace_data *data);
uint64_t agent_mark(void *agent_recorder);
void agent_pause(void *agent_recorder);

/* ---- tick.c ---- */

/* Whether the lease has run out though memprobe lives; counted, and told of for the first time. */
bool agent_has_lapsed(struct agent_recorder *agent);

/* ---- ranges.c: what the agent may read ---- */

/* Tells the agent of the memory in @maps. False: the target has exited, or is another program. */
bool ranges_publish(struct agent_recorder *agent, const struct mapping_vec *maps);

/* ---- lease.c: the clock that the lease runs by ---- */

void lease_clock_find(struct target *target, struct lease_clock *ret);
/* Now, in ns of the target's CLOCK_MONOTONIC_COARSE. */
uint64_t lease_clock_now(const struct lease_clock *clock);

/* ---- control.c: struct agent_ctl ---- */

/* False: the target has exited, or is another program now. */
bool control_put(const struct agent_recorder *agent, uint64_t offset, const void *bytes,
		 size_t size);
bool control_put_32(const struct agent_recorder *agent, uint64_t offset, uint32_t value);
bool control_put_64(const struct agent_recorder *agent, uint64_t offset, uint64_t value);
bool control_get(const struct agent_recorder *agent, uint64_t offset, void *bytes, size_t size);
bool control_renew_lease(const struct agent_recorder *agent);
/* Those of the tables. */
bool control_put_limits(const struct agent_recorder *agent);
bool control_put_range(const struct agent_recorder *agent, uint64_t min_size, uint64_t max_size);
/* AGENT_EXACT or AGENT_SAMPLING. */
uint32_t control_mode(const struct agent_recorder *agent);

/* Time of the session in ms, as in agent_ctl.now. */
uint32_t agent_now(const struct agent_recorder *agent);
/* Notes when the recording ended, once. */
void agent_end(struct agent_recorder *agent);

#endif
