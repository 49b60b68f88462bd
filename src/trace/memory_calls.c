#include "memprobe/memory_calls.h"

#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/hash_index.h"
#include "memprobe/maps.h"
#include "memprobe/perf_events.h"
#include "memprobe/sample_stacks.h"
#include "range_map.h"

#define STACK_BYTES 8192u

struct memory_calls_recording {
	struct target *target;
	uint64_t min_size;
	struct sample_stacks *stacks;
	struct perf_session *perf;
	struct memory_call_site_vec sites;
	struct hash_index index;
	/* Whose each range is that was mapped during the recording. */
	struct range_map mapped;
	uint64_t brk; /* 0: not known */
	uint64_t events, child_events, mapped_bytes, unmapped_bytes;
};

/* ---- sites ---- */

struct search {
	const struct memory_calls_recording *recording;
	struct memory_call_site wanted;
};

static bool is_site(const void *context, uint32_t id)
{
	const struct search *search = context;
	const struct memory_call_site *site = &search->recording->sites.data[id];

	return site->stack == search->wanted.stack && site->call == search->wanted.call &&
	       site->mode == search->wanted.mode && site->flags == search->wanted.flags;
}

static struct error *find_site(struct memory_calls_recording *recording,
			       const struct memory_call_site *wanted, uint32_t *ret)
{
	const struct search search = { recording, *wanted };
	uint64_t hash = hash_word(HASH_SEED, wanted->stack);
	struct error *error;

	hash = hash_word(hash, wanted->call);
	hash = hash_word(hash, (uint64_t)wanted->mode << 32 | wanted->flags);
	*ret = hash_index_find(&recording->index, hash_fold(hash), is_site, &search);
	if (*ret != HASH_INDEX_NONE)
		return NULL;
	*ret = (uint32_t)recording->sites.size;
	error = memory_call_site_vec_append(&recording->sites, wanted);
	return error ? error : hash_index_add(&recording->index, hash_fold(hash), *ret);
}

/* ---- what is mapped ---- */

static void note_unmapped(void *data, uint64_t start, uint64_t end, uint32_t site)
{
	struct memory_calls_recording *recording = data;

	recording->sites.data[site].net -= end - start;
}

static struct error *map_range(struct memory_calls_recording *recording, uint64_t start,
			       uint64_t size, uint32_t site)
{
	if (start + size < start)
		return NULL;
	recording->mapped_bytes += size;
	recording->sites.data[site].net += size;
	return range_map_set(&recording->mapped, start, start + size, site, note_unmapped,
			     recording);
}

static struct error *unmap_range(struct memory_calls_recording *recording, uint64_t start,
				 uint64_t size)
{
	if (start + size < start)
		return NULL;
	recording->unmapped_bytes += size;
	return range_map_erase(&recording->mapped, start, start + size, note_unmapped, recording);
}

struct moving {
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

/* What moves stays its owner's; by what it grows it is the call's. */
static struct error *remap_range(struct memory_calls_recording *recording, uint64_t from,
				 uint64_t old_size, uint64_t to, uint64_t new_size, uint32_t site)
{
	uint64_t kept = old_size < new_size ? old_size : new_size;
	struct moving moving = { 0 };
	struct error *error;

	if (from + old_size < from || to + new_size < to)
		return NULL;
	if (old_size > kept) {
		error = unmap_range(recording, from + kept, old_size - kept);
		if (error)
			return error;
	}
	error = range_map_erase(&recording->mapped, from, from + kept, note_moved, &moving);
	if (!error)
		error = moving.error;
	if (!error && to != from)
		error = range_map_erase(&recording->mapped, to, to + kept, note_unmapped,
					recording);
	for (size_t i = 0; i < moving.pieces.size && !error; i++) {
		const struct range_map_entry *piece = &moving.pieces.data[i];

		error = range_map_set(&recording->mapped, piece->start - from + to,
				      piece->end - from + to, piece->value, NULL, NULL);
	}
	range_map_vec_deinit(&moving.pieces);
	if (!error && new_size > kept)
		error = map_range(recording, to + kept, new_size - kept, site);
	return error;
}

/* ---- samples ---- */

static uint64_t whole_pages(uint64_t size)
{
	return size > UINT64_MAX - PAGE_SIZE ? size : (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
}

/* What a call asks for, bytes. */
static uint64_t size_of_call(struct memory_calls_recording *recording, enum memory_call call,
			     const struct user_regs_struct *regs)
{
	uint64_t before = recording->brk;

	switch (call) {
	case MEMORY_CALL_MREMAP:
		return whole_pages(regs->rdx);
	case MEMORY_CALL_BRK:
		if (!before || !regs->rdi)
			return 0;
		return whole_pages(regs->rax > before ? regs->rax - before : before - regs->rax);
	default:
		return whole_pages(regs->rsi);
	}
}

static struct error *apply_brk(struct memory_calls_recording *recording, uint64_t to, uint32_t site)
{
	uint64_t from = whole_pages(recording->brk);

	recording->brk = to;
	to = whole_pages(to);
	if (!from || from == to)
		return NULL;
	return to > from ? map_range(recording, from, to - from, site)
			 : unmap_range(recording, to, from - to);
}

static struct error *apply(struct memory_calls_recording *recording, enum memory_call call,
			   const struct user_regs_struct *regs, uint32_t site)
{
	switch (call) {
	case MEMORY_CALL_MMAP:
		return map_range(recording, regs->rax, whole_pages(regs->rsi), site);
	case MEMORY_CALL_MUNMAP:
		return unmap_range(recording, regs->rdi, whole_pages(regs->rsi));
	case MEMORY_CALL_MREMAP:
		return remap_range(recording, regs->rdi, whole_pages(regs->rsi), regs->rax,
				   whole_pages(regs->rdx), site);
	case MEMORY_CALL_BRK:
		return apply_brk(recording, regs->rax, site);
	default:
		return NULL;
	}
}

/* A small call that is left out still changes what is mapped. */
static struct error *apply_unrecorded(struct memory_calls_recording *recording,
				      enum memory_call call, const struct user_regs_struct *regs)
{
	uint64_t from = whole_pages(recording->brk), to = whole_pages(regs->rax);

	switch (call) {
	case MEMORY_CALL_MMAP:
		recording->mapped_bytes += whole_pages(regs->rsi);
		if (regs->rax + regs->rsi < regs->rax)
			return NULL;
		return range_map_erase(&recording->mapped, regs->rax,
				       regs->rax + whole_pages(regs->rsi), note_unmapped,
				       recording);
	case MEMORY_CALL_BRK:
		recording->brk = regs->rax;
		if (!from || from == to)
			return NULL;
		if (to < from)
			return unmap_range(recording, to, from - to);
		recording->mapped_bytes += to - from;
		return NULL;
	case MEMORY_CALL_MUNMAP:
		return unmap_range(recording, regs->rdi, whole_pages(regs->rsi));
	case MEMORY_CALL_MREMAP:
		/* It has grown by little, or shrunk: what is left keeps its owner. */
		return remap_range(recording, regs->rdi, whole_pages(regs->rsi), regs->rax,
				   whole_pages(regs->rdx < regs->rsi ? regs->rdx : regs->rsi), 0);
	default:
		return NULL;
	}
}

static struct error *visit(void *data, const struct perf_sample *sample)
{
	struct memory_calls_recording *recording = data;
	const struct user_regs_struct *regs = &sample->regs;
	enum memory_call call = sample->spec;
	struct memory_call_site wanted = { .call = call }, *site;
	bool failed = regs->rax > -4096ull;
	struct error *error;
	uint64_t size;
	uint32_t id;

	if (sample->pid != recording->target->pid) {
		recording->child_events++;
		return NULL;
	}
	if (!sample->has_regs)
		return NULL;
	recording->events++;
	size = size_of_call(recording, call, regs);
	/* A brk that failed gives the break as it is. */
	if (call == MEMORY_CALL_BRK)
		failed = regs->rdi && regs->rax < regs->rdi;
	if (size < recording->min_size || (call == MEMORY_CALL_BRK && !size && !failed))
		return failed ? NULL : apply_unrecorded(recording, call, regs);
	if (call == MEMORY_CALL_MMAP || call == MEMORY_CALL_MADVISE || call == MEMORY_CALL_MPROTECT)
		wanted.mode = (uint32_t)regs->rdx;
	if (call == MEMORY_CALL_MMAP || call == MEMORY_CALL_MREMAP)
		wanted.flags = (uint32_t)regs->r10;
	error = sample_stacks_add(recording->stacks, sample, &wanted.stack);
	if (!error)
		error = find_site(recording, &wanted, &id);
	if (error)
		return error;
	site = &recording->sites.data[id];
	site->count++;
	site->failed += failed;
	if (failed)
		return NULL;
	site->bytes += size;
	return apply(recording, call, regs, id);
}

/* ---- recording ---- */

/* The end of [heap], which is the break rounded up. */
static struct error *find_brk(struct memory_calls_recording *recording)
{
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(recording->target, MAPS_PLAIN, &maps);

	vec_for_each (mapping, &maps)
		if (!strcmp(mapping->path, "[heap]"))
			recording->brk = mapping->end;
	mappings_deinit(&maps);
	return error;
}

static struct error *open_events(struct memory_calls_recording *recording,
				 const struct memory_calls_options *options)
{
	struct perf_spec specs[MEMORY_CALLS];
	const struct perf_options perf = {
		.specs = specs,
		.spec_count = MEMORY_CALLS,
		.stack_bytes = options->stack_bytes ? options->stack_bytes : STACK_BYTES,
		.stack_flexible = !options->stack_bytes,
		.ring_bytes = options->ring_bytes,
	};

	for (unsigned i = 0; i < MEMORY_CALLS; i++) {
		char name[32];
		struct error *error;

		snprintf(name, sizeof(name), "sys_exit_%s", memory_call_name(i));
		specs[i] = (struct perf_spec){ .type = PERF_TYPE_TRACEPOINT };
		error = perf_tracepoint("syscalls", name, &specs[i].config);
		if (error)
			return error;
	}
	return perf_open(recording->target, &perf, &recording->perf);
}

struct error *memory_calls_begin(struct target *target, const struct memory_calls_options *options,
				 struct memory_calls_recording **ret)
{
	cleanup(memory_calls) struct memory_calls_recording *recording =
		calloc(1, sizeof(*recording));
	struct error *error;

	if (!recording)
		return &error_no_memory;
	if (target->arch->bits == 32)
		return error_create(
			ERROR_UNSUPPORTED,
			"cannot watch system calls of %d: the kernel has no tracepoints "
			"for those of 32-bit processes",
			target->pid);
	recording->target = target;
	recording->min_size = options->min_size;
	error = sample_stacks_create(target, &recording->stacks);
	if (!error)
		error = open_events(recording, options);
	if (!error) {
		perf_enable(recording->perf);
		error = find_brk(recording);
	}
	if (!error)
		*ret = take_pointer(recording);
	return error;
}

struct error *memory_calls_poll(struct memory_calls_recording *recording, int timeout_ms,
				bool *alive_ret)
{
	struct error *error = perf_poll(recording->perf, timeout_ms, visit, recording);

	if (!error)
		error = sample_stacks_tick(recording->stacks);
	if (!error)
		*alive_ret = !perf_target_exited(recording->perf) &&
			     !perf_target_execed(recording->perf) &&
			     process_is_alive(recording->target->process);
	return error;
}

uint64_t memory_calls_events(const struct memory_calls_recording *recording)
{
	return recording->events;
}

struct error *memory_calls_end(struct memory_calls_recording *recording,
			       struct memory_calls_result *ret)
{
	struct error *error;

	perf_disable(recording->perf);
	error = perf_poll(recording->perf, 0, visit, recording);
	ret->stacks = sample_stacks_set(recording->stacks);
	ret->sites = recording->sites;
	recording->sites = (struct memory_call_site_vec){ 0 };
	ret->events = recording->events;
	ret->child_events = recording->child_events;
	ret->lost = perf_lost(recording->perf);
	ret->truncated = sample_stacks_truncated(recording->stacks);
	ret->mapped = recording->mapped_bytes;
	ret->unmapped = recording->unmapped_bytes;
	ret->execed = perf_target_execed(recording->perf);
	return error;
}

void memory_calls_result_deinit(struct memory_calls_result *result)
{
	memory_call_site_vec_deinit(&result->sites);
}

void memory_calls_destroy(struct memory_calls_recording *recording)
{
	if (!recording)
		return;
	perf_close(recording->perf);
	sample_stacks_destroy(recording->stacks);
	memory_call_site_vec_deinit(&recording->sites);
	hash_index_deinit(&recording->index);
	range_map_deinit(&recording->mapped);
	free(recording);
}
