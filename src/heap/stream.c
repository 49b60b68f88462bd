#include "stream.h"

#include <pthread.h>
#include <string.h>

#include "memprobe/log.h"
#include "memprobe/lower_bound.h"
#include "memprobe/num.h"
#include "memprobe/sparse_read.h"

#define HEAP_WINDOW  (HEAP_WINDOW_BLOCKS * 16u)
#define SLOTS	     8u
#define WORKERS_MAX  3u
#define SMALL_STREAM 4u /* windows that are not worth a thread */

/* A piece of a region; the buffer holds what follows it, too, as far as a read may reach. */
struct window {
	uint64_t start, end, region_end;
	heap_index first; /* the block number of its start */
};

VEC_DEFINE(window_vec, struct window)

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_READY };

struct slot {
	enum slot_state state;
	uint8_t *bytes; /* HEAP_WINDOW + STREAM_OVERLAP */
};

struct heap_stream {
	const struct heap *heap;
	const struct heap_observer *observer;
	struct window_vec windows;
	struct slot slots[SLOTS];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t claimed; /* windows before this one are being read, or have been */
	size_t reading; /* how many are, just now */
	size_t current; /* the window at hand; those before it are done with */
	size_t wanted;	/* the window that is waited for: nobody but the observer needs those before
			 */
	bool has_current;
	bool ended;
	struct error *error; /* of any thread */
	pthread_t threads[WORKERS_MAX];
	unsigned thread_count;
};

static struct error *read_window(struct heap_stream *stream, size_t index)
{
	const struct window *window = &stream->windows.data[index];
	uint8_t *bytes = stream->slots[index % SLOTS].bytes;
	uint64_t end = min_u64(window->region_end, window->end + STREAM_OVERLAP);
	struct error *error = target_read_sparse(stream->heap->target, window->start, bytes,
						 end - window->start, NULL);

	if (!error && stream->observer)
		error = stream->observer->window(stream->observer->data, stream->heap,
						 window->first, bytes, window->end - window->start);
	return error;
}

/* With the lock held: takes a window and reads it, if one can be had. */
static bool read_one(struct heap_stream *stream)
{
	size_t index = stream->claimed;
	struct slot *slot = &stream->slots[index % SLOTS];
	struct error *error;

	if (stream->ended || stream->error || index >= stream->windows.size ||
	    slot->state != SLOT_FREE)
		return false;
	stream->claimed++;
	if (index < stream->wanted && !stream->observer)
		return true;
	stream->reading++;
	slot->state = SLOT_READING;
	pthread_mutex_unlock(&stream->lock);
	error = read_window(stream, index);
	pthread_mutex_lock(&stream->lock);
	stream->reading--;
	/* What was passed by meanwhile is not needed any more. */
	slot->state = index < stream->current ? SLOT_FREE : SLOT_READY;
	if (stream->error)
		error_destroy(error);
	else
		stream->error = error;
	pthread_cond_broadcast(&stream->changed);
	return true;
}

static void *work(void *data)
{
	struct heap_stream *stream = data;

	pthread_mutex_lock(&stream->lock);
	while (!stream->ended && !stream->error && stream->claimed < stream->windows.size)
		if (!read_one(stream))
			pthread_cond_wait(&stream->changed, &stream->lock);
	pthread_mutex_unlock(&stream->lock);
	return NULL;
}

/* The first window that ends behind @address. */
static size_t window_at(const struct heap_stream *stream, uint64_t address)
{
	size_t low = lower_bound(stream->windows.data, stream->windows.size, window,
				 window->end <= address);

	return low;
}

static bool holds(const struct heap_stream *stream, uint64_t address, size_t size)
{
	const struct window *window = &stream->windows.data[stream->current];

	return stream->has_current && address >= window->start &&
	       address + size <= min_u64(window->end + STREAM_OVERLAP, window->region_end);
}

const uint8_t *heap_stream_peek(const struct heap_stream *stream, uint64_t address, size_t size)
{
	if (!holds(stream, address, size))
		return NULL;
	return stream->slots[stream->current % SLOTS].bytes +
	       (address - stream->windows.data[stream->current].start);
}

/* With the lock held: gives the slots of all windows before @index free. */
static void pass_by(struct heap_stream *stream, size_t index)
{
	for (; stream->current < index; stream->current++) {
		struct slot *slot = &stream->slots[stream->current % SLOTS];

		if (stream->current < stream->claimed && slot->state == SLOT_READY)
			slot->state = SLOT_FREE;
	}
	pthread_cond_broadcast(&stream->changed);
}

/* With the lock held: until that window is at hand, reading what comes before it, too. */
static void await(struct heap_stream *stream, size_t index)
{
	stream->has_current = false;
	stream->wanted = index;
	while (!stream->error) {
		pass_by(stream, min_u64(index, stream->claimed));
		if (index < stream->claimed && stream->slots[index % SLOTS].state == SLOT_READY)
			break;
		if (!read_one(stream))
			pthread_cond_wait(&stream->changed, &stream->lock);
	}
	stream->has_current = !stream->error;
}

struct error *heap_stream_get(struct heap_stream *stream, uint64_t address, size_t size,
			      const uint8_t **ret)
{
	size_t window;

	*ret = heap_stream_peek(stream, address, size);
	if (*ret)
		return NULL;
	window = window_at(stream, address);
	log_progress(window, stream->windows.size);
	pthread_mutex_lock(&stream->lock);
	await(stream, window);
	pthread_mutex_unlock(&stream->lock);
	*ret = heap_stream_peek(stream, address, size);
	return *ret ? NULL : heap_stream_finish(stream);
}

/* ---- opening and closing ---- */

static struct error *add_windows(struct heap_stream *stream, const struct heap_region *region)
{
	const struct heap *heap = stream->heap;
	uint64_t start = region->base - 2 * heap->header;
	heap_index first = region->first;
	struct error *error = NULL;

	while (!error && start < region->end) {
		uint64_t blocks = HEAP_WINDOW_BLOCKS - first % HEAP_WINDOW_BLOCKS;
		struct window window = {
			.start = start,
			.end = min_u64(region->end, start + blocks * heap->alignment),
			.region_end = region->end,
			.first = first,
		};

		error = window_vec_append(&stream->windows, &window);
		start = window.end;
		first += blocks;
	}
	return error;
}

static void start_threads(struct heap_stream *stream)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned wanted = cpus < 2 ? 0 : min_u64(cpus - 1, WORKERS_MAX);

	if (stream->windows.size <= SMALL_STREAM)
		return;
	/* Fewer are no error: this thread reads, too. */
	for (; stream->thread_count < wanted; stream->thread_count++)
		if (pthread_create(&stream->threads[stream->thread_count], NULL, work, stream))
			return;
}

struct error *heap_stream_open(const struct heap *heap, const struct heap_observer *observer,
			       struct heap_stream **ret)
{
	struct heap_stream *stream = calloc(1, sizeof(*stream));
	struct error *error = NULL;

	if (!stream)
		return &error_no_memory;
	stream->heap = heap;
	stream->observer = observer;
	pthread_mutex_init(&stream->lock, NULL);
	pthread_cond_init(&stream->changed, NULL);
	vec_for_each (region, &heap->regions)
		if (!error && !region->mmapped)
			error = add_windows(stream, region);
	for (size_t i = 0; i < min_u64(SLOTS, stream->windows.size); i++) {
		stream->slots[i].bytes = malloc(HEAP_WINDOW + STREAM_OVERLAP);
		if (!error && !stream->slots[i].bytes)
			error = &error_no_memory;
	}
	if (error) {
		heap_stream_close(stream);
		return error;
	}
	start_threads(stream);
	*ret = stream;
	return NULL;
}

static void join_threads(struct heap_stream *stream)
{
	for (unsigned i = 0; i < stream->thread_count; i++)
		pthread_join(stream->threads[i], NULL);
	stream->thread_count = 0;
}

struct error *heap_stream_finish(struct heap_stream *stream)
{
	struct error *error;

	pthread_mutex_lock(&stream->lock);
	stream->wanted = stream->windows.size;
	while (!stream->error && (stream->claimed < stream->windows.size || stream->reading)) {
		pass_by(stream, stream->claimed);
		if (!read_one(stream))
			pthread_cond_wait(&stream->changed, &stream->lock);
	}
	stream->has_current = false;
	pthread_cond_broadcast(&stream->changed);
	pthread_mutex_unlock(&stream->lock);
	join_threads(stream);
	error = stream->error;
	stream->error = NULL;
	return error;
}

void heap_stream_close(struct heap_stream *stream)
{
	if (!stream)
		return;
	pthread_mutex_lock(&stream->lock);
	stream->ended = true;
	pthread_cond_broadcast(&stream->changed);
	pthread_mutex_unlock(&stream->lock);
	join_threads(stream);
	error_destroy(stream->error);
	for (unsigned i = 0; i < SLOTS; i++)
		free(stream->slots[i].bytes);
	window_vec_deinit(&stream->windows);
	pthread_mutex_destroy(&stream->lock);
	pthread_cond_destroy(&stream->changed);
	free(stream);
}
