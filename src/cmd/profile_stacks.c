#include "profile_stacks.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/hash_index.h"
#include "memprobe/stack_set.h"
#include "memprobe/symbols.h"

#define TRUNCATED_NAME "[truncated]"
#define UNKNOWN_NAME   "[no stack]"

/* What an address is: frame_ids.data[first...first + count) of the profile, root first. */
struct place {
	uint64_t pc;
	size_t first;
	uint32_t count;
};

VEC_DEFINE(place_vec, struct place)

struct profile_stacks {
	struct target *target;
	struct profile *profile;
	struct symbolizer *symbolizer;
	struct place_vec places;
	struct profile_id_vec place_frames;
	struct hash_index index;
	struct profile_id_vec scratch;
};

static struct error *add_mappings(struct target *target, struct profile *profile)
{
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	for (size_t i = 0; !error && i < modules->size; i++) {
		struct module *module = &modules->data[i];
		char build_id[65] = "";

		module_build_id(target, module, build_id);
		vec_for_each (segment, &module->segments) {
			const struct profile_mapping mapping = {
				.start = segment->start,
				.end = segment->end,
				.offset = segment->offset,
				.path = module->path,
				.build_id = *build_id ? build_id : NULL,
			};

			if (!error && segment->perms & PERM_EXEC)
				error = profile_add_mapping(profile, &mapping);
		}
	}
	return error;
}

struct error *profile_stacks_create(struct target *target, struct profile *profile,
				    struct profile_stacks **ret)
{
	cleanup(profile_stacks) struct profile_stacks *stacks = calloc(1, sizeof(*stacks));
	struct error *error;

	if (!stacks)
		return &error_no_memory;
	stacks->target = target;
	stacks->profile = profile;
	error = symbolizer_create(target, &stacks->symbolizer);
	if (!error)
		error = add_mappings(target, profile);
	if (!error)
		*ret = take_pointer(stacks);
	return error;
}

void profile_stacks_destroy(struct profile_stacks *stacks)
{
	if (!stacks)
		return;
	symbolizer_destroy(stacks->symbolizer);
	place_vec_deinit(&stacks->places);
	profile_id_vec_deinit(&stacks->place_frames);
	profile_id_vec_deinit(&stacks->scratch);
	hash_index_deinit(&stacks->index);
	free(stacks);
}

/* ---- addresses ---- */

struct search {
	const struct profile_stacks *stacks;
	uint64_t pc;
};

static bool is_place(const void *context, uint32_t id)
{
	const struct search *search = context;

	return search->stacks->places.data[id].pc == search->pc;
}

static struct error *add_frames(struct profile_stacks *stacks, uint64_t address,
				const struct symbol_vec *symbols)
{
	struct module *module = target_module_at(stacks->target, address);
	struct error *error = NULL;
	char build_id[65] = "";

	if (module)
		module_build_id(stacks->target, module, build_id);
	/* Innermost first; the profile wants the root first. */
	for (size_t i = symbols->size; i-- > 0 && !error;) {
		const struct symbol *symbol = &symbols->data[i];
		const struct profile_frame frame = {
			.function = symbol->function,
			.module = symbol->module,
			.build_id = *build_id ? build_id : NULL,
			.file = symbol->file,
			.line = symbol->line,
			.address = address,
			.offset = module ? address - module->bias : 0,
			.inlined = symbol->inlined,
		};
		uint32_t id;

		error = profile_add_frame(stacks->profile, &frame, &id);
		if (!error)
			error = profile_id_vec_append(&stacks->place_frames, &id);
	}
	return error;
}

static struct error *find_place(struct profile_stacks *stacks, uint64_t pc, uint32_t *ret)
{
	const struct search search = { stacks, pc };
	uint32_t hash = hash_fold(hash_word(HASH_SEED, pc));
	struct place place = { .pc = pc, .first = stacks->place_frames.size };
	uint64_t address = pc & ~STACK_PC_EXACT;
	bool is_return = !(pc & STACK_PC_EXACT);
	struct symbol_vec symbols = { 0 };
	struct error *error;

	*ret = hash_index_find(&stacks->index, hash, is_place, &search);
	if (*ret != HASH_INDEX_NONE)
		return NULL;
	error = symbolize(stacks->symbolizer, address, is_return, &symbols);
	if (!error)
		error = add_frames(stacks, address - is_return, &symbols);
	symbols_deinit(&symbols);
	if (error)
		return error;
	place.count = (uint32_t)(stacks->place_frames.size - place.first);
	*ret = (uint32_t)stacks->places.size;
	error = place_vec_append(&stacks->places, &place);
	return error ? error : hash_index_add(&stacks->index, hash, *ret);
}

/* ---- stacks ---- */

static struct error *append_name(struct profile_stacks *stacks, const char *name)
{
	const struct profile_frame frame = { .function = name };
	uint32_t id;
	struct error *error = profile_add_frame(stacks->profile, &frame, &id);

	return error ? error : profile_id_vec_append(&stacks->scratch, &id);
}

/* Into the scratch vector, root first. */
static struct error *gather(struct profile_stacks *stacks, const uint64_t *pcs, size_t depth,
			    bool truncated)
{
	struct error *error = NULL;

	stacks->scratch.size = 0;
	if (!depth)
		error = append_name(stacks, UNKNOWN_NAME);
	else if (truncated)
		error = append_name(stacks, TRUNCATED_NAME);
	for (size_t i = depth; i-- > 0 && !error;) {
		const struct place *place;
		uint32_t id;

		error = find_place(stacks, pcs[i], &id);
		if (error)
			break;
		place = &stacks->places.data[id];
		for (uint32_t k = 0; k < place->count && !error; k++)
			error = profile_id_vec_append(&stacks->scratch,
						      &stacks->place_frames.data[place->first + k]);
	}
	return error;
}

static struct error *finish(struct profile_stacks *stacks, struct error *error, uint32_t *stack_ret)
{
	return error ? error
		     : profile_add_stack(stacks->profile, stacks->scratch.data,
					 stacks->scratch.size, stack_ret);
}

struct error *profile_stacks_add(struct profile_stacks *stacks, const uint64_t *pcs, size_t depth,
				 bool truncated, uint32_t *stack_ret)
{
	return finish(stacks, gather(stacks, pcs, depth, truncated), stack_ret);
}

struct error *profile_stacks_add_leaf(struct profile_stacks *stacks, const uint64_t *pcs,
				      size_t depth, bool truncated, uint32_t leaf,
				      uint32_t *stack_ret)
{
	struct error *error = gather(stacks, pcs, depth, truncated);

	if (!error)
		error = profile_id_vec_append(&stacks->scratch, &leaf);
	return finish(stacks, error, stack_ret);
}
