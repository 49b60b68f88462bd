/*
 * What perf_events.c (opening) and perf_ring.c (reading) share.
 */
#ifndef RECORD_PERF_SESSION_H
#define RECORD_PERF_SESSION_H

#include <linux/perf_event.h>

#include "perf_events.h"
#include "memprobe/vec.h"

#define CPUS_MAX 1024u

/* Bytes that rings may take beside @target, see memory_room(). */
uint64_t perf_room(const struct target *target);

/* The size of a record is 16 bits wide. */
#define PERF_RECORD_MAX (1u << 16)

/* Sessions that are not lean have PERF_SAMPLE_IP and PERF_SAMPLE_ADDR as well. */
#define PERF_SAMPLE_TYPE_ALL_OURS                                                              \
	(PERF_SAMPLE_IDENTIFIER | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_REGS_USER | \
	 PERF_SAMPLE_STACK_USER)

/* The registers of user mode: ax to ss, and r8 to r15 (asm/perf_regs.h). */
#define PERF_USER_REGS 0xff0fffull

struct perf_event {
	uint64_t id;
	int fd;
	unsigned spec;
	pid_t tid;    /* that it was opened for; others have inherited it */
	unsigned cpu; /* index of its ring */
	bool hung_up; /* its thread has ended, and all that inherited it */
};

VEC_DEFINE(perf_event_vec, struct perf_event)

struct perf_ring {
	int fd; /* of the event that it belongs to, which closes it; -1: none yet */
	int cpu;
	void *map;
	size_t size; /* of its data; the control page comes on top */
	/* While it is being read: what lies between is not yet given back. */
	uint64_t tail, head;
	uint64_t next_time; /* of the record at tail; 0: not looked at */
};

struct perf_session {
	struct target *target;
	struct perf_spec specs[PERF_SPECS_MAX];
	unsigned spec_count;
	uint32_t stack_bytes;
	size_t ring_bytes;
	bool ring_limited;
	bool user_only_allowed, user_only, lean, no_lost_format, exited, one_thread;
	uint64_t exec_time;	      /* 0: it runs the program that it ran */
	struct perf_event_vec events; /* by id, once all are open */
	struct pid_vec own;	      /* threads with events of their own */
	struct perf_ring *rings;
	unsigned ring_count;
	uint64_t lost_records;
	uint8_t *scratch; /* PERF_RECORD_MAX: a record that goes around the ring's end */
};

/* Where registers stand in struct user_regs_struct; samples have them in this order. */
struct perf_place {
	unsigned bit; /* enum perf_event_x86_regs */
	size_t offset;
};

#define PERF_PLACES 20u
extern const struct perf_place perf_places[PERF_PLACES];

/* Returns errno. */
int perf_ring_map(struct perf_ring *ring, int fd, size_t size);
void perf_ring_unmap(struct perf_ring *ring);

/* Of the stack, with samples of this spec. */
static inline uint32_t perf_stack_bytes(const struct perf_session *session, unsigned spec)
{
	uint32_t own = session->specs[spec].stack_bytes & ~7u;

	if (session->specs[spec].no_stack)
		return 0;
	return own ? own : session->stack_bytes;
}

static inline uint64_t perf_registers(const struct perf_session *session, unsigned spec)
{
	uint64_t own = session->specs[spec].registers & PERF_USER_REGS;

	return own ? own : PERF_USER_REGS;
}

struct perf_event *perf_event_of(const struct perf_session *session, uint64_t id);

#endif
