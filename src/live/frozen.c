#include "frozen.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"

struct frozen {
	struct target *origin, *fork;
	const struct thread_state_vec *states;
	const atomic_int *loss;	    /* enum fork_loss */
	struct thread_vec threads;  /* as they were soon after the stop */
	struct mapping_vec missing; /* what the fork did not get */
	struct mapping_vec shared;  /* what it has, but not the knowledge which pages are there */
};

static struct error *explain(const struct frozen *frozen, struct error *error)
{
	const enum fork_loss loss = atomic_load(frozen->loss);
	char byte;

	if (!error || loss == FORK_KEPT)
		return error;
	error_destroy(error);
	/* Its own view says what has become of it. */
	error = loss == FORK_LOST_TARGET ? target_read(frozen->origin, 0, &byte, 1) : NULL;
	if (error && error->code != ERROR_FAULT)
		return error;
	error_destroy(error);
	return error_hint(error_create(ERROR_FAILED,
				       "the frozen copy of %d was given up: it would have taken "
				       "memory or tasks that the process needs",
				       (int)frozen->origin->pid),
			  "--no-fork stops the process instead of copying it");
}

static struct error *frozen_read(struct target *target, uint64_t address, void *buffer, size_t size)
{
	struct frozen *frozen = target->backend;
	struct error *error = target_read(frozen->fork, address, buffer, size);
	const struct mapping *missing;

	if (!error_is(error, ERROR_FAULT) || atomic_load(frozen->loss))
		return explain(frozen, error);
	missing = mappings_find(&frozen->missing, error->address);
	if (!missing || address < missing->start || size > missing->end - address)
		return error;
	error_destroy(error);
	return target_read(frozen->origin, address, buffer, size);
}

static int compare_start(const void *a, const void *b)
{
	const struct mapping *one = a, *other = b;

	return one->start < other->start ? -1 : one->start > other->start;
}

static struct error *append_copy(struct mapping_vec *maps, const struct mapping *mapping)
{
	struct mapping copy = *mapping;
	struct error *error;

	copy.path = strdup(mapping->path);
	copy.label = copy.thread = NULL;
	if (!copy.path)
		return &error_no_memory;
	error = mapping_vec_append(maps, &copy);
	if (error)
		free(copy.path);
	return error;
}

static struct error *frozen_read_maps(struct target *target, enum maps_detail detail,
				      struct mapping_vec *ret)
{
	struct frozen *frozen = target->backend;
	struct error *error = target_read_maps(frozen->fork, detail, ret);

	vec_for_each (mapping, &frozen->missing)
		if (!error)
			error = append_copy(ret, mapping);
	if (!error && frozen->missing.size)
		qsort(ret->data, ret->size, sizeof(*ret->data), compare_start);
	return error;
}

static struct error *frozen_read_threads(struct target *target, struct thread_vec *ret)
{
	struct frozen *frozen = target->backend;
	struct error *error = NULL;

	vec_for_each (thread, &frozen->threads) {
		error = thread_vec_append(ret, thread);
		if (error)
			break;
	}
	return error;
}

static struct error *frozen_open_module(struct target *target, const struct module *module,
					int *fd_ret)
{
	struct frozen *frozen = target->backend;

	return frozen->fork->ops->open_module(frozen->fork, module, fd_ret);
}

static struct error *frozen_open_perf_map(struct target *target, int *fd_ret)
{
	struct frozen *frozen = target->backend;

	return target_open_perf_map(frozen->origin, fd_ret);
}

static struct error *frozen_read_auxv(struct target *target, char **bytes_ret, size_t *size_ret)
{
	struct frozen *frozen = target->backend;

	return frozen->fork->ops->read_auxv(frozen->fork, bytes_ret, size_ret);
}

static struct error *frozen_page_present(struct target *target, uint64_t address, size_t pages,
					 bool *present)
{
	struct frozen *frozen = target->backend;
	bool is_live =
		mappings_find(&frozen->missing, address) || mappings_find(&frozen->shared, address);

	return explain(frozen, target_page_present(is_live ? frozen->origin : frozen->fork, address,
						   pages, present));
}

static uint64_t frozen_next_present(struct target *target, uint64_t address, uint64_t end)
{
	struct frozen *frozen = target->backend;
	bool is_live =
		mappings_find(&frozen->missing, address) || mappings_find(&frozen->shared, address);

	return target_next_present(is_live ? frozen->origin : frozen->fork, address, end);
}

static enum page_backing frozen_backing(struct target *target, const struct mapping *mapping,
					int *fd_ret)
{
	struct frozen *frozen = target->backend;
	bool is_missing = mappings_find(&frozen->missing, mapping->start) != NULL;

	return target_backing(is_missing ? frozen->origin : frozen->fork, mapping, fd_ret);
}

static void frozen_destroy(struct target *target)
{
	struct frozen *frozen = target->backend;

	if (!frozen)
		return;
	target_destroy(frozen->fork);
	thread_vec_deinit(&frozen->threads);
	mappings_deinit(&frozen->missing);
	mappings_deinit(&frozen->shared);
	free(frozen);
}

static const struct target_ops frozen_ops = {
	.read = frozen_read,
	.read_maps = frozen_read_maps,
	.read_threads = frozen_read_threads,
	.open_module = frozen_open_module,
	.open_perf_map = frozen_open_perf_map,
	.read_auxv = frozen_read_auxv,
	.page_present = frozen_page_present,
	.next_present = frozen_next_present,
	.backing = frozen_backing,
	.destroy = frozen_destroy,
};

/* The kernel's own knowledge of a stopped thread is better than what was seen from outside. */
static struct error *read_threads(struct frozen *frozen)
{
	const struct arch *arch = frozen->origin->arch;
	struct error *error = target_read_threads(frozen->origin, &frozen->threads);

	if (error)
		return error;
	vec_for_each (state, frozen->states) {
		vec_for_each (thread, &frozen->threads) {
			uint64_t pointer = arch->thread_pointer(&state->regs);

			if (thread->tid != state->tid)
				continue;
			thread->sp = arch->sp(&state->regs);
			if (pointer)
				thread->thread_pointer = pointer;
		}
	}
	return NULL;
}

/* Mappings that fork() leaves out, and what is shared: both change under us. */
static struct error *find_live(struct frozen *frozen, uint64_t *live_bytes_ret)
{
	struct mapping_vec origin = { 0 }, copy = { 0 };
	struct error *error = target_read_maps(frozen->origin, MAPS_PLAIN, &origin);

	if (!error)
		error = target_read_maps(frozen->fork, MAPS_PLAIN, &copy);
	for (size_t i = 0, other = 0; !error && i < origin.size; i++) {
		const struct mapping *mapping = &origin.data[i];
		bool overlaps;

		while (other < copy.size && copy.data[other].end <= mapping->start)
			other++;
		overlaps = other < copy.size && copy.data[other].start < mapping->end;
		if (!overlaps)
			error = append_copy(&frozen->missing, mapping);
		else if (mapping->perms & PERM_SHARED)
			error = append_copy(&frozen->shared, mapping);
		if (!overlaps || (mapping->perms & PERM_SHARED))
			*live_bytes_ret += mapping->end - mapping->start;
	}
	mappings_deinit(&origin);
	mappings_deinit(&copy);
	return error;
}

static struct error *fill(struct target *target, struct target *origin)
{
	target->arch = origin->arch;
	target->pid = origin->pid;
	target->interrupted = origin->interrupted;
	target->name = strdup(origin->name);
	target->exe = strdup(origin->exe);
	return target->name && target->exe ? NULL : &error_no_memory;
}

struct error *frozen_target_create(struct target *origin, pid_t fork,
				   const struct thread_state_vec *states, const atomic_int *loss,
				   struct target **ret, uint64_t *live_bytes_ret)
{
	cleanup(target) struct target *target = calloc(1, sizeof(*target));
	struct frozen *frozen = calloc(1, sizeof(*frozen));
	struct error *error;

	if (!target || !frozen) {
		free(frozen);
		return &error_no_memory;
	}
	*frozen = (struct frozen){ .origin = origin, .states = states, .loss = loss };
	target->ops = &frozen_ops;
	target->backend = frozen;
	error = fill(target, origin);
	if (!error)
		error = target_open_live(fork, &frozen->fork);
	if (!error)
		target_live_shares_pages(frozen->fork);
	if (!error)
		error = read_threads(frozen);
	*live_bytes_ret = 0;
	if (!error)
		error = find_live(frozen, live_bytes_ret);
	if (!error)
		*ret = take_pointer(target);
	return error;
}
