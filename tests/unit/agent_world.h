/*
 * agent_world.h - the recording agent in the test's own process, as its tracer sets it up in a
 * target.
 */
#ifndef AGENT_WORLD_H
#define AGENT_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/abi.h"

struct agent_world {
	uint8_t *image;
	struct agent_header *header;
	struct agent_config *config;
	struct agent_ctl *ctl;

	int fd;
	uint8_t *shm;
	size_t shm_size;

	uint8_t *code;
	size_t code_used;
	unsigned slot_count;
	uint32_t mode; /* that hooks are made for */
};

/* Everything mapped, inactive, with room for about a million blocks; level 0 has @buckets. */
struct agent_world *world_create(uint64_t buckets);
void world_destroy(struct agent_world *world);

/* Active from now on, with a lease of @seconds. @rate is for AGENT_SAMPLING. */
void world_start(struct agent_world *world, uint32_t mode, uint64_t rate, unsigned seconds);
void world_lease(struct agent_world *world, unsigned seconds);
void world_stop(struct agent_world *world);

/* Adds a hook for @original; the address to be called in its place. From the template with
 * world->mode AGENT_SAMPLING. */
void *world_hook(struct agent_world *world, const struct agent_slot *slot, enum agent_entry entry);

/* The usual kinds. */
void *world_hook_malloc(struct agent_world *world, void *original);
void *world_hook_free(struct agent_world *world, void *original);
void *world_hook_realloc(struct agent_world *world, void *original);

/*
 * A function that begins as @code, of @size bytes, and is @slot's, hooked as it would be in a
 * target. *patch_ret: where, from its start.
 */
void *world_hook_code(struct agent_world *world, const struct agent_slot *slot,
		      enum agent_entry entry, const uint8_t *code, size_t size, unsigned arguments,
		      size_t *patch_ret);

/* Executes the first @size bytes of @function elsewhere, and goes on behind them: as after a hit of
 * a uprobe. */
void *world_probed(struct agent_world *world, const uint8_t *code, size_t size, void *function);

/* A function with a frame pointer that does nothing but to call @function; calls return to *ret_pc.
 */
void *world_path(struct agent_world *world, void *function, uint64_t *ret_pc);

/* The sum of a counter over all threads. */
uint64_t world_count(const struct agent_world *world, enum agent_counter counter);

/* A live block, and the innermost frame of its stack. */
struct world_block {
	uint64_t address;
	struct agent_block block;
	uint64_t pc;
	unsigned depth;
};

/* Calls @look for each; returns how many there are. @look may be NULL. */
size_t world_live(const struct agent_world *world,
		  void (*look)(const struct world_block *block, void *data), void *data);

/* The entry of a stack's id. */
struct agent_stack *world_stack(const struct agent_world *world, uint32_t id);
uint64_t world_stack_pc(const struct agent_world *world, const struct agent_stack *stack);

uint64_t world_tsc(void);

#endif
