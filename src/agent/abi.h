/*
 * abi.h - what the recording agent and its tracer agree on.
 *
 * The agent is one flat image without relocations. It runs inside the target, called through hooks
 * at the entries of the allocator's functions, and writes into memory that the tracer reads.
 *
 *	IMAGE  private anonymous r-x, AGENT_IMAGE_SPACE bytes, page aligned, anywhere:
 *	       struct agent_header, struct agent_config, code. The tracer fills in the config
 *	       (by /proc/PID/mem) before the first hook is set, and then changes it no more.
 *	CTL    struct agent_ctl, directly behind IMAGE, private anonymous rw, MADV_WIPEONFORK (and
 *	       MADV_NOHUGEPAGE: it is sparse). A forked child so reads `active` as 0, and its hooks
 *	       pass through: whatever a child needs for that stands in the config, not here.
 *	SHM    one memfd, mapped shared rw wherever the config says: counters, stacks, frames, live
 *	       table. The agent touches only what the tracer has allocated (fallocate) and then
 *	       published by the limits in CTL; what finds no room is counted as lost.
 *
 * The hook of a function, wherever it stands: undoes the function's first instruction if the jump
 * that leads to it stands behind that, puts the address of the function's slot (in the config of
 * IMAGE) into r11, changes nothing else, and jumps to the entry for its arguments
 * (agent_header.entry). `original` of the slot is what behaves as the function did: the relocated
 * prologue, from the first instruction on. When sampling, a hook may be made from a template
 * instead (struct agent_template), which lets the calls that are of no interest fall through into
 * the original behind it.
 *
 * Nothing in IMAGE or SHM takes a lock: a thread stopped or killed anywhere holds up nobody.
 * The words that both sides write while the target runs are 4 or 8 bytes, aligned.
 */
#ifndef AGENT_ABI_H
#define AGENT_ABI_H

#define AGENT_MAGIC   "memprobe agent1" /* with the NUL: 16 bytes */
#define AGENT_VERSION 4

#define AGENT_IMAGE_SPACE   0x10000
#define AGENT_CONFIG_OFFSET 0x1000
#define AGENT_TEXT_OFFSET   0x5000 /* code starts here */
#define AGENT_SLOTS	    96
#define AGENT_SLOT_SIZE	    128

/* A hook may begin with so many bytes that undo the function's first instruction. */
#define AGENT_UNDO_MAX 8

/* Offsets that the assembly needs; abi.h asserts them below. */
#define AGENT_SLOT_ORIGINAL 0
#define AGENT_SLOT_DIRECT   8

#define AGENT_CTL_ACTIVE   0
#define AGENT_CTL_CONTEXTS 0x800
#define AGENT_CTL_SIEVE	   0x1000
#define AGENT_CTL_FILTER   0x3000
#define AGENT_CTL_THREADS  0x13000

#define AGENT_CTL_SIZE 18882560

#define AGENT_THREAD_KEY       0
#define AGENT_THREAD_COUNTDOWN 8
#define AGENT_THREAD_CALLS     16
#define AGENT_THREAD_INSIDE    32
#define AGENT_THREAD_SIZE      128

/* Bits of agent_ctl.rate below the index. */
#define AGENT_RATE_BITS 48

/* Values of agent_ctl.active. */
#define AGENT_INACTIVE 0
#define AGENT_EXACT    1
#define AGENT_SAMPLING 2

/*
 * What a free passes if its block was not sampled: 8-bit saturating counters by address. The sieve
 * is small, so that it stays in the cache of a program that has other things in mind; what it
 * holds back is looked up in the filter. See agent_sieve_index(), agent_filter_index().
 */
#define AGENT_SIEVE_BITS   13
#define AGENT_SIEVE_FACTOR 0x1e3779b1 /* 32-bit */
#define AGENT_FILTER_SIZE  0x10000

/* Likewise of contexts; see agent_context_index(). */
#define AGENT_CONTEXTS_BITS 11
#define AGENT_CONTEXTS_SIZE (1 << AGENT_CONTEXTS_BITS)

/*
 * Threads are known by their thread pointer (%fs:0): a slot is looked for from
 * agent_thread_index(key) on, upwards, at most AGENT_THREAD_PROBES slots, up to the first with key
 * 0. The table does not wrap; its last slot is never used.
 */
#define AGENT_THREAD_BITS   12
#define AGENT_THREAD_PROBES 64
#define AGENT_THREAD_FACTOR 0x2c1b3c6d /* fits a signed 32-bit operand */
#define AGENT_THREADS	    ((1 << AGENT_THREAD_BITS) + AGENT_THREAD_PROBES + 1)

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

#include "agent/unwind_abi.h"

/* ---- IMAGE ---- */

/* The entries, by what their fast path needs to know. */
enum agent_entry {
	AGENT_ENTRY_SIZE_FIRST,	 /* allocates, size in the first argument */
	AGENT_ENTRY_SIZE_SECOND, /* allocates, size in the second argument */
	AGENT_ENTRY_PRODUCT,	 /* allocates, first times second argument */
	AGENT_ENTRY_FREE,	 /* frees, pointer in the first argument */
	AGENT_ENTRY_REALLOC,	 /* pointer in the first, size in the second argument */
	AGENT_ENTRY_ANY,	 /* anything else: no fast path but `active` */
	AGENT_ENTRY_CONTEXT,	 /* does something to the context in the first argument */
	AGENT_ENTRY_FREE_SECOND, /* frees, pointer in the second argument */
	AGENT_ENTRIES
};

/*
 * The hook of functions with the arguments of an entry, for AGENT_SAMPLING: position independent
 * but for some 64-bit operands. The relocated prologue is to follow immediately; calls come in at
 * `begin`, or with something to undo in the AGENT_UNDO_MAX free bytes before it. Offsets of the
 * operands are from `start`, 0: there is none.
 */
struct agent_template {
	uint32_t start; /* from agent_header.template; 0: there is no template */
	uint16_t size;
	uint16_t begin;
	/* To be filled in: the slot's address; */
	uint16_t slot[2];
	uint16_t counted; /* where agent_header.counted is; */
	uint16_t entry;	  /* where the entry is. */
	uint16_t ctl[2];  /* To be added to: the address of CTL. */
};

struct agent_header {
	char magic[16];
	uint32_t version;
	uint32_t image_size; /* bytes to copy; at most AGENT_IMAGE_SPACE */
	uint32_t ctl_offset; /* = AGENT_IMAGE_SPACE */
	uint32_t ctl_size;
	uint32_t config_offset;
	uint32_t text_start;   /* code, half-open; */
	uint32_t text_end;     /* a thread in or returning to it is inside the agent */
	uint32_t return_point; /* where originals that were called with a frame return to */
	uint32_t counted;      /* where templates lead to what they have counted */
	uint32_t entry[AGENT_ENTRIES];
	struct agent_template template[AGENT_ENTRIES];
};

enum agent_kind {
	AGENT_KIND_NONE,
	AGENT_KIND_ALLOC,    /* returns the block, NULL: failed */
	AGENT_KIND_ALLOC_AT, /* posix_memalign: 0, and the block through *arg[pointer] */
	AGENT_KIND_REALLOC,  /* NULL with a size other than 0: failed, the old block stays */
	AGENT_KIND_FREE,     /* before the original; then a tail jump */
	AGENT_KIND_RESIZE,   /* xallocx: in place; returns the new size */
	/*
	 * operator new of an allocator whose new does not reach its malloc. Recorded calls run
	 * `direct` (the original malloc, or aligned_alloc with AGENT_SLOT_SWAP) in its place;
	 * if that returns NULL, a tail jump to `original` with no frame of ours, not recorded: so
	 * exceptions never pass the agent.
	 */
	AGENT_KIND_NEW,
	/* A pool's: all blocks of the context are freed (struct agent_pools); then a tail jump. */
	AGENT_KIND_RESET,
	/* A pool's: the context gets another parent, arg[pointer]; then a tail jump. */
	AGENT_KIND_MOVE,
	/* Frees a list: the next block is at the last one + arg[size]; then a tail jump. */
	AGENT_KIND_FREE_CHAIN,
};

/* Integer arguments are numbered from 0 (rdi); this means: it has none. */
#define AGENT_NO_ARG 0xff

#define AGENT_SLOT_SWAP	    1  /* `direct` takes (second, first) */
#define AGENT_SLOT_SELF	    2  /* AGENT_KIND_RESET: of the context itself */
#define AGENT_SLOT_CHILDREN 4  /* ... of all that are below it */
#define AGENT_SLOT_DELETE   8  /* ... and it is gone, if it is a block itself */
#define AGENT_SLOT_TRY	    16 /* AGENT_KIND_FREE: has freed it only if it returns 0 (32 bits) */

/* Where a pool's function has the context that a block belongs to. */
enum agent_context_form {
	AGENT_CONTEXT_NONE,   /* nowhere; a new size keeps the old block's */
	AGENT_CONTEXT_ARG,    /* argument arg_context */
	AGENT_CONTEXT_GLOBAL, /* the word at the address context_word */
	AGENT_CONTEXT_AT_ARG, /* the word at argument arg_context + context_word */
	/* What the function at context_word, which only reads, says of the new block. */
	AGENT_CONTEXT_ASK,
};

/* Where the size of a new block is. */
enum agent_size_form {
	AGENT_SIZE_ARGS,
	AGENT_SIZE_WORD,   /* in the word at the block + size_word */
	AGENT_SIZE_STRING, /* it holds a string and no more */
};

/* agent_slot.patched; 0: never was. */
#define AGENT_PATCHED	  1
#define AGENT_WAS_PATCHED 2

struct agent_slot {
	uint64_t original; /* runs the function as it was */
	uint64_t direct;   /* AGENT_KIND_NEW only */
	uint8_t kind;	   /* enum agent_kind */
	uint8_t flags;
	uint8_t arg_pointer; /* block to free, or where the new one is written */
	uint8_t arg_size;
	uint8_t arg_count; /* multiplied with the size */
	uint8_t arg_context;
	uint8_t context_form;
	uint8_t size_form;
	uint64_t context_word;
	int64_t size_word;
	uint64_t spare_word;

	/* For who takes the hooks away, perhaps a later tracer. The agent reads none of it. */
	uint64_t function; /* address of the patched bytes: the entry, or behind its first
			    * instruction */
	uint64_t hook;	   /* where the patch jumps to */
	uint8_t saved[16]; /* what stood there, saved_size bytes */
	uint8_t patch[16]; /* what stands there now, as many */
	uint32_t saved_size;
	uint32_t patched; /* AGENT_PATCHED from before the patch is written until after it is gone
			   */
	uint64_t spare_words2[3];
};

/* A level of the live table or of the stack table: @mask + 1 entries, a power of two. */
struct agent_level {
	uint64_t address;
	uint64_t mask;
};

#define AGENT_LEVELS 8

struct agent_area {
	uint64_t start;
	uint64_t size;
};

/*
 * Pools: functions that give out memory by contexts, which are emptied as a whole. A block so has
 * an owner, kept beside its bucket: the context and a number that every event takes from
 * agent_shm.sequence. To empty a context only its own number is set: a block is freed as soon as
 * its context was emptied at a higher number than its own, and its entry is left as it is, until
 * the address is entered anew. So nothing is searched for, a context's address may be used again,
 * and the tracer that reads the tables later knows exactly.
 *
 * A context is marked while a block that was entered may be in it or below it, and so are all those
 * above it (which takes AGENT_POOLS_PARENT): what empties one that is not marked is of no interest.
 * agent_ctl.contexts counts the marked ones by agent_context_index().
 */
struct agent_pools {
	uint64_t contexts;	       /* struct agent_context[contexts_mask + 1]; 0: no pools */
	uint64_t contexts_mask;	       /* a power of two less 1 */
	uint64_t owners[AGENT_LEVELS]; /* struct agent_owner, AGENT_BUCKET_BLOCKS for each bucket */
	/* The tree of contexts: at context + tree_child is the link to the first child, at
	 * context + tree_next the one to the next brother. A link holds a context's address less
	 * tree_node. */
	int32_t tree_child;
	int32_t tree_next;
	int32_t tree_node;
	uint32_t flags;
	int32_t tree_parent; /* the link to the one above it, 0: there is none */
	uint32_t spare;
};

#define AGENT_POOLS_TREE   1 /* there is one */
#define AGENT_POOLS_BLOCKS 2 /* every block is a context, too: emptied, its blocks are gone */
#define AGENT_POOLS_RESETS 4 /* contexts are emptied: a block of an unknown one is not entered */
#define AGENT_POOLS_PARENT 8 /* the tree leads upwards, too */

struct agent_config {
	/* Calls that come from here while an original runs further out on the same stack are the
	 * allocator's own and pass through. Half-open; the allocator's functions, not all of
	 * libc: strdup is a caller like others. Of pools, those that allocate: what they free is
	 * another block. */
	uint64_t allocator_start;
	uint64_t allocator_end;

	uint64_t shm;	   /* struct agent_shm */
	uint64_t counters; /* struct agent_counters[AGENT_THREADS + 1] */
	uint64_t frames;   /* the frames' words */
	uint64_t unwind;   /* struct unwind_header (unwind_abi.h); 0: frame pointers only */
	struct agent_level live[AGENT_LEVELS];	 /* struct agent_bucket */
	struct agent_level stacks[AGENT_LEVELS]; /* struct agent_stack */

	/* For a later tracer. */
	struct agent_area
		areas[8];	   /* mappings to remove: near pages, shm, tables; not IMAGE, CTL */
	uint64_t tracer;	   /* its pid */
	uint64_t tracer_start;	   /* and start time (/proc/PID/stat, field 22) */
	uint64_t tracer_namespace; /* the PID namespace that it counts in */
	uint64_t target;	   /* whom the agent was made for; a forked child has it too */
	uint64_t target_start;
	struct agent_pools pools;

	struct agent_slot slots[AGENT_SLOTS];
};

/* ---- CTL ---- */

#define AGENT_FLAG_TOTALS 1 /* keep agent_stack.allocs and .bytes (with sampling: by size) */

#define AGENT_FRAMES_MAX   256
#define AGENT_UNWIND_CACHE (1 << 14)
#define AGENT_NESTED	   2 /* recordings that one thread can have begun: itself, and a handler */

/* Values of agent_thread.key that are no thread pointer. */
#define AGENT_KEY_EMPTY	   0
#define AGENT_KEY_RECYCLED 1

/* Where nobody can tell which thread it is: its slot is not recycled. */
#define AGENT_TID_UNKNOWN 0xffffffffu

/*
 * A thread's slot. To recycle: the tracer sets `doubt` to 1 where `tid` does not exist and last_use
 * is old. A thread that uses the slot after all (thread pointers are used again) then takes
 * its tid anew and clears it. Where it is still set 2 s later, and the target was not stopped
 * meanwhile, the tracer sets `key` to AGENT_KEY_RECYCLED.
 */
struct agent_thread {
	uint64_t key;			  /* thread pointer, or AGENT_KEY_... */
	int64_t countdown;		  /* sampling: bytes up to the next sample point */
	int32_t calls;			  /* calls up to the next look at the lease */
	uint32_t tid;			  /* 0: being set up */
	uint32_t doubt;			  /* set by the tracer, cleared by the agent */
	uint32_t last_use;		  /* agent_ctl.now, at every look at the lease */
	uint64_t inside_sp;		  /* stack pointer at the call of an original; 0: none */
	uint64_t recording[AGENT_NESTED]; /* frame address of who uses scratch[i]; 0: nobody */
	uint64_t random;
	/* [low, high) of the thread's stack could be read at that time (agent_ctl.now). */
	uint64_t stack_low;
	uint64_t stack_high;
	uint32_t stack_time;
	uint32_t epoch; /* agent_ctl.epoch when countdown was drawn */
	uint32_t rate;	/* index of the rate by which it was */
	uint32_t spare[9];
};

struct agent_scratch {
	uint64_t frames[AGENT_NESTED][AGENT_FRAMES_MAX];
};

/* [start, end), private and writable. */
struct agent_range {
	uint64_t start; /* page aligned | AGENT_RANGE_STACK */
	uint64_t end;
};

#define AGENT_RANGES_BITS 16
#define AGENT_RANGES	  (1 << 14)
#define AGENT_SEEN_PAGES  4096
#define AGENT_RANGE_STACK 1 /* the first thread's stack */

struct agent_ctl {
	/* Read by every call. The agent itself stores AGENT_INACTIVE once the lease has run out. */
	uint32_t active;
	uint32_t flags;
	uint32_t now;	     /* ms, advanced by the tracer; the time of blocks */
	uint32_t max_frames; /* at most AGENT_FRAMES_MAX; 0: as that */
	uint64_t deadline;   /* the lease: ns of CLOCK_MONOTONIC_COARSE; without `clock`, TSC */
	/* Sampling: mean bytes between sample points, 1 to 2^40, and its index << AGENT_RATE_BITS.
	 * A thread takes a new one up when its countdown has run out. */
	uint64_t rate;
	uint64_t min_size; /* blocks outside of [min_size, max_size] are not recorded */
	uint64_t max_size;
	/* Limits, raised by the tracer when there is memory behind them. */
	uint64_t frames_limit; /* words that may be used at agent_config.frames */
	uint32_t live_levels;  /* levels that may be used, from the first on */
	uint32_t stack_levels;
	uint64_t seed; /* of the sampling; any */
	/* clock_gettime() of the vdso, which for that clock only reads memory; 0: it has none. */
	uint64_t clock;
	/* The memory that can be written, by address: `range_tables[sequence % 2]`, a number of
	 * them and before it the sequence << AGENT_RANGES_BITS. Who has looked sees here whether it
	 * was changed meanwhile. 0: nothing is known. */
	uint64_t ranges;
	uint32_t tid_offset; /* from a thread pointer to the thread's id (32 bits); 0: unknown */
	/* From a thread pointer to where glibc notes the thread's stack, which the agent finds out;
	 * 0: it has not yet. */
	uint32_t stack_offset;
	uint64_t spare[243];
	uint32_t epoch;	 /* countdowns that were drawn in another one are drawn anew */
	uint32_t guards; /* 1: what maps say can be read may have guards (MADV_GUARD_INSTALL) */
	uint8_t contexts[AGENT_CONTEXTS_SIZE]; /* saturating counters, see struct agent_pools */

	uint8_t sieve[1 << AGENT_SIEVE_BITS];
	uint8_t filter[AGENT_FILTER_SIZE];
	struct agent_thread threads[AGENT_THREADS];
	uint8_t pad[4096 - AGENT_THREADS * AGENT_THREAD_SIZE % 4096];
	/* Rules lately looked up (unwind_walk.h). To be cleared by who takes modules out of the
	 * unwind table. */
	uint64_t unwind_cache[AGENT_UNWIND_CACHE];
	struct agent_scratch scratch[AGENT_THREADS];
	struct unwind_guesses guesses[AGENT_THREADS];
	uint8_t pad2[4096 - AGENT_THREADS * sizeof(struct unwind_guesses) % 4096];
	struct agent_range range_tables[2][AGENT_RANGES];
	/* Pools: addresses of pages in which the program has lately got a block, direct-mapped.
	 * They may be too young for the ranges. */
	uint64_t seen_pages[AGENT_SEEN_PAGES];
};

static inline uint32_t agent_thread_index(uint64_t key)
{
	return (uint32_t)(key * AGENT_THREAD_FACTOR >> 32) & ((1u << AGENT_THREAD_BITS) - 1);
}

static inline uint32_t agent_sieve_index(uint64_t address)
{
	return (uint32_t)address * AGENT_SIEVE_FACTOR >> (32 - AGENT_SIEVE_BITS);
}

/* Neighbouring blocks have neighbouring counters: a program that frees in some order of addresses
 * has the filter in its cache. Recorded twice, counted twice; 255 stays. */
static inline uint32_t agent_filter_index(uint64_t address)
{
	return (uint32_t)(address >> 4 ^ address >> 20) & (AGENT_FILTER_SIZE - 1);
}

static inline uint32_t agent_context_index(uint64_t context)
{
	return (uint32_t)context * AGENT_SIEVE_FACTOR >> (32 - AGENT_CONTEXTS_BITS);
}

/* ---- SHM ---- */

struct agent_shm {
	char magic[16];	      /* set by the tracer, as the header's */
	uint64_t frames_used; /* words reserved at agent_config.frames; never beyond the limit */
	uint64_t spare[5];
	uint64_t sequence; /* struct agent_pools: of the last event. On a cache line of its own */
	uint64_t spare2[7];
};

/*
 * Counters of a thread slot (index + 1), exact, kept when the slot is recycled; those of index 0
 * are of all threads that found no slot.
 */
enum agent_counter {
	AGENT_COUNT_CALLS,	/* hooked calls that were looked at by agent_thread.calls: what
				 * was granted so far; minus `calls` is what was used */
	AGENT_COUNT_ALLOCS,	/* blocks entered into the live table */
	AGENT_COUNT_FREES,	/* blocks taken out of it */
	AGENT_COUNT_LOST,	/* blocks that should have been entered: */
	AGENT_COUNT_LOST_LIVE,	/* of these: no room in the live table */
	AGENT_COUNT_LOST_STACK, /* no room for the stack */
	AGENT_COUNT_LOST_BUSY,	/* in a handler that interrupted a handler that interrupted the
				 * agent */
	AGENT_COUNT_LOST_SLOT,	/* no thread slot */
	AGENT_COUNT_TRUNCATED,	/* stacks deeper than max_frames, or not walked to their end */
	AGENT_COUNT_FILTERED,	/* outside of [min_size, max_size] */
	AGENT_COUNT_FAILED,	/* the original failed */
	AGENT_COUNT_REPLACED,	/* entered at an address that was entered already: a free was missed
				 */
	AGENT_COUNT_NESTED,	/* the allocator's calls of itself */
	AGENT_COUNT_ABANDONED,	/* recorded calls that were left by longjmp: lost, too */
	AGENT_COUNT_BYTES,	/* asked for, of the blocks of AGENT_COUNT_ALLOCS */
	AGENT_COUNT_LOST_RESET, /* contexts that were emptied unseen: there were too many below one
				 */
	AGENT_COUNTERS = 16
};

struct agent_counters {
	uint64_t count[AGENT_COUNTERS];
};

/*
 * A stack, or with AGENT_FLAG_TOTALS and sampling also a pair of stack and size (and rate). Its id:
 * the number of entries in the levels before, plus its index. Linear probing, AGENT_STACK_PROBES
 * entries from hash & mask on (wrapping); then the next level. Never removed.
 */
#define AGENT_STACK_PROBES 16

struct agent_stack {
	uint64_t hash; /* 0: free */
	/*
	 * 0: not written yet (or never: who was to write it is gone). A stack: index of the first
	 * of its words (pcs, leaf first) << 16 | AGENT_STACK_TRUNCATED | number of frames.
	 * A pair: AGENT_STACK_PAIR | index of the rate << AGENT_STACK_RATE | id of the stack; its
	 * size is bytes / allocs.
	 * The first pc is the return address of the allocation function; all are return addresses
	 * but those with UNWIND_PC_EXACT (unwind_abi.h).
	 */
	uint64_t where;
	uint64_t allocs;
	uint64_t bytes;
};

#define AGENT_STACK_COUNT     0x0fff
#define AGENT_STACK_TRUNCATED 0x8000
#define AGENT_STACK_PAIR      0x8000000000000000
#define AGENT_STACK_RATE      32

/*
 * The live table: a block is in the bucket agent_hash(address) & mask of the first level, or if
 * that was full in bucket agent_hash(address) >> 32 & mask of it, or in the next level, and so on.
 * `overflow` of the former bucket tells how many have gone further.
 */
#define AGENT_BUCKET_BLOCKS 7

/* A key that is no address: the entry is being written. */
#define AGENT_KEY_RESERVED 1

struct agent_block {
	uint64_t size : 48; /* as asked for */
	uint64_t rate : 16; /* sampling: index of the rate that it was sampled at, below 256 */
	uint32_t stack;
	uint32_t time; /* agent_ctl.now when it was allocated */
};

struct agent_bucket {
	uint64_t keys[AGENT_BUCKET_BLOCKS]; /* addresses; 0: free */
	uint64_t overflow;
	struct agent_block blocks[AGENT_BUCKET_BLOCKS];
	uint64_t spare[2];
};

/*
 * Contexts in which a block was entered: linear probing, AGENT_CONTEXT_PROBES entries from
 * agent_hash(key) & mask on (wrapping). Never removed.
 */
#define AGENT_CONTEXT_PROBES 64

struct agent_context {
	uint64_t key;	 /* address; 0: free */
	uint64_t reset;	 /* the number of its last emptying; 0: never */
	uint64_t marked; /* 1: see struct agent_pools */
	uint64_t spare;
};

struct agent_owner {
	uint64_t context; /* 0: none */
	uint64_t sequence;
};

static inline uint64_t agent_hash(uint64_t address)
{
	uint64_t h = (address >> 3) * 0x9e3779b97f4a7c15;

	return h ^ h >> 29;
}

#define AGENT_ASSERT(what) _Static_assert(what, #what)
AGENT_ASSERT(sizeof(struct agent_template) == 20);
AGENT_ASSERT(sizeof(struct agent_header) <= AGENT_CONFIG_OFFSET);
AGENT_ASSERT(AGENT_CONFIG_OFFSET + sizeof(struct agent_config) <= AGENT_TEXT_OFFSET);
AGENT_ASSERT(sizeof(struct agent_slot) == AGENT_SLOT_SIZE);
AGENT_ASSERT(offsetof(struct agent_slot, original) == AGENT_SLOT_ORIGINAL);
AGENT_ASSERT(offsetof(struct agent_slot, direct) == AGENT_SLOT_DIRECT);
AGENT_ASSERT(sizeof(struct agent_thread) == AGENT_THREAD_SIZE);
AGENT_ASSERT(offsetof(struct agent_thread, key) == AGENT_THREAD_KEY);
AGENT_ASSERT(offsetof(struct agent_thread, countdown) == AGENT_THREAD_COUNTDOWN);
AGENT_ASSERT(offsetof(struct agent_thread, calls) == AGENT_THREAD_CALLS);
AGENT_ASSERT(offsetof(struct agent_thread, inside_sp) == AGENT_THREAD_INSIDE);
AGENT_ASSERT(offsetof(struct agent_ctl, active) == AGENT_CTL_ACTIVE);
AGENT_ASSERT(offsetof(struct agent_ctl, sieve) == AGENT_CTL_SIEVE);
AGENT_ASSERT(offsetof(struct agent_ctl, contexts) == AGENT_CTL_CONTEXTS);
AGENT_ASSERT(offsetof(struct agent_ctl, filter) == AGENT_CTL_FILTER);
AGENT_ASSERT(offsetof(struct agent_ctl, threads) == AGENT_CTL_THREADS);
AGENT_ASSERT(offsetof(struct agent_ctl, scratch) % 4096 == 0);
AGENT_ASSERT(sizeof(struct agent_ctl) == AGENT_CTL_SIZE && AGENT_CTL_SIZE % 4096 == 0);
AGENT_ASSERT(sizeof(struct agent_stack) == 32);
AGENT_ASSERT(sizeof(struct agent_block) == 16);
AGENT_ASSERT(sizeof(struct agent_bucket) == 192);
AGENT_ASSERT(sizeof(struct agent_shm) == 128 && offsetof(struct agent_shm, sequence) == 64);

/* The image, as it is part of memprobe; not for the agent. */
extern const uint8_t agent_image[], agent_image_end[];

#endif /* !__ASSEMBLER__ */
#endif
