#include "core_sink.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "memprobe/io.h"
#include "memprobe/num.h"

/* Measured: reading and writing overlap well with a few buffers that fit the cache. */
#define SLOTS	  4u
#define SLOT_SIZE (512u << 10)

/* Level 1 keeps up with one core's reading. */
#define ZSTD_LEVEL   1
#define ZSTD_WORKERS 2

struct slot {
	uint64_t offset;
	size_t size;
	char *bytes; /* SLOT_SIZE */
};

struct core_sink {
	int fd;
	const char *name;
	enum sink_kind kind;
	struct slot slots[SLOTS];
	/* Given and taken, modulo SLOTS; the slot `given` is being filled. */
	size_t given, taken;
	_Atomic bool ended, aborted;
	uint64_t final_size;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct error *error; /* of the writer; taken by the first who asks */
	bool failed;
	/* The writer's own. */
	uint64_t at; /* what has been written */
	ZSTD_CStream *stream;
	char *packed;
	size_t packed_size;
};

/* ---- the writing thread ---- */

static struct error *pack(struct core_sink *sink, const void *bytes, size_t size,
			  ZSTD_EndDirective directive)
{
	ZSTD_inBuffer in = { bytes, size, 0 };
	size_t left;

	do {
		ZSTD_outBuffer out = { sink->packed, sink->packed_size, 0 };
		struct error *error;

		left = ZSTD_compressStream2(sink->stream, &out, &in, directive);
		if (ZSTD_isError(left))
			return error_create(ERROR_FAILED, "cannot compress: %s",
					    ZSTD_getErrorName(left));
		error = write_all(sink->fd, out.dst, out.pos, sink->name);
		if (error)
			return error;
	} while (directive == ZSTD_e_end ? left != 0 : in.pos < in.size);
	return NULL;
}

static struct error *put(struct core_sink *sink, const void *bytes, size_t size)
{
	if (sink->kind == SINK_ZSTD)
		return pack(sink, bytes, size, ZSTD_e_continue);
	return write_all(sink->fd, bytes, size, sink->name);
}

static struct error *skip_to(struct core_sink *sink, uint64_t offset)
{
	static const char zeros[128 << 10];
	struct error *error = NULL;

	if (sink->kind == SINK_HOLES) {
		if (offset > INT64_MAX || lseek(sink->fd, (off_t)offset, SEEK_SET) < 0)
			return error_errno(ERROR_FAILED, EFBIG, "cannot write %s", sink->name);
		sink->at = offset;
	}
	while (!error && sink->at < offset) {
		size_t part = min_u64(offset - sink->at, sizeof(zeros));

		error = put(sink, zeros, part);
		sink->at += part;
		if (sink->aborted)
			break;
	}
	return error;
}

static struct error *write_slot(struct core_sink *sink, const struct slot *slot)
{
	struct error *error = slot->offset == sink->at ? NULL : skip_to(sink, slot->offset);

	if (!error)
		error = put(sink, slot->bytes, slot->size);
	sink->at += slot->size;
	return error;
}

static struct error *write_end(struct core_sink *sink)
{
	struct error *error = NULL;

	if (sink->kind == SINK_HOLES) {
		if (sink->at < sink->final_size && ftruncate(sink->fd, (off_t)sink->final_size) < 0)
			error = error_errno(ERROR_FAILED, errno, "cannot write %s", sink->name);
		return error;
	}
	error = skip_to(sink, sink->final_size);
	if (!error && sink->kind == SINK_ZSTD)
		error = pack(sink, NULL, 0, ZSTD_e_end);
	return error;
}

/* A slot to write, or NULL: there will be no more. */
static struct slot *take_slot(struct core_sink *sink)
{
	struct slot *slot = NULL;

	pthread_mutex_lock(&sink->lock);
	while (sink->taken == sink->given && !sink->ended && !sink->aborted)
		pthread_cond_wait(&sink->changed, &sink->lock);
	if (sink->taken < sink->given && !sink->aborted)
		slot = &sink->slots[sink->taken % SLOTS];
	pthread_mutex_unlock(&sink->lock);
	return slot;
}

static void give_back(struct core_sink *sink, struct error *error)
{
	pthread_mutex_lock(&sink->lock);
	if (error) {
		sink->error = error;
		sink->aborted = true;
		sink->failed = true;
	}
	sink->taken++;
	pthread_cond_broadcast(&sink->changed);
	pthread_mutex_unlock(&sink->lock);
}

static void *run_writer(void *data)
{
	struct core_sink *sink = data;
	struct error *error;
	struct slot *slot;

	while ((slot = take_slot(sink)))
		give_back(sink, write_slot(sink, slot));
	if (sink->aborted)
		return NULL;
	error = write_end(sink);
	if (error)
		give_back(sink, error);
	return NULL;
}

/* ---- the giving thread ---- */

static struct error *take_failure(struct core_sink *sink)
{
	struct error *error = take_pointer(sink->error);

	if (!error && sink->failed)
		error = error_create(ERROR_FAILED, "cannot write %s", sink->name);
	return error;
}

/* Hands the slot that is being filled to the writer and waits for an empty one. */
static struct error *submit(struct core_sink *sink)
{
	struct error *error;

	pthread_mutex_lock(&sink->lock);
	sink->given++;
	pthread_cond_broadcast(&sink->changed);
	while (sink->given - sink->taken == SLOTS && !sink->failed)
		pthread_cond_wait(&sink->changed, &sink->lock);
	error = take_failure(sink);
	pthread_mutex_unlock(&sink->lock);
	sink->slots[sink->given % SLOTS].size = 0;
	return error;
}

struct error *core_sink_bytes(struct core_sink *sink, uint64_t offset, const void *bytes,
			      size_t size)
{
	while (size) {
		struct slot *slot = &sink->slots[sink->given % SLOTS];
		size_t part;

		if (slot->size &&
		    (slot->size == SLOT_SIZE || slot->offset + slot->size != offset)) {
			struct error *error = submit(sink);

			if (error)
				return error;
			continue;
		}
		if (!slot->size)
			slot->offset = offset;
		part = min_u64(size, SLOT_SIZE - slot->size);
		memcpy(slot->bytes + slot->size, bytes, part);
		slot->size += part;
		bytes = (const char *)bytes + part;
		offset += part;
		size -= part;
	}
	return NULL;
}

static void end_thread(struct core_sink *sink, bool abort)
{
	if (!sink->has_thread)
		return;
	pthread_mutex_lock(&sink->lock);
	sink->ended = true;
	sink->aborted |= abort;
	pthread_cond_broadcast(&sink->changed);
	pthread_mutex_unlock(&sink->lock);
	pthread_join(sink->thread, NULL);
	sink->has_thread = false;
}

struct error *core_sink_finish(struct core_sink *sink, uint64_t size)
{
	struct error *error = NULL;

	if (sink->slots[sink->given % SLOTS].size)
		error = submit(sink);
	sink->final_size = size;
	end_thread(sink, error != NULL);
	return error ? error : take_failure(sink);
}

/* ---- create and destroy ---- */

static struct error *prepare_packing(struct core_sink *sink)
{
	sink->stream = ZSTD_createCStream();
	sink->packed_size = ZSTD_CStreamOutSize();
	sink->packed = malloc(sink->packed_size);
	if (!sink->stream || !sink->packed)
		return &error_no_memory;
	ZSTD_CCtx_setParameter(sink->stream, ZSTD_c_compressionLevel, ZSTD_LEVEL);
	ZSTD_CCtx_setParameter(sink->stream, ZSTD_c_checksumFlag, 1);
	/* Refused by a library that was built without threads: then it works without. */
	ZSTD_CCtx_setParameter(sink->stream, ZSTD_c_nbWorkers, ZSTD_WORKERS);
	return NULL;
}

struct error *core_sink_create(int fd, const char *name, enum sink_kind kind,
			       struct core_sink **ret)
{
	cleanup(core_sink) struct core_sink *sink = calloc(1, sizeof(*sink));
	int errnum;

	if (!sink)
		return &error_no_memory;
	sink->fd = fd;
	sink->name = name;
	sink->kind = kind;
	pthread_mutex_init(&sink->lock, NULL);
	pthread_cond_init(&sink->changed, NULL);
	for (size_t i = 0; i < SLOTS; i++) {
		sink->slots[i].bytes = malloc(SLOT_SIZE);
		if (!sink->slots[i].bytes)
			return &error_no_memory;
	}
	if (kind == SINK_ZSTD) {
		struct error *error = prepare_packing(sink);

		if (error)
			return error;
	}
	errnum = pthread_create(&sink->thread, NULL, run_writer, sink);
	if (errnum)
		return error_errno(ERROR_FAILED, errnum, "cannot start a thread");
	sink->has_thread = true;
	*ret = take_pointer(sink);
	return NULL;
}

void core_sink_destroy(struct core_sink *sink)
{
	if (!sink)
		return;
	end_thread(sink, true);
	error_destroy(sink->error);
	for (size_t i = 0; i < SLOTS; i++)
		free(sink->slots[i].bytes);
	ZSTD_freeCStream(sink->stream);
	free(sink->packed);
	pthread_mutex_destroy(&sink->lock);
	pthread_cond_destroy(&sink->changed);
	free(sink);
}
