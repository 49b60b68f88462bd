/*
 * What keeps blocks alive: registers, stacks from their pointers upwards, thread-local storage and
 * all other memory of the process but the heap and its administration.
 */
#include <string.h>

#include "leak_scan.h"
#include "memprobe/elf_file.h"
#include "memprobe/lower_bound.h"
#include "memprobe/num.h"
#include "memprobe/pthread_lists.h"
#include "memprobe/sparse_read.h"

/* Shared memory of which all pages are read; of more, those that the process has touched. */
#define SHARED_MAX (512ull << 20)
/* Program headers of a module that are looked at. */
#define HEADERS_MAX 64u

/* [start, end) is no root. */
struct hole {
	uint64_t start, end;
};

VEC_DEFINE(hole_vec, struct hole)
VEC_DEFINE(address_vec, uint64_t)

struct finder {
	const struct heap *heap;
	const struct thread_vec *threads;
	const struct thread_state_vec *states; /* NULL: unknown */
	struct address_vec used;	       /* by threads: is_used() */
	struct hole_vec holes;		       /* by start, merged */
	struct roots *roots;
	uint64_t shared_bytes;
};

/* ---- what is no root ---- */

static int compare_holes(const void *left, const void *right)
{
	const struct hole *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

static struct error *add_hole(struct finder *finder, uint64_t start, uint64_t end)
{
	struct hole hole = { start, end };

	return start < end ? hole_vec_append(&finder->holes, &hole) : NULL;
}

static const struct thread_state *state_of(const struct finder *finder, pid_t tid)
{
	for (size_t i = 0; finder->states && i < finder->states->size; i++)
		if (finder->states->data[i].tid == tid)
			return &finder->states->data[i];
	return NULL;
}

/* How far above its stack pointer a thread's signal frame is looked for. */
#define HANDLER_MAX (64u << 10)

/*
 * A signal handler may run on an alternate stack that is a variable of the interrupted function, or
 * of its callers: what was interrupted is below it then. The signal frame says where; what only
 * looks like one does no harm.
 */
static uint64_t lowest_pointer(const struct finder *finder, const struct thread *thread,
			       uint64_t sp)
{
	struct target *target = finder->heap->target;
	const struct arch_signal_frame *frames = target->arch->signal_frames;
	const unsigned word = target->arch->word_size;
	size_t size = min_u64(thread->stack_end - sp, HANDLER_MAX);
	cleanup(free) uint8_t *bytes = malloc(size);
	struct error *error = bytes ? target_read_sparse(target, sp, bytes, size, NULL) : NULL;
	uint64_t lowest = sp;

	for (; !error && bytes && frames && frames->code_size; frames++)
		for (size_t at = 0; at + frames->cs + 2 <= size; at += word) {
			uint64_t below = load_word(bytes + at + frames->sp, word);

			if (below >= thread->stack_start && below < lowest &&
			    load_word(bytes + at + frames->cs, 2) == frames->cs_value)
				lowest = below;
		}
	error_destroy(error);
	return lowest;
}

/* What a thread has left below its stack pointer. */
static struct error *add_dead_stack(struct finder *finder, const struct thread *thread)
{
	const struct arch *arch = finder->heap->target->arch;
	const struct thread_state *state = state_of(finder, thread->tid);
	uint64_t sp = state ? arch->sp(&state->regs) : thread->sp;

	/* On another stack (a signal's, a coroutine's): all of this one may be used. And where its
	 * bounds are a guess, somebody else's memory may be below. */
	if (!thread->stack_exact || sp < thread->stack_start || sp > thread->stack_end)
		return NULL;
	sp = lowest_pointer(finder, thread, sp);
	sp = round_down(sp - min_u64(sp, arch->red_zone), arch->word_size);
	return add_hole(finder, thread->stack_start, sp);
}

static int compare_addresses(const void *left, const void *right)
{
	const uint64_t *a = left, *b = right;

	return *a < *b ? -1 : *a > *b;
}

/* The stack pointers and control blocks of all threads. */
static struct error *find_used(struct finder *finder)
{
	struct address_vec *used = &finder->used;
	struct error *error = NULL;

	vec_for_each (thread, finder->threads) {
		uint64_t addresses[] = { thread->sp, thread->thread_pointer };

		for (unsigned i = 0; !error && i < 2; i++)
			error = address_vec_append(used, &addresses[i]);
	}
	for (size_t i = 0; !error && finder->states && i < finder->states->size; i++) {
		uint64_t sp = finder->heap->target->arch->sp(&finder->states->data[i].regs);

		error = address_vec_append(used, &sp);
	}
	if (!error && used->size)
		qsort(used->data, used->size, sizeof(*used->data), compare_addresses);
	return error;
}

/* Whether a thread runs on the stack of @block, or uses its control block. */
static bool is_used(const struct finder *finder, const struct pthread_block *block)
{
	const struct address_vec *used = &finder->used;
	size_t low = lower_bound(used->data, used->size, address, *address < block->start);

	return low < used->size && used->data[low] < block->end;
}

/*
 * A thread that has ended left its stack to glibc: for another thread, or until it is joined. What
 * is on it is nobody's any more.
 */
static bool is_ended(const struct finder *finder, const struct pthread_block *block)
{
	return block->tid <= 0 && block->bounds && !is_used(finder, block);
}

static struct error *find_ended(struct finder *finder)
{
	struct error *error = find_used(finder);
	size_t count = 0;

	vec_for_each (thread, finder->threads)
		if (!error && !finder->roots->ended.size && thread->thread_pointer)
			error = pthread_lists_read(finder->heap->target, finder->heap->maps,
						   thread->thread_pointer, &finder->roots->ended);
	vec_for_each (block, &finder->roots->ended)
		if (is_ended(finder, block))
			finder->roots->ended.data[count++] = *block;
	finder->roots->ended.size = count;
	return error;
}

static struct error *find_holes(struct finder *finder)
{
	struct hole_vec *holes = &finder->holes;
	struct error *error = NULL;
	size_t merged = 0;

	vec_for_each (region, &finder->heap->regions)
		if (!error)
			error = add_hole(finder, region->start, region->end);
	vec_for_each (arena, &finder->heap->arenas)
		if (!error)
			error = add_hole(finder, arena->address, arena->address + arena->size);
	vec_for_each (thread, finder->threads)
		if (!error)
			error = add_dead_stack(finder, thread);
	vec_for_each (block, &finder->roots->ended)
		if (!error)
			error = add_hole(finder, block->start, block->end);
	if (error || !holes->size)
		return error;
	qsort(holes->data, holes->size, sizeof(*holes->data), compare_holes);
	for (size_t i = 1; i < holes->size; i++) {
		struct hole *last = &holes->data[merged], *hole = &holes->data[i];

		if (hole->start <= last->end)
			last->end = max_u64(last->end, hole->end);
		else
			holes->data[++merged] = *hole;
	}
	holes->size = merged + 1;
	return NULL;
}

/* ---- what is one ---- */

static bool begins(const char *text, const char *beginning)
{
	return !strncmp(text, beginning, strlen(beginning));
}

/* Whether a module was to write there before it was made read-only: RELRO. */
static bool was_writable(const struct finder *finder, const struct mapping *mapping)
{
	struct target *target = finder->heap->target;
	struct module *module = target_module_at(target, mapping->start);
	Elf64_Phdr header;

	for (unsigned i = 0;
	     module && i < HEADERS_MAX && module_program_header(target, module, i, &header); i++) {
		uint64_t start = module->bias + header.p_vaddr;

		if (header.p_type == PT_LOAD && (header.p_flags & PF_W) &&
		    mapping->start < start + header.p_memsz && start < mapping->end)
			return true;
	}
	return false;
}

/* All that could have been written to. What is constant only looks like pointers. */
static bool may_point(const struct finder *finder, const struct mapping *mapping)
{
	const char *path = mapping->path;

	if (!(mapping->perms & PERM_READ) || begins(path, "[v"))
		return false;
	/* The tables of a recording hold the address of every block. */
	if (begins(path, "/memfd:memprobe"))
		return false;
	/* Reading a device's memory may have effects. */
	if (target_backing(finder->heap->target, mapping, NULL) == BACKING_DEVICE)
		return false;
	if (mapping->perms & PERM_WRITE)
		return true;
	if (mapping->perms & (PERM_EXEC | PERM_SHARED))
		return false;
	return !mapping->inode || was_writable(finder, mapping);
}

static const struct thread *stack_owner(const struct finder *finder, uint64_t address)
{
	vec_for_each (thread, finder->threads)
		if (address >= thread->stack_start && address < thread->stack_end)
			return thread;
	return NULL;
}

static struct error *add_range(struct finder *finder, uint64_t start, uint64_t end,
			       const struct mapping *file)
{
	unsigned word = finder->heap->target->arch->word_size;
	struct error *error = NULL;

	start = round_up(start, word);
	while (!error && start < end) {
		bool is_large = end - start > ROOT_PART;
		const struct thread *owner;
		struct root root;

		/* What was only reserved may be a thousand times the memory of the process. */
		if (is_large && (!file || finder->shared_bytes >= SHARED_MAX)) {
			start = target_next_present(finder->heap->target, start, end);
			if (start >= end)
				break;
		}
		owner = stack_owner(finder, start);
		root = (struct root){
			.start = start,
			.end = min_u64(end, start + ROOT_PART),
			.kind = owner ? ROOT_STACK : ROOT_MEMORY,
			.tid = owner ? owner->tid : 0,
			.file = finder->shared_bytes < SHARED_MAX ? file : NULL,
		};
		if (root.file)
			finder->shared_bytes += root.end - root.start;
		error = root_vec_append(&finder->roots->ranges, &root);
		start = root.end;
	}
	return error;
}

/* The mapping without its holes. */
static struct error *add_mapping(struct finder *finder, const struct mapping *mapping)
{
	const struct hole_vec *holes = &finder->holes;
	const struct mapping *shared = mapping->perms & PERM_SHARED ? mapping : NULL;
	uint64_t at = mapping->start;
	size_t low = lower_bound(holes->data, holes->size, hole, hole->end <= at);

	for (; low < holes->size && holes->data[low].start < mapping->end; low++) {
		struct error *error = add_range(finder, at, holes->data[low].start, shared);

		if (error)
			return error;
		at = max_u64(at, holes->data[low].end);
	}
	return at < mapping->end ? add_range(finder, at, mapping->end, shared) : NULL;
}

static struct error *add_gap(struct finder *finder, const struct heap_gap *gap)
{
	return add_range(finder, gap->start, gap->end, NULL);
}

static struct error *add_kept(struct finder *finder, uint64_t start, uint64_t size)
{
	const struct root root = { .start = start, .end = start + size, .kind = ROOT_JOIN };

	return root_vec_append(&finder->roots->ranges, &root);
}

/*
 * Of a thread that ended: its dtv, which the next thread on that stack gets, and until it is joined
 * its result and tpp, which is behind four words of bounds.
 */
static struct error *add_ended(struct finder *finder, const struct pthread_block *block)
{
	const struct arch *arch = finder->heap->target->arch;
	const unsigned word = arch->word_size;
	struct error *error = add_kept(finder, block->address + word, word);

	if (!error && !block->is_freed)
		error = add_kept(finder, block->bounds - arch->pthread.result,
				 arch->pthread.result_size);
	if (!error && !block->is_freed)
		error = add_kept(finder, block->bounds + 4 * word, word);
	return error;
}

/* Every word of it: what is no pointer costs nothing. */
static struct error *add_registers(struct finder *finder, const struct thread_state *state)
{
	uint64_t words[sizeof(state->regs) / 8];
	struct error *error = NULL;

	memcpy(words, &state->regs, sizeof(words));
	for (size_t i = 0; !error && i < sizeof(words) / sizeof(words[0]); i++) {
		struct root_word word = { words[i], state->tid, i };

		if (word.value)
			error = root_word_vec_append(&finder->roots->words, &word);
	}
	return error;
}

static struct error *find_all(struct finder *finder)
{
	struct error *error = find_ended(finder);

	if (!error)
		error = find_holes(finder);
	vec_for_each (mapping, finder->heap->maps)
		if (!error && may_point(finder, mapping))
			error = add_mapping(finder, mapping);
	vec_for_each (gap, &finder->heap->gaps)
		if (!error)
			error = add_gap(finder, gap);
	vec_for_each (block, &finder->roots->ended)
		if (!error)
			error = add_ended(finder, block);
	for (size_t i = 0; !error && finder->states && i < finder->states->size; i++)
		error = add_registers(finder, &finder->states->data[i]);
	return error;
}

struct error *roots_find(const struct heap *heap, const struct leak_options *options,
			 struct roots *ret)
{
	struct finder finder = { .heap = heap, .roots = ret };
	struct thread_vec own = { 0 };
	struct error *error = NULL;

	finder.threads = options ? options->threads : NULL;
	finder.states = options ? options->states : NULL;
	if (!finder.threads) {
		heap->target->lent_maps = heap->maps;
		error = target_read_threads(heap->target, &own);
		heap->target->lent_maps = NULL;
		finder.threads = &own;
		/* A core or a fake without threads has stacks that are whole. */
		if (error_is(error, ERROR_UNSUPPORTED)) {
			error_destroy(error);
			error = NULL;
		}
	}
	if (!error)
		error = find_all(&finder);
	hole_vec_deinit(&finder.holes);
	address_vec_deinit(&finder.used);
	thread_vec_deinit(&own);
	return error;
}

void roots_deinit(struct roots *roots)
{
	root_vec_deinit(&roots->ranges);
	root_word_vec_deinit(&roots->words);
	pthread_block_vec_deinit(&roots->ended);
}
