/*
 * allocator.h - which malloc a target runs on, and what memprobe can do with it.
 *
 * All that is known of an allocator is one `const struct allocator_ops`. What it leaves NULL cannot
 * be done; who uses it asks for that (`ops->walk`), never for which allocator it is.
 *
 * To add an allocator: 1. src/heap/allocators/NAME.c with its `const struct allocator_ops
 * allocator_NAME`; 2. NAME in the list of src/heap/allocator.c.
 */
#ifndef MEMPROBE_ALLOCATOR_H
#define MEMPROBE_ALLOCATOR_H

#include "memprobe/elf_file.h"
#include "memprobe/malloc_code.h"
#include "memprobe/target.h"
#include "memprobe/thread_state.h"

struct allocator_caller;
struct call_text;
struct heap;
struct heap_block_vec;
struct heap_observer;
struct heap_stats;

/* ---- how it is recognised ---- */

/* A function that no other allocator has. */
enum allocator_mark_place {
	MARK_BESIDE_MALLOC = 1, /* in the module whose malloc() serves the program */
	/* In the program, under a name of its own beside libc's malloc: Redis, Rust, Ruby. */
	MARK_IN_PROGRAM = 2,
};

struct allocator_mark {
	const char *symbol; /* NULL: the end of the list */
	const char *prefix; /* that its own functions have then */
	unsigned places;    /* enum allocator_mark_place */
};

/* ---- what of it allocates ---- */

enum allocator_function_kind {
	FUNCTION_ALLOC,	  /* returns a block */
	FUNCTION_REALLOC, /* returns the block that was at @pointer */
	FUNCTION_RESIZE,  /* of the block at @pointer, in place; returns its size */
	FUNCTION_FREE,
};

#define FUNCTION_NO_ARGUMENT 0xff

/* One that is neither C's nor C++'s. */
struct allocator_function {
	const char *name; /* NULL: the end of the list */
	bool is_prefixed; /* behind the allocator's prefix */
	enum allocator_function_kind kind;
	/* Numbers of arguments, or FUNCTION_NO_ARGUMENT; the size is @size times @count. */
	uint8_t pointer, size, count;
	uint8_t arguments; /* that it has */
};

/* ---- where it keeps addresses of blocks ---- */

/* To a leak search they look like references of the program's. */
struct allocator_notes {
	/* As leak_options.erase. */
	void (*erase)(void *data, uint64_t address, uint8_t *bytes, size_t size);
	void (*destroy)(void *data);
	void *data;
};

/* Also of notes that are all zero. */
static inline void allocator_notes_deinit(struct allocator_notes *notes)
{
	if (notes->destroy)
		notes->destroy(notes->data);
}

/* ---- all of it ---- */

/* All but name and title may be NULL, false or 0. */
struct allocator_ops {
	const char *name;  /* as in the JSON's target.allocator */
	const char *title; /* for people: `glibc's malloc` */

	const struct allocator_mark *marks;
	enum libc_kind libc; /* it is that one's malloc; LIBC_NONE: no libc's */
	/* A module that is not libc's but whose malloc() is this one, with additions. */
	bool (*is_module)(const struct module *module);

	struct malloc_code code;

	const struct allocator_function *functions;
	bool has_operators; /* C++'s, in its module, that do not call its malloc() */
	/* Why its functions must not be hooked where @module serves; NULL: they may. */
	const char *(*refuse_hooks)(const struct module *module);

	/* Reads it from outside: fills a heap that has target, allocator and maps. @observer may be
	 * NULL. ERROR_UNSUPPORTED: no heap of its kind is there. */
	struct error *(*walk)(struct heap *heap, const struct heap_observer *observer);
	/* Which threads use which arena of a heap that was walked: adds them to the arenas. */
	struct error *(*add_threads)(const struct heap *heap, const struct thread_vec *threads,
				     struct heap_stats *stats);
	/* @states may be NULL. @blocks: as the program asked for them. */
	struct error *(*find_notes)(struct target *target, const struct thread_vec *threads,
				    const struct thread_state_vec *states,
				    const struct heap_block_vec *blocks,
				    struct allocator_notes *ret);

	/*
	 * By functions of its own, run in the target. Errors are those of call_run(); see
	 * allocator_calls.h.
	 */
	/* *ret is initialised. */
	struct error *(*stats)(struct allocator_caller *caller, struct heap_stats *ret);
	/* The allocator's own report for people. */
	struct error *(*text)(struct allocator_caller *caller, struct call_text *ret);
	/* ... and in XML. */
	struct error *(*xml)(struct allocator_caller *caller, struct call_text *ret);
	/*
	 * Gives free memory back to the kernel, all but @pad bytes at the top. *returned_ret is
	 * what the function returned, and stays as it is where that is void.
	 */
	struct error *(*trim)(struct allocator_caller *caller, uint64_t pad, int64_t *returned_ret);
	bool trim_has_pad;     /* else @pad is to be 0 */
	bool trim_is_foretold; /* it does to a heap what trim_forecast() says */
	/* Of one that has neither stats nor text: why, and what shows more; for a hint. */
	const char *no_figures;
};

struct allocator {
	const struct allocator_ops *ops; /* NULL: unknown */
	const char *name;		 /* its name; NULL: unknown */
	const char
		*prefix; /* static; before its own functions' names: `je_` as in je_mallctl; "" */
	struct module *module; /* that holds it; NULL: not found */
};

/*
 * The allocator that the program's malloc() calls end up in: the module whose `malloc` comes first
 * in link-map order, told by what else it exports; a jemalloc of prefixed names that the program
 * brings along counts before libc's. Static programs without symbols go by their libc. Reads ELF
 * files only. An unknown allocator is no error.
 */
struct error *allocator_detect(struct target *target, struct allocator *ret);

/* All that are known, in the order in which they are looked for; NULL at the end. */
extern const struct allocator_ops *const allocators[];

/* Titles of those of which @can is true, for people: `glibc's malloc, jemalloc and mimalloc`. */
#define ALLOCATOR_TITLES_MAX 160
void allocator_titles(bool (*can)(const struct allocator_ops *ops),
		      char text[ALLOCATOR_TITLES_MAX]);

#endif
