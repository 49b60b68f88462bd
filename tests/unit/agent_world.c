#include "agent_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "record/agent/hook_code.h"
#include "record/agent/relocate.h"

#define COUNTERS_OFFSET 4096
#define FRAMES_OFFSET	(1u << 20)
#define FRAMES_SIZE	(16u << 20)
#define STACKS_OFFSET	(FRAMES_OFFSET + FRAMES_SIZE)
#define STACKS_FIRST	1024 /* then 8 times as many */
#define STACKS_SIZE	((STACKS_FIRST + 8 * STACKS_FIRST) * sizeof(struct agent_stack))
#define LIVE_OFFSET	((STACKS_OFFSET + STACKS_SIZE + 4095) & -4096ul)
#define CODE_SIZE	0x10000

static void *map(size_t size, int protection, int flags, int fd)
{
	void *mapped = mmap(NULL, size, protection, flags, fd, 0);

	if (mapped == MAP_FAILED)
		abort();
	return mapped;
}

static void set_levels(struct agent_world *world, uint64_t buckets)
{
	struct agent_config *config = world->config;
	uint64_t at = (uint64_t)world->shm + STACKS_OFFSET, count = STACKS_FIRST;

	for (int i = 0; i < 2; i++, count *= 8) {
		config->stacks[i] = (struct agent_level){ at, count - 1 };
		at += count * sizeof(struct agent_stack);
	}
	at = (uint64_t)world->shm + LIVE_OFFSET;
	for (int i = 0; i < 3; i++, buckets *= 8) {
		config->live[i] = (struct agent_level){ at, buckets - 1 };
		at += buckets * sizeof(struct agent_bucket);
	}
	world->ctl->live_levels = 3;
	world->ctl->stack_levels = 2;
	world->ctl->frames_limit = FRAMES_SIZE / 8;
}

struct agent_world *world_create(uint64_t buckets)
{
	struct agent_world *world = calloc(1, sizeof(*world));
	size_t ctl_size = sizeof(struct agent_ctl);

	if (!world)
		abort();
	world->image = map(AGENT_IMAGE_SPACE + ctl_size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	memcpy(world->image, agent_image, (size_t)(agent_image_end - agent_image));
	world->header = (void *)world->image;
	world->config = (void *)(world->image + world->header->config_offset);
	world->ctl = (void *)(world->image + world->header->ctl_offset);
	if (mprotect(world->image + AGENT_TEXT_OFFSET, AGENT_IMAGE_SPACE - AGENT_TEXT_OFFSET,
		     PROT_READ | PROT_EXEC) ||
	    madvise(world->ctl, ctl_size, MADV_WIPEONFORK))
		abort();

	world->shm_size = LIVE_OFFSET + 73 * buckets * sizeof(struct agent_bucket);
	world->fd = memfd_create("memprobe", MFD_CLOEXEC);
	if (world->fd < 0 || ftruncate(world->fd, (off_t)world->shm_size))
		abort();
	world->shm = map(world->shm_size, PROT_READ | PROT_WRITE, MAP_SHARED, world->fd);
	world->code =
		map(CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	world->config->shm = (uint64_t)world->shm;
	world->config->counters = (uint64_t)world->shm + COUNTERS_OFFSET;
	world->config->frames = (uint64_t)world->shm + FRAMES_OFFSET;
	world->ctl->max_size = UINT64_MAX;
	world->ctl->seed = 42;
	set_levels(world, buckets);
	return world;
}

void world_destroy(struct agent_world *world)
{
	munmap(world->image, AGENT_IMAGE_SPACE + sizeof(struct agent_ctl));
	munmap(world->shm, world->shm_size);
	munmap(world->code, CODE_SIZE);
	close(world->fd);
	free(world);
}

uint64_t world_tsc(void)
{
	return __builtin_ia32_rdtsc();
}

void world_lease(struct agent_world *world, unsigned seconds)
{
	world->ctl->deadline = world_tsc() + seconds * 8000000000ul;
}

/* What the tracer would tell of this process. */
static void publish_ranges(struct agent_world *world)
{
	struct agent_ctl *ctl = world->ctl;
	uint64_t sequence = (ctl->ranges >> AGENT_RANGES_BITS) + 1, count = 0;
	struct agent_range *ranges = ctl->range_tables[sequence % 2];
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[512], perms[8];

	if (!maps)
		abort();
	while (count < AGENT_RANGES && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %4s", &start, &end, perms) == 3 && !strcmp(perms, "rw-p"))
			ranges[count++] = (struct agent_range){
				.start = start | (strstr(line, "[stack]") ? AGENT_RANGE_STACK : 0),
				.end = end,
			};
	fclose(maps);
	__atomic_store_n(&ctl->ranges, sequence << AGENT_RANGES_BITS | count, __ATOMIC_RELEASE);
}

void world_start(struct agent_world *world, uint32_t mode, uint64_t rate, unsigned seconds)
{
	world->ctl->rate = rate;
	publish_ranges(world);
	world_lease(world, seconds);
	__atomic_store_n(&world->ctl->active, mode, __ATOMIC_SEQ_CST);
}

void world_stop(struct agent_world *world)
{
	__atomic_store_n(&world->ctl->active, AGENT_INACTIVE, __ATOMIC_SEQ_CST);
}

/* ---- code ---- */

static void emit(struct agent_world *world, const void *bytes, size_t size)
{
	if (world->code_used + size > CODE_SIZE)
		abort();
	memcpy(world->code + world->code_used, bytes, size);
	world->code_used += size;
}

static void *emit_start(struct agent_world *world)
{
	world->code_used = (world->code_used + 15) & ~15ul;
	return world->code + world->code_used;
}

void *world_hook(struct agent_world *world, const struct agent_slot *slot, enum agent_entry entry)
{
	unsigned index = world->slot_count++;
	struct hook_code hook;
	uint8_t *start;

	if (world->slot_count > AGENT_SLOTS)
		abort();
	hook_code_make(&hook, (uint64_t)world->image, index, entry, world->mode);
	start = emit_start(world);
	world->config->slots[index] = *slot;
	emit(world, hook.bytes, hook.size);
	emit(world, "\xff\x25\0\0\0\0", 6); /* jmp *(%rip): as the relocated function goes on */
	emit(world, &slot->original, 8);
	return start + hook.begin;
}

void *world_hook_code(struct agent_world *world, const struct agent_slot *slot,
		      enum agent_entry entry, const uint8_t *code, size_t size, unsigned arguments,
		      size_t *patch_ret)
{
	unsigned index = world->slot_count++;
	uint8_t *function = emit_start(world), *start;
	struct relocated moved;
	struct hook_code hook;

	emit(world, code, size);
	hook_code_make(&hook, (uint64_t)world->image, index, entry, world->mode);
	start = emit_start(world);
	if (world->slot_count > AGENT_SLOTS ||
	    relocate_function(function, size, (uint64_t)function, (uint64_t)start + hook.size,
			      arguments, &moved))
		abort();
	hook_code_undo(&hook, &moved.undo);
	world->config->slots[index] = *slot;
	world->config->slots[index].original = (uint64_t)start + hook.size;
	emit(world, hook.bytes, hook.size);
	emit(world, moved.code, moved.size);
	*patch_ret = moved.patch_offset;
	if (!relocate_jump((uint64_t)function + moved.patch_offset, (uint64_t)start + hook.begin,
			   function + moved.patch_offset))
		abort();
	return function;
}

void *world_probed(struct agent_world *world, const uint8_t *code, size_t size, void *function)
{
	uint64_t behind = (uint64_t)function + size;
	void *start = emit_start(world);

	emit(world, code, size);
	emit(world, "\xff\x25\0\0\0\0", 6);
	emit(world, &behind, 8);
	return start;
}

void *world_hook_malloc(struct agent_world *world, void *original)
{
	struct agent_slot slot = { .original = (uint64_t)original,
				   .kind = AGENT_KIND_ALLOC,
				   .arg_size = 0,
				   .arg_pointer = AGENT_NO_ARG,
				   .arg_count = AGENT_NO_ARG,
				   .arg_context = AGENT_NO_ARG };

	return world_hook(world, &slot, AGENT_ENTRY_SIZE_FIRST);
}

void *world_hook_free(struct agent_world *world, void *original)
{
	struct agent_slot slot = { .original = (uint64_t)original,
				   .kind = AGENT_KIND_FREE,
				   .arg_size = AGENT_NO_ARG,
				   .arg_pointer = 0,
				   .arg_count = AGENT_NO_ARG,
				   .arg_context = AGENT_NO_ARG };

	return world_hook(world, &slot, AGENT_ENTRY_FREE);
}

void *world_hook_realloc(struct agent_world *world, void *original)
{
	struct agent_slot slot = { .original = (uint64_t)original,
				   .kind = AGENT_KIND_REALLOC,
				   .arg_size = 1,
				   .arg_pointer = 0,
				   .arg_count = AGENT_NO_ARG,
				   .arg_context = AGENT_NO_ARG };

	return world_hook(world, &slot, AGENT_ENTRY_REALLOC);
}

void *world_path(struct agent_world *world, void *function, uint64_t *ret_pc)
{
	void *start = emit_start(world);

	emit(world, "\x55\x48\x89\xe5\x49\xba", 6); /* push, mov; movabs $function, %r10 */
	emit(world, &function, 8);
	emit(world, "\x41\xff\xd2", 3); /* call *%r10 */
	if (ret_pc)
		*ret_pc = (uint64_t)world->code + world->code_used;
	emit(world, "\x5d\xc3", 2); /* pop, ret */
	return start;
}

/* ---- reading ---- */

uint64_t world_count(const struct agent_world *world, enum agent_counter counter)
{
	const struct agent_counters *counters = (const void *)world->config->counters;
	uint64_t sum = 0;

	for (int i = 0; i <= AGENT_THREADS; i++)
		sum += counters[i].count[counter];
	return sum;
}

struct agent_stack *world_stack(const struct agent_world *world, uint32_t id)
{
	const struct agent_level *level = world->config->stacks;

	for (; id > level->mask; level++)
		id -= (uint32_t)level->mask + 1;
	return (struct agent_stack *)level->address + id;
}

uint64_t world_stack_pc(const struct agent_world *world, const struct agent_stack *stack)
{
	if (!stack->where)
		return 0;
	return ((const uint64_t *)world->config->frames)[stack->where >> 16];
}

size_t world_live(const struct agent_world *world,
		  void (*look)(const struct world_block *block, void *data), void *data)
{
	size_t count = 0;

	for (unsigned l = 0; l < world->ctl->live_levels; l++) {
		const struct agent_level *level = &world->config->live[l];

		for (uint64_t i = 0; i < (level->mask + 1) * AGENT_BUCKET_BLOCKS; i++) {
			const struct agent_bucket *bucket =
				(const struct agent_bucket *)level->address +
				i / AGENT_BUCKET_BLOCKS;
			struct world_block found = {
				.address = bucket->keys[i % AGENT_BUCKET_BLOCKS],
				.block = bucket->blocks[i % AGENT_BUCKET_BLOCKS],
			};
			const struct agent_stack *stack;

			if (!found.address || found.address == AGENT_KEY_RESERVED)
				continue;
			count++;
			if (!look)
				continue;
			stack = world_stack(world, found.block.stack);
			found.pc = world_stack_pc(world, stack);
			found.depth = stack->where & AGENT_STACK_COUNT;
			look(&found, data);
		}
	}
	return count;
}
