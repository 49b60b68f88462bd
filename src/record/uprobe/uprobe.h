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
#include "record/kernel/bpf_probes.h"
#include "record/kernel/stack_size.h"
#include "record/memory_guard.h"
#include "record/kernel/perf_events.h"
#include "record/kernel/sample_stacks.h"
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
	struct error *error;	   /* that ended the reader */
	struct bpf_probes *probes; /* NULL: detached */
	int file;		   /* that is probed, or -1 */
	char path[32];		   /* by this descriptor, for specs */
	struct sample_stacks *stacks;
	struct stack_size stack;
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
