#include "memprobe/allocator_calls.h"

#include "calls.h"

static const struct allocator_calls *const table[] = {
	&calls_ptmalloc,
	&calls_jemalloc,
	&calls_tcmalloc,
	&calls_mimalloc,
};

const struct allocator_calls *allocator_calls_find(enum allocator_kind kind)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i]->kind == kind)
			return table[i];
	return NULL;
}
