#include "allocs_pool.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/num.h"

#define CONTEXT_TRIES	 4
#define SUMMARY_CONTEXTS 5

/* ---- files ---- */

/* Files of the same name that count before those in the program: the user's, then the
 * installation's, beside the program's folder. */
static const char *const directories[] = {
	"../share/memprobe/pools",
	"/usr/local/share/memprobe/pools",
	"/usr/share/memprobe/pools",
};

/* pool_files.S */
struct builtin_pool {
	const char *name, *text, *end;
};
extern const struct builtin_pool builtin_pools[], builtin_pools_end[];

static bool is_path(const char *name)
{
	return strpbrk(name, "/.") != NULL;
}

static bool has_pool(const char *directory, const char *name)
{
	char path[PATH_MAX];
	int length = snprintf(path, sizeof(path), "%s/%s.pool", directory, name);

	return length > 0 && (size_t)length < sizeof(path) && !access(path, F_OK);
}

static bool find_of_user(const char *name, char *ret, size_t size)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	bool has_config = config && *config == '/';
	int used = -1;

	if (has_config || (home && *home == '/'))
		used = snprintf(ret, size, "%s%s/memprobe/pools", has_config ? config : home,
				has_config ? "" : "/.config");
	return used > 0 && (size_t)used < size && has_pool(ret, name);
}

static bool find_directory(const char *name, char *ret, size_t size)
{
	char program[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
	char *slash;

	if (find_of_user(name, ret, size))
		return true;
	program[length > 0 ? length : 0] = '\0';
	slash = strrchr(program, '/');
	if (slash)
		*slash = '\0';
	for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
		bool absolute = *directories[i] == '/';
		int used = snprintf(ret, size, "%s%s%s", absolute ? "" : program,
				    absolute ? "" : "/", directories[i]);

		if (used > 0 && (size_t)used < size && has_pool(ret, name))
			return true;
	}
	return false;
}

static struct error *open_builtin(const char *name, struct pool_file **ret)
{
	char names[200] = "", file[64];

	for (const struct builtin_pool *pool = builtin_pools; pool < builtin_pools_end; pool++) {
		size_t length = strlen(names);

		snprintf(names + length, sizeof(names) - length, "%s%s", length ? ", " : "",
			 pool->name);
		if (strcmp(pool->name, name))
			continue;
		snprintf(file, sizeof(file), "%s.pool", name);
		return pool_file_parse(file, pool->text, (size_t)(pool->end - pool->text), ret);
	}
	return error_hint(error_create(ERROR_USAGE, "no pool is called '%s'", name),
			  "there are %s; --pool FILE takes one of your own, as memprobe-allocs(1) "
			  "describes",
			  names);
}

struct error *allocs_pool_open(const struct command_context *context, struct allocs_pool *ret)
{
	const char *name = command_option(context, "pool");
	char directory[PATH_MAX + 64] = "";
	struct error *error;

	if (!name)
		return NULL;
	if (!is_path(name) && !find_directory(name, directory, sizeof(directory)))
		return open_builtin(name, &ret->file);
	error = pool_file_open(name, directory, &ret->file);
	if (error && error->code == ERROR_FAILED)
		error->code = ERROR_USAGE;
	return error;
}

/* ---- names ---- */

struct error *allocs_pool_learn(struct allocs_pool *pool, struct target *target)
{
	struct runtime runtime;
	struct error *error = runtime_detect(target, runtime_has_owners, &runtime);

	if (!error)
		error = runtime_read(&runtime, target, CONTEXT_TRIES, &pool->contexts);
	if (error_is(error, ERROR_NO_MEMORY))
		return error;
	/* Without names it is a recording all the same. */
	error_destroy(error);
	return NULL;
}

void allocs_pool_deinit(struct allocs_pool *pool)
{
	runtime_objects_deinit(&pool->contexts);
}

static int compare_addresses(const void *left, const void *right)
{
	const struct runtime_object *a = *(const struct runtime_object *const *)left;
	const struct runtime_object *b = *(const struct runtime_object *const *)right;

	return a->address < b->address ? -1 : a->address > b->address;
}

static int compare_bytes(const void *left, const void *right)
{
	const struct trace_context *a = left, *b = right;

	if (a->live_bytes != b->live_bytes)
		return a->live_bytes > b->live_bytes ? -1 : 1;
	return a->address < b->address ? -1 : a->address > b->address;
}

/* Contexts by their addresses; the caller frees it. */
static const struct runtime_object **by_address(const struct allocs_pool *pool)
{
	const struct runtime_object **ret = calloc(pool->contexts.objects.size + 1, sizeof(*ret));
	size_t i = 0;

	if (!ret)
		return NULL;
	vec_for_each (context, &pool->contexts.objects)
		ret[i++] = context;
	qsort(ret, i, sizeof(*ret), compare_addresses);
	return ret;
}

static const struct runtime_object *find(const struct allocs_pool *pool,
					 const struct runtime_object **sorted, uint64_t address)
{
	const struct runtime_object key = { .address = address }, *at = &key;
	const struct runtime_object **found = bsearch(&at, sorted, pool->contexts.objects.size,
						      sizeof(*sorted), compare_addresses);

	return found ? *found : NULL;
}

static json_t *json_context(const struct trace_context *context, const struct runtime_object *known)
{
	json_t *object = json_object();

	json_object_set_new(object, "address",
			    context->address ? json_address(context->address) : json_null());
	json_object_set_new(object, "name", known ? json_text(known->type) : json_null());
	json_object_set_new(object, "ident",
			    known && known->label ? json_text(known->label) : json_null());
	json_object_set_new(object, "count", json_integer(llround(context->live_count)));
	json_object_set_new(object, "bytes", json_integer(llround(context->live_bytes)));
	return object;
}

json_t *allocs_pool_json(const struct allocs_pool *pool, const struct trace_data *data)
{
	cleanup(free) const struct runtime_object **sorted = by_address(pool);
	cleanup(free) struct trace_context *contexts =
		calloc(data->contexts.size + 1, sizeof(*contexts));
	json_t *array = json_array();

	if (!sorted || !contexts)
		return array;
	if (data->contexts.size)
		memcpy(contexts, data->contexts.data, data->contexts.size * sizeof(*contexts));
	qsort(contexts, data->contexts.size, sizeof(*contexts), compare_bytes);
	for (size_t i = 0; i < data->contexts.size; i++)
		json_array_append_new(
			array, json_context(&contexts[i], find(pool, sorted, contexts[i].address)));
	return array;
}

/* ---- for people: by name, since there may be thousands of one kind ---- */

struct named {
	const char *name;
	double bytes;
	uint64_t contexts;
};

static int compare_names(const void *left, const void *right)
{
	const struct named *a = left, *b = right;

	return strcmp(a->name, b->name);
}

static int compare_named(const void *left, const void *right)
{
	const struct named *a = left, *b = right;

	if (a->bytes != b->bytes)
		return a->bytes > b->bytes ? -1 : 1;
	return strcmp(a->name, b->name);
}

static size_t merge(struct named *named, size_t count)
{
	size_t kept = 0;

	qsort(named, count, sizeof(*named), compare_names);
	for (size_t i = 0; i < count; i++) {
		if (kept && !strcmp(named[kept - 1].name, named[i].name)) {
			named[kept - 1].bytes += named[i].bytes;
			named[kept - 1].contexts++;
		} else {
			named[kept++] = named[i];
		}
	}
	qsort(named, kept, sizeof(*named), compare_named);
	return kept;
}

void allocs_pool_summarize(const struct allocs_pool *pool, const struct trace_data *data,
			   struct table_style style, FILE *out)
{
	cleanup(free) const struct runtime_object **sorted = by_address(pool);
	cleanup(free) struct named *named = calloc(data->contexts.size + 1, sizeof(*named));
	char bytes[TABLE_SIZE_MAX];
	size_t count = 0;

	if (!sorted || !named || !pool->contexts.objects.size || !data->contexts.size)
		return;
	vec_for_each (each, &data->contexts) {
		const struct runtime_object *known = find(pool, sorted, each->address);

		named[count++] =
			(struct named){ known ? known->type : "(gone)", each->live_bytes, 1 };
	}
	count = merge(named, count);
	for (size_t i = 0; i < count && i < SUMMARY_CONTEXTS; i++) {
		cleanup(free) char *name = text_printable(named[i].name);

		fprintf(out, "%s%s %s", i ? ", " : "\nby context: ", name ? name : "?",
			table_size(style, (uint64_t)named[i].bytes, bytes));
		if (named[i].contexts > 1)
			fprintf(out, " in %" PRIu64 " of them", named[i].contexts);
	}
	if (count > SUMMARY_CONTEXTS)
		fputs(" ...", out);
}
