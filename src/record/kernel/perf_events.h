/*
 * perf_events.h - events of the kernel in one process, each with registers and stack: page faults,
 * tracepoints, uprobes.
 *
 *	perf_open(target, &options, &session);
 *	perf_enable(session);
 *	repeat:	perf_poll(session, timeout_ms, visit, data);
 *	perf_disable(session);  perf_poll(session, 0, visit, data);
 *	perf_close(session);
 *
 * By perf_event_open(2) only: nothing is stopped or changed in the target, and the events end with
 * memprobe. Threads born later, and forked children, are watched from their first instruction
 * (attr.inherit); visit() tells them by their pid. Each CPU has one ring; its samples come in the
 * order of time, also across CPUs.
 *
 * Errors: ERROR_PERMISSION (perf_event_paranoid, a missing capability, another user's process: the
 * hint says what to grant), ERROR_UNSUPPORTED (a kernel without perf events, an i386 tracepoint),
 * ERROR_NO_TARGET.
 */
#ifndef RECORD_PERF_EVENTS_H
#define RECORD_PERF_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "memprobe/target.h"

#define PERF_SPECS_MAX	 96
#define PERF_STACK_MAX	 65528u
#define PERF_RINGS_BYTES (256ull << 20) /* of all CPUs together, at most */

/* What to watch: fields of struct perf_event_attr (linux/perf_event.h). */
struct perf_spec {
	uint32_t type; /* PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT, or a PMU of sysfs */
	uint64_t config, config1, config2;
	/* Of the stack, with samples of this spec; 0: options.stack_bytes. */
	uint32_t stack_bytes;
	bool no_stack;
	/* The registers that its samples carry, by bits of enum perf_event_x86_regs
	 * (asm/perf_regs.h); the others are 0. 0: all. Each costs the target 30 ns. */
	uint64_t registers;
};

struct perf_options {
	const struct perf_spec *specs;
	unsigned spec_count;  /* at most PERF_SPECS_MAX */
	uint32_t stack_bytes; /* copied with each sample; a multiple of 8, at most PERF_STACK_MAX */
	/* Where the rings have to be small, copy less of each stack: a half or a quarter. */
	bool stack_flexible;
	size_t ring_bytes; /* of each CPU; 0: 64 MiB. Less where the limits allow less. */
	/* A user without the right to see what happens in kernel mode gets what happens in user
	 * mode only (session's user_only), instead of ERROR_PERMISSION. */
	bool user_only_allowed;
	/* Samples without ip and address, which cost as much as registers. */
	bool lean;
	/* Only the first thread, and none that is born of it. */
	bool one_thread;
};

struct perf_sample {
	unsigned spec; /* index into options.specs */
	pid_t pid, tid;
	uint64_t time; /* ns, CLOCK_MONOTONIC */
	uint64_t ip;
	uint64_t address; /* of a page fault, else 0 */
	/* Of user mode. A sample of a 32-bit process has them in the 64-bit layout; orig_rax and
	 * segments are 0. */
	bool has_regs;
	struct user_regs_struct regs;
	const uint8_t *stack; /* from the stack pointer upwards */
	size_t stack_size;
};

/* What @sample points to is gone when it returns. An error ends the poll. */
typedef struct error *perf_visit(void *data, const struct perf_sample *sample);

struct perf_session;

/* Opens the events, disabled. @options->specs need not outlive it. */
struct error *perf_open(struct target *target, const struct perf_options *options,
			struct perf_session **ret);

void perf_enable(struct perf_session *session);
void perf_disable(struct perf_session *session);

/*
 * Waits until a ring is a quarter full, at most @timeout_ms, and visits what is there. Samples of
 * the last millisecond wait for the next poll, since an earlier one may still be on its way;
 * with @timeout_ms 0 all are visited. A full ring makes the kernel count, see perf_lost().
 */
struct error *perf_poll(struct perf_session *session, int timeout_ms, perf_visit *visit,
			void *data);

/* Events for which there was no room, so far. */
uint64_t perf_lost(const struct perf_session *session);

/* The size of each ring, where the limits on locked memory have made it smaller than wanted; 0:
 * they have not. */
size_t perf_ring_limited(const struct perf_session *session);

/* Only events of user mode are seen: see perf_options.user_only_allowed. */
bool perf_user_only(const struct perf_session *session);

/* The process has replaced its program since perf_enable(). */
bool perf_target_execed(const struct perf_session *session);

/* When that was: ns, CLOCK_MONOTONIC; 0: it has not. */
uint64_t perf_exec_time(const struct perf_session *session);

/* Whether all rings stood empty and no watched thread is left. */
bool perf_target_exited(const struct perf_session *session);

void perf_close(struct perf_session *session);
CLEANUP_DEFINE(perf, struct perf_session *, perf_close)

/*
 * The id of a tracepoint (`syscalls`, `sys_exit_mmap`), from tracefs where it is mounted.
 * ERROR_PERMISSION or ERROR_UNSUPPORTED with what to do about it in the hint.
 */
struct error *perf_tracepoint(const char *group, const char *name, uint64_t *id_ret);

/* The type of a dynamic PMU (`uprobe`); ERROR_UNSUPPORTED: this kernel has none of that name. */
struct error *perf_pmu_type(const char *name, uint32_t *ret);

#endif
