/*
 * poollibs.c - work in the pools of a real library: poollibs apr|talloc|glib. The library is opened
 * at run time, so that nothing is needed to build this; without it `missing NAME` comes first.
 *
 * `go`: a round of work, of which the functions keep_...() leave blocks; then `done N`. It says
 * what each of them has left by then, `site FUNCTION BYTES COUNT`, and all together: `truth BYTES
 * COUNT`.
 */
#include <dlfcn.h>

#include "victim.h"

#define NOINLINE __attribute__((noinline))
#define SITES	 16

static struct site {
	const char *name;
	unsigned long bytes, count;
} sites[SITES];

static void *left(const char *function, void *block, size_t bytes)
{
	struct site *site = sites;

	while (site->name && strcmp(site->name, function))
		site++;
	site->name = function;
	site->bytes += bytes;
	site->count++;
	if (!block) {
		say("WRONG: no memory");
		exit(1);
	}
	return block;
}

/* The calling function has left @block. */
#define LEFT(block, bytes) left(__func__, block, bytes)

static void *library;

static void *import(const char *name)
{
	void *function = dlsym(library, name);

	if (!function) {
		say("WRONG: no %s", name);
		exit(1);
	}
	return function;
}

#define IMPORT(name) name = import(#name)

/* ---- apr ---- */

typedef struct apr_pool apr_pool;

static int (*apr_initialize)(void);
static int (*apr_pool_create_ex)(apr_pool **ret, apr_pool *parent, void *abort, void *allocator);
static void (*apr_pool_clear)(apr_pool *pool);
static void (*apr_pool_destroy)(apr_pool *pool);
static void *(*apr_palloc)(apr_pool *pool, size_t size);
static void *(*apr_pcalloc)(apr_pool *pool, size_t size);
static char *(*apr_pstrdup)(apr_pool *pool, const char *text);
static void *(*apr_pmemdup)(apr_pool *pool, const void *bytes, size_t size);
static char *(*apr_psprintf)(apr_pool *pool, const char *format, ...);

static apr_pool *pool_below(apr_pool *parent)
{
	apr_pool *pool = NULL;

	apr_pool_create_ex(&pool, parent, NULL, NULL);
	return pool;
}

NOINLINE static void keep_palloc(apr_pool *pool, size_t size)
{
	memset(LEFT(apr_palloc(pool, size), size), 1, size);
}

NOINLINE static void keep_pcalloc(apr_pool *pool, size_t size)
{
	memset(LEFT(apr_pcalloc(pool, size), size), 1, size);
}

NOINLINE static void keep_strings(apr_pool *pool, int number)
{
	char *text = apr_psprintf(pool, "request %d of many, a line that is kept", number);

	LEFT(text, strlen(text) + 1);
	LEFT(apr_pstrdup(pool, text), strlen(text) + 1);
	LEFT(apr_pmemdup(pool, text, 7), 7);
}

static void fill_apr(apr_pool *pool)
{
	for (size_t size = 1; size < 20000; size += size / 3 + 1) {
		apr_palloc(pool, size);
		apr_pcalloc(pool, size);
		apr_psprintf(pool, "%0*zu", (int)(size % 500), size);
	}
}

static void serve_apr(apr_pool *connection)
{
	fill_apr(connection);
	for (int i = 0; i < 5; i++) {
		apr_pool *request = pool_below(connection);

		fill_apr(request);
		fill_apr(pool_below(request));
		if (i % 2)
			apr_pool_clear(request);
		fill_apr(pool_below(request));
		/* The last one goes with its connection. */
		if (i < 4)
			apr_pool_destroy(request);
	}
}

static void work_apr(void)
{
	static apr_pool *server;

	if (!server)
		server = pool_below(pool_below(NULL));
	for (int i = 0; i < 20; i++) {
		apr_pool *connection = pool_below(server);

		serve_apr(connection);
		if (i % 2) {
			apr_pool_destroy(connection);
			keep_palloc(server, (size_t)i * 1000 + 1);
			keep_strings(server, i);
		} else {
			apr_pool_clear(connection);
			keep_pcalloc(connection, (size_t)i + 1);
		}
	}
}

static void start_apr(void)
{
	IMPORT(apr_initialize);
	IMPORT(apr_pool_create_ex);
	IMPORT(apr_pool_clear);
	IMPORT(apr_pool_destroy);
	IMPORT(apr_palloc);
	IMPORT(apr_pcalloc);
	IMPORT(apr_pstrdup);
	IMPORT(apr_pmemdup);
	IMPORT(apr_psprintf);
	apr_initialize();
}

/* ---- talloc, by the functions that its macros call ---- */

static void *(*talloc_named_const)(const void *parent, size_t size, const char *name);
static void *(*_talloc_zero)(const void *parent, size_t size, const char *name);
static void *(*_talloc_memdup)(const void *parent, const void *from, size_t size, const char *name);
static void *(*_talloc_array)(const void *parent, size_t size, unsigned count, const char *name);
static void *(*_talloc_zero_array)(const void *parent, size_t size, unsigned count,
				   const char *name);
static void *(*_talloc_realloc)(const void *parent, void *block, size_t size, const char *name);
static void *(*_talloc_realloc_array)(const void *parent, void *block, size_t size, unsigned count,
				      const char *name);
static void *(*_talloc_pooled_object)(const void *parent, size_t size, const char *name,
				      unsigned count, size_t room);
static char *(*talloc_strdup)(const void *parent, const char *text);
static char *(*talloc_strndup)(const void *parent, const char *text, size_t size);
static char *(*talloc_asprintf)(const void *parent, const char *format, ...);
static char *(*talloc_asprintf_append)(char *text, const char *format, ...);
static void *(*_talloc_steal_loc)(const void *parent, const void *block, const char *where);
static int (*_talloc_free)(void *block, const char *where);
static void (*talloc_free_children)(void *block);

NOINLINE static void *keep_named(void *parent, size_t size)
{
	return LEFT(talloc_named_const(parent, size, "kept"), size);
}

NOINLINE static void keep_arrays(void *parent, unsigned count)
{
	LEFT(_talloc_array(parent, 24, count, "array"), 24ul * count);
	LEFT(_talloc_zero_array(parent, 40, count, "zeros"), 40ul * count);
	LEFT(_talloc_zero(parent, count, "zero"), count);
	LEFT(_talloc_memdup(parent, "twelve bytes", 12, "copy"), 12);
}

NOINLINE static void keep_texts(void *parent, int number)
{
	char *text = talloc_asprintf(parent, "number %d of some", number);

	text = talloc_asprintf_append(text, ", and %0*d more", number, 5);
	LEFT(text, strlen(text) + 1);
	LEFT(talloc_strdup(parent, text), strlen(text) + 1);
	LEFT(talloc_strndup(parent, text, 5), 6);
}

NOINLINE static void keep_grown(void *parent, size_t size)
{
	void *block = _talloc_realloc(parent, NULL, 10, "grown");

	for (size_t i = 10; i < size; i *= 3)
		block = _talloc_realloc(parent, block, i, "grown");
	LEFT(_talloc_realloc_array(parent, block, 2, (unsigned)size, "grown"), 2 * size);
}

/* A block with room for others behind it. */
NOINLINE static void keep_pooled(void *parent, void *temporary)
{
	void *pool = LEFT(_talloc_pooled_object(parent, 48, "pooled", 2, 100), 48);

	LEFT(talloc_named_const(pool, 30, "in it"), 30);
	pool = _talloc_pooled_object(temporary, 48, "pooled", 2, 100);
	talloc_strdup(pool, "in it");
}

/* Made in what is freed then, but taken from there first: as functions that return memory do. */
NOINLINE static void keep_stolen(void *parent, void *temporary, size_t size)
{
	void *block = LEFT(_talloc_zero(temporary, size, "result"), size);

	LEFT(talloc_strdup(block, "its name"), sizeof("its name"));
	_talloc_steal_loc(parent, block, "here");
}

static void fill_talloc(void *parent, unsigned depth)
{
	for (unsigned i = 1; i < 12; i++) {
		void *block = talloc_named_const(parent, i * 50, "node");

		_talloc_zero_array(block, 3, i, "rows");
		talloc_strdup(block, "a name that it has");
		_talloc_realloc(parent, _talloc_array(block, 8, i, "list"), i * 100, "list");
		if (i % 4 == 0)
			_talloc_free(block, "here");
		else if (i % 4 == 1)
			talloc_free_children(block);
		else if (depth)
			fill_talloc(block, depth - 1);
	}
}

static void *top;

static void work_talloc(void)
{
	for (int i = 0; i < 10; i++) {
		void *temporary = talloc_named_const(top, 0, "temporary");

		fill_talloc(temporary, 2);
		keep_stolen(top, temporary, (size_t)i + 100);
		keep_arrays(keep_named(top, (size_t)i * 10), (unsigned)i + 1);
		keep_texts(top, i);
		keep_pooled(top, temporary);
		keep_grown(top, (size_t)i * 50 + 20);
		_talloc_free(temporary, "here");
	}
}

static void start_talloc(void)
{
	IMPORT(talloc_named_const);
	IMPORT(_talloc_zero);
	IMPORT(_talloc_memdup);
	IMPORT(_talloc_array);
	IMPORT(_talloc_zero_array);
	IMPORT(_talloc_realloc);
	IMPORT(_talloc_realloc_array);
	IMPORT(_talloc_pooled_object);
	IMPORT(talloc_strdup);
	IMPORT(talloc_strndup);
	IMPORT(talloc_asprintf);
	IMPORT(talloc_asprintf_append);
	IMPORT(_talloc_steal_loc);
	IMPORT(_talloc_free);
	IMPORT(talloc_free_children);
	top = talloc_named_const(NULL, 0, "top");
}

/* ---- glib's slices ---- */

struct list {
	void *data;
	struct list *next, *previous;
};

static void *(*g_slice_alloc)(size_t size);
static void *(*g_slice_alloc0)(size_t size);
static void *(*g_slice_copy)(size_t size, const void *from);
static void (*g_slice_free1)(size_t size, void *block);
static struct list *(*g_list_prepend)(struct list *list, void *data);
static void (*g_list_free)(struct list *list);

NOINLINE static void keep_slices(size_t size)
{
	void *block = LEFT(g_slice_alloc(size), size);

	memset(block, 1, size);
	LEFT(g_slice_alloc0(size + 1), size + 1);
	LEFT(g_slice_copy(size, block), size);
}

NOINLINE static void keep_list(unsigned count)
{
	struct list *list = NULL;

	while (count--)
		list = LEFT(g_list_prepend(list, NULL), sizeof(*list));
}

static void work_glib(void)
{
	for (unsigned i = 1; i < 40; i++) {
		struct list *list = NULL;

		for (unsigned n = 1; n < 50; n++) {
			list = g_list_prepend(list, NULL);
			g_slice_free1(n * i, g_slice_alloc0(n * i));
		}
		keep_slices(i);
		keep_list(i);
		g_list_free(list);
	}
}

static void start_glib(void)
{
	IMPORT(g_slice_alloc);
	IMPORT(g_slice_alloc0);
	IMPORT(g_slice_copy);
	IMPORT(g_slice_free1);
	IMPORT(g_list_prepend);
	IMPORT(g_list_free);
}

/* ---- */

static const struct kind {
	const char *name, *file;
	void (*start)(void), (*work)(void);
} kinds[] = {
	{ "apr", "libapr-1.so.0", start_apr, work_apr },
	{ "talloc", "libtalloc.so.2", start_talloc, work_talloc },
	{ "glib", "libglib-2.0.so.0", start_glib, work_glib },
	{ NULL, NULL, NULL, NULL },
};

static const struct kind *kind = kinds;

static void tell(void)
{
	static unsigned long done;
	unsigned long bytes = 0, count = 0;

	for (const struct site *site = sites; site->name; site++) {
		say("site %s %lu %lu", site->name, site->bytes, site->count);
		bytes += site->bytes;
		count += site->count;
	}
	say("truth %lu %lu", bytes, count);
	say("done %lu", ++done);
}

static bool command(const char *line)
{
	if (strcmp(line, "go"))
		return false;
	kind->work();
	victim_progress++;
	tell();
	return true;
}

int main(int argc, char **argv)
{
	victim_init();
	while (kind->name && strcmp(kind->name, argc > 1 ? argv[1] : ""))
		kind++;
	if (!kind->name)
		return 2;
	library = dlopen(kind->file, RTLD_NOW);
	if (library)
		kind->start();
	else
		say("missing %s", kind->file);
	victim_ready();
	victim_serve(command);
	return 0;
}
