#include "memprobe/target.h"

#include <elf.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/num.h"

/* Entries of an auxiliary vector that are looked at; Linux 6.1 writes 21. */
#define AUXV_MAX 128

static struct error *unsupported(const struct target *target, const char *what)
{
	return error_create(ERROR_UNSUPPORTED, "cannot %s of %s: this kind of target has none",
			    what, target->name ? target->name : "the target");
}

void target_forget_modules(struct target *target)
{
	vec_for_each (module, &target->modules) {
		module_unload(module);
		module_segment_vec_deinit(&module->segments);
		free(module->path);
	}
	module_vec_deinit(&target->modules);
	target->modules_known = false;
}

void target_destroy(struct target *target)
{
	if (!target)
		return;
	target_forget_modules(target);
	if (target->ops && target->ops->destroy)
		target->ops->destroy(target);
	process_close(target->process);
	free(target->name);
	free(target->exe);
	free(target);
}

struct error *target_check_interrupted(const struct target *target)
{
	if (atomic_load(&target->calls) || !target_is_interrupted(target))
		return NULL;
	return error_create(ERROR_INTERRUPTED, "interrupted");
}

struct error *target_read(struct target *target, uint64_t address, void *buffer, size_t size)
{
	struct error *error;

	if (!size)
		return NULL;
	error = target_check_interrupted(target);
	if (error)
		return error;
	if (!target->ops->read)
		return unsupported(target, "read the memory");
	if (address + size < address)
		return error_fault(address);
	return target->ops->read(target, address, buffer, size);
}

struct error *target_read_word(struct target *target, uint64_t address, uint64_t *ret)
{
	const unsigned size = target->arch->word_size;
	uint8_t bytes[8];
	struct error *error = target_read(target, address, bytes, size);

	if (!error)
		*ret = load_word(bytes, size);
	return error;
}

struct error *target_read_u32(struct target *target, uint64_t address, uint32_t *ret)
{
	uint8_t bytes[4];
	struct error *error = target_read(target, address, bytes, sizeof(bytes));

	if (!error)
		*ret = (uint32_t)load_word(bytes, sizeof(bytes));
	return error;
}

struct error *target_read_string(struct target *target, uint64_t address, char *buffer, size_t size)
{
	size_t length = 0;

	if (!size)
		return NULL;
	buffer[0] = '\0';
	while (length < size - 1) {
		/* Up to the next page: what lies beyond may be unmapped. */
		size_t part = PAGE_SIZE - address % PAGE_SIZE;
		struct error *error;

		part = min_u64(part, min_u64(size - 1 - length, 256));
		error = target_read(target, address, buffer + length, part);
		if (error_is(error, ERROR_FAULT)) {
			error_destroy(error);
			break;
		}
		if (error) {
			buffer[length] = '\0';
			return error;
		}
		if (memchr(buffer + length, '\0', part))
			return NULL;
		length += part;
		address += part;
	}
	buffer[length] = '\0';
	return NULL;
}

struct error *target_read_maps(struct target *target, enum maps_detail detail,
			       struct mapping_vec *ret)
{
	if (!target->ops->read_maps)
		return unsupported(target, "list the mappings");
	return target->ops->read_maps(target, detail, ret);
}

struct error *target_read_threads(struct target *target, struct thread_vec *ret)
{
	if (!target->ops->read_threads)
		return unsupported(target, "list the threads");
	return target->ops->read_threads(target, ret);
}

struct error *target_page_present(struct target *target, uint64_t address, size_t pages,
				  bool *present)
{
	struct error *error = target_check_interrupted(target);

	if (error)
		return error;
	if (!target->ops->page_present)
		return unsupported(target, "tell the present pages");
	return target->ops->page_present(target, address, pages, present);
}

uint64_t target_next_present(struct target *target, uint64_t address, uint64_t end)
{
	if (!target->ops->next_present || address >= end)
		return address;
	return target->ops->next_present(target, address, end);
}

enum page_backing target_backing(struct target *target, const struct mapping *mapping, int *fd_ret)
{
	if (fd_ret)
		*fd_ret = -1;
	return target->ops->backing ? target->ops->backing(target, mapping, fd_ret) : BACKING_ANY;
}

struct error *target_open_perf_map(struct target *target, int *fd_ret)
{
	if (!target->ops->open_perf_map)
		return unsupported(target, "open the perf map");
	return target->ops->open_perf_map(target, fd_ret);
}

bool target_auxv(struct target *target, uint64_t type, uint64_t *ret)
{
	const unsigned word = target->arch->word_size;
	cleanup(free) char *bytes = NULL;
	size_t size;
	struct error *error;

	if (!target->ops->read_auxv)
		return false;
	error = target->ops->read_auxv(target, &bytes, &size);
	if (error) {
		error_destroy(error);
		return false;
	}
	for (size_t i = 0; i < AUXV_MAX && (i + 1) * 2 * word <= size; i++) {
		const char *entry = bytes + i * 2 * word;

		if (load_word(entry, word) == AT_NULL)
			break;
		if (load_word(entry, word) == type) {
			*ret = load_word(entry + word, word);
			return true;
		}
	}
	return false;
}

struct module *target_module_at(struct target *target, uint64_t address)
{
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	if (error) {
		error_destroy(error);
		return NULL;
	}
	vec_for_each (module, &target->modules) {
		if (address < module->start || address >= module->end)
			continue;
		vec_for_each (segment, &module->segments)
			if (address >= segment->start && address < segment->end)
				return module;
	}
	return NULL;
}
