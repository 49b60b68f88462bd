/*
 * call.h - runs code in a living process and leaves it as it was.
 *
 * All injection of the product goes through this door. A call is a short script of functions and
 * system calls. It is run by a self-restoring detour stub in the zero padding behind an executable
 * segment: one register write (the program counter) commits it; from there the target heals itself
 * whether memprobe lives or dies. A living memprobe watches for the marker and reads the results
 * there. Only the one thread that makes the call is ever stopped.
 *
 *	call_open(target, timeout_us, &session);
 *	call_begin(&script, arch);  call_add_...(&script, ...);
 *	call_run(session, &script, options, &result);
 *	call_close(session);
 *
 * Errors: ERROR_PERMISSION (ptrace, seccomp), ERROR_UNSUPPORTED (no room for the stub, shadow
 * stacks, no such function), ERROR_BUSY (no safe point or not finished within the timeout; another
 * memprobe is at work), ERROR_FAILED (the target vanished, or the function crashed and was undone).
 */
#ifndef MEMPROBE_CALL_H
#define MEMPROBE_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/arch.h"
#include "memprobe/target.h"
#include "memprobe/thread_state.h"

/* ---- scripts ---- */

#define CALL_STEPS_MAX 24
#define CALL_DATA_MAX  3072

enum call_op {
	CALL_OP_END,
	CALL_OP_FUNCTION, /* by the C ABI, integer arguments */
	CALL_OP_SYSCALL,
	CALL_OP_COPY,  /* memcpy(args[0], args[1], args[2]) */
	CALL_OP_STORE, /* *(word *)args[0] = args[1] */
	CALL_OP_CLONE, /* clone(2); the child goes on in the frame at args[5] */
	CALL_OP_EXIT,  /* munmap(args[0], args[1]), exit(0) of the thread, without a stack */
};

/* How an argument is meant. DATA_* are offsets into the script's data, as it lies on the
 * target's stack during the call. */
enum call_arg_kind {
	CALL_VALUE = 0,
	CALL_DATA_ADDRESS = 1,
	CALL_DATA_WORD = 3,
};

struct call_arg {
	enum call_arg_kind kind;
	uint64_t value;
};

#define CALL_ARG(v)  ((struct call_arg){ CALL_VALUE, (uint64_t)(v) })
#define CALL_ADDR(o) ((struct call_arg){ CALL_DATA_ADDRESS, (o) })
#define CALL_WORD(o) ((struct call_arg){ CALL_DATA_WORD, (o) })

/*
 * When a step counts as failed. If it is the first step, the script ends; later ones go on at the
 * cleanup steps. So a script takes what it has to give back in its first step. Cleanup steps
 * cannot fail.
 */
enum call_check {
	CALL_ANY,      /* never */
	CALL_NO_ERRNO, /* the result is -4095..-1: a system call's error */
	CALL_EXPECT,   /* the result differs from `expect` */
};

/* call_step.fail beside the index of a step. */
#define CALL_FAIL_END	  (-1)
#define CALL_FAIL_CLEANUP (-2)

struct call_step {
	enum call_op op;
	uint64_t function; /* address or system call number */
	struct call_arg args[6];
	enum call_check check;
	uint64_t expect;
	bool has_result;
	size_t result; /* data offset of a word that takes the result */
	int fail;      /* the step to go on with after a failure */
};

struct call_script {
	const struct arch *arch;
	struct call_step steps[CALL_STEPS_MAX];
	unsigned step_count;
	int marker; /* index of the marker step, -1: none yet; the cleanup steps follow it */
	uint8_t data[CALL_DATA_MAX];
	size_t data_size;
	/* Set by the adders when memory ran out of room; call_run() then fails. */
	bool overflow;
};

void call_begin(struct call_script *script, const struct arch *arch);

/* Reserves data (word-aligned), copies @bytes there (NULL: zeros); returns its offset. */
size_t call_add_data(struct call_script *script, const void *bytes, size_t size);

/* Any step; returns its index. */
int call_add_step(struct call_script *script, const struct call_step *step);

/* The steps return the data offset of their result. @count arguments at @args. */
size_t call_add_function(struct call_script *script, uint64_t address, unsigned count,
			 const struct call_arg *args);
size_t call_add_syscall(struct call_script *script, int number, unsigned count,
			const struct call_arg *args, enum call_check check, uint64_t expect);

/*
 * The point where a living memprobe stops the thread and reads the results. Everything after it
 * is cleanup, which also runs if memprobe is dead, if a step failed, or after an abort.
 */
void call_add_marker(struct call_script *script);

/* ---- running them ---- */

struct call_session;

struct call_result {
	uint8_t data[CALL_DATA_MAX]; /* the script's data as it was at the marker */
	/* False: a step failed before the marker; the steps' results tell which. */
	bool completed;
	pid_t tid;		 /* the thread that made the call */
	uint64_t thread_pointer; /* of that thread */
	bool by_helper;
};

/* Reads a word of the script's data after the call. */
uint64_t call_result_word(const struct call_result *result, const struct call_script *script,
			  size_t offset);

struct call_options {
	/* The functions of the script use malloc's locks or lists: the thread must not be inside
	 * the allocator (or fork, or the dynamic linker). */
	bool uses_malloc;
	/* Nobody knows which system calls the function makes: a thread whose seccomp filter kills
	 * for any of them is refused. */
	bool unforeseen_syscalls;
	/* The script may run in a helper thread when no thread is at a safe point: it then has a
	 * copy of the caller's TLS. Only for functions of glibc that allocate nothing. */
	bool helper_allowed;
	/* The functions would set up per-thread state in a thread that never allocated (jemalloc,
	 * tcmalloc, mimalloc: new arenas, even new threads): only the first thread makes the call,
	 * which has had that state since the program's start. */
	bool first_thread_only;
	/* Run it in a helper thread with file descriptors of its own from the start. */
	bool helper_private_files;
	/* Aborting it while it waits for a lock leaves nothing half done. */
	bool abort_in_lock_wait;
	uint64_t stack_needed; /* bytes; 0: 16 KiB */
	/*
	 * Called with the thread held at the marker: read here what the cleanup steps will take
	 * away (target_read()). Keep it short. May be NULL.
	 */
	struct error *(*at_marker)(struct target *target, const struct call_result *result,
				   void *data);
	void *at_marker_data;
};

/*
 * Gets ready without touching the target: finds the stub's place, the allocator's code, the
 * threads; takes the per-target lock (waits up to @timeout_us for another memprobe).
 */
struct error *call_open(struct target *target, uint64_t timeout_us, struct call_session **ret);

/*
 * Asked for a second opinion on a thread whose stack has words that look like return addresses
 * into the allocator: the frames it really has, innermost first. False: the stack could not be
 * followed to its end, or has more than @max.
 */
#define CALL_UNWIND_MAX 512

struct call_frame {
	uint64_t pc;
	uint64_t cfa; /* 0: unknown */
};

typedef bool call_unwind(void *data, const struct thread_state *state, struct call_frame *frames,
			 size_t max, size_t *count_ret);

/* @destroy(@data) is called by call_close(). */
void call_set_unwind(struct call_session *session, call_unwind *unwind, void (*destroy)(void *data),
		     void *data);

struct error *call_run(struct call_session *session, const struct call_script *script,
		       const struct call_options *options, struct call_result *ret);

/* What it was opened on. */
struct target *call_target(const struct call_session *session);

/* The longest time that a thread was held so far, microseconds. */
uint64_t call_stopped_us(const struct call_session *session);

/*
 * The address of a function that a script may call: target_symbol() with IFUNCs resolved by
 * running the resolver in the target. ERROR_UNSUPPORTED with near names in the hint if there is
 * none.
 */
struct error *call_find_function(struct call_session *session, const char *name, uint64_t *ret);

/* Takes the stub out of the target and gives the lock back. */
void call_close(struct call_session *session);
CLEANUP_DEFINE(call, struct call_session *, call_close)

/*
 * An unmapped range of @size bytes (page multiple) below the target's 47-bit or 32-bit limit where
 * a script may mmap with MAP_FIXED_NOREPLACE; @attempt picks another place each time.
 */
struct error *call_find_gap(struct target *target, uint64_t size, unsigned attempt, uint64_t *ret);

#endif
