/*
 * The functions of planted.h in nginx's pool of its cycle, which lives as long as the worker; to be
 * loaded by its Lua. What is kept is kept by the pool, and what is freed may be small, which
 * ngx_pfree() declines.
 *
 * cflags: -shared -fPIC
 */
#include <stddef.h>

#define PLANT __attribute__((noinline, visibility("default")))

struct pool;

struct cycle {
	void *configuration;
	struct pool *pool;
};

extern volatile struct cycle *ngx_cycle;
void *ngx_palloc(struct pool *pool, size_t size);
void *ngx_pcalloc(struct pool *pool, size_t size);
long ngx_pfree(struct pool *pool, void *block);

PLANT long plant_kept(long count, long size)
{
	for (long i = 0; i < count; i++)
		if (!(i % 2 ? ngx_palloc : ngx_pcalloc)(ngx_cycle->pool, size))
			return -1;
	return count;
}

/* How many were freed. */
PLANT long plant_freed(long count, long size)
{
	long freed = 0;

	for (long i = 0; i < count; i++)
		freed += !ngx_pfree(ngx_cycle->pool, ngx_palloc(ngx_cycle->pool, size));
	return freed;
}
