/*
 * call_queue.h - what the tracing thread of syscall_tracer.h tells to who polls.
 *
 * Two buffers of a fixed size: one is filled while the other is read. Whoever fills never waits
 * for who reads: what finds no room is counted.
 */
#ifndef MEMPROBE_LIVE_CALL_QUEUE_H
#define MEMPROBE_LIVE_CALL_QUEUE_H

#include <pthread.h>

#include "memprobe/syscall_tracer.h"

struct call_queue {
	pthread_mutex_t mutex;
	pthread_cond_t news;
	uint8_t *filled, *read; /* each CALL_QUEUE_BYTES */
	size_t used;		/* of `filled` */
	bool begun, ended;
	uint64_t lost;
	struct error *error; /* with which it ended */
};

struct error *call_queue_init(struct call_queue *queue);
/* Of one that init() failed on, or that is zeroed, too. */
void call_queue_deinit(struct call_queue *queue);

/* ---- the tracing thread's side ---- */

/* Copies @call and its stack. */
void call_queue_put(struct call_queue *queue, const struct traced_call *call);
/* Tracing is on. */
void call_queue_begin(struct call_queue *queue);
/* There will be no more; takes over @error. */
void call_queue_end(struct call_queue *queue, struct error *error);

/* ---- the other side ---- */

/* False: neither begun nor ended within @timeout_ms. */
bool call_queue_await_begin(struct call_queue *queue, int timeout_ms);
/* Waits for much, or the end, at most @timeout_ms. */
struct error *call_queue_drain(struct call_queue *queue, int timeout_ms, syscall_visit *visit,
			       void *data);
/* The error that it ended with; once. */
struct error *call_queue_take_error(struct call_queue *queue);
uint64_t call_queue_lost(struct call_queue *queue);

#endif
