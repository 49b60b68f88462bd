/*
 * What the calls have done, told one after the other: whose each range is that was mapped since the
 * beginning, and how much is left of it.
 */
#include "memory_ledger.h"

#include <linux/mman.h>
#include <sys/mman.h>

#include "memprobe/arch.h"
#include "memprobe/num.h"

/* A thread that has freed a place returns from its call within this time, or never. */
#define OWED_NS	 1000000000u
#define OWED_MAX 256u

/* ---- sites ---- */

struct search {
	const struct memory_ledger *ledger;
	struct memory_call_site wanted;
};

static bool is_site(const void *context, uint32_t id)
{
	const struct search *search = context;
	const struct memory_call_site *site = &search->ledger->sites.data[id];

	return site->stack == search->wanted.stack && site->call == search->wanted.call &&
	       site->mode == search->wanted.mode && site->flags == search->wanted.flags;
}

static struct error *find_site(struct memory_ledger *ledger, const struct memory_call_site *wanted,
			       uint32_t *ret)
{
	const struct search search = { ledger, *wanted };
	uint64_t hash = hash_word(HASH_SEED, wanted->stack);
	struct error *error;

	hash = hash_word(hash, wanted->call);
	hash = hash_word(hash, (uint64_t)wanted->mode << 32 | wanted->flags);
	*ret = hash_index_find(&ledger->index, hash_fold(hash), is_site, &search);
	if (*ret != HASH_INDEX_NONE)
		return NULL;
	*ret = (uint32_t)ledger->sites.size;
	error = memory_call_site_vec_append(&ledger->sites, wanted);
	return error ? error : hash_index_add(&ledger->index, hash_fold(hash), *ret);
}

/* ---- what is mapped ---- */

static void note_unmapped(void *data, uint64_t start, uint64_t end, uint32_t site)
{
	struct memory_ledger *ledger = data;

	ledger->sites.data[site].net -= end - start;
}

/* The kernel gives out free places only: the call that has freed this one is still to be told. */
static void note_owed(void *data, uint64_t start, uint64_t end, uint32_t site)
{
	struct memory_ledger *ledger = data;
	const struct perf_sample *sample = ledger->event->sample;
	const struct memory_owed owed = { start, end, site, sample->tid, sample->time };

	note_unmapped(data, start, end, site);
	/* Without memory for it the figures are those of a call that was lost. */
	if (ledger->owed.size < OWED_MAX)
		error_destroy(memory_owed_vec_append(&ledger->owed, &owed));
}

/* For what is replaced where the current call maps something. */
static range_map_removed *replaced_by(const struct memory_call_event *event)
{
	bool chosen = event->call == MEMORY_CALL_BRK ||
		      (event->call == MEMORY_CALL_MMAP && event->args[3] & MAP_FIXED) ||
		      (event->call == MEMORY_CALL_MREMAP && event->args[3] & MREMAP_FIXED);

	return chosen ? note_unmapped : note_owed;
}

/* Should a call have been lost, what it owes is not to be taken from a later one. */
static void forget_old_owed(struct memory_ledger *ledger)
{
	struct memory_owed_vec *owed = &ledger->owed;

	for (size_t i = 0; i < owed->size; i++)
		if (owed->data[i].time + OWED_NS < ledger->event->sample->time)
			owed->data[i--] = owed->data[--owed->size];
}

/* One that a call of this thread may have freed. */
static struct memory_owed *find_owed(struct memory_ledger *ledger, uint64_t start, uint64_t end)
{
	vec_for_each (owed, &ledger->owed)
		if (owed->start < end && owed->end > start &&
		    owed->tid != ledger->event->sample->tid)
			return owed;
	return NULL;
}

/*
 * The current call has freed [start, end): but for what is owed, which @was_owed is told of instead
 * (NULL: nobody), as @removed is of the rest. Goes as deep as there are pieces of it owed.
 */
static struct error *take_out(struct memory_ledger *ledger, uint64_t start, uint64_t end,
			      range_map_removed *removed, range_map_removed *was_owed, void *data)
{
	struct memory_owed *found = find_owed(ledger, start, end), before, behind;
	struct error *error = NULL;

	if (!found)
		return range_map_erase(&ledger->mapped, start, end, removed, data);
	before = behind = *found;
	before.end = max_u64(start, found->start);
	behind.start = min_u64(end, found->end);
	*found = ledger->owed.data[--ledger->owed.size];
	if (was_owed)
		was_owed(data, before.end, behind.start, before.site);
	if (before.start < before.end)
		error = memory_owed_vec_append(&ledger->owed, &before);
	if (!error && behind.start < behind.end)
		error = memory_owed_vec_append(&ledger->owed, &behind);
	if (!error)
		error = take_out(ledger, start, before.end, removed, was_owed, data);
	if (!error)
		error = take_out(ledger, behind.start, end, removed, was_owed, data);
	return error;
}

static struct error *map_range(struct memory_ledger *ledger, uint64_t start, uint64_t size,
			       uint32_t site)
{
	if (start + size < start)
		return NULL;
	ledger->mapped_bytes += size;
	ledger->sites.data[site].net += size;
	return range_map_set(&ledger->mapped, start, start + size, site, replaced_by(ledger->event),
			     ledger);
}

static struct error *unmap_range(struct memory_ledger *ledger, uint64_t start, uint64_t size)
{
	if (start + size < start)
		return NULL;
	ledger->unmapped_bytes += size;
	return take_out(ledger, start, start + size, note_unmapped, NULL, ledger);
}

struct moving {
	struct memory_ledger *ledger;
	struct range_map_vec pieces;
	struct error *error;
};

static void note_moved(void *data, uint64_t start, uint64_t end, uint32_t site)
{
	struct moving *moving = data;
	const struct range_map_entry piece = { start, end, site };

	if (!moving->error)
		moving->error = range_map_vec_append(&moving->pieces, &piece);
}

/* It was taken for unmapped. */
static void note_moved_before(void *data, uint64_t start, uint64_t end, uint32_t site)
{
	struct moving *moving = data;

	moving->ledger->sites.data[site].net += end - start;
	note_moved(data, start, end, site);
}

/* What moves stays its owner's; by what it grows it is the call's. */
static struct error *remap_range(struct memory_ledger *ledger, uint64_t from, uint64_t old_size,
				 uint64_t to, uint64_t new_size, uint32_t site)
{
	uint64_t kept = old_size < new_size ? old_size : new_size;
	struct moving moving = { .ledger = ledger };
	struct error *error;

	if (from + old_size < from || to + new_size < to)
		return NULL;
	if (old_size > kept) {
		error = unmap_range(ledger, from + kept, old_size - kept);
		if (error)
			return error;
	}
	error = take_out(ledger, from, from + kept, note_moved, note_moved_before, &moving);
	if (!error)
		error = moving.error;
	if (!error && to != from)
		error = range_map_erase(&ledger->mapped, to, to + kept, replaced_by(ledger->event),
					ledger);
	for (size_t i = 0; i < moving.pieces.size && !error; i++) {
		const struct range_map_entry *piece = &moving.pieces.data[i];

		error = range_map_set(&ledger->mapped, piece->start - from + to,
				      piece->end - from + to, piece->value, NULL, NULL);
	}
	range_map_vec_deinit(&moving.pieces);
	if (!error && new_size > kept)
		error = map_range(ledger, to + kept, new_size - kept, site);
	return error;
}

/* ---- samples ---- */

static uint64_t whole_pages(uint64_t size)
{
	return size > UINT64_MAX - PAGE_SIZE ? size : (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
}

/* What a call asks for, bytes. */
static uint64_t size_of_call(struct memory_ledger *ledger, enum memory_call call,
			     const struct memory_call_event *event)
{
	uint64_t before = ledger->brk;

	switch (call) {
	case MEMORY_CALL_MREMAP:
		return whole_pages(event->args[2]);
	case MEMORY_CALL_BRK:
		if (!before || !event->args[0])
			return 0;
		return whole_pages(event->result > before ? event->result - before
							  : before - event->result);
	default:
		return whole_pages(event->args[1]);
	}
}

static struct error *apply_brk(struct memory_ledger *ledger, uint64_t to, uint32_t site)
{
	uint64_t from = whole_pages(ledger->brk);

	ledger->brk = to;
	to = whole_pages(to);
	if (!from || from == to)
		return NULL;
	return to > from ? map_range(ledger, from, to - from, site)
			 : unmap_range(ledger, to, from - to);
}

static struct error *apply(struct memory_ledger *ledger, enum memory_call call,
			   const struct memory_call_event *event, uint32_t site)
{
	switch (call) {
	case MEMORY_CALL_MMAP:
		return map_range(ledger, event->result, whole_pages(event->args[1]), site);
	case MEMORY_CALL_MUNMAP:
		return unmap_range(ledger, event->args[0], whole_pages(event->args[1]));
	case MEMORY_CALL_MREMAP:
		/* Then what was there stays, though empty. */
		if (event->args[3] & MREMAP_DONTUNMAP)
			return map_range(ledger, event->result, whole_pages(event->args[2]), site);
		return remap_range(ledger, event->args[0], whole_pages(event->args[1]),
				   event->result, whole_pages(event->args[2]), site);
	case MEMORY_CALL_BRK:
		return apply_brk(ledger, event->result, site);
	default:
		return NULL;
	}
}

/* A small call that is left out still changes what is mapped. */
static struct error *apply_unrecorded(struct memory_ledger *ledger, enum memory_call call,
				      const struct memory_call_event *event)
{
	uint64_t from = whole_pages(ledger->brk), to = whole_pages(event->result);
	uint64_t kept;

	switch (call) {
	case MEMORY_CALL_MMAP:
		ledger->mapped_bytes += whole_pages(event->args[1]);
		if (event->result + event->args[1] < event->result)
			return NULL;
		return range_map_erase(&ledger->mapped, event->result,
				       event->result + whole_pages(event->args[1]), note_unmapped,
				       ledger);
	case MEMORY_CALL_BRK:
		ledger->brk = event->result;
		if (!from || from == to)
			return NULL;
		if (to < from)
			return unmap_range(ledger, to, from - to);
		ledger->mapped_bytes += to - from;
		return NULL;
	case MEMORY_CALL_MUNMAP:
		return unmap_range(ledger, event->args[0], whole_pages(event->args[1]));
	case MEMORY_CALL_MREMAP:
		/* It has grown by little, or shrunk: what is left keeps its owner. */
		if (event->args[3] & MREMAP_DONTUNMAP)
			return NULL;
		kept = min_u64(event->args[1], event->args[2]);
		return remap_range(ledger, event->args[0], whole_pages(event->args[1]),
				   event->result, whole_pages(kept), 0);
	default:
		return NULL;
	}
}

struct error *memory_ledger_note(struct memory_ledger *ledger,
				 const struct memory_call_event *event)
{
	enum memory_call call = event->call;
	struct memory_call_site wanted = { .call = call }, *site;
	bool failed = event->failed;
	struct error *error;
	uint64_t size;
	uint32_t id;

	ledger->events++;
	ledger->event = event;
	forget_old_owed(ledger);
	size = size_of_call(ledger, call, event);
	/* A brk that failed gives the break as it is. */
	if (call == MEMORY_CALL_BRK)
		failed = event->args[0] && event->result < event->args[0];
	if (size < ledger->min_size || (call == MEMORY_CALL_BRK && !size && !failed))
		return failed ? NULL : apply_unrecorded(ledger, call, event);
	if (call == MEMORY_CALL_MMAP || call == MEMORY_CALL_MADVISE || call == MEMORY_CALL_MPROTECT)
		wanted.mode = (uint32_t)event->args[2];
	if (call == MEMORY_CALL_MMAP || call == MEMORY_CALL_MREMAP)
		wanted.flags = (uint32_t)event->args[3];
	error = sample_stacks_add(ledger->stacks, event->sample, &wanted.stack);
	if (!error)
		error = find_site(ledger, &wanted, &id);
	if (error)
		return error;
	site = &ledger->sites.data[id];
	site->count++;
	site->failed += failed;
	if (failed)
		return NULL;
	site->bytes += size;
	return apply(ledger, call, event, id);
}

void memory_ledger_deinit(struct memory_ledger *ledger)
{
	memory_call_site_vec_deinit(&ledger->sites);
	hash_index_deinit(&ledger->index);
	range_map_deinit(&ledger->mapped);
	memory_owed_vec_deinit(&ledger->owed);
}
