#include "ptmalloc_layout.h"

/*
 * Compiled from the releases' own structs. Two layouts with the same `bins` differ in
 * attached_threads (2.23): the older one comes first since its system_mem would then be a thread
 * count, which no arena's size is.
 */
const struct ptmalloc_layout ptmalloc_layouts[] = {
	/* versions, word, fastbins, top, bins, next, system_mem, size, alignment */
	{ "2.27-2.42", 8, 16, 96, 112, 2160, 2184, 2200, 16 },
	{ "2.12-2.22", 8, 8, 88, 104, 2152, 2168, 2184, 16 },
	{ "2.23-2.26", 8, 8, 88, 104, 2152, 2176, 2192, 16 },
	{ "2.43", 8, 0, 8, 24, 2072, 2096, 2112, 16 },
	{ "2.27-2.42", 4, 12, 56, 64, 1096, 1108, 1116, 16 },
	{ "2.12-2.22", 4, 8, 48, 56, 1088, 1096, 1104, 8 },
	{ "2.23-2.25", 4, 8, 48, 56, 1088, 1100, 1108, 8 },
	{ "2.26", 4, 8, 52, 60, 1092, 1104, 1112, 16 },
	{ "2.43", 4, 0, 8, 16, 1048, 1060, 1068, 16 },
	{ NULL, 0, 0, 0, 0, 0, 0, 0, 0 },
};

bool ptmalloc_is_heap_info_size(unsigned word_size, uint64_t offset)
{
	/* 64 bit: to 2.34, from 2.35; 32 bit: to 2.25, from 2.26. */
	return word_size == 8 ? offset == 32 || offset == 48 : offset == 16 || offset == 24;
}

const uint64_t *ptmalloc_heap_sizes(unsigned word_size)
{
	static const uint64_t wide[] = { 64ull << 20, 8ull << 20, 4ull << 30, 0 };
	static const uint64_t narrow[] = { 1ull << 20, 8ull << 20, 0 };

	return word_size == 8 ? wide : narrow;
}
