/*
 * stack_set.h - call stacks as addresses, each kept once and known by a number.
 *
 * A stack is what an unwinder gives, leaf first: addresses that are returned to, and, marked by
 * STACK_PC_EXACT, those at which a thread was interrupted. Numbers count from 0 without gaps; what
 * a number stands for never moves or changes.
 */
#ifndef MEMPROBE_STACK_SET_H
#define MEMPROBE_STACK_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"

#define STACK_NONE     UINT32_MAX
#define STACK_PC_EXACT (1ull << 63)

struct stack_set;

struct error *stack_set_create(struct stack_set **ret);
void stack_set_destroy(struct stack_set *set);
CLEANUP_DEFINE(stack_set, struct stack_set *, stack_set_destroy)

/* @truncated: the stack goes on beyond; such a one is another than the same without. */
struct error *stack_set_add(struct stack_set *set, const uint64_t *pcs, size_t depth,
			    bool truncated, uint32_t *id_ret);

/* The set owns the result. */
const uint64_t *stack_set_get(const struct stack_set *set, uint32_t id, size_t *depth_ret,
			      bool *truncated_ret);

size_t stack_set_size(const struct stack_set *set);

#endif
