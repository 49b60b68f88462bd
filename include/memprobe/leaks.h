/*
 * leaks.h - blocks of the heap that nothing points to any more.
 *
 * Conservative mark and sweep: every aligned word of a root that is an address in a block in use
 * keeps it, interior pointers included; so does every word of a block that is kept. Roots are the
 * threads' registers and live stacks, thread-local storage, the modules' data and all other memory
 * that is no heap. What the allocator itself keeps (arenas, bins, thread caches) is no root.
 */
#ifndef MEMPROBE_LEAKS_H
#define MEMPROBE_LEAKS_H

#include "memprobe/heap.h"
#include "memprobe/thread_state.h"

struct leak {
	heap_index index;
	uint64_t address, size; /* of the block, as in heap_chunk */
	/* Another leaked block points to it: freeing that one rightly would have freed this one.
	 * Of a cycle that nothing points to, one block counts as direct. */
	bool indirect;
	bool cyclic; /* direct, and points to itself through others */
	/* Of a direct one: the indirect ones that hang on it. */
	uint64_t indirect_count, indirect_bytes;
};

/* There may be as many as blocks: each is kept in eight bytes, see leak_get(). */
struct leak_record {
	uint64_t index : 61;
	/* As in struct leak; and whether others hang on it. */
	uint64_t indirect : 1, cyclic : 1, has_sum : 1;
};

VEC_DEFINE(leak_record_vec, struct leak_record)

struct leak_sum {
	uint64_t leak; /* its place in the result */
	uint64_t count, bytes;
};

VEC_DEFINE(leak_sum_vec, struct leak_sum)

/*
 * What the leak search can learn while the heap is being walked, so that its memory is read once:
 *
 *	leak_prescan_create(&prescan);
 *	heap_open(target, &(struct heap_options){ .observer = leak_prescan_observer(prescan) },
 *&heap); leaks_find(heap, &(struct leak_options){ .prescan = prescan, ... }, &result);
 *
 * It serves one search, and that heap only. Without it the heap is read a second time.
 */
struct leak_prescan;

struct error *leak_prescan_create(struct leak_prescan **ret);
void leak_prescan_destroy(struct leak_prescan *prescan);
CLEANUP_DEFINE(leak_prescan, struct leak_prescan *, leak_prescan_destroy)
const struct heap_observer *leak_prescan_observer(struct leak_prescan *prescan);

struct leak_options {
	/* Where the stacks are; NULL: read from the target. */
	const struct thread_vec *threads;
	/* Registers and stack pointers of one instant (of the snapshot that the heap is of). NULL:
	 * unknown; stacks are then scanned from the pointers that the kernel shows, else whole. */
	const struct thread_state_vec *states;
	struct leak_prescan *prescan; /* NULL: none; used up */
	/* Takes out of @bytes, which a root has at @address (both
	 * aligned to words), what is no reference of the program's; from several threads at once.
	 * NULL: there is nothing to take out. */
	void (*erase)(void *data, uint64_t address, uint8_t *bytes, size_t size);
	void *erase_data;
	unsigned workers; /* threads of memprobe that read; 0: as many as CPUs, at most 4 */
};

struct leak_result {
	struct leak_record_vec leaks; /* by address, if the regions of the heap are */
	struct leak_sum_vec sums;     /* private: of those direct ones on which others hang */
	uint64_t leaked_count, leaked_bytes;
	uint64_t live_count, live_bytes;
	uint64_t root_bytes;	/* that were searched for pointers */
	uint64_t missing_bytes; /* of blocks and roots that could not be read */
};

/* The leak at @i, which is less than result->leaks.size. */
void leak_get(const struct heap *heap, const struct leak_result *result, size_t i,
	      struct leak *ret);

/* Whether the block at @index is leaked. O(log n). */
bool leak_result_has(const struct leak_result *result, heap_index index);

void leak_result_deinit(struct leak_result *result);

/* *ret has to be zeroed. Errors are those of reading. */
struct error *leaks_find(const struct heap *heap, const struct leak_options *options,
			 struct leak_result *ret);

/* ---- who points to a block ---- */

enum leak_root_kind {
	ROOT_NONE, /* a block */
	ROOT_REGISTER,
	ROOT_STACK,
	ROOT_MEMORY,
	ROOT_JOIN,  /* what glibc keeps of a thread that ended, as its result until it is joined */
	ROOT_ENDED, /* no root: the stack of a thread that ended, which glibc keeps */
};

/* A step from a root to the block; each points to the next. */
struct retain_step {
	enum leak_root_kind kind;
	/* Where the pointer stands: in a block (then @block and @size are set), or in a root. */
	uint64_t at;
	uint64_t block, size;
	pid_t tid;	 /* ROOT_REGISTER, ROOT_STACK */
	unsigned number; /* ROOT_REGISTER: which word of struct user_regs_struct */
};

VEC_DEFINE(retain_step_vec, struct retain_step)

/*
 * The shortest chain from a root to the block at @index, the root first, the block last; empty:
 * nothing reaches it, it is leaked. *referrers_ret: all places that point to it directly, roots and
 * blocks, leaked or not, at most RETAIN_REFERRERS_MAX.
 */
#define RETAIN_REFERRERS_MAX 64u
struct error *leaks_retain(const struct heap *heap, const struct leak_options *options,
			   heap_index index, struct retain_step_vec *chain_ret,
			   struct retain_step_vec *referrers_ret);

#endif
