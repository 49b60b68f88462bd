/*
 * runtime.h - runtimes that hand out memory themselves, read from outside.
 *
 * A runtime has objects with a type and a size which belong to each other: PostgreSQL's memory
 * contexts. No allocator knows of them. They may lie in blocks of one (heap_find() tells) or in
 * mappings that the runtime made for itself. There can be many millions: a runtime passes them on
 * one by one, and who needs them all keeps them (runtime_read()). Nothing is stopped and nothing
 * runs in the target.
 *
 * To add a runtime: 1. src/heap/runtimes/NAME.c with its `const struct runtime_ops runtime_NAME`;
 * 2. NAME in the list of src/heap/runtime.c.
 */
#ifndef MEMPROBE_RUNTIME_H
#define MEMPROBE_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/target.h"
#include "memprobe/vec.h"

#define RUNTIME_UNKNOWN	 UINT64_MAX
#define RUNTIME_NO_OWNER UINT32_MAX

struct runtime_object {
	uint64_t address;
	uint64_t size;	/* bytes that it has in all, its header included */
	char *type;	/* as its runtime has it: a class, the name of a context */
	char *label;	/* which of its type it is: the SQL text of a plan; NULL: nothing tells */
	uint32_t owner; /* number of the object that it belongs to, which came before it */
	uint32_t level; /* 0: it has no owner */
	/* Of one that hands out memory: how (static; NULL: another way), in how many pieces it has
	 * its own from the allocator, and what of that is free. RUNTIME_UNKNOWN. */
	const char *kind;
	uint64_t blocks, free, free_chunks;
};

VEC_DEFINE(runtime_object_vec, struct runtime_object)

/* Links or figures disagree, or two readings did: it was at work, or is corrupt. What was found up
 * to there counts. */
struct runtime_state {
	bool is_inconsistent;
	char issue[160]; /* one line */
};

struct runtime_sink {
	/* Numbers count up from 0 in the order of the calls; the texts are lent for the call. An
	 * error ends the reading. */
	struct error *(*object)(void *data, const struct runtime_object *object);
	void *data;
};

struct runtime_ops {
	const char *name;  /* as its file */
	const char *title; /* for people: `PostgreSQL` */
	bool has_owners;   /* its objects form a tree */
	/* Where its data begin. ERROR_UNSUPPORTED: it is not in the target, or cannot be read. */
	struct error *(*find)(struct target *target, uint64_t *root_ret);
	/*
	 * Reads all objects, again and again up to @tries times until two readings in succession
	 * are alike (once, if @tries is 1: for what stands still), then passes them on. *ret is
	 * zeroed. ERROR_UNSUPPORTED: nothing is there, or a version that is not known. ERROR_FAULT:
	 * the root cannot be read.
	 */
	struct error *(*read)(struct target *target, uint64_t root, unsigned tries,
			      const struct runtime_sink *sink, struct runtime_state *ret);
};

struct runtime {
	const struct runtime_ops *ops;
	uint64_t root;
};

/* The runtime that the target has, of those of which @can is true. ERROR_UNSUPPORTED: none. */
struct error *runtime_detect(struct target *target, bool (*can)(const struct runtime_ops *ops),
			     struct runtime *ret);

/* ... whose objects form a tree. */
bool runtime_has_owners(const struct runtime_ops *ops);

/* All objects. */
struct runtime_objects {
	struct runtime_object_vec objects; /* owners before what belongs to them, depth first */
	uint64_t size;			   /* of all */
	struct runtime_state state;
};

/* As ops->read. *ret has to be zeroed; deinit it also after an error. */
struct error *runtime_read(const struct runtime *runtime, struct target *target, unsigned tries,
			   struct runtime_objects *ret);

void runtime_objects_deinit(struct runtime_objects *objects);

#endif
