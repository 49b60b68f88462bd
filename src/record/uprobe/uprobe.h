/*
 * uprobe.h - records allocations from outside, by probes of the kernel. Private to record/.
 *
 * For where the agent may not go: programs of the kernel's (bpf(2)) at its uprobes of the
 * allocator's functions tell size and pointers by registers, those at the return probes the block
 * and the stack. Nothing is written into the target but by the kernel, which takes its breakpoints
 * away when memprobe ends, however that comes about. What it leaves is the mapping [uprobes] of the
 * kernel's, a page that only execve() or the end removes.
 *
 * Every call costs the target its two or three traps, whatever the sampling: that only saves
 * memprobe's own work. The probes are of the process; before Linux 6.12, or where its first thread
 * has ended, of one thread, for the memory that all of them share: should that one end before the
 * others, so does the recording.
 */
#ifndef RECORD_UPROBE_H
#define RECORD_UPROBE_H

#include <pthread.h>
#include <stdatomic.h>

#include "record/functions.h"
#include "record/history.h"
#include "record/memory_guard.h"
#include "memprobe/perf_events.h"
#include "memprobe/sample_stacks.h"
#include "memprobe/trace.h"
#include "record/recorder.h"

/* ---- uprobe_place.c ---- */

#define UPROBE_ARGUMENTS 6

/* Those of the arguments, as instructions number them: ax cx dx bx sp bp si di r8 ... r15. */
extern const uint8_t uprobe_argument_registers[UPROBE_ARGUMENTS];

/*
 * The offset at which to probe a function of x86-64: those of its arguments that bits of
 * @arguments name are in the registers that @registers_ret (UPROBE_ARGUMENTS) tells, the stack
 * pointer is that of its call, every call comes by, and the kernel carries the instruction out
 * itself (push, jmp, jcc, call, nop; arch/x86/kernel/uprobes.c) instead of stepping over it, which
 * takes ten times as long. 0, which is right but may be slow, where there is none.
 */
unsigned uprobe_place(const uint8_t *code, size_t size, unsigned arguments, uint8_t *registers_ret);

/* ---- uprobe_wanted.c ---- */

/*
 * Refuses the functions that nothing in the target calls: each probe takes the kernel its time to
 * take out. malloc and its nearest kin stay in any case; so does what a module asks for by any of
 * its names, and all operators as soon as there is a module in C++.
 */
struct error *uprobe_refuse_unwanted(struct target *target, const struct module *allocator,
				     struct function_vec *functions);

/* ---- uprobe_returns.c: where a function returns ---- */

#define UPROBE_RETURNS_MAX 32

struct uprobe_returns {
	uint64_t addresses[UPROBE_RETURNS_MAX]; /* of `ret`s */
	unsigned count;
	bool all; /* else there are ways out that were not found */
};

struct error *uprobe_find_returns(struct target *target, const struct function *function,
				  struct uprobe_returns *ret);

/* ---- uprobe_table.c: blocks that have not been freed ---- */

struct uprobe_block {
	uint64_t address; /* 0: none */
	uint64_t size;
	uint64_t time; /* ns, of its sample */
	uint32_t stack;
};

/* A zeroed struct is empty. */
struct uprobe_table {
	struct uprobe_block *blocks;
	size_t size;
	size_t capacity; /* 0, or a power of two */
	/* Frees of what was not there: the block's sample may come late. By the address's hash. */
	struct uprobe_block *late; /* address and time */
};

void uprobe_table_deinit(struct uprobe_table *table);

/*
 * *replaced_ret: there was one already, whose free was missed. A block that has been freed since
 * its time is not entered.
 */
struct error *uprobe_table_put(struct uprobe_table *table, const struct uprobe_block *block,
			       bool *replaced_ret);

/* Takes it out, if it is older than @time; false: it is not there. *ret may be NULL. */
bool uprobe_table_take(struct uprobe_table *table, uint64_t address, uint64_t time,
		       struct uprobe_block *ret);

/* NULL: it is not there. */
struct uprobe_block *uprobe_table_find(struct uprobe_table *table, uint64_t address);

/* ---- uprobe_calls.c: which return belongs to which call ---- */

/* A call of an allocating function that has not returned. */
struct uprobe_call {
	uint64_t sp; /* at its beginning: where the return address is */
	uint64_t pointer, size;
	unsigned function;	 /* number of the caller's */
	bool at_ret;		 /* its return is seen by UPROBE_AT_RET */
	bool may_throw;		 /* and be left without a return */
	struct uprobe_block old; /* taken out by a realloc; address 0: none */
};

#define UPROBE_CALLS_MAX 8

struct uprobe_thread {
	pid_t tid;
	unsigned depth;
	struct uprobe_call calls[UPROBE_CALLS_MAX]; /* the innermost last */
	uint64_t last_sp; /* of the return that was the thread's last event; 0: it was another */
};

struct uprobe_calls;

struct error *uprobe_calls_create(struct uprobe_calls **ret);
void uprobe_calls_destroy(struct uprobe_calls *calls);

/* A function begins. */
struct error *uprobe_calls_enter(struct uprobe_calls *calls, pid_t tid,
				 const struct uprobe_call *call);

/* What a return is worth. */
enum uprobe_return {
	UPROBE_UNKNOWN, /* its call began before the recording, or was lost */
	UPROBE_OUTER,	/* of the program's call */
	UPROBE_INNER,	/* of the allocator's call of itself, or a second one of a tail call */
};

/* One of those whose calls are at_ret: others pass the same `ret`, too, on their way. */
#define UPROBE_AT_RET UINT32_MAX

/*
 * @function returns, and @sp is where its return address was; @own_caller: to the allocator's
 * own text. *ret its call, unless it is unknown.
 */
struct error *uprobe_calls_return(struct uprobe_calls *calls, pid_t tid, unsigned function,
				  uint64_t sp, bool own_caller, struct uprobe_call *ret,
				  enum uprobe_return *kind_ret);

/* Calls that never returned: left by longjmp(), or their return was lost. */
uint64_t uprobe_calls_abandoned(const struct uprobe_calls *calls);
/* Threads that have called. */
uint64_t uprobe_calls_threads(const struct uprobe_calls *calls);

/* ---- uprobe_program.c: what the kernel writes at a probe ---- */

struct uprobe_record {
	uint64_t spec;
	uint64_t thread; /* its process's id in the upper half; in the first namespace */
	uint64_t time;	 /* ns, CLOCK_MONOTONIC */
	uint64_t stack_size;
	uint64_t registers[]; /* those of the spec, as perf_places has them; then the stack */
};

/* What programs and reader share. */
struct uprobe_shared {
	uint64_t stack_bytes; /* wanted: the least of the sizes that is not less is copied */
	uint64_t lost[PERF_SPECS_MAX]; /* hits for which there was no room */
};

struct uprobe_program_options {
	int ring, shared; /* descriptors */
	int number;	  /* of the spec; -1: the probe's cookie is it */
	uint64_t registers;
	const uint32_t *sizes; /* of the stack, ascending, multiples of 8 */
	unsigned size_count;   /* 0: no stack */
};

struct error *uprobe_program(const struct uprobe_program_options *options, int *fd_ret);

/*
 * The same at the end of system calls of @target, attached: a record's spec is the index of the
 * call's number in @numbers (-1: none). It runs at the end of any call of any process, and is done
 * with most of them in some 20 ns. options->number is nothing.
 */
struct error *uprobe_program_for_calls(const struct uprobe_program_options *options,
				       const struct target *target, const int *numbers,
				       unsigned count, int *fd_ret);

/* ---- uprobe_probes.c: the probes of all threads at once ---- */

/*
 * Programs (bpf(2)) that run at every hit in the process's memory, whichever thread it is, born
 * before or later: one for all entries and one for all returns, or, before Linux 6.12, one for each
 * probe, with an event of perf's. (Events that samples come from would be
 * one for each thread and CPU, every hit would ask them all, and new threads could not inherit
 * them: the kernel reads the path of the file anew then, from the memory of the target, and
 * pthread_create(3) fails.)
 */
struct uprobe_probes;

/*
 * @stack_bytes: of a stack, always; 0: what samples need, see uprobe_probes_want_stack().
 * ERROR_PERMISSION, ERROR_UNSUPPORTED: the kernel forbids such programs, or has none.
 */
struct error *uprobe_probes_open(struct target *target, const struct perf_spec *specs,
				 unsigned count, uint32_t stack_bytes, struct uprobe_probes **ret);
/*
 * Instead of at places in programs, at the end of the system calls @numbers of the target: specs
 * have registers only, all the same.
 */
struct error *uprobe_probes_open_calls(struct target *target, const struct perf_spec *specs,
				       const int *numbers, unsigned count, uint32_t stack_bytes,
				       struct uprobe_probes **ret);
void uprobe_probes_close(struct uprobe_probes *probes);

/* Visits what has come. */
struct error *uprobe_probes_poll(struct uprobe_probes *probes, perf_visit *visit, void *data);
/* The last time: waits for those that are still being written. */
struct error *uprobe_probes_finish(struct uprobe_probes *probes, perf_visit *visit, void *data);
void uprobe_probes_lost(const struct uprobe_probes *probes, uint64_t *ret);
/* How much of a stack is copied from now on, where that was left open; at most PERF_STACK_MAX. */
void uprobe_probes_want_stack(struct uprobe_probes *probes, uint32_t bytes);
/* The process has replaced its program. */
bool uprobe_probes_ended(const struct uprobe_probes *probes);
/* The thread that stands for all has ended, and others have not: nothing more comes. */
bool uprobe_probes_blind(const struct uprobe_probes *probes);

/* ---- uprobe_stack.c: how much of each stack is copied ---- */

#define UPROBE_STACK_BYTES 8192u /* to begin with */

struct uprobe_stack {
	uint32_t bytes; /* wanted now */
	uint32_t least; /* with less some were cut */
	bool is_fixed, decided;
	unsigned skipped;
	/* Since it was last decided: */
	unsigned samples, cut;
	uint64_t reach; /* the most that a walk needed; kept until it is raised */
};

/* @fixed: it stays so; 0: what the samples need. */
void uprobe_stack_init(struct uprobe_stack *stack, uint32_t fixed);
/* Whether a stack that is not needed otherwise is to be walked to learn from. */
bool uprobe_stack_wants(struct uprobe_stack *stack);
/* @reach: of sample_stacks_reach(); @copied: bytes that the sample had. */
void uprobe_stack_note(struct uprobe_stack *stack, uint64_t reach, uint64_t copied);

/* ---- the engine, and what its parts share ---- */

/* What a perf event tells about. */
struct uprobe_event {
	unsigned function; /* index into functions */
	enum uprobe_event_kind {
		UPROBE_ENTRY,
		UPROBE_RETURN,
		UPROBE_RET, /* the instruction: of any function that may throw */
	} kind;
};

struct uprobe_total {
	double count, bytes;
};

VEC_DEFINE(uprobe_total_vec, struct uprobe_total)

struct uprobe_engine {
	struct target *target;
	const struct trace_options *options;
	struct trace_report *report;
	struct history *history;
	struct memory_guard guard;
	unsigned polls;
	uint64_t rate;
	struct function_vec functions;
	unsigned word;		       /* 4 or 8: bytes of a pointer */
	uint64_t text_start, text_end; /* of the allocator: struct agent_config.allocator_* */
	struct perf_spec specs[PERF_SPECS_MAX];
	struct uprobe_event events[PERF_SPECS_MAX]; /* by spec */
	unsigned spec_count;
	/* By function: where its arguments are at the probe. */
	uint8_t arguments[PERF_SPECS_MAX][UPROBE_ARGUMENTS];
	/* By function: of those that may throw, how they are seen to return. */
	enum uprobe_exits {
		UPROBE_NO_EXIT,
		UPROBE_SOME_EXITS,
		UPROBE_ALL_EXITS,
	} exits[PERF_SPECS_MAX];

	/* The reader takes samples out of the rings all the time; @lock is for all below. */
	pthread_t reader;
	bool reads;
	atomic_bool stop;
	atomic_uint wanted; /* others who wait for the lock: the reader lets them */
	pthread_mutex_t lock;
	struct error *error;	      /* that ended the reader */
	struct uprobe_probes *probes; /* NULL: detached */
	int file;		      /* that is probed, or -1 */
	char path[32];		      /* by this descriptor, for specs */
	struct sample_stacks *stacks;
	struct uprobe_stack stack;
	struct uprobe_table table;
	struct uprobe_calls *calls;
	struct uprobe_total_vec totals; /* with options.all, by stack */
	uint64_t since, until;		/* ns: what began before or ended later is not recorded */
	uint64_t begin_us, end_us;
	bool execed;
	uint64_t random;
	double countdown; /* bytes up to the next sample point */
	struct uprobe_counts {
		uint64_t calls, recorded, freed, filtered, replaced, unpaired;
		uint64_t unreturned; /* calls of functions whose return is not probed */
		uint64_t bytes;
		uint64_t lost_entries, lost_returns, lost_frees;
	} counts;
	uint64_t rate_us, rate_bytes; /* for bytes per second */
	double bytes_per_second;
};

/* uprobe_open.c: the functions, their probes and the rings. */
struct error *uprobe_open(struct uprobe_engine *engine, struct trace_report *report);

/* uprobe_visit.c: perf_visit of the engine. */
struct error *uprobe_visit(void *engine, const struct perf_sample *sample);

/* uprobe_read.c: how many blocks one that was sampled stands for. */
double uprobe_weight(uint64_t rate, uint64_t size);
/* With the lock held. */
struct error *uprobe_collect(struct uprobe_engine *engine, const struct trace_wanted *wanted,
			     struct trace_data *ret);
void uprobe_counters(struct uprobe_engine *engine, struct trace_counters *ret);

#endif
