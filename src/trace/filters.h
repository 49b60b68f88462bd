/*
 * filters.h - whether seccomp filters, and Wine's kin, let the agent make its system calls. Private
 * to trace/.
 *
 * The agent asks for the thread's id, for its alternate stack, and by a call that the kernel
 * refuses whether a word can be read. A filter that kills for one of these would kill the target.
 */
#ifndef TRACE_FILTERS_H
#define TRACE_FILTERS_H

#include "memprobe/stop.h"
#include "memprobe/target.h"

/* The most filters that the main thread, or with @all any thread, is under; strict mode counts for
 * more than any of them. Grows when one is installed. */
int filters_count(struct target *target, bool all);

/*
 * To be called by who holds the threads of @stop. ERROR_PERMISSION: one of them may not do what the
 * agent at @image would make it do.
 */
struct error *filters_allow_agent(struct target *target, const struct stop *stop, uint64_t image);

/*
 * Likewise. ERROR_UNSUPPORTED: one of them has its system calls dispatched to itself, and so would
 * get the agent's.
 */
struct error *filters_no_dispatch(const struct stop *stop);

/* The same for who holds nobody. *stopped_us_ret is raised to the longest time that a thread was
 * held. Where nothing can be learnt (another tracer is there) it is taken for granted. */
struct error *filters_find_dispatch(struct target *target, uint64_t *stopped_us_ret);

#endif
