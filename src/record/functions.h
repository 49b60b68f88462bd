/*
 * functions.h - which functions of a target allocate and free. Private to record/.
 *
 * Those of an allocator alone are in its ops (allocator.h), C's and C++'s in functions.c.
 */
#ifndef RECORD_FUNCTIONS_H
#define RECORD_FUNCTIONS_H

#include "agent/abi.h"
#include "memprobe/allocator.h"
#include "memprobe/call.h"
#include "memprobe/trace.h"
#include "memprobe/vec.h"

/* What the agent is told about a function. */
struct function_spec {
	const char *name; /* behind the allocator's prefix */
	enum agent_kind kind;
	enum agent_entry entry;
	uint8_t pointer, size, count; /* arguments, or AGENT_NO_ARG */
	bool swap;		      /* AGENT_KIND_NEW: with an alignment */
	unsigned family;	      /* enum function_family */
	uint8_t arguments;	      /* that it has at most; 0: not known */
};

enum function_family {
	FAMILY_C = 1,	/* under the allocator's prefix */
	FAMILY_CXX = 2, /* operators: only of allocators whose own do not reach malloc */
	FAMILY_OWN = 4, /* the allocator's, without its prefix */
};

struct function {
	const struct function_spec *spec;
	struct function_spec *owned_spec; /* NULL: it is in a table */
	char name[64];
	uint64_t address, size;
	struct module *module;
	/* As they stand in the target, at most FUNCTION_BYTES_MAX; owned. */
	uint8_t *code;
	size_t code_size;
	/* In the target a breakpoint stands at its beginning; the first byte of @code is the
	 * file's.
	 */
	bool has_breakpoint;
	bool is_jump;	     /* leads to another of them: private to functions_find() */
	unsigned slot;	     /* its number plus 1; 0: it has none. Private to hooks.c */
	const char *refused; /* static; NULL: nothing speaks against it yet */
	/* The record is right without it. */
	bool is_optional;
	/* ... and as in struct agent_slot. */
	enum agent_context_form context_form;
	enum agent_size_form size_form;
	uint8_t context, flags;
	uint64_t context_word;
	int64_t size_word;
};

#define FUNCTION_BYTES_MAX (64u << 10)

VEC_DEFINE(function_vec, struct function)

void functions_deinit(struct function_vec *functions);

/*
 * Every one that the serving allocator has, each address once. *text_start_ret, *text_end_ret: what
 * calls from there while an allocation is going on belongs to it. ERROR_UNSUPPORTED: there is none,
 * or the allocator is one that must not be hooked. @session, open on the target, is for functions
 * that a resolver has to be asked for (IFUNC); NULL: they are left out.
 */
struct error *functions_find(struct target *target, struct call_session *session,
			     const struct allocator *allocator, struct function_vec *ret,
			     uint64_t *text_start_ret, uint64_t *text_end_ret);

/* Reads the code of a function that has been found and checks that nobody else has changed it, but
 * for a breakpoint at its beginning. */
struct error *function_read(struct target *target, struct function *function);

/*
 * Tells in @hooks of all of them. ERROR_UNSUPPORTED: without one that is refused, and not optional,
 * the record would be nonsense. @recorded: `hooked`, `probed`.
 */
struct error *functions_tell(const struct function_vec *functions, const struct target *target,
			     const char *recorded, struct trace_hook_vec *hooks);

/* ---- pool_functions.c ---- */

struct pool_file;

/*
 * The functions of a pool. *pools_ret gets what the agent is to know of contexts, but not where its
 * tables are. *text_start_ret, *text_end_ret: where the functions lie. ERROR_USAGE, with the place
 * in the file: the target has no such symbol or parameter.
 */
struct error *functions_find_pool(struct target *target, const struct pool_file *file,
				  struct function_vec *ret, struct agent_pools *pools_ret,
				  uint64_t *text_start_ret, uint64_t *text_end_ret);

#endif
