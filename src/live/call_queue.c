#include "call_queue.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "memprobe/num.h"

#define QUEUE_BYTES ((size_t)32 << 20)
/* So much wakes who waits. */
#define MUCH (QUEUE_BYTES / 8)

static uint8_t *map_buffer(void)
{
	void *map = mmap(NULL, QUEUE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

struct error *call_queue_init(struct call_queue *queue)
{
	pthread_condattr_t attributes;

	*queue = (struct call_queue){ .filled = map_buffer(), .read = map_buffer() };
	pthread_mutex_init(&queue->mutex, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&queue->news, &attributes);
	pthread_condattr_destroy(&attributes);
	return queue->filled && queue->read ? NULL : &error_no_memory;
}

void call_queue_deinit(struct call_queue *queue)
{
	if (queue->filled)
		munmap(queue->filled, QUEUE_BYTES);
	if (queue->read)
		munmap(queue->read, QUEUE_BYTES);
	error_destroy(queue->error);
	*queue = (struct call_queue){ 0 };
}

void call_queue_put(struct call_queue *queue, const struct traced_call *call)
{
	size_t size = sizeof(*call) + round_up(call->stack_size, 8);
	bool much = false;

	pthread_mutex_lock(&queue->mutex);
	if (size > QUEUE_BYTES - queue->used) {
		queue->lost++;
	} else {
		uint8_t *at = queue->filled + queue->used;

		memcpy(at, call, sizeof(*call));
		memcpy(at + sizeof(*call), call->stack, call->stack_size);
		much = queue->used < MUCH && queue->used + size >= MUCH;
		queue->used += size;
	}
	pthread_mutex_unlock(&queue->mutex);
	if (much)
		pthread_cond_signal(&queue->news);
}

void call_queue_begin(struct call_queue *queue)
{
	pthread_mutex_lock(&queue->mutex);
	queue->begun = true;
	pthread_mutex_unlock(&queue->mutex);
	pthread_cond_signal(&queue->news);
}

void call_queue_end(struct call_queue *queue, struct error *error)
{
	pthread_mutex_lock(&queue->mutex);
	queue->ended = true;
	queue->error = error;
	pthread_mutex_unlock(&queue->mutex);
	pthread_cond_signal(&queue->news);
}

static struct timespec time_in(int timeout_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000l;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return until;
}

bool call_queue_await_begin(struct call_queue *queue, int timeout_ms)
{
	const struct timespec until = time_in(timeout_ms);
	bool done;

	pthread_mutex_lock(&queue->mutex);
	while (!queue->begun && !queue->ended)
		if (pthread_cond_timedwait(&queue->news, &queue->mutex, &until))
			break;
	done = queue->begun || queue->ended;
	pthread_mutex_unlock(&queue->mutex);
	return done;
}

/* Hands over what has been filled; its size. */
static size_t swap(struct call_queue *queue, int timeout_ms)
{
	const struct timespec until = time_in(timeout_ms);
	uint8_t *filled;
	size_t used;

	pthread_mutex_lock(&queue->mutex);
	while (timeout_ms && queue->used < MUCH && !queue->ended)
		if (pthread_cond_timedwait(&queue->news, &queue->mutex, &until))
			break;
	filled = queue->filled;
	queue->filled = queue->read;
	queue->read = filled;
	used = queue->used;
	queue->used = 0;
	pthread_mutex_unlock(&queue->mutex);
	return used;
}

struct error *call_queue_drain(struct call_queue *queue, int timeout_ms, syscall_visit *visit,
			       void *data)
{
	size_t used = swap(queue, timeout_ms);
	struct error *error = NULL;

	for (size_t at = 0; at < used && !error;) {
		struct traced_call call;

		memcpy(&call, queue->read + at, sizeof(call));
		at += sizeof(call);
		call.stack = queue->read + at;
		at += round_up(call.stack_size, 8);
		error = visit(data, &call);
	}
	return error;
}

struct error *call_queue_take_error(struct call_queue *queue)
{
	struct error *error = NULL;

	pthread_mutex_lock(&queue->mutex);
	if (queue->ended)
		error = take_pointer(queue->error);
	pthread_mutex_unlock(&queue->mutex);
	return error;
}

uint64_t call_queue_lost(struct call_queue *queue)
{
	uint64_t lost;

	pthread_mutex_lock(&queue->mutex);
	lost = queue->lost;
	pthread_mutex_unlock(&queue->mutex);
	return lost;
}
