#include "memprobe/runtime.h"

#include <stdlib.h>
#include <string.h>

/* Each has a file in runtimes/. In the order in which they are looked for. */
#define RUNTIMES(row) row(postgres)

#define DECLARE(name) extern const struct runtime_ops runtime_##name;
RUNTIMES(DECLARE)

#define OPS(name) &runtime_##name,
static const struct runtime_ops *const runtimes[] = { RUNTIMES(OPS) NULL };

bool runtime_has_owners(const struct runtime_ops *ops)
{
	return ops->has_owners;
}

struct error *runtime_detect(struct target *target, bool (*can)(const struct runtime_ops *ops),
			     struct runtime *ret)
{
	struct error *first = NULL;

	for (size_t i = 0; runtimes[i]; i++) {
		struct runtime runtime = { .ops = runtimes[i] };
		struct error *error;

		if (!can(runtimes[i]))
			continue;
		error = runtimes[i]->find(target, &runtime.root);
		if (!error_is(error, ERROR_UNSUPPORTED)) {
			error_destroy(first);
			if (!error)
				*ret = runtime;
			return error;
		}
		if (first)
			error_destroy(error);
		else
			first = error;
	}
	return first;
}

static void free_texts(struct runtime_object *object)
{
	free(object->type);
	free(object->label);
}

static struct error *keep(void *data, const struct runtime_object *object)
{
	struct runtime_objects *objects = data;
	struct runtime_object copy = *object;
	struct error *error = NULL;

	copy.type = strdup(object->type);
	copy.label = object->label ? strdup(object->label) : NULL;
	if (!copy.type || (object->label && !copy.label))
		error = &error_no_memory;
	if (!error)
		error = runtime_object_vec_append(&objects->objects, &copy);
	if (error)
		free_texts(&copy);
	else
		objects->size += copy.size;
	return error;
}

struct error *runtime_read(const struct runtime *runtime, struct target *target, unsigned tries,
			   struct runtime_objects *ret)
{
	const struct runtime_sink sink = { keep, ret };

	runtime_objects_deinit(ret);
	*ret = (struct runtime_objects){ 0 };
	return runtime->ops->read(target, runtime->root, tries, &sink, &ret->state);
}

void runtime_objects_deinit(struct runtime_objects *objects)
{
	vec_for_each (object, &objects->objects)
		free_texts(object);
	runtime_object_vec_deinit(&objects->objects);
}
