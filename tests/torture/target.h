/*
 * target.h - what the parts of the self-checking torture target share.
 *
 * A kind is one way of spending time that can tell whether it was disturbed. Each of its threads
 * runs the kind's function for ever and reports every round: done, ended by EINTR though no handler
 * ran in this thread, or wrong. Nothing here may assume anything about time but lower bounds.
 *
 * To add a kind: write a `kind_function`, list it in the table in target.c.
 */
#ifndef TORTURE_TARGET_H
#define TORTURE_TARGET_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "../victims/victim.h"

struct kind {
	const char *name;
	/* @index counts the kind's threads: those that work in pairs use its last bit. */
	void (*run)(struct kind *kind, unsigned index);
	unsigned default_threads;
	bool waits; /* ends with EINTR if nothing repairs that */
	unsigned threads;
	atomic_ulong checks, wrong, eintr;
};

/* The thread's own count of rounds, and of signal handlers that ran in it. */
struct progress {
	struct kind *kind;
	atomic_ulong rounds;
	pid_t tid;
};

extern __thread struct progress *own_progress;
extern __thread volatile sig_atomic_t handlers_run;

/* errno before a call that must not touch it. */
#define ERRNO_SENTINEL 3999

void round_done(struct kind *kind);
/* Says so and counts it; the first ones only are said. */
__attribute__((format(printf, 2, 3))) void round_wrong(struct kind *kind, const char *format, ...);
/*
 * A wait that began when handlers_run was @handlers_before has returned -1: true if that was EINTR
 * (counted unless a handler ran here); another errno is wrong unless it is @expected.
 */
bool wait_failed(struct kind *kind, int handlers_before, int expected);

void expect_errno(struct kind *kind, const char *what);

uint64_t now_ns(void);
struct timespec ns_to_timespec(uint64_t ns);
/* The wait that began at @start must have lasted @ns. */
void expect_elapsed(struct kind *kind, uint64_t start, uint64_t ns, const char *what);

uint32_t random_next(uint32_t *state);
/* An independent start for each thread. */
uint32_t random_seed(void);
void sleep_us(unsigned us);
/* A thread that never reports rounds. */
pthread_t spawn(void *(*function)(void *), void *data);

/* target_registers.c */
void run_cpu(struct kind *kind, unsigned index);
void run_red_zone(struct kind *kind, unsigned index);
void run_vector(struct kind *kind, unsigned index);

/* target_waits.c */
void run_nanosleep(struct kind *kind, unsigned index);
void run_poll(struct kind *kind, unsigned index);
void run_epoll(struct kind *kind, unsigned index);
void run_epoll_timeout(struct kind *kind, unsigned index);
void run_futex(struct kind *kind, unsigned index);
void run_futex_timeout(struct kind *kind, unsigned index);
void run_sigtimedwait(struct kind *kind, unsigned index);
void run_semtimedop(struct kind *kind, unsigned index);

/* target_pairs.c */
void run_pipe(struct kind *kind, unsigned index);
void run_cond(struct kind *kind, unsigned index);
void run_accept(struct kind *kind, unsigned index);
void run_sigsuspend(struct kind *kind, unsigned index);
void run_queue(struct kind *kind, unsigned index);

/* target_churn.c */
void run_malloc(struct kind *kind, unsigned index);
void run_cancel(struct kind *kind, unsigned index);
void run_create(struct kind *kind, unsigned index);
void run_fork(struct kind *kind, unsigned index);

/* target_stacks.c */
void run_signal_stack(struct kind *kind, unsigned index);
void run_small_stack(struct kind *kind, unsigned index);

#endif
