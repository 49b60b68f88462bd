/*
 * pthread_lists.h - glibc's lists of its threads' control blocks (struct pthread, nptl/descr.h).
 *
 * glibc links the control blocks of all threads, of those that ended and wait to be joined, and of
 * stacks that it keeps for later ones (the stack cache), in three rings: stack_used, stack_user and
 * stack_cache (nptl/allocatestack.c to 2.33; _dl_stack_used ... of rtld_global from 2.34 on). No
 * symbols are needed: each block points to itself, each ring has one member that is no block, and
 * the other rings begin near that one.
 */
#ifndef MEMPROBE_PTHREAD_LISTS_H
#define MEMPROBE_PTHREAD_LISTS_H

#include "memprobe/maps.h"
#include "memprobe/target.h"
#include "memprobe/vec.h"

struct pthread_block {
	uint64_t address; /* what pthread_self() returned to its thread */
	/* Its stack without guard, the control block and static TLS at its end. 0, 0: the first
	 * thread's, or not understood. */
	uint64_t start, end;
	uint64_t bounds; /* address of the field stackblock; 0: not understood */
	int32_t tid;	 /* as the process knows it; 0 or less: the thread has ended */
	bool is_freed;	 /* ended, and joined or detached: the stack is kept for another thread */
};

VEC_DEFINE(pthread_block_vec, struct pthread_block)

/*
 * All control blocks that are linked with the one at @address, in no order. None, if there is no
 * such block, or its links make no sense. Fails for lack of memory only.
 */
struct error *pthread_lists_read(struct target *target, const struct mapping_vec *maps,
				 uint64_t address, struct pthread_block_vec *ret);

/* Bytes of a control block that have all that is looked at here. */
#define PTHREAD_BLOCK_SIZE 0xa00u

/*
 * What is known by the first @size bytes of the control block at @address; false: there is none.
 * It needs nothing but @maps.
 */
bool pthread_block_parse(const struct arch *arch, const struct mapping_vec *maps, uint64_t address,
			 const uint8_t *bytes, size_t size, struct pthread_block *ret);

/* Reads what there is of PTHREAD_BLOCK_SIZE bytes at @address; 0: nothing. */
size_t pthread_block_read(struct target *target, const struct mapping_vec *maps, uint64_t address,
			  uint8_t *bytes);

#endif
