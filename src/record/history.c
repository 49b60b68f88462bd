/*
 * A target that knows every module that was there at some time, and needs no process: the files are
 * held open, what else is asked of it comes from the live one as long as that lives.
 */
#include "history.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/elf_file.h"
#include "memprobe/log.h"

struct past_module {
	uint64_t start;
	int fd; /* -1: it has no file */
};

VEC_DEFINE(past_module_vec, struct past_module)

struct history {
	struct target *target; /* its backend is the history */
	struct target *live;   /* the session's; may have exited */
	struct past_module_vec files;
	uint64_t hash; /* of the mappings with code, when they were learnt */
};

static struct error *past_read(struct target *target, uint64_t address, void *buffer, size_t size)
{
	struct history *history = target->backend;

	return target_read(history->live, address, buffer, size);
}

static struct error *past_read_maps(struct target *target, enum maps_detail detail,
				    struct mapping_vec *ret)
{
	struct history *history = target->backend;

	return target_read_maps(history->live, detail, ret);
}

static struct error *past_open_module(struct target *target, const struct module *module,
				      int *fd_ret)
{
	struct history *history = target->backend;

	vec_for_each (file, &history->files) {
		if (file->start != module->start || file->fd < 0)
			continue;
		*fd_ret = dup(file->fd);
		if (*fd_ret >= 0)
			return NULL;
	}
	return error_create(ERROR_FAILED, "%s is not there any more", module->path);
}

static struct error *past_open_perf_map(struct target *target, int *fd_ret)
{
	struct history *history = target->backend;

	return target_open_perf_map(history->live, fd_ret);
}

static const struct target_ops past_ops = {
	.read = past_read,
	.read_maps = past_read_maps,
	.open_module = past_open_module,
	.open_perf_map = past_open_perf_map,
};

static bool overlaps(const struct target *target, const struct module *module)
{
	vec_for_each (known, &target->modules)
		if (module->start < known->end && known->start < module->end)
			return true;
	return false;
}

/* A copy that owns its path and segments. */
static struct error *copy_module(const struct module *from, struct module *ret)
{
	struct module module = *from;
	struct error *error = NULL;

	module.elf = NULL;
	module.image = NULL;
	module.image_size = 0;
	module.segments = (struct module_segment_vec){ 0 };
	module.path = strdup(from->path);
	if (!module.path)
		return &error_no_memory;
	for (size_t i = 0; !error && i < from->segments.size; i++)
		error = module_segment_vec_append(&module.segments, &from->segments.data[i]);
	if (error) {
		module_segment_vec_deinit(&module.segments);
		free(module.path);
		return error;
	}
	*ret = module;
	return NULL;
}

static struct error *add_module(struct history *history, struct target *now,
				const struct module *module)
{
	struct past_module file = { .start = module->start, .fd = -1 };
	struct module copy;
	struct error *error = copy_module(module, &copy);

	if (error)
		return error;
	if (!module->is_vdso && now->ops->open_module)
		error_destroy(now->ops->open_module(now, module, &file.fd));
	error = past_module_vec_append(&history->files, &file);
	if (!error)
		error = module_vec_append(&history->target->modules, &copy);
	if (error) {
		if (!history->files.size ||
		    history->files.data[history->files.size - 1].fd != file.fd)
			close(file.fd);
		module_segment_vec_deinit(&copy.segments);
		free(copy.path);
		return error;
	}
	/* Without a file it is what it is in memory now. */
	if (file.fd < 0)
		error_destroy(module_load(
			history->target,
			&history->target->modules.data[history->target->modules.size - 1]));
	return NULL;
}

struct error *history_add(struct history *history, struct target *now)
{
	const struct module_vec *modules;
	struct error *error = target_modules(now, &modules);

	for (size_t i = 0; !error && i < modules->size; i++)
		if (!overlaps(history->target, &modules->data[i]))
			error = add_module(history, now, &modules->data[i]);
	return error;
}

static uint64_t hash_code(const struct mapping_vec *maps)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	vec_for_each (mapping, maps) {
		if (!(mapping->perms & PERM_EXEC) || !mapping->inode)
			continue;
		hash = (hash ^ mapping->start) * UINT64_C(0x100000001b3);
		hash = (hash ^ mapping->end) * UINT64_C(0x100000001b3);
		hash = (hash ^ mapping->inode) * UINT64_C(0x100000001b3);
	}
	return hash;
}

struct error *history_learn(struct history *history, const struct mapping_vec *maps,
			    struct target **now_ret)
{
	cleanup(target) struct target *now = NULL;
	uint64_t hash = hash_code(maps);
	struct error *error;

	*now_ret = NULL;
	if (hash == history->hash)
		return NULL;
	error = target_open_live(history->target->pid, &now);
	if (!error)
		error = history_add(history, now);
	if (error)
		return error;
	history->hash = hash;
	*now_ret = take_pointer(now);
	return NULL;
}

void history_learn_again(struct history *history)
{
	history->hash = 0;
}

struct error *history_create(struct target *target, struct history **ret)
{
	struct history *history = calloc(1, sizeof(*history));
	struct target *past = calloc(1, sizeof(*past));
	struct error *error;

	if (!history || !past) {
		free(history);
		free(past);
		return &error_no_memory;
	}
	history->target = past;
	history->live = target;
	*past = (struct target){
		.ops = &past_ops,
		.arch = target->arch,
		.pid = target->pid,
		.name = strdup(target->name ? target->name : ""),
		.exe = strdup(target->exe ? target->exe : ""),
		.modules_known = true,
		.backend = history,
	};
	error = past->name && past->exe ? history_add(history, target) : &error_no_memory;
	if (error)
		history_destroy(history);
	else
		*ret = history;
	return error;
}

struct target *history_target(struct history *history)
{
	return history->target;
}

void history_destroy(struct history *history)
{
	if (!history)
		return;
	target_destroy(history->target);
	vec_for_each (file, &history->files)
		if (file->fd >= 0)
			close(file->fd);
	past_module_vec_deinit(&history->files);
	free(history);
}
