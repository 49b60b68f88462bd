/*
 * memory_scan.h - the bytes of many ranges of a target, looked at by several threads at once.
 *
 * Memory is read in blocks that stay in a processor's cache. Each is looked at by the thread that
 * has read it, with a little of what lies before and behind it, and then committed: in the order of
 * addresses, one at a time. Nothing is stopped; what memprobe needs does not grow with the target.
 */
#ifndef MEMPROBE_MEMORY_SCAN_H
#define MEMPROBE_MEMORY_SCAN_H

#include "memprobe/range.h"
#include "memprobe/target.h"

#define SCAN_AROUND_MAX 16384u

/*
 * [start, end), which no other block has. Pages of private memory that were never touched are in no
 * block: they are zeros, and show as such around those that are.
 */
struct scan_block {
	uint64_t start, end;
	const uint8_t *bytes; /* that of @start; [-before, end - start + after) may be read */
	size_t before, after;
	/* Of @before: no block has these, all are zeros. 0, or equal to @before. */
	size_t untouched;
};

struct scan_ops {
	/* What a look finds is kept in a result; they are used again and again. */
	struct error *(*create)(void *data, void **result_ret);
	void (*destroy)(void *result);
	/* By any thread, several at a time. */
	struct error *(*look)(void *data, const struct scan_block *block, void *result);
	/* In order, one at a time, by any thread; the bytes are still those that were looked at. */
	struct error *(*commit)(void *data, const struct scan_block *block, void *result);
};

struct scan_request {
	struct target *target;
	/* Sorted; may be older than the memory: what was unmapped since is missing. */
	const struct mapping_vec *maps;
	const struct range_vec *ranges; /* normalised */
	/* How much of the surroundings of a block is wanted: as far as the ranges and readable
	 * memory go, at least one page; at most SCAN_AROUND_MAX. */
	size_t before, after;
	bool (*interrupted)(void); /* may be NULL */
	const struct scan_ops *ops;
	void *data;
};

#define SCAN_MISSING_MAX 65536u

struct scan_result {
	uint64_t bytes;		  /* read and looked at */
	struct range_vec missing; /* not mapped or not readable; the first SCAN_MISSING_MAX */
	uint64_t missing_bytes;	  /* all of it */
	/* Of shared memory and files mapped shared, what the process itself has not touched: it was
	 * not read, since that would make pages of it. */
	uint64_t left_out;
	bool interrupted;
	uint64_t reached; /* all before this address was looked at; of use if it was interrupted */
};

void scan_result_deinit(struct scan_result *result);

/* ERROR_PERMISSION where memory may not be read. @ret is filled also with an error. */
struct error *memory_scan(const struct scan_request *request, struct scan_result *ret);

#endif
