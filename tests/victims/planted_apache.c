/*
 * A module of Apache 2.4 which at every request takes 100 bytes from the pool of the configuration,
 * which lives as long as the process: plant_kept(). Of what its headers define only that is here
 * which it needs.
 *
 * cflags: -shared -fPIC
 */
#include <pthread.h>
#include <stddef.h>

#define DECLINED    (-1)
#define HOOK_MIDDLE 10
#define PLANT	    __attribute__((noinline, visibility("default")))

struct pool;

/* The first member of struct request_rec. */
struct request {
	struct pool *pool;
};

void ap_hook_handler(int (*handler)(struct request *request), const char *const *before,
		     const char *const *after, int order);
void *apr_palloc(struct pool *pool, size_t size);
void *apr_pcalloc(struct pool *pool, size_t size);

static struct pool *configuration;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

PLANT void plant_kept(void)
{
	static unsigned count;

	pthread_mutex_lock(&lock);
	(count++ % 2 ? apr_palloc : apr_pcalloc)(configuration, 100);
	pthread_mutex_unlock(&lock);
}

PLANT void plant_freed(struct request *request)
{
	apr_palloc(request->pool, 1000);
}

static int handle(struct request *request)
{
	plant_kept();
	plant_freed(request);
	return DECLINED;
}

static void register_hooks(struct pool *pool)
{
	configuration = pool;
	ap_hook_handler(handle, NULL, NULL, HOOK_MIDDLE);
}

/* module, as STANDARD20_MODULE_STUFF begins it. */
struct module {
	int version, minor_version, module_index;
	const char *name;
	void *handle;
	struct module *next;
	unsigned long magic;
	void (*rewrite_args)(void *process);
	void *configuration[4];
	const void *commands;
	void (*register_hooks)(struct pool *pool);
	int flags;
};

struct module planted_module = {
	.version = 20120211,
	.module_index = -1,
	.name = "planted_apache.c",
	.magic = 0x41503234, /* "AP24" */
	.register_hooks = register_hooks,
};
