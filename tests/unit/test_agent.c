/*
 * test_agent.c - the recording agent, in this process: what it records equals what was done.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "agent_world.h"

typedef void *(*malloc_fn)(size_t);
typedef void *(*two_fn)(size_t, size_t);
typedef void *(*realloc_fn)(void *, size_t);
typedef void *(*reallocarray_fn)(void *, size_t, size_t);
typedef int (*posix_memalign_fn)(void **, size_t, size_t);
typedef void (*free_fn)(void *);

#define NONE AGENT_NO_ARG

/* ---- exactness ---- */

enum { MALLOC, CALLOC, REALLOC, REALLOCARRAY, MEMALIGN, ALIGNED, POSIX, VALLOC, KINDS };

#define PATHS  64 /* KINDS * 8 */
#define BLOCKS 4096
#define ROUNDS 12000

struct truth {
	int64_t bytes[PATHS], count[PATHS];
};

struct block {
	void *address;
	size_t size;
	unsigned path;
};

struct exact {
	struct agent_world *world;
	void *paths[PATHS];
	uint64_t pcs[PATHS];
	void *free_hook;
	pthread_mutex_t lock[64];
	struct block blocks[BLOCKS];
	struct truth truth; /* by atomic additions */
};

static void *hook_kind(struct agent_world *world, int kind)
{
	static const struct {
		void *original;
		uint8_t kind, pointer, size, count;
		enum agent_entry entry;
	} kinds[KINDS] = {
		[MALLOC] = { malloc, AGENT_KIND_ALLOC, NONE, 0, NONE, AGENT_ENTRY_SIZE_FIRST },
		[CALLOC] = { calloc, AGENT_KIND_ALLOC, NONE, 0, 1, AGENT_ENTRY_PRODUCT },
		[REALLOC] = { realloc, AGENT_KIND_REALLOC, 0, 1, NONE, AGENT_ENTRY_REALLOC },
		[REALLOCARRAY] = { reallocarray, AGENT_KIND_REALLOC, 0, 1, 2, AGENT_ENTRY_ANY },
		[MEMALIGN] = { memalign, AGENT_KIND_ALLOC, NONE, 1, NONE, AGENT_ENTRY_SIZE_SECOND },
		[ALIGNED] = { aligned_alloc, AGENT_KIND_ALLOC, NONE, 1, NONE,
			      AGENT_ENTRY_SIZE_SECOND },
		[POSIX] = { posix_memalign, AGENT_KIND_ALLOC_AT, 0, 2, NONE, AGENT_ENTRY_ANY },
		[VALLOC] = { valloc, AGENT_KIND_ALLOC, NONE, 0, NONE, AGENT_ENTRY_SIZE_FIRST },
	};
	struct agent_slot slot = {
		.original = (uint64_t)kinds[kind].original,
		.kind = kinds[kind].kind,
		.arg_pointer = kinds[kind].pointer,
		.arg_size = kinds[kind].size,
		.arg_count = kinds[kind].count,
		.arg_context = NONE,
	};

	return world_hook(world, &slot, kinds[kind].entry);
}

static void *allocate(int kind, void *function, void *old, size_t size)
{
	void *result = NULL;

	switch (kind) {
	case CALLOC:
		return ((two_fn)function)(size / 8, 8);
	case REALLOC:
		return ((realloc_fn)function)(old, size);
	case REALLOCARRAY:
		return ((reallocarray_fn)function)(old, size / 8, 8);
	case MEMALIGN:
	case ALIGNED:
		return ((two_fn)function)(64, size);
	case POSIX:
		assert_int_equal(((posix_memalign_fn)function)(&result, 32, size), 0);
		return result;
	default:
		return ((malloc_fn)function)(size);
	}
}

static void tally(struct exact *exact, const struct block *block, int sign)
{
	__atomic_fetch_add(&exact->truth.bytes[block->path], sign * (int64_t)block->size,
			   __ATOMIC_RELAXED);
	__atomic_fetch_add(&exact->truth.count[block->path], sign, __ATOMIC_RELAXED);
}

static void exact_round(struct exact *exact, unsigned *random)
{
	unsigned place = (unsigned)rand_r(random) % BLOCKS, path = (unsigned)rand_r(random) % PATHS;
	struct block *block = &exact->blocks[place];
	int kind = (int)path / 8;
	bool again = kind == REALLOC || kind == REALLOCARRAY;
	size_t size = 64 * (1 + (size_t)rand_r(random) % 16);

	/* Any thread frees what any other has allocated. */
	pthread_mutex_lock(&exact->lock[place % 64]);
	if (block->address && !again) {
		tally(exact, block, -1);
		((free_fn)exact->free_hook)(block->address);
		block->address = NULL;
	}
	if (again || rand_r(random) % 4) {
		void *old = again ? block->address : NULL;

		if (old)
			tally(exact, block, -1);
		*block =
			(struct block){ allocate(kind, exact->paths[path], old, size), size, path };
		tally(exact, block, 1);
	}
	pthread_mutex_unlock(&exact->lock[place % 64]);
}

struct worker {
	struct exact *exact;
	unsigned seed;
};

static void *exact_work(void *data)
{
	struct worker *worker = data;

	for (int i = 0; i < ROUNDS; i++)
		exact_round(worker->exact, &worker->seed);
	return NULL;
}

struct found {
	const struct exact *exact;
	struct truth truth;
	size_t strangers;
};

static void add_found(const struct world_block *block, void *data)
{
	struct found *found = data;

	for (int i = 0; i < PATHS; i++) {
		if (block->pc != found->exact->pcs[i])
			continue;
		found->truth.bytes[i] += block->block.size;
		found->truth.count[i]++;
		return;
	}
	found->strangers++;
}

static void compare_truth(struct exact *exact)
{
	struct found found = { .exact = exact };

	world_live(exact->world, add_found, &found);
	assert_int_equal(found.strangers, 0);
	for (int i = 0; i < PATHS; i++) {
		assert_int_equal(found.truth.bytes[i], exact->truth.bytes[i]);
		assert_int_equal(found.truth.count[i], exact->truth.count[i]);
	}
	assert_int_equal(world_count(exact->world, AGENT_COUNT_LOST), 0);
	assert_int_equal(world_count(exact->world, AGENT_COUNT_REPLACED), 0);
}

static void check_exact(int threads)
{
	struct exact *exact = calloc(1, sizeof(*exact));
	pthread_t thread[8];
	struct worker workers[8];
	void *hooks[KINDS];

	assert_non_null(exact);
	/* A small first level, so that much overflows into the next ones. */
	exact->world = world_create(256);
	for (int i = 0; i < KINDS; i++)
		hooks[i] = hook_kind(exact->world, i);
	for (int i = 0; i < PATHS; i++)
		exact->paths[i] = world_path(exact->world, hooks[i / 8], &exact->pcs[i]);
	for (int i = 0; i < 64; i++)
		pthread_mutex_init(&exact->lock[i], NULL);
	exact->free_hook = world_hook_free(exact->world, free);
	world_start(exact->world, AGENT_EXACT, 0, 3600);
	for (int i = 0; i < threads; i++) {
		workers[i] = (struct worker){ exact, (unsigned)i + 1 };
		assert_int_equal(pthread_create(&thread[i], NULL, exact_work, &workers[i]), 0);
	}
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(exact->world->ctl->active, AGENT_EXACT);
	compare_truth(exact);
	for (int i = 0; i < BLOCKS; i++)
		((free_fn)exact->free_hook)(exact->blocks[i].address);
	assert_int_equal(world_live(exact->world, NULL, NULL), 0);
	world_destroy(exact->world);
	free(exact);
}

static void test_exact_2_threads(void **state)
{
	check_exact(2);
}

static void test_exact_8_threads(void **state)
{
	check_exact(8);
}

/* ---- an allocator that does as it is told ---- */

static void *fake_returns;
static unsigned fake_calls;
static void *(*fake_nested)(size_t);

static void *fake_malloc(size_t size)
{
	fake_calls++;
	if (fake_nested)
		return fake_nested(size);
	return fake_returns;
}

static void *fake_realloc(void *old, size_t size)
{
	fake_calls++;
	return fake_returns;
}

static void fake_free(void *block)
{
	fake_calls++;
}

struct fakes {
	struct agent_world *world;
	malloc_fn malloc;
	realloc_fn realloc;
	free_fn free;
};

static struct fakes fakes_create(uint32_t mode, uint64_t rate)
{
	struct fakes f = { .world = world_create(64) };

	f.malloc = (malloc_fn)world_hook_malloc(f.world, fake_malloc);
	f.realloc = (realloc_fn)world_hook_realloc(f.world, fake_realloc);
	f.free = (free_fn)world_hook_free(f.world, fake_free);
	fake_nested = NULL;
	fake_calls = 0;
	if (mode)
		world_start(f.world, mode, rate, 3600);
	return f;
}

static void last_block(const struct world_block *block, void *data)
{
	*(struct world_block *)data = *block;
}

static size_t the_block(const struct fakes *f, struct world_block *block)
{
	memset(block, 0, sizeof(*block));
	return world_live(f->world, last_block, block);
}

#define AT(n) ((void *)(0x10000000ul + (n)*16ul))

static void test_realloc_cases(void **state)
{
	struct fakes f = fakes_create(AGENT_EXACT, 0);
	struct world_block block;

	fake_returns = AT(1);
	assert_ptr_equal(f.realloc(NULL, 100), AT(1));
	assert_int_equal(the_block(&f, &block), 1);
	assert_int_equal(block.block.size, 100);

	/* In place, moved, failing. */
	f.realloc(AT(1), 200);
	assert_int_equal(the_block(&f, &block), 1);
	assert_int_equal(block.block.size, 200);
	fake_returns = AT(2);
	f.realloc(AT(1), 300);
	assert_int_equal(the_block(&f, &block), 1);
	assert_int_equal(block.address, (uint64_t)AT(2));
	fake_returns = NULL;
	assert_null(f.realloc(AT(2), 400));
	assert_int_equal(the_block(&f, &block), 1);
	assert_int_equal(block.address, (uint64_t)AT(2));
	assert_int_equal(block.block.size, 300);
	assert_null(f.realloc(AT(2), SIZE_MAX));
	assert_int_equal(the_block(&f, &block), 1);

	/* Size 0: freed, or a block of no bytes. */
	fake_returns = AT(3);
	f.realloc(AT(2), 0);
	assert_int_equal(the_block(&f, &block), 1);
	assert_int_equal(block.address, (uint64_t)AT(3));
	assert_int_equal(block.block.size, 0);
	fake_returns = NULL;
	f.realloc(AT(3), 0);
	assert_int_equal(the_block(&f, &block), 0);

	/* Failures are no blocks. */
	assert_null(f.malloc(10));
	assert_int_equal(the_block(&f, &block), 0);
	assert_int_equal(world_count(f.world, AGENT_COUNT_LOST), 0);
	assert_int_equal(world_count(f.world, AGENT_COUNT_FAILED), 2);
	f.free(NULL);
	world_destroy(f.world);
}

static void test_limits(void **state)
{
	struct fakes f = fakes_create(AGENT_EXACT, 0);
	uint64_t pc, frames_limit = f.world->ctl->frames_limit;
	malloc_fn other = (malloc_fn)world_path(f.world, (void *)f.malloc, &pc);

	/* The live table: 64 buckets of the first level only. */
	f.world->ctl->live_levels = 1;
	for (int i = 0; i < 1000; i++) {
		fake_returns = AT(i);
		f.malloc(8);
	}
	assert_int_equal(world_live(f.world, NULL, NULL) +
				 world_count(f.world, AGENT_COUNT_LOST_LIVE),
			 1000);
	assert_in_range(world_live(f.world, NULL, NULL), 400, 448);
	assert_int_equal(world_count(f.world, AGENT_COUNT_LOST),
			 world_count(f.world, AGENT_COUNT_LOST_LIVE));
	for (int i = 0; i < 1000; i++)
		f.free(AT(i));
	assert_int_equal(world_live(f.world, NULL, NULL), 0);
	for (uint64_t i = 0; i <= f.world->config->live[0].mask; i++)
		assert_int_equal(
			((struct agent_bucket *)f.world->config->live[0].address)[i].overflow, 0);

	/* Raised: all find room. */
	f.world->ctl->live_levels = 3;
	for (int i = 0; i < 1000; i++) {
		fake_returns = AT(i);
		f.malloc(8);
	}
	assert_int_equal(world_live(f.world, NULL, NULL), 1000);

	/* Stacks: no room for another's frames, then there is. */
	f.world->ctl->frames_limit = ((struct agent_shm *)f.world->shm)->frames_used;
	fake_returns = AT(2000);
	other(8);
	assert_int_equal(world_live(f.world, NULL, NULL), 1000);
	assert_int_equal(world_count(f.world, AGENT_COUNT_LOST_STACK), 1);
	f.world->ctl->frames_limit = frames_limit;
	other(8);
	assert_int_equal(world_live(f.world, NULL, NULL), 1001);
	f.world->ctl->stack_levels = 0;
	fake_returns = AT(2001);
	other(8);
	assert_int_equal(world_live(f.world, NULL, NULL), 1001);
	assert_int_equal(world_count(f.world, AGENT_COUNT_LOST_STACK), 2);
	world_destroy(f.world);
}

static void test_size_filter_and_totals(void **state)
{
	struct fakes f = fakes_create(AGENT_EXACT, 0);
	struct world_block block;

	f.world->ctl->flags = AGENT_FLAG_TOTALS;
	f.world->ctl->min_size = 100;
	f.world->ctl->max_size = 200;
	fake_returns = AT(1);
	f.malloc(99);
	f.malloc(201);
	assert_int_equal(the_block(&f, &block), 0);
	assert_int_equal(world_count(f.world, AGENT_COUNT_FILTERED), 2);
	for (int i = 0; i < 10; i++) {
		f.malloc(100 + 10 * (size_t)i);
		f.free(AT(1));
	}
	f.malloc(200);
	assert_int_equal(the_block(&f, &block), 1);
	/* Two call sites here: the loop's ten and the last one. */
	assert_int_equal(world_stack(f.world, block.block.stack)->allocs, 1);
	assert_int_equal(world_stack(f.world, block.block.stack)->bytes, 200);
	/* Out of the range by realloc: gone. */
	f.realloc(AT(1), 50);
	assert_int_equal(the_block(&f, &block), 0);
	world_destroy(f.world);
}

/* A free that no hook saw: the address is given out once more. */
static void test_missed_free(void **state)
{
	struct fakes f = fakes_create(AGENT_EXACT, 0);
	struct world_block block;

	fake_returns = AT(7);
	f.malloc(10);
	f.malloc(20);
	assert_int_equal(the_block(&f, &block), 1);
	assert_int_equal(block.block.size, 20);
	assert_int_equal(world_count(f.world, AGENT_COUNT_REPLACED), 1);
	world_destroy(f.world);
}

/* The allocator calls its own entry; so does a caller elsewhere, while it runs. */
static void test_nested(void **state)
{
	struct fakes f = fakes_create(AGENT_EXACT, 0);
	struct agent_world *w = f.world;
	uint64_t inner_pc;
	malloc_fn inner = (malloc_fn)world_hook_malloc(w, memset /* never */);
	malloc_fn path;

	w->config->slots[w->slot_count - 1].original = (uint64_t)malloc;
	path = (malloc_fn)world_path(w, (void *)inner, &inner_pc);
	fake_nested = path;

	/* From the allocator's own text: one block. */
	w->config->allocator_start = inner_pc - 64;
	w->config->allocator_end = inner_pc + 64;
	free(f.malloc(100));
	assert_int_equal(world_live(w, NULL, NULL), 1);
	assert_int_equal(world_count(w, AGENT_COUNT_NESTED), 1);

	/* From elsewhere, a handler's say: recorded by itself. Both are the same block here, and
	 * entered twice: the outer one replaces the inner. */
	w->config->allocator_end = w->config->allocator_start;
	free(f.malloc(100));
	assert_int_equal(world_count(w, AGENT_COUNT_NESTED), 1);
	assert_int_equal(world_count(w, AGENT_COUNT_ALLOCS), 3);

	/* The allocator's text, but no call of the allocator's further out. */
	w->config->allocator_end = inner_pc + 64;
	free(path(100));
	assert_int_equal(world_count(w, AGENT_COUNT_ALLOCS), 4);
	fake_nested = NULL;
	world_destroy(w);
}

/* What is counted of calls that are no block's makes no sample of the block that comes next. */
static void test_nested_sampling(void **state)
{
	struct fakes f = fakes_create(AGENT_SAMPLING, 1000);
	struct agent_world *w = f.world;
	uint64_t inner_pc;
	malloc_fn nested = (malloc_fn)world_path(w, (void *)f.malloc, &inner_pc);
	unsigned rounds = 1000;

	w->config->allocator_start = inner_pc - 64;
	w->config->allocator_end = inner_pc + 64;
	for (unsigned i = 0; i < rounds; i++) {
		fake_returns = AT(2 * i);
		nested(100000);
		/* Too large to be one: the original refuses it. */
		fake_returns = NULL;
		f.malloc(UINT64_C(1) << 50);
		fake_returns = AT(2 * i + 1);
		f.malloc(1);
	}
	assert_true(world_count(w, AGENT_COUNT_NESTED) > rounds / 2);
	/* One is to be expected. */
	assert_true(world_count(w, AGENT_COUNT_ALLOCS) < rounds / 20);
	world_destroy(w);
}

static void test_resize(void **state)
{
	struct fakes f = fakes_create(AGENT_EXACT, 0);
	struct agent_slot slot = { .original = (uint64_t)fake_realloc,
				   .kind = AGENT_KIND_RESIZE,
				   .arg_pointer = 0,
				   .arg_size = 1,
				   .arg_count = NONE };
	realloc_fn resize = (realloc_fn)world_hook(f.world, &slot, AGENT_ENTRY_ANY);
	struct world_block block;

	fake_returns = AT(1);
	f.malloc(10);
	fake_returns = (void *)50;
	assert_ptr_equal(resize(AT(1), 60), (void *)50);
	assert_int_equal(the_block(&f, &block), 1);
	assert_int_equal(block.block.size, 50);
	world_destroy(f.world);
}

/* ---- operator new ---- */

static uint64_t new_return_address, new_args[2], direct_args[2];

static __attribute__((noinline)) void *fake_new(size_t size, size_t alignment)
{
	new_return_address = (uint64_t)__builtin_return_address(0);
	new_args[0] = size;
	new_args[1] = alignment;
	return AT(99);
}

static void *fake_aligned(size_t alignment, size_t size)
{
	direct_args[0] = alignment;
	direct_args[1] = size;
	return fake_returns;
}

static void test_new(void **state)
{
	struct fakes f = fakes_create(AGENT_EXACT, 0);
	struct agent_slot slot = { .original = (uint64_t)fake_new,
				   .direct = (uint64_t)fake_aligned,
				   .kind = AGENT_KIND_NEW,
				   .flags = AGENT_SLOT_SWAP,
				   .arg_pointer = NONE,
				   .arg_size = 0,
				   .arg_count = NONE };
	uint64_t pc;
	two_fn new_hook = (two_fn)world_path(
		f.world, world_hook(f.world, &slot, AGENT_ENTRY_SIZE_FIRST), &pc);
	struct world_block block;

	fake_returns = AT(5);
	assert_ptr_equal(new_hook(100, 64), AT(5));
	assert_int_equal(direct_args[0], 64);
	assert_int_equal(direct_args[1], 100);
	assert_int_equal(the_block(&f, &block), 1);
	assert_int_equal(block.block.size, 100);
	assert_int_equal(block.pc, pc);
	assert_int_equal(new_return_address, 0);

	/* The real one comes in when there is no memory, and with no frame of ours below it. */
	fake_returns = NULL;
	assert_ptr_equal(new_hook(200, 128), AT(99));
	assert_int_equal(new_args[0], 200);
	assert_int_equal(new_args[1], 128);
	assert_int_equal(new_return_address, pc);
	assert_int_equal(the_block(&f, &block), 1);
	world_destroy(f.world);
}

/* ---- registers ---- */

struct registers {
	uint64_t integer[7]; /* rdi rsi rdx rcx r8 r9 rax */
	uint64_t vector[8][2];
	uint64_t sp, ret, result_dx;
};

struct registers registers_in, registers_seen;
void *registers_function;
void *registers_call(void);
void *registers_original(void);

__asm__(".text\n"
	"registers_load:\n"
	"	lea registers_in(%rip), %r11\n"
	"	mov 0(%r11), %rdi\n mov 8(%r11), %rsi\n mov 16(%r11), %rdx\n"
	"	mov 24(%r11), %rcx\n mov 32(%r11), %r8\n mov 40(%r11), %r9\n mov 48(%r11), %rax\n"
	"	movups 56(%r11), %xmm0\n movups 72(%r11), %xmm1\n movups 88(%r11), %xmm2\n"
	"	movups 104(%r11), %xmm3\n movups 120(%r11), %xmm4\n movups 136(%r11), %xmm5\n"
	"	movups 152(%r11), %xmm6\n movups 168(%r11), %xmm7\n"
	"	ret\n"
	".globl registers_call\n"
	"registers_call:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	call registers_load\n"
	"	lea registers_in(%rip), %r11\n"
	"	lea -8(%rsp), %r10\n mov %r10, 184(%r11)\n"
	"	call *registers_function(%rip)\n"
	"	lea registers_seen(%rip), %r11\n mov %rdx, 200(%r11)\n"
	"	pop %rbp\n"
	"	ret\n"
	".globl registers_original\n"
	"registers_original:\n"
	"	lea registers_seen(%rip), %r11\n"
	"	mov %rdi, 0(%r11)\n mov %rsi, 8(%r11)\n mov %rdx, 16(%r11)\n"
	"	mov %rcx, 24(%r11)\n mov %r8, 32(%r11)\n mov %r9, 40(%r11)\n mov %rax, 48(%r11)\n"
	"	movups %xmm0, 56(%r11)\n movups %xmm1, 72(%r11)\n movups %xmm2, 88(%r11)\n"
	"	movups %xmm3, 104(%r11)\n movups %xmm4, 120(%r11)\n movups %xmm5, 136(%r11)\n"
	"	movups %xmm6, 152(%r11)\n movups %xmm7, 168(%r11)\n"
	"	mov %rsp, 184(%r11)\n"
	"	mov (%rsp), %r10\n mov %r10, 192(%r11)\n"
	"	mov $0x12345670, %eax\n mov $77, %edx\n"
	"	ret\n");

static void check_registers(struct agent_world *world, void *hook, bool has_frame)
{
	for (int i = 0; i < 7; i++)
		registers_in.integer[i] = 1000 + 64 * (uint64_t)i;
	for (int i = 0; i < 8; i++)
		registers_in.vector[i][0] =
			~(registers_in.vector[i][1] = 0x1111 * (uint64_t)(i + 1));
	memset(&registers_seen, 0, sizeof(registers_seen));
	registers_function = hook;
	assert_ptr_equal(registers_call(), (void *)0x12345670);
	/* rax carries no argument: hooks from templates use it. */
	if (world->mode == AGENT_SAMPLING)
		registers_seen.integer[6] = registers_in.integer[6];
	assert_memory_equal(&registers_seen, &registers_in, offsetof(struct registers, sp));
	assert_int_equal(registers_seen.result_dx, 77);
	/* Passed through it has the caller's stack; else ours, aligned as the ABI wants it. */
	if (!has_frame)
		assert_int_equal(registers_seen.sp, registers_in.sp);
	else
		assert_int_equal(registers_seen.ret,
				 (uint64_t)world->image + world->header->return_point);
	assert_int_equal(registers_seen.sp % 16, 8);
}

static void check_hooks(uint32_t made_for)
{
	struct agent_world *world = world_create(64);
	struct agent_slot slot = { .original = (uint64_t)registers_original,
				   .kind = AGENT_KIND_ALLOC,
				   .arg_pointer = NONE,
				   .arg_size = 0,
				   .arg_count = NONE };
	struct agent_slot product = slot, resize = slot;
	void *hooks[5];

	world->mode = made_for;
	product.arg_count = 1;
	resize.kind = AGENT_KIND_RESIZE;
	hooks[0] = world_hook(world, &slot, AGENT_ENTRY_SIZE_FIRST);
	hooks[1] = world_hook(world, &product, AGENT_ENTRY_PRODUCT);
	hooks[2] = world_hook(world, &resize, AGENT_ENTRY_ANY);
	hooks[3] = world_hook_realloc(world, registers_original);
	hooks[4] = world_hook_free(world, registers_original);
	for (int i = 0; i < 5; i++)
		check_registers(world, hooks[i], false);
	world_start(world, AGENT_EXACT, 0, 3600);
	for (int i = 0; i < 5; i++)
		check_registers(world, hooks[i], i != 4);
	world_stop(world);
	/* Sampled so rarely that the fast path is taken, and at every call. */
	world_start(world, AGENT_SAMPLING, 1ul << 40, 3600);
	world->ctl->filter[agent_filter_index(1000)] = 0;
	world->ctl->epoch++;
	for (int i = 0; i < AGENT_THREADS; i++)
		world->ctl->threads[i].calls = 100;
	for (int i = 0; i < 5; i++) {
		check_registers(world, hooks[0], i == 0);
		check_registers(world, hooks[1], false);
		check_registers(world, hooks[3], false);
		check_registers(world, hooks[4], false);
	}
	world_stop(world);
	for (int i = 0; i < AGENT_THREADS; i++)
		world->ctl->threads[i].countdown = 0;
	world_start(world, AGENT_SAMPLING, 1, 3600);
	check_registers(world, hooks[0], true);
	check_registers(world, hooks[1], true);
	check_registers(world, hooks[3], true);
	check_registers(world, hooks[4], false);
	world_destroy(world);
}

static void test_registers(void **state)
{
	check_hooks(AGENT_EXACT);
	check_hooks(AGENT_SAMPLING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_2_threads),
		cmocka_unit_test(test_exact_8_threads),
		cmocka_unit_test(test_realloc_cases),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_size_filter_and_totals),
		cmocka_unit_test(test_missed_free),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_nested_sampling),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_new),
		cmocka_unit_test(test_registers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
