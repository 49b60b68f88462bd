/* Recording by uprobes: where the probe goes, which return belongs to which call, the table. */
#include <dlfcn.h>
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "record/kernel/bpf.h"
#include "record/uprobe/uprobe.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- placing ---- */

static void places(void **state)
{
	uint8_t registers[UPROBE_ARGUMENTS];
	static const uint8_t moved[] = {
		0x48, 0x8b, 0x05, 0x49, 0xb4, 0x00, 0x00, /* mov x(%rip), %rax */
		0x48, 0x89, 0xfe,			  /* mov %rdi, %rsi */
		0x64, 0x48, 0x8b, 0x38,			  /* mov %fs:(%rax), %rdi */
		0x48, 0x81, 0xfe, 0x00, 0x04, 0x00, 0x00, /* cmp $1024, %rsi */
		0x77, 0x29,				  /* ja */
	};
	static const uint8_t long_way[] = {
		0x48, 0x89, 0xf8,				      /* mov %rdi, %rax */
		0x48, 0x8b, 0x15, 0x0e, 0x53, 0x0a, 0x00,	      /* mov x(%rip), %rdx */
		0x48, 0x89, 0xf9,				      /* mov %rdi, %rcx */
		0x48, 0xc1, 0xe8, 0x1a,				      /* shr $26, %rax */
		0x48, 0x81, 0xe1, 0x00, 0x00, 0x00, 0xc0,	      /* and $x, %rcx */
		0x25, 0xf0, 0x00, 0x00, 0x00,			      /* and $240, %eax */
		0x64, 0x48, 0x03, 0x04, 0x25, 0x00, 0x00, 0x00, 0x00, /* add %fs:0, %rax */
		0x48, 0x01, 0xd0,				      /* add %rdx, %rax */
		0x48, 0x3b, 0x88, 0xb0, 0x01, 0x00, 0x00,	      /* cmp 432(%rax), %rcx */
		0x0f, 0x85, 0x84, 0x00, 0x00, 0x00,		      /* jne */
	};
	static const struct {
		uint8_t bytes[24];
		unsigned offset;
	} rows[] = {
		{ { 0x41, 0x54, 0x55, 0x53 }, 0 },		     /* push */
		{ { 0x48, 0x85, 0xff, 0x0f, 0x84, 1, 0, 0, 0 }, 3 }, /* test; je: glibc's free */
		{ { 0x48, 0x85, 0xff, 0x74, 0x10 }, 3 },
		{ { 0xf3, 0x0f, 0x1e, 0xfa, 0x55 }, 4 },       /* endbr64 */
		{ { 0x49, 0x89, 0xfc, 0x55 }, 3 },	       /* mov %rdi, %r12 */
		{ { 0x48, 0x89, 0xfb, 0x53 }, 3 },	       /* mov %rdi, %rbx */
		{ { 0x31, 0xc0, 0xe9, 1, 2, 3, 4 }, 2 },       /* xor %eax, %eax; jmp */
		{ { 0x80, 0x3d, 1, 2, 3, 4, 0, 0x75, 5 }, 7 }, /* cmpb; jne */
		/* These change an argument, the stack pointer or memory: no further. */
		{ { 0x48, 0x89, 0xf7, 0x55 }, 0 },	       /* mov %rsi, %rdi */
		{ { 0x31, 0xff, 0x55 }, 0 },		       /* xor %edi, %edi */
		{ { 0x48, 0x8d, 0x77, 0xf0, 0x55 }, 0 },       /* lea -16(%rdi), %rsi */
		{ { 0x48, 0x83, 0xec, 0x18, 0x55 }, 0 },       /* sub $24, %rsp */
		{ { 0x48, 0x89, 0x07, 0x55 }, 0 },	       /* mov %rax, (%rdi) */
		{ { 0x80, 0x07, 1, 0x55 }, 0 },		       /* addb $1, (%rdi) */
		{ { 0xf7, 0xdf, 0x55 }, 0 },		       /* neg %edi */
		{ { 0x49, 0x89, 0xf8, 0x55 }, 0 },	       /* mov %rdi, %r8: an argument */
		{ { 0xc4, 0xc2, 0xf1, 0xf7, 0xf9, 0x55 }, 0 }, /* shlx %rcx, %r9, %rdi */
		{ { 0xc3, 0x55 }, 0 },
		{ { 0xff, 0x25, 1, 2, 3, 4, 0x55 }, 0 }, /* jmp *: not emulated, leaves */
		{ { 0x66, 0x55, 0x55 }, 0 },		 /* pushw */
		{ { 0xcc }, 0 },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		unsigned offset =
			uprobe_place(rows[i].bytes, sizeof(rows[i].bytes), 0x3f, registers);

		if (offset != rows[i].offset)
			fail_msg("row %zu: %u", i, offset);
	}
	assert_int_equal(uprobe_place((const uint8_t *)"\x48\x85", 2, 0x3f, registers), 0);
	assert_int_equal(uprobe_place(NULL, 0, 0, registers), 0);
	/* free() of jemalloc 5.3, up to its first branch: with one argument. */
	assert_int_equal(uprobe_place(long_way, sizeof(long_way), 1, registers), 0x30);
	assert_int_equal(uprobe_place(long_way, sizeof(long_way), 0x3f, registers), 0);
	assert_memory_equal(registers, uprobe_argument_registers, sizeof(registers));
	/* malloc() of mimalloc 2.0 keeps its size elsewhere. */
	assert_int_equal(uprobe_place(moved, sizeof(moved), 1, registers), 0x15);
	assert_int_equal(registers[0], 6);
	/* Where the copy is overwritten, too, it is of no use. */
	assert_int_equal(
		uprobe_place((const uint8_t *)"\x48\x89\xfe\x31\xf6\x31\xff\x55", 8, 1, registers),
		0);
	assert_int_equal(registers[0], 7);
	/* Half of it is none. */
	assert_int_equal(uprobe_place((const uint8_t *)"\x89\xfe\x31\xff\x55", 5, 1, registers), 0);
	/* Back to in front of it. */
	assert_int_equal(uprobe_place((const uint8_t *)"\x31\xc0\x31\xc0\x75\xfc", 6, 1, registers),
			 0);
	assert_int_equal(uprobe_place((const uint8_t *)"\x31\xc0\x75\x02\xeb\xfc", 6, 1, registers),
			 0);
	assert_int_equal(uprobe_place((const uint8_t *)"\x31\xc0\x75\x02\xeb\x00", 6, 1, registers),
			 2);
}

static bool has_prologue_byte(const uint8_t *code)
{
	return (code[0] >= 0x50 && code[0] <= 0x57) ||
	       (code[0] == 0x41 && (code[1] & 0xf8) == 0x50) ||
	       (code[0] >= 0x70 && code[0] <= 0x7f) ||
	       (code[0] == 0x0f && (code[1] & 0xf0) == 0x80) || code[0] == 0xe9 || code[0] == 0xeb;
}

/* What is chosen in real allocators is an instruction that the kernel emulates, or the beginning.
 */
static void places_in_allocators(void **state)
{
	static const char *const names[] = { "malloc", "calloc",	 "realloc",
					     "free",   "posix_memalign", "aligned_alloc" };
	uint8_t registers[UPROBE_ARGUMENTS];
	unsigned emulated = 0;

	for (size_t i = 0; i < COUNT(names); i++) {
		const uint8_t *code = dlsym(RTLD_NEXT, names[i]);
		unsigned offset;

		if (!code)
			continue;
		offset = uprobe_place(code, 64, 0x3f, registers);
		assert_true(offset < 64);
		assert_true(!offset || has_prologue_byte(code + offset));
		emulated += has_prologue_byte(code + offset);
	}
	assert_true(emulated >= 3);
}

/* ---- pairing ---- */

enum { MALLOC, REALLOC, REALLOCARRAY };

struct scene {
	struct uprobe_calls *calls;
	struct uprobe_call last;
};

static void enter(struct scene *scene, pid_t tid, unsigned function, uint64_t sp, uint64_t size)
{
	const struct uprobe_call call = { .sp = sp, .size = size, .function = function };

	assert_null(uprobe_calls_enter(scene->calls, tid, &call));
}

static enum uprobe_return leave(struct scene *scene, pid_t tid, unsigned function, uint64_t sp,
				bool own)
{
	enum uprobe_return kind;

	assert_null(uprobe_calls_return(scene->calls, tid, function, sp, own, &scene->last, &kind));
	return kind;
}

static int set_scene(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	*state = scene;
	return !scene || uprobe_calls_create(&scene->calls) ? -1 : 0;
}

static int clear_scene(void **state)
{
	struct scene *scene = *state;

	uprobe_calls_destroy(scene->calls);
	free(scene);
	return 0;
}

static void pairs(void **state)
{
	struct scene *scene = *state;

	assert_int_equal(leave(scene, 1, MALLOC, 0x1000, false), UPROBE_UNKNOWN);
	enter(scene, 1, MALLOC, 0x1000, 10);
	enter(scene, 2, MALLOC, 0x1000, 20); /* another thread */
	assert_int_equal(leave(scene, 1, MALLOC, 0x1000, false), UPROBE_OUTER);
	assert_int_equal(scene->last.size, 10);
	assert_int_equal(leave(scene, 1, MALLOC, 0x1000, false), UPROBE_UNKNOWN);
	assert_int_equal(leave(scene, 2, MALLOC, 0x1000, false), UPROBE_OUTER);
	assert_int_equal(scene->last.size, 20);
	assert_int_equal(uprobe_calls_threads(scene->calls), 2);
	assert_int_equal(uprobe_calls_abandoned(scene->calls), 0);
}

static void nests(void **state)
{
	struct scene *scene = *state;

	/* realloc() that calls malloc(): one block. */
	enter(scene, 1, REALLOC, 0x1000, 10);
	enter(scene, 1, MALLOC, 0xf00, 16);
	assert_int_equal(leave(scene, 1, MALLOC, 0xf00, true), UPROBE_INNER);
	assert_int_equal(leave(scene, 1, REALLOC, 0x1000, false), UPROBE_OUTER);
	assert_int_equal(scene->last.size, 10);
	/* A signal handler in the middle of it allocates for the program, here on another stack. */
	enter(scene, 1, REALLOC, 0x1000, 10);
	enter(scene, 1, MALLOC, 0x9000, 30);
	assert_int_equal(leave(scene, 1, MALLOC, 0x9000, false), UPROBE_OUTER);
	assert_int_equal(scene->last.size, 30);
	assert_int_equal(leave(scene, 1, REALLOC, 0x1000, false), UPROBE_OUTER);
	/* From the allocator's text, but in no call of it: it is one after all. */
	enter(scene, 1, MALLOC, 0x1000, 40);
	assert_int_equal(leave(scene, 1, MALLOC, 0x1000, true), UPROBE_OUTER);
	assert_int_equal(uprobe_calls_abandoned(scene->calls), 0);
}

/* reallocarray() ends with a jump to realloc(): both return at once, in either order. */
static void tail_calls(void **state)
{
	struct scene *scene = *state;

	for (unsigned order = 0; order < 2; order++) {
		enter(scene, 1, REALLOCARRAY, 0x1000, 50);
		enter(scene, 1, REALLOC, 0x1000, 50);
		assert_int_equal(leave(scene, 1, order ? REALLOC : REALLOCARRAY, 0x1000, false),
				 UPROBE_OUTER);
		assert_int_equal(leave(scene, 1, order ? REALLOCARRAY : REALLOC, 0x1000, false),
				 UPROBE_INNER);
	}
	/* The next one from the same place is its own. */
	enter(scene, 1, REALLOC, 0x1000, 60);
	assert_int_equal(leave(scene, 1, REALLOC, 0x1000, false), UPROBE_OUTER);
	assert_int_equal(uprobe_calls_abandoned(scene->calls), 0);
}

/* Left by longjmp(), or the return's sample was lost. */
static void stale_calls(void **state)
{
	struct scene *scene = *state;

	enter(scene, 1, REALLOC, 0x1000, 10);
	enter(scene, 1, MALLOC, 0xf00, 20);
	assert_int_equal(leave(scene, 1, REALLOC, 0x1000, false), UPROBE_OUTER);
	assert_int_equal(uprobe_calls_abandoned(scene->calls), 1);
	for (unsigned i = 0; i < 100; i++)
		enter(scene, 1, MALLOC, 0x2000 - 16 * i, i);
	assert_int_equal(uprobe_calls_abandoned(scene->calls), 101 - UPROBE_CALLS_MAX);
	assert_int_equal(leave(scene, 1, MALLOC, 0x2000 - 16 * 99, false), UPROBE_OUTER);
	assert_int_equal(leave(scene, 1, MALLOC, 0x2000, false), UPROBE_UNKNOWN);
	/* At the place of a stale one the younger counts. */
	enter(scene, 2, MALLOC, 0x1000, 1);
	enter(scene, 2, MALLOC, 0x1000, 2);
	assert_int_equal(leave(scene, 2, MALLOC, 0x1000, false), UPROBE_OUTER);
	assert_int_equal(scene->last.size, 2);
}

/* operator new: seen to return by its `ret`, or not at all. */
static void exceptions(void **state)
{
	struct scene *scene = *state;
	struct uprobe_call call = { .sp = 0x1000, .size = 70, .function = REALLOC };

	/* malloc() passes the same one. */
	enter(scene, 1, MALLOC, 0x1000, 60);
	assert_int_equal(leave(scene, 1, UPROBE_AT_RET, 0x1000, false), UPROBE_UNKNOWN);
	assert_int_equal(leave(scene, 1, MALLOC, 0x1000, false), UPROBE_OUTER);
	call.at_ret = call.may_throw = true;
	assert_null(uprobe_calls_enter(scene->calls, 1, &call));
	assert_int_equal(leave(scene, 1, UPROBE_AT_RET, 0x1000, false), UPROBE_OUTER);
	assert_int_equal(scene->last.size, 70);
	/* Thrown: the thread goes on further up. */
	for (unsigned i = 0; i < 100; i++) {
		call.sp = 0x1000 + 16 * i;
		assert_null(uprobe_calls_enter(scene->calls, 1, &call));
		enter(scene, 1, MALLOC, 0x4000, 60);
		assert_int_equal(leave(scene, 1, MALLOC, 0x4000, false), UPROBE_OUTER);
		assert_int_equal(leave(scene, 1, UPROBE_AT_RET, call.sp, false), UPROBE_UNKNOWN);
	}
	/* Or at the same place again. */
	for (unsigned i = 0; i < 100; i++)
		assert_null(uprobe_calls_enter(scene->calls, 1, &call));
	assert_int_equal(leave(scene, 1, UPROBE_AT_RET, call.sp, false), UPROBE_OUTER);
	assert_int_equal(uprobe_calls_abandoned(scene->calls), 0);
	call.may_throw = false;
	for (unsigned i = 0; i < 100; i++)
		assert_null(uprobe_calls_enter(scene->calls, 2, &call));
	assert_int_equal(uprobe_calls_abandoned(scene->calls), 100 - UPROBE_CALLS_MAX);
}

static void many_threads(void **state)
{
	struct scene *scene = *state;

	for (pid_t tid = 1; tid <= 10000; tid++) {
		enter(scene, tid, MALLOC, 0x1000, (uint64_t)tid);
		if (tid > 100) {
			assert_int_equal(leave(scene, tid - 100, MALLOC, 0x1000, false),
					 UPROBE_OUTER);
			assert_int_equal(scene->last.size, tid - 100);
		}
	}
	assert_int_equal(uprobe_calls_threads(scene->calls), 10000);
}

/* ---- the table ---- */

static bool put(struct uprobe_table *table, uint64_t address, uint64_t size, uint64_t time)
{
	const struct uprobe_block block = { address, size, time, 7 };
	bool replaced;

	assert_null(uprobe_table_put(table, &block, &replaced));
	return replaced;
}

static void table_against_array(void **state)
{
	enum { SPACE = 1 << 18 };
	struct uprobe_table table = { 0 };
	uint64_t *truth = calloc(SPACE, sizeof(*truth)), live = 0;
	uint32_t random = 1;

	assert_non_null(truth);
	for (uint64_t time = 1; time < 2000000; time++) {
		struct uprobe_block block;
		uint32_t at;
		bool there;

		random = random * 1664525u + 1013904223u;
		at = random >> 14;
		there = truth[at] != 0;
		if (there || random % 7 == 0) {
			assert_int_equal(uprobe_table_take(&table, (at + 1) * 16ull, time, &block),
					 there);
			assert_true(!there || block.size == truth[at]);
			live -= there;
			truth[at] = 0;
		} else {
			assert_false(put(&table, (at + 1) * 16ull, time, time));
			truth[at] = time;
			live++;
		}
		assert_int_equal(table.size, live);
	}
	for (uint32_t at = 0; at < SPACE; at++) {
		const struct uprobe_block *block = uprobe_table_find(&table, (at + 1) * 16ull);

		assert_int_equal(block ? block->size : 0, truth[at]);
	}
	uprobe_table_deinit(&table);
	free(truth);
}

/* Samples of two CPUs may change places. */
static void samples_come_late(void **state)
{
	struct uprobe_table table = { 0 };

	assert_false(uprobe_table_take(&table, 0x1000, 5, NULL));
	assert_false(put(&table, 0x1000, 10, 10));
	/* The free of the block before it. */
	assert_false(uprobe_table_take(&table, 0x1000, 9, NULL));
	assert_int_equal(uprobe_table_find(&table, 0x1000)->size, 10);
	assert_true(uprobe_table_take(&table, 0x1000, 11, NULL));
	/* Its free is here already. */
	assert_false(uprobe_table_take(&table, 0x2000, 21, NULL));
	assert_false(put(&table, 0x2000, 10, 20));
	assert_null(uprobe_table_find(&table, 0x2000));
	assert_false(put(&table, 0x2000, 10, 22));
	assert_true(put(&table, 0x2000, 11, 23));
	assert_int_equal(table.size, 1);
	uprobe_table_deinit(&table);
}

/* ---- how much of a stack ---- */

static void note(struct stack_size *stack, unsigned count, uint64_t reach)
{
	while (count--)
		stack_size_note(stack, reach, stack->bytes);
}

static void stacks_that_need_less(void **state)
{
	struct stack_size stack;

	stack_size_init(&stack, 0);
	assert_int_equal(stack.bytes, STACK_SIZE_BEGIN);
	assert_true(stack_size_wants(&stack));
	note(&stack, 200, 1500);
	assert_int_equal(stack.bytes, STACK_SIZE_BEGIN);
	note(&stack, 100, 100);
	/* Twice the most. */
	assert_int_equal(stack.bytes, 4096);
	assert_false(stack_size_wants(&stack));
	/* One is cut: as much is never too little again. */
	note(&stack, 1, UINT64_MAX);
	assert_int_equal(stack.bytes, 8192);
	note(&stack, 100000, 100);
	assert_int_equal(stack.bytes, 8192);
}

static void stacks_that_need_more(void **state)
{
	struct stack_size stack;

	stack_size_init(&stack, 0);
	/* A rare one is not worth what all would cost. */
	for (unsigned i = 0; i < 100; i++) {
		note(&stack, 99, 3000);
		note(&stack, 1, UINT64_MAX);
	}
	assert_int_equal(stack.bytes, 8192);
	for (unsigned i = 0; i < 100; i++) {
		note(&stack, 90, 3000);
		note(&stack, 10, stack.bytes < 32768 ? UINT64_MAX : 20000);
	}
	assert_int_equal(stack.bytes, 32768);
	/* Ended by what cannot be read, not by what was not copied. */
	stack_size_init(&stack, 0);
	for (unsigned i = 0; i < 20000; i++)
		stack_size_note(&stack, UINT64_MAX, 3000);
	assert_int_equal(stack.bytes, 8192);
	/* Without an end, however much is copied. */
	note(&stack, 100000, UINT64_MAX);
	assert_int_equal(stack.bytes, 8192);
	stack_size_init(&stack, 16384);
	note(&stack, 100000, UINT64_MAX);
	note(&stack, 100000, 1);
	assert_int_equal(stack.bytes, 16384);
}

/* ---- the ring ---- */

/* One record of a ring of 4,096 bytes. */
static void put_record(uint8_t *data, uint64_t at, uint32_t head)
{
	memcpy(data + at, &head, sizeof(head));
}

/* What another thread is still writing is waited for, not passed. */
static void record_in_writing(void **state)
{
	_Alignas(8) uint8_t data[2 * 4096] = { 0 };
	uint64_t consumed = 0, produced = 72;
	struct bpf_ring ring = {
		.size = 4096, .consumed = &consumed, .produced = &produced, .data = data
	};
	size_t size = 0;

	put_record(data, 0, 16);
	put_record(data, 24, 16 | BPF_RINGBUF_BUSY_BIT);
	put_record(data, 48, 16);
	assert_ptr_equal(bpf_ring_record(&ring, 72, &size), data + 8);
	assert_int_equal(size, 16);
	bpf_ring_next(&ring);
	assert_null(bpf_ring_record(&ring, 72, &size));
	assert_false(bpf_ring_is_taken(&ring, 72));
	put_record(data, 24, 16 | BPF_RINGBUF_DISCARD_BIT);
	assert_ptr_equal(bpf_ring_record(&ring, 72, &size), data + 56);
	bpf_ring_next(&ring);
	assert_null(bpf_ring_record(&ring, 72, &size));
	assert_true(bpf_ring_is_taken(&ring, 72));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places),
		cmocka_unit_test(places_in_allocators),
		cmocka_unit_test_setup_teardown(pairs, set_scene, clear_scene),
		cmocka_unit_test_setup_teardown(nests, set_scene, clear_scene),
		cmocka_unit_test_setup_teardown(tail_calls, set_scene, clear_scene),
		cmocka_unit_test_setup_teardown(stale_calls, set_scene, clear_scene),
		cmocka_unit_test_setup_teardown(exceptions, set_scene, clear_scene),
		cmocka_unit_test_setup_teardown(many_threads, set_scene, clear_scene),
		cmocka_unit_test(table_against_array),
		cmocka_unit_test(record_in_writing),
		cmocka_unit_test(samples_come_late),
		cmocka_unit_test(stacks_that_need_less),
		cmocka_unit_test(stacks_that_need_more),
	};

	return cmocka_run_group_tests_name("uprobe", tests, NULL, NULL);
}
