#include "memprobe/memory_scan.h"

#include <pthread.h>
#include <string.h>

#include "memory_plan.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

#define THREADS_MAX 4u
#define SLOTS_MAX   (2 * THREADS_MAX + 1)
#define SMALL_SCAN  (4 * PLAN_SPAN) /* is not worth a thread */
#define BUFFER_SIZE (SCAN_AROUND_MAX + PLAN_SPAN + SCAN_AROUND_MAX)

enum slot_state { SLOT_FREE, SLOT_BUSY, SLOT_DONE };

struct part {
	struct scan_block block;
	void *result;
};

VEC_DEFINE(part_vec, struct part)

/* A stretch of address space of at most PLAN_SPAN, with the pieces of it that hold something. */
struct slot {
	enum slot_state state;
	uint64_t start;
	uint8_t *buffer; /* of @start - SCAN_AROUND_MAX */
	struct plan_piece pieces[PLAN_PIECES];
	size_t piece_count;
	/* What was read of them; results stay for the next time beyond @part_count. */
	struct part_vec parts;
	size_t part_count;
	struct range_vec missing;
};

struct scan {
	const struct scan_request *request;
	struct scan_result *result;
	uint64_t size; /* of all ranges */
	struct plan plan;
	struct slot slots[SLOTS_MAX];
	size_t slot_count;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t claimed, committed; /* slots so far */
	bool committing;	   /* some thread is */
	bool planned;		   /* there is nothing more to claim */
	struct error *error;	   /* of any thread */
	pthread_t threads[THREADS_MAX - 1];
	unsigned thread_count;
};

/* ---- reading ---- */

static uint8_t *in_buffer(const struct slot *slot, uint64_t address)
{
	return slot->buffer + SCAN_AROUND_MAX + (address - slot->start);
}

static struct error *look_at(struct scan *scan, struct slot *slot, const struct scan_block *block)
{
	const struct scan_ops *ops = scan->request->ops;
	struct error *error = NULL;
	struct part *part;

	if (slot->part_count == slot->parts.size) {
		struct part new = { .result = NULL };

		error = ops->create(scan->request->data, &new.result);
		if (!error)
			error = part_vec_append(&slot->parts, &new);
		if (error) {
			if (new.result)
				ops->destroy(new.result);
			return error;
		}
	}
	part = &slot->parts.data[slot->part_count++];
	part->block = *block;
	return ops->look(scan->request->data, block, part->result);
}

/*
 * Reads a piece and what is around it. Where a page of its own cannot be read, *bad_ret is the
 * address, and what lies before it is in the buffer; UINT64_MAX: all is.
 */
static struct error *read_piece(struct scan *scan, struct slot *slot, struct plan_piece *piece,
				uint64_t *bad_ret)
{
	struct error *error;

	memset(in_buffer(slot, piece->start - piece->untouched), 0, piece->untouched);
	for (;;) {
		uint64_t from = piece->start - (piece->before - piece->untouched);
		uint64_t to = piece->end + piece->after;
		uint64_t bad;

		error = target_read(scan->request->target, from, in_buffer(slot, from), to - from);
		if (!error) {
			*bad_ret = UINT64_MAX;
			break;
		}
		if (!error_is(error, ERROR_FAULT))
			return error;
		bad = max_u64(error->address, from);
		error_destroy(error);
		if (bad >= piece->end) {
			/* What is before it, it has read. */
			piece->after = min_u64(bad, to) - piece->end;
			piece->zeros = 0;
			*bad_ret = UINT64_MAX;
			break;
		}
		if (bad >= piece->start) {
			*bad_ret = bad;
			return NULL;
		}
		piece->before = piece->untouched;
	}
	memset(in_buffer(slot, piece->end + piece->after), 0, piece->zeros);
	return NULL;
}

static struct error *read_and_look(struct scan *scan, struct slot *slot, struct plan_piece piece)
{
	while (piece.start < piece.end) {
		uint64_t bad = UINT64_MAX, next;
		struct error *error = read_piece(scan, slot, &piece, &bad);
		struct scan_block block = {
			.start = piece.start,
			.end = piece.end,
			.bytes = in_buffer(slot, piece.start),
			.before = piece.before,
			.after = piece.after + piece.zeros,
			.untouched = piece.untouched,
		};

		if (error)
			return error;
		if (bad == UINT64_MAX)
			return look_at(scan, slot, &block);
		block.end = bad;
		block.after = 0;
		if (block.start < block.end)
			error = look_at(scan, slot, &block);
		next = min_u64(round_down(bad, PAGE_SIZE) + PAGE_SIZE, piece.end);
		if (!error)
			error = ranges_add(&slot->missing, bad, next);
		if (error)
			return error;
		piece.start = next;
		piece.before = piece.untouched = 0;
	}
	return NULL;
}

static struct error *work_on(struct scan *scan, struct slot *slot)
{
	struct error *error = NULL;

	slot->part_count = 0;
	slot->missing.size = 0;
	for (size_t i = 0; !error && i < slot->piece_count; i++)
		error = read_and_look(scan, slot, slot->pieces[i]);
	return error;
}

/* ---- the order of things; all of this with the lock held ---- */

static struct error *note_missing(struct scan *scan, uint64_t start, uint64_t end)
{
	struct scan_result *result = scan->result;
	struct range_vec *missing = &result->missing;

	result->missing_bytes += end - start;
	if (missing->size >= SCAN_MISSING_MAX && (missing->data[missing->size - 1].end != start))
		return NULL;
	/* Those of the plan come before those of blocks on their way: sorted in the end. */
	if (missing->size && missing->data[missing->size - 1].end == start) {
		missing->data[missing->size - 1].end = end;
		return NULL;
	}
	return range_vec_append(missing, &(struct range){ start, end });
}

static struct error *plan_missing(void *data, uint64_t start, uint64_t end)
{
	return note_missing(data, start, end);
}

static struct error *commit_one(struct scan *scan, struct slot *slot)
{
	const struct scan_request *request = scan->request;
	struct error *error = NULL;

	pthread_mutex_unlock(&scan->lock);
	for (size_t i = 0; !error && i < slot->part_count; i++)
		error = request->ops->commit(request->data, &slot->parts.data[i].block,
					     slot->parts.data[i].result);
	pthread_mutex_lock(&scan->lock);
	for (size_t i = 0; i < slot->part_count; i++) {
		const struct scan_block *block = &slot->parts.data[i].block;

		scan->result->bytes += block->end - block->start;
		scan->result->reached = block->end;
	}
	log_progress(scan->result->bytes + scan->result->missing_bytes, scan->size);
	vec_for_each (range, &slot->missing)
		if (!error)
			error = note_missing(scan, range->start, range->end);
	return error;
}

static void fail(struct scan *scan, struct error *error)
{
	if (scan->error)
		error_destroy(error);
	else
		scan->error = error;
}

static void commit_ready(struct scan *scan)
{
	if (scan->committing)
		return;
	scan->committing = true;
	while (!scan->error && scan->committed < scan->claimed) {
		struct slot *slot = &scan->slots[scan->committed % scan->slot_count];

		if (slot->state != SLOT_DONE)
			break;
		fail(scan, commit_one(scan, slot));
		slot->state = SLOT_FREE;
		scan->committed++;
		pthread_cond_broadcast(&scan->changed);
	}
	scan->committing = false;
}

static bool is_interrupted(struct scan *scan)
{
	if (scan->request->interrupted && scan->request->interrupted())
		scan->result->interrupted = true;
	return scan->result->interrupted;
}

/* Plans the next slot; false if there is none. */
static bool claim(struct scan *scan, struct slot *slot)
{
	slot->piece_count = 0;
	while (!slot->piece_count && !scan->planned && !scan->error) {
		struct error *error;

		if (is_interrupted(scan)) {
			scan->planned = true;
			break;
		}
		error = plan_block(&scan->plan, slot->pieces, &slot->piece_count, &scan->planned);
		if (error)
			fail(scan, error);
	}
	if (!slot->piece_count || scan->error)
		return false;
	slot->start = slot->pieces[0].start;
	slot->state = SLOT_BUSY;
	scan->claimed++;
	return true;
}

static void *work(void *data)
{
	struct scan *scan = data;

	pthread_mutex_lock(&scan->lock);
	while (!scan->error && !scan->planned) {
		struct slot *slot = &scan->slots[scan->claimed % scan->slot_count];
		struct error *error;

		if (slot->state != SLOT_FREE) {
			pthread_cond_wait(&scan->changed, &scan->lock);
			continue;
		}
		if (!claim(scan, slot))
			break;
		pthread_mutex_unlock(&scan->lock);
		error = work_on(scan, slot);
		pthread_mutex_lock(&scan->lock);
		slot->state = SLOT_DONE;
		if (error)
			fail(scan, error);
		commit_ready(scan);
	}
	pthread_cond_broadcast(&scan->changed);
	pthread_mutex_unlock(&scan->lock);
	return NULL;
}

/* ---- beginning and end ---- */

static unsigned threads_wanted(const struct scan_request *request)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (cpus < 2 || ranges_size(request->ranges) <= SMALL_SCAN)
		return 1;
	return min_u64(cpus, THREADS_MAX);
}

static struct error *scan_init(struct scan *scan, unsigned threads)
{
	const struct scan_request *request = scan->request;

	pthread_mutex_init(&scan->lock, NULL);
	pthread_cond_init(&scan->changed, NULL);
	plan_init(&scan->plan, request->target, request->maps, request->ranges);
	scan->plan.before = min_u64(request->before, SCAN_AROUND_MAX);
	scan->plan.after = min_u64(request->after, SCAN_AROUND_MAX);
	scan->plan.missing = plan_missing;
	scan->plan.data = scan;
	scan->slot_count = threads == 1 ? 1 : 2 * threads + 1;
	for (size_t i = 0; i < scan->slot_count; i++) {
		scan->slots[i].buffer = malloc(BUFFER_SIZE);
		if (!scan->slots[i].buffer)
			return &error_no_memory;
	}
	return NULL;
}

static void scan_deinit(struct scan *scan)
{
	for (size_t i = 0; i < scan->slot_count; i++) {
		struct slot *slot = &scan->slots[i];

		vec_for_each (part, &slot->parts)
			scan->request->ops->destroy(part->result);
		part_vec_deinit(&slot->parts);
		range_vec_deinit(&slot->missing);
		free(slot->buffer);
	}
	pthread_mutex_destroy(&scan->lock);
	pthread_cond_destroy(&scan->changed);
}

struct error *memory_scan(const struct scan_request *request, struct scan_result *ret)
{
	unsigned threads = threads_wanted(request);
	cleanup(free) struct scan *scan = calloc(1, sizeof(*scan));
	struct error *error;

	if (!scan)
		return &error_no_memory;
	scan->request = request;
	scan->result = ret;
	scan->size = ranges_size(request->ranges);
	error = scan_init(scan, threads);
	if (!error) {
		/* Fewer are no error: this thread works, too. */
		for (; scan->thread_count < threads - 1; scan->thread_count++)
			if (pthread_create(&scan->threads[scan->thread_count], NULL, work, scan))
				break;
		work(scan);
		for (unsigned i = 0; i < scan->thread_count; i++)
			pthread_join(scan->threads[i], NULL);
		error = scan->error;
	}
	ret->left_out = scan->plan.left_out;
	scan_deinit(scan);
	ranges_normalise(&ret->missing);
	return error;
}

void scan_result_deinit(struct scan_result *result)
{
	range_vec_deinit(&result->missing);
}
