/*
 * filters.h - whether a thread gets its own system calls as signals, as Wine's do
 * (PR_SET_SYSCALL_USER_DISPATCH). Private to record/. The agent itself makes no system call.
 */
#ifndef RECORD_DISPATCH_H
#define RECORD_DISPATCH_H

#include "memprobe/target.h"

/*
 * ERROR_UNSUPPORTED: a thread of @target has its system calls dispatched to itself, and so would
 * get what the kernel makes of a return probe. *stopped_us_ret is raised to the longest time that a
 * thread was held. Where nothing can be learnt (another tracer is there) there is none. ERROR_BUSY:
 * a thread has not come out of a transfer in time, which a stop would cut short.
 */
struct error *filters_find_dispatch(struct target *target, uint64_t timeout_us,
				    uint64_t *stopped_us_ret);

#endif
