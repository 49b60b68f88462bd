/* The tables' memory: reserved at once, allocated ahead of use. The agent touches nothing that has
 * no memory behind it: it would find no file there. */
#include "agent_recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/log.h"
#include "memprobe/num.h"

/* Each level has so many times the entries of the one before. */
#define LEVEL_FACTOR 4

/* The first levels: enough for what comes between two ticks. */
#define LIVE_FIRST_EXACT   (32u << 10)
#define LIVE_FIRST_SAMPLED (2u << 10)
#define STACKS_FIRST	   (16u << 10)
#define STACK_LEVELS	   6
#define FRAMES_FIRST	   (1u << 20)
/* ... where there is little memory. */
#define MEMORY_LITTLE	  (96u << 20)
#define LIVE_FIRST_LITTLE (8u << 10)
#define FRAMES_LITTLE	  (128u << 10)
#define FRAMES_MAX	  (UINT64_C(1) << 30)
#define UNWIND_CAPACITY	  (UINT64_C(1) << 30)
#define CONTEXTS	  (256u << 10)
#define OWNERS_SIZE	  (AGENT_BUCKET_BLOCKS * sizeof(struct agent_owner)) /* of a bucket */

/* Stacks of each level that are looked at for how full it is. */
#define STACKS_LOOKED_AT 1024

static uint64_t place(struct tables *tables, uint64_t size)
{
	uint64_t offset = tables->size;

	tables->size += round_up(size, PAGE_SIZE);
	return offset;
}

/* Levels as far as @space goes, at least two; each with its owners, of which an entry has @owners
 * bytes, behind it. */
static unsigned plan_levels(struct tables *tables, struct table_level *levels, unsigned count,
			    uint64_t first, size_t entry, size_t owners, uint64_t space)
{
	uint64_t entries = first;
	unsigned i;

	for (i = 0; i < count; i++, entries *= LEVEL_FACTOR) {
		if (i >= 2 && tables->size + entries * (entry + owners) > space)
			break;
		levels[i] = (struct table_level){ .offset = place(tables, entries * entry),
						  .count = entries };
		if (owners)
			levels[i].owners = place(tables, entries * owners);
	}
	return i;
}

/* All that was placed since the part before. */
static void end_part(struct tables *tables, enum tables_part_name name)
{
	tables->parts[name].start = name ? tables->parts[name - 1].end : 0;
	tables->parts[name].end = tables->size;
}

void tables_init(struct tables *tables)
{
	*tables = (struct tables){ 0 };
	for (unsigned i = 0; i < TABLES_PARTS; i++)
		tables->parts[i].fd = tables->parts[i].own_fd = -1;
}

void tables_plan(struct tables *tables, bool exact, bool pools, uint64_t space, uint64_t memory_max)
{
	uint64_t frames = FRAMES_MAX, unwind = UNWIND_CAPACITY, first;

	tables_init(tables);
	tables->limit = tables->allocated_max = memory_max ? memory_max : UINT64_MAX;
	tables->is_little = tables->limit < MEMORY_LITTLE;
	first = !exact		    ? LIVE_FIRST_SAMPLED
		: tables->is_little ? LIVE_FIRST_LITTLE
				    : LIVE_FIRST_EXACT;
	place(tables, sizeof(struct agent_shm));
	tables->counters_offset =
		place(tables, (AGENT_THREADS + 1) * sizeof(struct agent_counters));
	tables->head_size = tables->size;
	while (frames * 8 > space / 4 && frames > FRAMES_FIRST)
		frames /= 2;
	while (unwind > space / 4 && unwind > (4 << 20))
		unwind /= 2;
	if (pools) {
		tables->contexts_count = CONTEXTS;
		tables->contexts_offset = place(tables, CONTEXTS * sizeof(struct agent_context));
	}
	tables->unwind_capacity = unwind;
	tables->unwind_offset = place(tables, unwind);
	end_part(tables, TABLES_HEAD);
	tables->frames_words = frames;
	tables->frames_offset = place(tables, frames * 8);
	end_part(tables, TABLES_FRAMES);
	tables->stack_levels = plan_levels(tables, tables->stacks, STACK_LEVELS, STACKS_FIRST,
					   sizeof(struct agent_stack), 0, space / 2);
	end_part(tables, TABLES_STACKS);
	tables->live_levels =
		plan_levels(tables, tables->live, AGENT_LEVELS, first, sizeof(struct agent_bucket),
			    pools ? OWNERS_SIZE : 0, space);
	end_part(tables, TABLES_LIVE);
}

/* ---- memory ---- */

static const struct tables_part *part_of(const struct tables *tables, uint64_t offset)
{
	const struct tables_part *part = tables->parts;

	while (offset >= part->end && part < tables->parts + TABLES_PARTS - 1)
		part++;
	return part;
}

static bool allocate(struct tables *tables, uint64_t offset, uint64_t size)
{
	struct tables_part *part = tables->parts + (part_of(tables, offset) - tables->parts);
	int errnum = 0;

	size = round_up(offset + size, PAGE_SIZE) - round_down(offset, PAGE_SIZE);
	offset = round_down(offset, PAGE_SIZE) - part->start;
	if (tables->allocated + size > tables->allocated_max)
		errnum = ENOMEM;
	else if (fallocate(part->fd, 0, (off_t)offset, (off_t)size))
		errnum = errno;
	if (!errnum) {
		tables->allocated += size;
		part->length = max_u64(part->length, offset + size);
		return true;
	}
	if (!tables->full)
		log_debug("no memory for more of the recording: %s", strerror(errnum));
	tables->full = errnum;
	return false;
}

static bool add_live_level(struct tables *tables)
{
	const struct table_level *level = &tables->live[tables->live_ready];

	if (tables->live_ready == tables->live_levels ||
	    !allocate(tables, level->offset, level->count * sizeof(struct agent_bucket)) ||
	    (tables->contexts_count &&
	     !allocate(tables, level->owners, level->count * OWNERS_SIZE)))
		return false;
	tables->live_ready++;
	return true;
}

static bool add_stack_level(struct tables *tables)
{
	const struct table_level *level = &tables->stacks[tables->stack_ready];

	if (tables->stack_ready == tables->stack_levels ||
	    !allocate(tables, level->offset, level->count * sizeof(struct agent_stack)))
		return false;
	tables->stack_ready++;
	return true;
}

static bool add_frames(struct tables *tables)
{
	uint64_t more = tables->frames_ready ? min_u64(tables->frames_ready, 16u << 20)
			: tables->is_little  ? FRAMES_LITTLE
					     : FRAMES_FIRST;

	more = min_u64(more, tables->frames_words - tables->frames_ready);
	if (!more || !allocate(tables, tables->frames_offset + tables->frames_ready * 8, more * 8))
		return false;
	tables->frames_ready += more;
	return true;
}

/*
 * Whether the file is the one that was made for the tables. The target had its descriptor for an
 * instant: a thread that closes what is not its own may have put any file in its place.
 */
static bool is_ours(int fd)
{
	static const char name[] = "/memfd:memprobe";
	char link[32], path[sizeof(name)];
	struct stat status;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return readlink(link, path, sizeof(path)) == (ssize_t)sizeof(path) &&
	       !memcmp(path, name, sizeof(name) - 1) && !fstat(fd, &status) && !status.st_nlink &&
	       !status.st_size;
}

struct error *tables_open(struct tables *tables, int fds[TABLES_PARTS])
{
	for (unsigned i = 0; i < TABLES_PARTS; i++)
		if (!is_ours(fds[i]))
			return error_create(ERROR_UNSUPPORTED,
					    "the target closes files that are not its own: those "
					    "of the recording's tables would not be safe in it");
	for (unsigned i = 0; i < TABLES_PARTS; i++)
		tables->parts[i].fd = take_fd(&fds[i]);
	if (!allocate(tables, 0, tables->head_size) || !add_frames(tables) ||
	    !add_stack_level(tables) || !add_live_level(tables) ||
	    (tables->contexts_count &&
	     !allocate(tables, tables->contexts_offset,
		       tables->contexts_count * sizeof(struct agent_context))))
		return error_errno(ERROR_FAILED, tables->full,
				   "no memory for the recording's tables");
	/* Exact recordings fill the first level within a tick or two. */
	if (tables->live[0].count == LIVE_FIRST_EXACT)
		add_live_level(tables);
	tables->head = mmap(NULL, tables->head_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			    tables->parts[TABLES_HEAD].fd, 0);
	if (tables->head == MAP_FAILED) {
		tables->head = NULL;
		return &error_no_memory;
	}
	memcpy(tables->head, AGENT_MAGIC, sizeof(AGENT_MAGIC));
	return NULL;
}

void tables_describe(const struct tables *tables, uint64_t base, struct agent_config *config)
{
	config->shm = base;
	config->counters = base + tables->counters_offset;
	config->frames = base + tables->frames_offset;
	config->unwind = base + tables->unwind_offset;
	for (unsigned i = 0; i < tables->live_levels; i++)
		config->live[i] = (struct agent_level){ base + tables->live[i].offset,
							tables->live[i].count - 1 };
	if (tables->contexts_count) {
		config->pools.contexts = base + tables->contexts_offset;
		config->pools.contexts_mask = tables->contexts_count - 1;
		for (unsigned i = 0; i < tables->live_levels; i++)
			config->pools.owners[i] = base + tables->live[i].owners;
	}
	for (unsigned i = 0; i < tables->stack_levels; i++)
		config->stacks[i] = (struct agent_level){ base + tables->stacks[i].offset,
							  tables->stacks[i].count - 1 };
}

/* ---- growing ---- */

bool tables_read(const struct tables *tables, uint64_t offset, void *buffer, size_t size)
{
	const struct tables_part *part = part_of(tables, offset);

	for (size_t done = 0; done < size;) {
		uint64_t at = offset - part->start + done;
		bool moved = at < part->moved;
		size_t wanted = moved ? min_u64(size - done, part->moved - at) : size - done;
		ssize_t count = pread(moved ? part->own_fd : part->fd, (char *)buffer + done,
				      wanted, (off_t)at);

		if (count <= 0)
			return false;
		done += (size_t)count;
	}
	return true;
}

/* Per cent. Stacks are spread evenly: the first ones of the last level tell how full it is. */
static unsigned stacks_filled(const struct tables *tables)
{
	const struct table_level *level = &tables->stacks[tables->stack_ready - 1];
	struct agent_stack stacks[STACKS_LOOKED_AT];
	unsigned used = 0;

	if (!tables_read(tables, level->offset, stacks, sizeof(stacks)))
		return 0;
	for (unsigned i = 0; i < STACKS_LOOKED_AT; i++)
		used += stacks[i].hash != 0;
	return used * 100 / STACKS_LOOKED_AT;
}

/* One table: grown as soon as it is @wanted per cent full. What could not grow counts. */
static bool grow(struct tables *tables, unsigned filled, unsigned wanted,
		 bool (*add)(struct tables *tables))
{
	if (filled <= wanted)
		return false;
	if (add(tables))
		return true;
	tables->filled = (unsigned)max_u64(tables->filled, filled);
	return false;
}

bool tables_grow(struct tables *tables, uint64_t live)
{
	uint64_t room = 0, frames = tables_shm(tables)->frames_used;
	bool grown = false;

	for (unsigned i = 0; i < tables->live_ready; i++)
		room += tables->live[i].count * AGENT_BUCKET_BLOCKS;
	tables->filled = 0;
	grown |= grow(tables, (unsigned)(live * 100 / room), 25, add_live_level);
	grown |= grow(tables, (unsigned)(frames * 100 / tables->frames_ready), 50, add_frames);
	grown |= grow(tables, stacks_filled(tables), 25, add_stack_level);
	return grown;
}

struct error *tables_publish_unwind(struct tables *tables, const struct unwind_table *table)
{
	size_t size;

	unwind_table_image(table, &size);
	if (!tables->unwind) {
		tables->unwind = mmap(NULL, tables->unwind_capacity, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_NORESERVE, tables->parts[TABLES_HEAD].fd,
				      (off_t)tables->unwind_offset);
		if (tables->unwind == MAP_FAILED) {
			tables->unwind = NULL;
			return &error_no_memory;
		}
	}
	if (size > tables->unwind_capacity)
		return error_create(ERROR_FAILED, "the unwind tables of %zu bytes have no room",
				    size);
	if (size > tables->unwind_ready &&
	    !allocate(tables, tables->unwind_offset + tables->unwind_ready,
		      size - tables->unwind_ready))
		return error_create(ERROR_FAILED,
				    "no memory for unwind tables of %zu bytes, beside %" PRIu64
				    " of %" PRIu64 " that are taken (--max-memory)",
				    size, tables->allocated, tables->allocated_max);
	tables->unwind_ready = max_u64(tables->unwind_ready, round_up(size, PAGE_SIZE));
	return unwind_table_publish(table, tables->unwind, tables->unwind_ready,
				    &tables->unwind_copied);
}

/* ---- taking them away ---- */

/* Moved at a time, and from how much on it is worth it: munmap() would take some milliseconds. */
#define PIECE	 (1u << 20)
#define TAKE_MIN (24u << 20)

static bool is_zero(const uint8_t *bytes, size_t size)
{
	return !*bytes && !memcmp(bytes, bytes + 1, size - 1);
}

/* What has never been written takes no memory in the copy. */
static bool copy_piece(const struct tables_part *part, uint8_t *buffer, uint64_t at, size_t size)
{
	if (pread(part->fd, buffer, size, (off_t)at) != (ssize_t)size)
		return false;
	for (size_t i = 0; i < size; i += PAGE_SIZE)
		if (!is_zero(buffer + i, PAGE_SIZE) &&
		    pwrite(part->own_fd, buffer + i, PAGE_SIZE, (off_t)(at + i)) != PAGE_SIZE)
			return false;
	return true;
}

static void take_part(struct tables_part *part, uint64_t wanted, uint8_t *buffer)
{
	part->own_fd = memfd_create("memprobe tables", MFD_CLOEXEC);
	if (part->own_fd < 0 || ftruncate(part->own_fd, (off_t)part->length))
		return;
	for (uint64_t at = 0; at < part->length; at += PIECE) {
		size_t size = min_u64(PIECE, part->length - at);

		if ((at < wanted && !copy_piece(part, buffer, at, size)) ||
		    fallocate(part->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
			      (off_t)size))
			return;
		part->moved = at + size;
	}
}

void tables_take(struct tables *tables)
{
	cleanup(free) uint8_t *buffer = malloc(PIECE);
	struct tables_part *head = &tables->parts[TABLES_HEAD];
	uint8_t *moved_head;

	if (!buffer || !tables->head || tables->allocated < TAKE_MIN)
		return;
	for (unsigned i = 0; i < TABLES_PARTS; i++)
		take_part(&tables->parts[i], i == TABLES_HEAD ? tables->unwind_offset : UINT64_MAX,
			  buffer);
	if (head->moved < tables->head_size)
		return;
	moved_head = mmap(tables->head, tables->head_size, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_FIXED, head->own_fd, 0);
	if (moved_head == MAP_FAILED)
		log_debug("the counters cannot be mapped again: %s", strerror(errno));
}

void tables_close(struct tables *tables)
{
	if (tables->head)
		munmap(tables->head, tables->head_size);
	if (tables->unwind)
		munmap(tables->unwind, tables->unwind_capacity);
	for (unsigned i = 0; i < TABLES_PARTS; i++) {
		const struct tables_part *part = &tables->parts[i];

		if (part->own_fd >= 0)
			close(part->own_fd);
		if (part->fd < 0)
			continue;
		if (part->length && fallocate(part->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					      0, (off_t)part->length))
			log_debug("the recording's memory is not given back: %s", strerror(errno));
		close(part->fd);
	}
	tables_init(tables);
}
