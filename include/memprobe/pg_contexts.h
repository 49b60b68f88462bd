/*
 * pg_contexts.h - the memory contexts of a PostgreSQL process, read from outside.
 *
 * A backend takes memory from malloc in large blocks and hands it out by contexts, which form a
 * tree from TopMemoryContext on: what pg_backend_memory_contexts shows of the own session. Figures
 * are the same here (src/backend/utils/mmgr, PostgreSQL 9.6 to 17, 64-bit release builds): which
 * version it is is told by which layout is consistent. Nothing is stopped and nothing runs.
 */
#ifndef MEMPROBE_PG_CONTEXTS_H
#define MEMPROBE_PG_CONTEXTS_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/target.h"
#include "memprobe/vec.h"

#define PG_CONTEXT_NONE	   UINT32_MAX
#define PG_CONTEXT_UNKNOWN UINT64_MAX

enum pg_context_kind {
	PG_CONTEXT_ALLOC_SET,  /* the ordinary one */
	PG_CONTEXT_GENERATION, /* or bump: blocks that are filled once */
	PG_CONTEXT_OTHER,      /* slab; its total alone is known */
};

struct pg_context {
	uint64_t address;
	char *name;	 /* owned; what tells more than that it is a hash table: its ident */
	char *ident;	 /* owned; e.g. the SQL text of a plan; NULL: none */
	uint32_t parent; /* index; PG_CONTEXT_NONE: the top */
	uint32_t level;	 /* 0: the top */
	enum pg_context_kind kind;
	uint64_t total;	      /* bytes that it has from malloc, its header included */
	uint64_t blocks;      /* ... in so many pieces; PG_CONTEXT_UNKNOWN */
	uint64_t free;	      /* of the total; PG_CONTEXT_UNKNOWN */
	uint64_t free_chunks; /* given back by pfree() and kept; PG_CONTEXT_UNKNOWN */
};

VEC_DEFINE(pg_context_vec, struct pg_context)

struct pg_contexts {
	struct pg_context_vec contexts; /* parents before their children, depth first */
	uint64_t total;			/* of all */
	/* Links or figures disagree, or two readings did: it was at work, or is corrupt. What was
	 * found up to there is there; `issue` says what, one line. */
	bool is_inconsistent;
	char issue[160];
};

/* Where the variable TopMemoryContext stands. ERROR_UNSUPPORTED: no PostgreSQL, or none that
 * exports it. */
struct error *pg_contexts_find(struct target *target, uint64_t *variable_ret);

/*
 * Reads the tree, again and again up to @tries times until two readings in succession are alike
 * (once, if @tries is 1: for what stands still). ERROR_UNSUPPORTED: no tree is there, or a layout
 * that is not known. ERROR_FAULT: the variable cannot be read. *ret has to be zeroed; deinit it
 * also after an error.
 */
struct error *pg_contexts_read(struct target *target, uint64_t variable, unsigned tries,
			       struct pg_contexts *ret);

void pg_contexts_deinit(struct pg_contexts *contexts);

#endif
