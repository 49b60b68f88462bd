#include "memprobe/unwind_table.h"

#include <elf.h>
#include <string.h>
#include <sys/mman.h>

#include "agent/unwind_walk.h"
#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "unwind_compile.h"

/* Address space that the image may grow into; only what is used of it takes memory, and no target
 * may make it more. Clang's takes 20 MiB. Half of it, and so on, where there is not as much. */
#define RESERVE_MAX (1ull << 28)
#define RESERVE_MIN (1ull << 22)

#define MODULES_MAX ((1u << UNWIND_COUNT_BITS) - 1)

/* A module's text that has been compiled. */
struct compiled {
	struct unwind_module module; /* as it is in the image */
	uint64_t bias, inode;
	dev_t device;
	char *path; /* owned */
	struct eh_frame_counts counts;
	bool is_used; /* in the array of modules now */
};

VEC_DEFINE(compiled_vec, struct compiled)

struct unwind_table {
	char *image;
	size_t reserved, used;
	struct compiled_vec compiled; /* all that are in the image */
	uint64_t left_out;
	uint64_t build_ns;
};

static struct unwind_header *header_of(const struct unwind_table *table)
{
	return (struct unwind_header *)table->image;
}

/* ---- the image ---- */

static struct error *reserve(struct unwind_table *table)
{
	for (size_t size = RESERVE_MAX; size >= RESERVE_MIN; size /= 2) {
		void *image = mmap(NULL, size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (image == MAP_FAILED)
			continue;
		table->image = image;
		table->reserved = size;
		return NULL;
	}
	return &error_no_memory;
}

static struct unwind_table *new_table(void)
{
	struct unwind_table *table = calloc(1, sizeof(*table));
	struct error *error = table ? reserve(table) : NULL;

	if (error || !table) {
		error_destroy(error);
		free(table);
		return NULL;
	}
	*header_of(table) = (struct unwind_header){
		.magic = UNWIND_MAGIC,
		.version = UNWIND_VERSION,
		.machine = EM_X86_64,
		.modules = (uint64_t)sizeof(struct unwind_header) << UNWIND_COUNT_BITS,
	};
	table->used = sizeof(struct unwind_header);
	return table;
}

void unwind_table_destroy(struct unwind_table *table)
{
	if (!table)
		return;
	vec_for_each (compiled, &table->compiled)
		free(compiled->path);
	compiled_vec_deinit(&table->compiled);
	munmap(table->image, table->reserved);
	free(table);
}

/* Room at the end of the image, which *@offset tells the place of; NULL: there is none. */
static void *take_room(struct unwind_table *table, size_t size, uint64_t *offset)
{
	size_t start = round_up(table->used, sizeof(uint64_t));

	if (start > table->reserved || size > table->reserved - start)
		return NULL;
	table->used = start + size;
	*offset = start;
	return table->image + start;
}

/* ---- modules ---- */

static bool compile_into(struct unwind_table *table, struct target *target, struct module *module,
			 struct compiled *compiled, struct error **error)
{
	struct unwind_module *text = &compiled->module;
	uint64_t index_size = unwind_index_size(text->end - text->start);
	size_t start = round_up(table->used, sizeof(uint64_t)), count;
	size_t room = table->reserved - start;
	uint32_t *index;

	if (room / sizeof(uint32_t) <= index_size)
		return false;
	*error = unwind_compile(target, module, (struct unwind_row *)(table->image + start),
				(room - index_size * sizeof(uint32_t)) / sizeof(struct unwind_row),
				&count, &compiled->counts);
	if (*error || count > UINT32_MAX)
		return false;
	take_room(table, count * sizeof(struct unwind_row), &text->rows);
	text->row_count = count;
	index = take_room(table, index_size * sizeof(uint32_t), &text->index);
	if (!index)
		return false;
	unwind_make_index((struct unwind_row *)(table->image + text->rows), count, index,
			  index_size);
	return true;
}

static struct error *add_module(struct unwind_table *table, struct target *target,
				struct module *module, uint64_t start, uint64_t end)
{
	struct compiled compiled = {
		.module = { .start = start, .end = end },
		.bias = module->bias,
		.inode = module->inode,
		.device = module->device,
		.path = strdup(module->path),
		.is_used = true,
	};
	size_t used = table->used;
	struct error *error = compiled.path ? NULL : &error_no_memory;

	if (!error && compile_into(table, target, module, &compiled, &error))
		error = compiled_vec_append(&table->compiled, &compiled);
	else if (!error || !error_is(error, ERROR_NO_MEMORY)) {
		log_debug("no unwind table for %s: %s", module->path,
			  error ? error->message : "there is no room");
		error_destroy(error);
		table->left_out++;
		table->used = used;
		free(compiled.path);
		return NULL;
	}
	if (error)
		free(compiled.path);
	return error;
}

/* The same file, or what was the same file, at the same place of memory or another. */
static struct compiled *find_compiled(struct unwind_table *table, const struct module *module,
				      uint64_t start, uint64_t end)
{
	vec_for_each (compiled, &table->compiled) {
		const struct unwind_module *text = &compiled->module;

		if (text->start - compiled->bias == start - module->bias &&
		    text->end - text->start == end - start && compiled->inode == module->inode &&
		    compiled->device == module->device && !strcmp(compiled->path, module->path) &&
		    (!compiled->is_used || text->start == start))
			return compiled;
	}
	return NULL;
}

static int compare_modules(const void *a, const void *b)
{
	const struct unwind_module *left = a, *right = b;

	return left->start < right->start ? -1 : left->start > right->start;
}

/* Writes the array of modules behind what there is, and points the header at it. */
static struct error *list_modules(struct unwind_table *table)
{
	struct unwind_module *modules;
	uint64_t offset;
	size_t count = 0;

	modules = take_room(table, table->compiled.size * sizeof(*modules), &offset);
	if (!modules || table->compiled.size > MODULES_MAX)
		return error_create(ERROR_FAILED, "the unwind table is full");
	vec_for_each (compiled, &table->compiled)
		if (compiled->is_used)
			modules[count++] = compiled->module;
	qsort(modules, count, sizeof(*modules), compare_modules);
	__atomic_store_n(&header_of(table)->modules, offset << UNWIND_COUNT_BITS | count,
			 __ATOMIC_RELEASE);
	return NULL;
}

/* Marks what @module was compiled to as used, at its present place; else compiles it. */
static struct error *cover(struct unwind_table *table, struct target *target, struct module *module,
			   bool *changed)
{
	struct compiled *compiled;
	uint64_t start, end;

	if (!module_text(module, &start, &end))
		return NULL;
	compiled = find_compiled(table, module, start, end);
	if (!compiled) {
		*changed = true;
		return add_module(table, target, module, start, end);
	}
	*changed |= compiled->module.start != start;
	compiled->is_used = true;
	compiled->bias = module->bias;
	compiled->module.start = start;
	compiled->module.end = end;
	return NULL;
}

static uint64_t used_count(const struct unwind_table *table)
{
	uint64_t count = 0;

	vec_for_each (compiled, &table->compiled)
		count += compiled->is_used;
	return count;
}

struct error *unwind_table_update(struct unwind_table *table, struct target *target,
				  bool *changed_ret, bool *removed_ret)
{
	uint64_t begun = clock_ns(), before = used_count(table);
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);
	size_t known = table->compiled.size;
	bool changed = false;
	uint64_t kept = 0;

	if (error)
		return error;
	vec_for_each (compiled, &table->compiled)
		compiled->is_used = false;
	table->left_out = 0;
	for (size_t i = 0; !error && i < modules->size; i++)
		error = cover(table, target, &target->modules.data[i], &changed);
	for (size_t i = 0; i < known; i++)
		kept += table->compiled.data[i].is_used;
	if (!error && (changed || kept != before || !before))
		error = list_modules(table);
	table->build_ns += clock_ns() - begun;
	if (error)
		return error;
	*changed_ret = changed || kept != before;
	*removed_ret = changed || kept != before;
	return NULL;
}

struct error *unwind_table_create(struct target *target, struct unwind_table **ret)
{
	struct unwind_table *table;
	struct error *error;
	bool changed, removed;

	if (target->arch != &arch_x86_64)
		return error_create(ERROR_UNSUPPORTED,
				    "cannot compile an unwind table for %s: its architecture is %s",
				    target->name, target->arch->name);
	table = new_table();
	if (!table)
		return &error_no_memory;
	error = unwind_table_update(table, target, &changed, &removed);
	if (error) {
		unwind_table_destroy(table);
		return error;
	}
	*ret = table;
	return NULL;
}

const struct unwind_header *unwind_table_image(const struct unwind_table *table, size_t *size_ret)
{
	if (size_ret)
		*size_ret = table->used;
	return header_of(table);
}

struct error *unwind_table_publish(const struct unwind_table *table, void *region, size_t capacity,
				   size_t *copied)
{
	struct unwind_header *copy = region;

	if (capacity < table->used)
		return error_create(ERROR_FAILED,
				    "the unwind table has no room for %zu bytes in %zu",
				    table->used, capacity);
	if (!*copied) {
		*copy = *header_of(table);
		copy->modules = (uint64_t)sizeof(*copy) << UNWIND_COUNT_BITS;
		*copied = sizeof(*copy);
	}
	memcpy((char *)region + *copied, table->image + *copied, table->used - *copied);
	*copied = table->used;
	__atomic_store_n(&copy->modules, header_of(table)->modules, __ATOMIC_RELEASE);
	return NULL;
}

void unwind_table_stats(const struct unwind_table *table, struct unwind_table_stats *ret)
{
	*ret = (struct unwind_table_stats){
		.left_out = table->left_out,
		.bytes = table->used,
		.build_us = table->build_ns / 1000,
	};
	vec_for_each (compiled, &table->compiled) {
		if (!compiled->is_used)
			continue;
		ret->modules++;
		ret->without_cfi += !compiled->counts.entries;
		ret->entries += compiled->counts.entries;
		ret->bad_entries += compiled->counts.bad;
		ret->unsupported += compiled->counts.unsupported;
		ret->rows += compiled->module.row_count;
	}
}
