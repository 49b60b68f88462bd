#include "memprobe/stack_use.h"

#include "memprobe/num.h"

#define WINDOW_PAGES 4096u

/* A stack beyond this is none: a runtime runs on a heap of its own. */
#define STACK_MAX (16ull << 30)

static struct error *read_one(struct target *target, const struct thread *thread, bool *present,
			      struct stack_use *ret)
{
	struct stack_use use = { .known = true, .size = thread->stack_end - thread->stack_start };
	uint64_t address = thread->stack_start;

	while (address < thread->stack_end) {
		size_t pages = min_u64((thread->stack_end - address) / PAGE_SIZE, WINDOW_PAGES);
		struct error *error = target_page_present(target, address, pages, present);

		if (error)
			return error;
		for (size_t i = 0; i < pages; i++) {
			if (!present[i])
				continue;
			if (!use.depth)
				use.depth = thread->stack_end - address - i * PAGE_SIZE;
			use.rss += PAGE_SIZE;
		}
		if (!pages)
			break;
		address += (uint64_t)pages * PAGE_SIZE;
	}
	*ret = use;
	return NULL;
}

static bool is_own_stack(const struct thread *thread)
{
	return thread->stack_start && thread->stack_end > thread->stack_start &&
	       thread->stack_end - thread->stack_start <= STACK_MAX;
}

struct sorted_stack {
	uint64_t start;
	size_t index;
};

static int compare_stacks(const void *left, const void *right)
{
	const struct sorted_stack *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

/* Marks (known = true) the stacks that no other thread shares. */
static struct error *find_own_stacks(const struct thread_vec *threads, struct stack_use_vec *uses)
{
	cleanup(free) struct sorted_stack *sorted = calloc(threads->size + 1, sizeof(*sorted));

	if (!sorted)
		return &error_no_memory;
	for (size_t i = 0; i < threads->size; i++) {
		struct stack_use use = { .known = is_own_stack(&threads->data[i]) };
		struct error *error = stack_use_vec_append(uses, &use);

		if (error)
			return error;
		sorted[i] = (struct sorted_stack){ threads->data[i].stack_start, i };
	}
	qsort(sorted, threads->size, sizeof(*sorted), compare_stacks);
	for (size_t i = 1; i < threads->size; i++)
		if (sorted[i].start == sorted[i - 1].start)
			uses->data[sorted[i].index].known = uses->data[sorted[i - 1].index].known =
				false;
	return NULL;
}

struct error *stack_use_read(struct target *target, const struct thread_vec *threads,
			     struct stack_use_vec *ret)
{
	cleanup(free) bool *present = calloc(WINDOW_PAGES, sizeof(*present));
	struct error *error = present ? find_own_stacks(threads, ret) : &error_no_memory;

	for (size_t i = 0; !error && i < threads->size; i++) {
		struct stack_use *use = &ret->data[i];

		if (!use->known)
			continue;
		error = read_one(target, &threads->data[i], present, use);
		if (error && error != &error_no_memory) {
			/* It may have exited, or pagemap is closed to us. */
			error_destroy(error);
			error = NULL;
			use->known = false;
		}
	}
	return error;
}

struct stack_use stack_use_total(const struct stack_use_vec *uses)
{
	struct stack_use total = { .known = true };

	vec_for_each (use, uses) {
		if (!use->known)
			continue;
		total.size += use->size;
		total.rss += use->rss;
		total.depth += use->depth;
	}
	return total;
}

uint64_t stack_use_space_32(const struct mapping_vec *maps)
{
	const uint64_t usual = 3ull << 30;

	/* A 64-bit kernel places the first stack at the end of what it allows. */
	vec_for_each (mapping, maps)
		if (mapping->end > usual)
			return 4ull << 30;
	return usual;
}

bool stack_use_is_wasteful(const struct stack_use *total, uint64_t space)
{
	if (space)
		return total->size >= space / 4;
	return total->size >= 1ull << 30 && total->size / 64 >= total->depth;
}
