/*
 * sparse_read.h - large reads of private memory that may have holes, into a buffer.
 */
#ifndef MEMPROBE_SPARSE_READ_H
#define MEMPROBE_SPARSE_READ_H

#include "memprobe/target.h"

/*
 * Fills @buffer with [address, address + size). Anonymous private pages that hold nothing of their
 * own become zeros without being read, so that nothing is faulted in; so do pages that cannot be
 * read, which are counted in *missing_ret (bytes; added to it; may be NULL). Where the target
 * cannot tell which pages it has (a core), all are read. Fails when the memory may not be read at
 * all, or the target is gone. Several threads may read at once.
 */
struct error *target_read_sparse(struct target *target, uint64_t address, void *buffer, size_t size,
				 uint64_t *missing_ret);

/* The same for memory that has a file behind it: pages that are not present are read, too. */
struct error *target_read_all(struct target *target, uint64_t address, void *buffer, size_t size,
			      uint64_t *missing_ret);

/*
 * The same for @mapping, shared memory: what the process has not touched comes from the file behind
 * it, so that no pages are made; where that may not be opened, it becomes zeros. NULL: as
 * target_read_sparse().
 */
struct error *target_read_shared(struct target *target, const struct mapping *mapping,
				 uint64_t address, void *buffer, size_t size);

#endif
