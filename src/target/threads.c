/*
 * The threads of a live process with their stacks, without stopping any of them.
 *
 * A thread that waits in the kernel shows its stack pointer (/proc/PID/task/TID/syscall). The
 * control block of its C library stands at the upper end of its stack: it begins with a pointer to
 * itself and holds the thread's id. glibc: struct pthread (nptl/descr.h), also with the stack's
 * bounds; musl: struct pthread (src/internal/pthread_impl.h).
 *
 * Only pages that are there are read: to read others would give the target page tables.
 */
#include "live.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/pthread_lists.h"
#include "memprobe/sparse_read.h"
#include "threads.h"

/* How far above a stack pointer, and at each end of a mapping, control blocks are looked for. */
#define ABOVE_SP_MAX (16ULL << 20)
#define END_SIZE     (64ULL << 10)
/* All that one call reads in search of them. */
#define BUDGET (64ULL << 20)

#define PART	 (64u << 10)
#define TCB_SIZE PTHREAD_BLOCK_SIZE
#define TID_MAX	 0x400u /* its tid stands before this */

struct search {
	struct target *target;
	const struct mapping_vec *maps;
	struct thread_vec *threads;
	size_t first;	/* of our threads in the vector */
	size_t missing; /* threads without control block */
	uint64_t budget;
	unsigned char *buffer; /* PART + TCB_SIZE */
};

/* ---- the control block ---- */

static struct thread *thread_by_ns_tid(struct search *search, uint32_t tid)
{
	for (size_t i = search->first; tid && i < search->threads->size; i++)
		if ((uint32_t)search->threads->data[i].ns_tid == tid)
			return &search->threads->data[i];
	return NULL;
}

static struct thread *thread_of_glibc(struct search *search, const unsigned char *tcb, size_t size,
				      uint64_t address)
{
	const struct arch *arch = search->target->arch;
	const unsigned word = arch->word_size, self = arch->pthread.self;
	/* Where every version since 2.4 has it. */
	const unsigned usual = word == 8 ? 0x2d0 : 0x68;
	struct thread *thread = NULL;

	if (!self || size < self + word || load_word(tcb + self, word) != address)
		return NULL;
	if (size >= usual + 4)
		thread = thread_by_ns_tid(search, (uint32_t)load_word(tcb + usual, 4));
	for (unsigned at = self + word; !thread && at < TID_MAX && at + 4 <= size; at += 4)
		thread = thread_by_ns_tid(search, (uint32_t)load_word(tcb + at, 4));
	return thread;
}

/* self, dtv, prev, next, sysinfo, canary, tid. */
static struct thread *thread_of_musl(struct search *search, const unsigned char *tcb, size_t size)
{
	const unsigned word = search->target->arch->word_size;
	uint64_t previous, next;

	if (size < 6 * word + 4)
		return NULL;
	previous = load_word(tcb + 2 * word, word);
	next = load_word(tcb + 3 * word, word);
	if (!previous || !next || previous % word || next % word)
		return NULL;
	return thread_by_ns_tid(search, (uint32_t)load_word(tcb + 6 * word, 4));
}

/* From the control block at @address, if it is glibc's. */
static void take_bounds(struct search *search, struct thread *thread, const unsigned char *tcb,
			size_t size, uint64_t address)
{
	struct pthread_block block;

	if (!pthread_block_parse(search->target->arch, search->maps, address, tcb, size, &block) ||
	    !block.bounds)
		return;
	thread->stack_start = block.start;
	thread->stack_end = block.end;
	thread->stack_exact = true;
}

/* @tcb of @size bytes lies at @address of the target and points to itself. */
static void check_tcb(struct search *search, const unsigned char *tcb, size_t size,
		      uint64_t address)
{
	struct thread *thread = thread_of_glibc(search, tcb, size, address);
	bool glibc = thread != NULL;

	if (!thread)
		thread = thread_of_musl(search, tcb, size);
	if (!thread || thread->thread_pointer)
		return;
	thread->thread_pointer = address;
	search->missing--;
	if (glibc)
		take_bounds(search, thread, tcb, size, address);
}

/* ---- the search ---- */

/* Looks for control blocks that begin in a run of present pages. */
static void scan_run(struct search *search, uint64_t start, uint64_t end, uint64_t limit)
{
	const unsigned word = search->target->arch->word_size;

	while (start < end && search->missing) {
		uint64_t part = min_u64(end - start, PART);
		/* A control block may reach beyond the run, into pages that are not to be made. */
		uint64_t size = min_u64(limit - start, part + TCB_SIZE);
		struct error *error =
			target_read_sparse(search->target, start, search->buffer, size, NULL);

		search->budget -= min_u64(search->budget, size);
		if (error)
			size = 0;
		error_destroy(error);
		/* glibc aligns it to 64 bytes, musl to a word. */
		for (uint64_t at = 0; at < part && at + word <= size; at += word)
			if (load_word(search->buffer + at, word) == start + at)
				check_tcb(search, search->buffer + at, size - at, start + at);
		start += part;
	}
}

/* Looks for control blocks in [start, end), which lies in one mapping. */
static void scan(struct search *search, uint64_t start, uint64_t end, uint64_t limit)
{
	enum { PAGES = 4096 };
	bool present[PAGES];

	start = round_down(start, PAGE_SIZE);
	while (start < end && search->missing && search->budget) {
		size_t pages = min_u64((end - start + PAGE_SIZE - 1) / PAGE_SIZE, PAGES);
		struct error *error = target_page_present(search->target, start, pages, present);

		if (error) {
			error_destroy(error);
			return;
		}
		for (size_t i = 0; i < pages;) {
			size_t first = i;

			while (i < pages && present[i])
				i++;
			if (i > first)
				scan_run(search, start + first * PAGE_SIZE, start + i * PAGE_SIZE,
					 limit);
			while (i < pages && !present[i])
				i++;
		}
		start += pages * PAGE_SIZE;
	}
}

static bool may_hold_tcb(const struct mapping *mapping)
{
	return (mapping->perms & PERM_WRITE) && !(mapping->perms & PERM_SHARED) && !mapping->inode;
}

/* Threads whose stack pointer is known: mostly one page has it all. */
static void search_above_stack_pointers(struct search *search)
{
	for (size_t i = search->first; i < search->threads->size; i++) {
		struct thread *thread = &search->threads->data[i];
		const struct mapping *mapping;
		uint64_t end;

		if (!thread->sp || thread->thread_pointer || thread->tid == search->target->pid)
			continue;
		mapping = mappings_find(search->maps, thread->sp);
		if (!mapping || !may_hold_tcb(mapping))
			continue;
		/* In steps: the stack ends soon, its mapping may go on with other stacks. */
		for (uint64_t at = thread->sp, step = PAGE_SIZE;
		     at < mapping->end && at - thread->sp < ABOVE_SP_MAX &&
		     !thread->thread_pointer && search->budget;
		     at = end, step = min_u64(step * 2, 1 << 20)) {
			end = min_u64(round_down(at, PAGE_SIZE) + step, mapping->end);
			scan(search, at, end, mapping->end);
		}
	}
}

/* Those that are linked with one that was found. */
static struct error *search_lists(struct search *search)
{
	struct pthread_block_vec blocks = { 0 };
	struct error *error = NULL;

	for (size_t i = search->first; !error && !blocks.size && i < search->threads->size; i++)
		if (search->missing && search->threads->data[i].thread_pointer)
			error = pthread_lists_read(search->target, search->maps,
						   search->threads->data[i].thread_pointer,
						   &blocks);
	vec_for_each (block, &blocks) {
		struct thread *thread =
			block->tid > 0 ? thread_by_ns_tid(search, (uint32_t)block->tid) : NULL;

		if (!thread || thread->thread_pointer)
			continue;
		thread->thread_pointer = block->address;
		search->missing--;
		if (!block->bounds)
			continue;
		thread->stack_start = block->start;
		thread->stack_end = block->end;
		thread->stack_exact = true;
	}
	pthread_block_vec_deinit(&blocks);
	return error;
}

/*
 * Threads that run, and the first thread, whose control block the dynamic linker allocates. Both
 * lie high; programs linked statically have the first thread's at the start of the heap.
 */
static void search_ends(struct search *search)
{
	for (size_t i = search->maps->size; i-- > 0 && search->missing && search->budget;) {
		const struct mapping *mapping = &search->maps->data[i];
		const uint64_t size = mapping->end - mapping->start;

		if (!may_hold_tcb(mapping) || !strcmp(mapping->path, "[stack]"))
			continue;
		if (size <= 2 * END_SIZE) {
			scan(search, mapping->start, mapping->end, mapping->end);
			continue;
		}
		scan(search, mapping->end - END_SIZE, mapping->end, mapping->end);
		scan(search, mapping->start, mapping->start + END_SIZE, mapping->end);
	}
}

static bool holds_stack(const struct search *search, const struct mapping *mapping)
{
	for (size_t i = search->first; i < search->threads->size; i++) {
		const struct thread *thread = &search->threads->data[i];

		if ((thread->thread_pointer >= mapping->start &&
		     thread->thread_pointer < mapping->end) ||
		    (thread->sp >= mapping->start && thread->sp < mapping->end))
			return thread->tid != search->target->pid;
	}
	return false;
}

/* Stacks without guards stand in one mapping: where one is, others may be. */
static void search_between_stacks(struct search *search)
{
	for (size_t i = search->maps->size; i-- > 0 && search->missing && search->budget;) {
		const struct mapping *mapping = &search->maps->data[i];

		if (mapping->end - mapping->start > 2 * END_SIZE && may_hold_tcb(mapping) &&
		    holds_stack(search, mapping))
			scan(search, mapping->start, mapping->end, mapping->end);
	}
}

/* ---- stacks ---- */

static const struct mapping *main_stack(const struct search *search)
{
	vec_for_each (mapping, search->maps)
		if (!strcmp(mapping->path, "[stack]"))
			return mapping;
	return NULL;
}

/*
 * Several stacks in one mapping: each ends with its control block, the next begins there. Where
 * only the stack pointer is known, the stack is no part of those that are known exactly.
 */
static void clip_stack(const struct search *search, struct thread *thread)
{
	uint64_t inside = thread->thread_pointer ? thread->thread_pointer : thread->sp;

	for (size_t i = search->first; i < search->threads->size; i++) {
		const struct thread *other = &search->threads->data[i];
		uint64_t end = other->stack_exact ? other->stack_end
			       : other->thread_pointer
				       ? round_up(other->thread_pointer + 1, PAGE_SIZE)
				       : 0;

		if (end && end <= inside)
			thread->stack_start = max_u64(thread->stack_start, end);
		if (other->stack_exact && other->stack_start > inside)
			thread->stack_end = min_u64(thread->stack_end, other->stack_start);
	}
}

/* Where the control block does not tell: the mapping around it, or around the stack pointer. */
static void set_stacks(struct search *search)
{
	for (size_t i = search->first; i < search->threads->size; i++) {
		struct thread *thread = &search->threads->data[i];
		const struct mapping *mapping = NULL;

		if (thread->stack_end)
			continue;
		if (thread->tid == search->target->pid)
			mapping = main_stack(search);
		else if (thread->thread_pointer)
			mapping = mappings_find(search->maps, thread->thread_pointer);
		if (!mapping && thread->sp)
			mapping = mappings_find(search->maps, thread->sp);
		if (!mapping)
			continue;
		thread->stack_start = mapping->start;
		thread->stack_end = mapping->end;
		/* The kernel's own name for it. */
		thread->stack_exact =
			thread->tid == search->target->pid && !strcmp(mapping->path, "[stack]");
		if (!thread->stack_exact)
			clip_stack(search, thread);
	}
}

/* Threads whose registers tell where their control block is. */
static void take_known(struct search *search)
{
	for (size_t i = search->first; i < search->threads->size; i++) {
		struct thread *thread = &search->threads->data[i];
		uint64_t address = thread->thread_pointer;
		size_t size;

		if (!address)
			continue;
		size = pthread_block_read(search->target, search->maps, address, search->buffer);
		take_bounds(search, thread, search->buffer, size, address);
	}
}

static struct error *find_stacks(struct search *search)
{
	struct mapping_vec maps = { 0 };
	struct error *error = NULL;

	search->maps = search->target->lent_maps;
	if (!search->maps) {
		error = target_read_maps(search->target, MAPS_PLAIN, &maps);
		search->maps = &maps;
	}
	if (!error) {
		search->buffer = malloc(PART + TCB_SIZE);
		if (!search->buffer)
			error = &error_no_memory;
	}
	if (!error) {
		take_known(search);
		search_above_stack_pointers(search);
		error = search_lists(search);
	}
	if (!error) {
		search_ends(search);
		error = search_lists(search);
	}
	if (!error) {
		search_between_stacks(search);
		set_stacks(search);
	} else if (!error_is(error, ERROR_NO_MEMORY)) {
		/* Who may not see the mappings, or a process without memory, has threads all the
		 * same. */
		error_destroy(error);
		error = NULL;
	}
	mappings_deinit(&maps);
	return error;
}

struct error *threads_find_stacks(struct target *target, struct thread_vec *threads, size_t first)
{
	struct search search = {
		.target = target,
		.threads = threads,
		.first = first,
		.budget = BUDGET,
	};
	struct error *error;

	for (size_t i = first; i < threads->size; i++)
		search.missing += !threads->data[i].thread_pointer;
	error = find_stacks(&search);
	free(search.buffer);
	return error;
}

/* ---- the list ---- */

static struct error *add_thread(struct target *target, pid_t tid, struct thread_vec *ret)
{
	struct thread thread = { .tid = tid };
	struct process_syscall syscall = { 0 };
	struct process_status status;
	struct error *error = process_read_status(target->process, tid, &status);

	/* It has ended meanwhile. */
	if (error_is(error, ERROR_NO_TARGET)) {
		error_destroy(error);
		return NULL;
	}
	if (error)
		return error;
	memcpy(thread.name, status.name, sizeof(thread.name));
	thread.state = status.state;
	thread.ns_tid = status.ns_tid ? status.ns_tid : tid;
	if (status.state != 'Z' && status.state != 'X') {
		error = process_read_syscall(target->process, tid, &syscall);
		/* Without permission, or while it ends, the pointer stays unknown. */
		if (!error && !syscall.running)
			thread.sp = syscall.sp;
		error_destroy(error);
	}
	return thread_vec_append(ret, &thread);
}

struct error *live_read_threads(struct target *target, struct thread_vec *ret)
{
	struct pid_vec tids = { 0 };
	const size_t first = ret->size;
	struct error *error = process_list_threads(target->process, &tids);

	vec_for_each (tid, &tids)
		if (!error)
			error = add_thread(target, *tid, ret);
	pid_vec_deinit(&tids);
	if (!error && ret->size == first)
		error = live_gone(target);
	return error ? error : threads_find_stacks(target, ret, first);
}
