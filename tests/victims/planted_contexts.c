/*
 * A function of PostgreSQL that takes memory from contexts: `create function planted_contexts(text,
 * int, int) returns int language c as '.../planted_contexts'`, then
 * `select planted_contexts('leaked', COUNT, SIZE)`; it returns COUNT. Without the server's headers
 * an empty library.
 *
 *	leaked	from TopMemoryContext, and nothing points to it
 *	kept	from there, a list; half of it is allocated small and made larger
 *	freed	from there, and freed
 *	deleted	from a context below one that is deleted
 *	moved	from a context that is hung below TopMemoryContext then
 *
 * cflags: -shared -fPIC -I$(pg_config --includedir-server 2>/dev/null || echo /nonexistent)
 */
#if __has_include("postgres.h")

#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(planted_contexts);

static void **kept;

pg_noinline static void plant_leaked(int count, int size)
{
	while (count--)
		memset(MemoryContextAlloc(TopMemoryContext, size), 0x5a, size);
}

pg_noinline static void plant_kept(int count, int size)
{
	while (count--) {
		void **block = MemoryContextAllocZero(TopMemoryContext, count % 2 ? size : 8);

		if (count % 2 == 0)
			block = repalloc(block, size);
		*block = kept;
		kept = block;
	}
}

pg_noinline static void plant_freed(int count, int size)
{
	while (count--)
		pfree(MemoryContextAlloc(TopMemoryContext, size));
}

static MemoryContext fill(MemoryContext parent, int count, int size)
{
	MemoryContext context = AllocSetContextCreate(parent, "planted", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	while (count--)
		memset(palloc(size), 0x5a, size);
	MemoryContextSwitchTo(old);
	return context;
}

pg_noinline static void plant_deleted(int count, int size)
{
	MemoryContext top = fill(TopMemoryContext, count, size);

	fill(fill(top, count, size), count, size);
	MemoryContextReset(top);
	fill(top, count, size);
	MemoryContextDelete(top);
}

pg_noinline static void plant_moved(int count, int size)
{
	MemoryContextSetParent(fill(CurrentMemoryContext, count, size), TopMemoryContext);
}

Datum planted_contexts(PG_FUNCTION_ARGS)
{
	static const struct {
		const char *name;
		void (*plant)(int count, int size);
	} all[] = {
		{ "leaked", plant_leaked },   { "kept", plant_kept },	{ "freed", plant_freed },
		{ "deleted", plant_deleted }, { "moved", plant_moved },
	};
	const char *kind = text_to_cstring(PG_GETARG_TEXT_PP(0));

	for (size_t i = 0; i < lengthof(all); i++)
		if (!strcmp(all[i].name, kind))
			all[i].plant(PG_GETARG_INT32(1), PG_GETARG_INT32(2));
	PG_RETURN_INT32(PG_GETARG_INT32(1));
}

#else

int no_server_headers;

#endif
