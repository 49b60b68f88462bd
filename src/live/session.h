/* session.h - what the parts of the remote call share. Private to live/. */
#ifndef SESSION_H
#define SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "detour.h"
#include "memprobe/call.h"
#include "memprobe/ptrace.h"
#include "memprobe/thread_state.h"
#include "memprobe/vec.h"
#include "script.h"

struct code_range {
	uint64_t start, end;
};

VEC_DEFINE(code_range_vec, struct code_range)
VEC_DEFINE(address_vec, uint64_t)

/* Where the stub lies in the target, or will. */
struct placement {
	struct detour detour;
	uint64_t code;	/* address of the signature */
	uint64_t block; /* address of the parameter block */
	size_t block_room;
	bool installed;
	bool checked; /* nobody is about to use an older block */
	/* Threads may still be inside (a predecessor was killed, a handler runs on top of the
	 * stub): it must stay. */
	bool in_use;
};

/* What must not be interrupted and then called again on the same thread. */
struct unsafe_code {
	struct code_range_vec malloc; /* the allocator, sorted by start */
	struct code_range_vec other;  /* fork and its like */
	struct code_range_vec system; /* all text of libc, the dynamic linker and the allocator */
	struct address_vec restorers; /* return addresses of signal handlers */
	/* An allocator other than libc's is there, which may call what libc's does not. */
	bool foreign_allocator;
	/* One is linked into a stripped executable: where its code lies cannot be told. */
	bool hidden;
};

/* How much of a stack is searched for return addresses: more than libc's deepest path to a lock. */
#define STACK_VIEW (32u << 10)

/* What unwinding said of a thread in one state; see opinion.c. */
#define OPINION_SLOTS 64

struct opinion {
	pid_t tid;
	uint64_t pc, sp;
	uint64_t slots[OPINION_SLOTS]; /* where its return addresses stand */
	size_t slot_count;
	uint64_t hash; /* of them */
	bool clear;    /* none leads into unsafe code */
};

VEC_DEFINE(opinion_vec, struct opinion)

struct stack_view {
	uint64_t start;
	size_t size;
	bool readable;
	uint8_t bytes[STACK_VIEW];
};

struct call_session {
	struct target *target;
	int lock;   /* /proc/PID, flock()ed */
	int memory; /* /proc/PID/mem, read and write: bound to this address space */
	uint64_t timeout_us;
	struct process_status status; /* of the process, when the session was opened */
	struct mapping_vec maps;
	struct placement place;
	struct unsafe_code unsafe;
	uint64_t errno_function;
	uint64_t xsave_mask;
	uint32_t xsave_size, xsave_used;
	uint64_t static_tls; /* bytes below the thread pointer that TLS may take */
	uint64_t stopped_us;
	uint64_t held_since;	  /* when the thread stopped last was last seen not to be */
	struct pid_vec lingering; /* seized and interrupted, but yet to stop */
	struct stack_view view;	  /* of the thread judged last */
	call_unwind *unwind;	  /* NULL: there is none to ask */
	void (*unwind_destroy)(void *data);
	void *unwind_data;
	struct thread_state doubt; /* the thread that the unwinder is to be asked about */
	struct opinion_vec opinions;
	char reason[160]; /* why the last thread that was looked at would not do */
};

/* ---- placement.c ---- */

/* Finds room for code and a block of at least @block_size, preferably what is installed already. */
struct error *placement_find(struct call_session *session, size_t block_size);
/* Writes the code, unless it is there. @tid: a stopped thread of ours, or 0. */
struct error *placement_install(struct call_session *session, pid_t tid);
/* Writes and verifies the parameter block. */
struct error *placement_write_block(struct call_session *session, pid_t tid,
				    const struct block *block);
/* One word of the block in place. */
struct error *placement_set_word(struct call_session *session, pid_t tid, unsigned index,
				 uint64_t value);
/* Puts the zeros back where nobody can be inside any more. */
void placement_erase(struct call_session *session);
bool placement_holds(const struct placement *place, uint64_t pc);

/* ---- unsafe.c ---- */

struct error *unsafe_code_find(struct target *target, const struct mapping_vec *maps,
			       struct unsafe_code *ret);
void unsafe_code_deinit(struct unsafe_code *unsafe);
bool code_ranges_hold(const struct code_range_vec *ranges, uint64_t pc);

/* ---- victim.c ---- */

enum fitness_power {
	FIT_FOR_SYSCALLS, /* raw system calls only */
	FIT_FOR_FUNCTIONS,
	FIT_FOR_MALLOC,
};

/* Threads worth a try, best first: blocked in what the kernel restarts, the main thread last. */
struct error *victims_list(struct call_session *session, struct pid_vec *ret);

/* Judges a stopped thread; false: session->reason says why not. */
bool victim_fits(struct call_session *session, pid_t tid, const struct user_regs_struct *regs,
		 enum fitness_power power, uint64_t stack_needed);

/* Whether a return address into @ranges, or the program counter, says that the thread is inside. */
bool thread_inside(struct call_session *session, const struct user_regs_struct *regs,
		   const struct code_range_vec *ranges);
/* Looking no further up the stack than @end. */
bool thread_inside_below(struct call_session *session, const struct user_regs_struct *regs,
			 const struct code_range_vec *ranges, uint64_t end);
/*
 * Whether a thread is in the stub, by its whole stack. What cannot be told (a handler on another
 * stack, a stack that cannot be read) counts as inside.
 */
enum stub_presence { STUB_OUTSIDE, STUB_INSIDE, STUB_BEFORE_COPY };
enum stub_presence stub_presence(struct call_session *session, const struct user_regs_struct *regs);

/* ---- opinion.c ---- */

/* Whether unwinding has cleared the thread in just this state; by the view read last. */
bool opinion_clears(const struct call_session *session, pid_t tid,
		    const struct user_regs_struct *regs);
/* In the stop: copies what the unwinder needs. */
void opinion_ask(struct call_session *session, pid_t tid, const struct user_regs_struct *regs);
/* After the stop. */
void opinion_form(struct call_session *session);
void opinion_forget(struct call_session *session);

/* ---- foreseen.c ---- */

/*
 * Whether the stopped thread's seccomp filters let through what a run may ask of the kernel: every
 * step of the scripts, whoever runs them (threads and forks inherit the filters), and what @options
 * say of the functions. @mode: process_status.seccomp.
 */
struct error *foreseen_check(struct call_session *session, pid_t tid, int mode,
			     const struct call_script *const *scripts, size_t script_count,
			     const struct call_options *options);

/* ---- seize.c ---- */

/* A thread that does not stop in this time is in an uninterruptible sleep. */
#define SEIZE_TIMEOUT_US 100000

/*
 * Seizes and stops @tid for a try, its wait repaired: ptrace_detach() is all that lets it go.
 * *stopped_ret false: not a thread to wait for; else *regs_ret is set.
 */
struct error *seize_stop(struct call_session *session, pid_t tid, unsigned long options,
			 bool *stopped_ret, struct user_regs_struct *regs_ret);
/*
 * A stub that a killed predecessor left: ERROR_BUSY if a thread has yet to read its parameter
 * block; if one is on its way through it, the stub must stay when we are done.
 */
struct error *seize_check_predecessor(struct call_session *session);

/* Once the others run again: waits for those that were yet to stop, and lets them go. */
void seize_release_lingering(struct call_session *session);

/* ---- engine.c ---- */

/* What a run is to watch. */
struct engine_run {
	pid_t tid;
	/* As it was first stopped, and its mask, if that has been replaced since the commit. */
	struct user_regs_struct regs;
	bool mask_blocked;
	uint64_t mask;
	const struct call_script *script;
	struct block *block;
	const struct call_options *options;
	uint64_t deadline; /* clock_us() */
	/* A helper thread: the frame it runs in; its end is its exit. 0: a thread of the target. */
	uint64_t helper_frame;
	bool detach_at_marker; /* what follows it does by itself */
	struct call_result *result;
	pid_t child; /* set: the thread that a clone step began, stopped at its start */
};

/*
 * Commits the stopped run->tid to the script, as run->regs and run->block say, and watches it;
 * detached in any case when this returns.
 */
struct error *engine_run(struct call_session *session, struct engine_run *run);

/*
 * Watches a committed thread (or a helper in its first stop) to the end of its script. The thread
 * is detached when this returns, whatever it returns.
 */
struct error *engine_watch(struct call_session *session, struct engine_run *run);

/* ---- helper.c ---- */

/* True if a second thread may run libc's code in this process beside its own. */
bool helper_possible(struct call_session *session);

/* All that helper_run() adds to a script, for foreseen_check(): places are made up. */
void helper_outline(struct call_session *session, const struct call_options *options,
		    struct call_script *ret);

/* Runs the script in a helper thread that the stopped thread @tid starts. */
struct error *helper_run(struct call_session *session, pid_t tid,
			 const struct user_regs_struct *regs, const struct call_script *script,
			 const struct call_options *options, uint64_t deadline,
			 struct call_result *ret);

/* ---- call.c ---- */

/* Room for the stub and a block, and the stub in it, before any thread is stopped for the call. */
struct error *call_place(struct call_session *session, size_t block_size);

#endif
