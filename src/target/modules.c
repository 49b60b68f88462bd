/* Groups mappings into modules and puts these into the dynamic linker's order. */
#include "memprobe/target.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf_private.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

/* More entries than any dynamic section or list of libraries has. */
#define DYNAMIC_MAX  4096
#define LINK_MAP_MAX 65536

/* False: it is for the process to read. */
static bool read_absent(struct target *target, const struct mapping *mapping, void *bytes,
			size_t size)
{
	cleanup(close) int fd = -1;
	bool present = true;
	struct error *error = target_page_present(target, mapping->start, 1, &present);
	enum page_backing backing;

	error_destroy(error);
	if (error || present)
		return false;
	backing = target_backing(target, mapping, &fd);
	if (backing == BACKING_ANY)
		return false;
	memset(bytes, 0, size);
	if (fd >= 0 && pread(fd, bytes, size, (off_t)mapping->offset) < 0)
		memset(bytes, 0, size);
	return true;
}

/* Where the memory may not be read, the mappings may be listed all the same: then it may be. */
bool target_may_be_elf(struct target *target, const struct mapping *mapping)
{
	char magic[SELFMAG];
	struct error *error = NULL;

	/* A file of data may begin with a hole, which reading would fill. */
	if (!read_absent(target, mapping, magic, sizeof(magic)))
		error = target_read(target, mapping->start, magic, sizeof(magic));
	if (error) {
		bool forbidden = error_is(error, ERROR_PERMISSION);

		error_destroy(error);
		return forbidden;
	}
	return !memcmp(magic, ELFMAG, SELFMAG);
}

static bool is_vdso(const struct mapping *mapping)
{
	return !strcmp(mapping->path, "[vdso]");
}

static bool is_exe_path(struct target *target, const struct mapping *mapping)
{
	return target->exe && target->exe[0] && !strcmp(mapping->path, target->exe);
}

/* Whether @mapping goes on with what @module shows of the same file. */
static bool continues(const struct module *module, const struct mapping *mapping)
{
	const struct module_segment *last = &module->segments.data[module->segments.size - 1];

	return module->inode && module->inode == mapping->inode &&
	       module->device == mapping->device && mapping->offset >= last->offset &&
	       !strcmp(module->path, mapping->path);
}

static struct error *add_segment(struct module *module, const struct mapping *mapping)
{
	struct module_segment segment = {
		.start = mapping->start,
		.end = mapping->end,
		.offset = is_vdso(mapping) ? 0 : mapping->offset,
		.perms = mapping->perms,
	};

	module->end = mapping->end;
	return module_segment_vec_append(&module->segments, &segment);
}

static struct error *add_module(struct target *target, const struct mapping *mapping)
{
	struct module module = {
		.path = strdup(mapping->path),
		.start = mapping->start,
		.inode = mapping->inode,
		.device = mapping->device,
		.is_vdso = is_vdso(mapping),
		.deleted = mapping->deleted,
	};
	struct error *error = module.path ? add_segment(&module, mapping) : &error_no_memory;

	if (!error)
		error = module_vec_append(&target->modules, &module);
	if (error) {
		module_segment_vec_deinit(&module.segments);
		free(module.path);
	}
	return error;
}

/* Mappings of files that are no ELF files begin no module. */
static bool begins_module(struct target *target, const struct mapping *mapping)
{
	if (is_vdso(mapping))
		return true;
	/* No loader maps programs for all: what is shared is data, of which reading could make
	 * pages. */
	if (!mapping->inode || !mapping->path[0] || !(mapping->perms & PERM_READ) ||
	    (mapping->perms & PERM_SHARED))
		return false;
	if (mapping->offset == 0)
		return target_may_be_elf(target, mapping);
	/* Some linkers leave the headers of an executable unmapped. */
	return is_exe_path(target, mapping) && (mapping->perms & PERM_EXEC);
}

/*
 * A file mapped twice is two modules: the second begins at its offset 0 again. Between the
 * mappings of one library others may lie, but not those of another one.
 */
static struct error *group_mappings(struct target *target, const struct mapping_vec *maps)
{
	struct module *current = NULL;

	vec_for_each (mapping, maps) {
		struct error *error = NULL;

		if (current && mapping->offset != 0 && continues(current, mapping)) {
			error = add_segment(current, mapping);
		} else if (begins_module(target, mapping)) {
			/* The same page of the file may be mapped by two neighbours. */
			if (current && continues(current, mapping) &&
			    current->end == mapping->start)
				error = add_segment(current, mapping);
			else
				error = add_module(target, mapping);
			if (!error)
				current = &target->modules.data[target->modules.size - 1];
		}
		if (error)
			return error;
	}
	return NULL;
}

static void find_exe(struct target *target)
{
	struct module *by_path = NULL;
	uint64_t headers = 0;

	target_auxv(target, AT_PHDR, &headers);
	vec_for_each (module, &target->modules) {
		if (headers && headers >= module->start && headers < module->end) {
			module->is_exe = true;
			return;
		}
		if (!by_path && target->exe && target->exe[0] && !strcmp(module->path, target->exe))
			by_path = module;
	}
	if (by_path)
		by_path->is_exe = true;
}

/* ---- the link map ---- */

/* The rank of each module: its place in the link map, the executable first, then the others. */
struct rank {
	uint64_t place;
	struct module module;
};

static bool find_debug_pointer(struct target *target, struct module *exe, uint64_t *ret)
{
	const unsigned word = target->arch->word_size;
	Elf64_Phdr header;

	for (unsigned i = 0; module_program_header(target, exe, i, &header); i++) {
		uint64_t address = exe->bias + header.p_vaddr;

		if (header.p_type != PT_DYNAMIC)
			continue;
		for (unsigned entry = 0; entry < DYNAMIC_MAX; entry++) {
			char bytes[16];
			struct error *error = target_read(target, address, bytes, 2 * word);

			if (error) {
				error_destroy(error);
				return false;
			}
			if (load_word(bytes, word) == DT_DEBUG) {
				*ret = load_word(bytes + word, word);
				return *ret != 0;
			}
			if (load_word(bytes, word) == DT_NULL)
				return false;
			address += 2 * word;
		}
	}
	return false;
}

/* <link.h>: struct r_debug { int r_version; struct link_map *r_map; ... } and
 * struct link_map { l_addr, l_name, l_ld, l_next, ... }. */
static void walk_link_map(struct target *target, struct module *exe, struct rank *ranks)
{
	const unsigned word = target->arch->word_size;
	cleanup(error) struct error *error = NULL;
	uint64_t debug, node = 0, words[4];

	if (!find_debug_pointer(target, exe, &debug))
		return;
	error = target_read_word(target, debug + word, &node);
	for (uint64_t place = 1; !error && node && place < LINK_MAP_MAX; place++) {
		char bytes[sizeof(words)];

		error = target_read(target, node, bytes, 4 * word);
		if (error)
			break;
		for (unsigned i = 0; i < 4; i++)
			words[i] = load_word(bytes + i * word, word);
		for (size_t i = 0; i < target->modules.size; i++) {
			struct module *module = &ranks[i].module;

			if (words[2] < module->start || words[2] >= module->end ||
			    ranks[i].place != UINT64_MAX)
				continue;
			ranks[i].place = place;
			module->bias = words[0];
			break;
		}
		node = words[3];
	}
	if (error)
		log_debug("link map of %s: %s", target->name, error->message);
}

static int compare_ranks(const void *left, const void *right)
{
	const struct rank *a = left, *b = right;

	if (a->place != b->place)
		return a->place < b->place ? -1 : 1;
	return a->module.start < b->module.start ? -1 : a->module.start > b->module.start;
}

static bool has_code(const struct module *module)
{
	vec_for_each (segment, &module->segments)
		if (segment->perms & PERM_EXEC)
			return true;
	return false;
}

/* ELF files that a program maps only to look at them are no modules of it. */
static void drop_data(struct target *target, const struct rank *ranks)
{
	size_t kept = 0;

	for (size_t i = 0; i < target->modules.size; i++) {
		struct module *module = &target->modules.data[i];

		if (has_code(module) || ranks[i].place != UINT64_MAX || module->is_exe) {
			target->modules.data[kept++] = *module;
			continue;
		}
		module_unload(module);
		module_segment_vec_deinit(&module->segments);
		free(module->path);
	}
	target->modules.size = kept;
}

static struct error *sort_modules(struct target *target)
{
	struct module_vec *modules = &target->modules;
	struct rank *ranks = calloc(modules->size + 1, sizeof(*ranks));
	struct rank *exe = NULL;

	if (!ranks)
		return &error_no_memory;
	for (size_t i = 0; i < modules->size; i++) {
		ranks[i] = (struct rank){ UINT64_MAX, modules->data[i] };
		if (modules->data[i].is_exe)
			exe = &ranks[i];
	}
	if (exe) {
		walk_link_map(target, &exe->module, ranks);
		exe->place = 0;
	}
	qsort(ranks, modules->size, sizeof(*ranks), compare_ranks);
	for (size_t i = 0; i < modules->size; i++)
		modules->data[i] = ranks[i].module;
	drop_data(target, ranks);
	free(ranks);
	return NULL;
}

struct error *target_modules(struct target *target, const struct module_vec **ret)
{
	struct mapping_vec maps = { 0 };
	struct error *error = NULL;

	if (!target->modules_known) {
		if (!target->lent_maps)
			error = target_read_maps(target, MAPS_PLAIN, &maps);
		if (!error)
			error = group_mappings(target,
					       target->lent_maps ? target->lent_maps : &maps);
		mappings_deinit(&maps);
		if (!error) {
			find_exe(target);
			vec_for_each (module, &target->modules)
				elf_find_bias(target, module);
			error = sort_modules(target);
		}
		if (error)
			target_forget_modules(target);
		target->modules_known = !error;
	}
	if (!error)
		*ret = &target->modules;
	return error;
}
