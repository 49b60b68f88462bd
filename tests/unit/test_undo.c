/* Hooks behind the first instruction: which instructions they can undo, and that they do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent_world.h"
#include "record/agent/relocate.h"
#include "record/agent/undo.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NONE	     AGENT_NO_ARG

static void finds(void **state)
{
	static const struct {
		uint8_t code[16];
		unsigned arguments;
		int undo; /* bytes; -1: none */
	} rows[] = {
		{ { 0xf3, 0x0f, 0x1e, 0xfa }, 0, 0 },
		{ { 0x90 }, 0, 0 },
		{ { 0x0f, 0x1f, 0x44, 0, 0 }, 0, 0 },
		{ { 0x66, 0x0f, 0x1f, 0x44, 0, 0 }, 0, 0 },
		{ { 0x55 }, 0, 2 },
		{ { 0x41, 0x57 }, 0, 2 },
		{ { 0x6a, 1 }, 0, 2 },
		{ { 0x48, 0x83, 0xec, 0x18 }, 0, 5 },			/* sub $24, %rsp */
		{ { 0x48, 0x81, 0xec, 0, 0x10, 0, 0 }, 0, 8 },		/* sub $4096, %rsp */
		{ { 0x48, 0x85, 0xff }, 0, 0 },				/* test %rdi, %rdi */
		{ { 0x48, 0x81, 0xff, 0, 0x10, 0, 0 }, 0, 0 },		/* cmp $4096, %rdi */
		{ { 0x80, 0x3d, 1, 2, 3, 4, 0 }, 0, 0 },		/* cmpb $0, x(%rip) */
		{ { 0x64, 0x80, 0x3f, 0 }, 0, 0 },			/* cmpb $0, %fs:(%rdi) */
		{ { 0xf7, 0xc7, 1, 0, 0, 0 }, 0, 0 },			/* test $1, %edi */
		{ { 0x49, 0x89, 0xfb }, 0, 0 },				/* mov %rdi, %r11 */
		{ { 0x4c, 0x8d, 0x54, 0x24, 8 }, 0, 0 },		/* lea 8(%rsp), %r10 */
		{ { 0x48, 0x89, 0xf8 }, 1, 0 },				/* mov %rdi, %rax */
		{ { 0x48, 0x8b, 0x05, 1, 2, 3, 4 }, 1, 0 },		/* mov x(%rip), %rax */
		{ { 0x64, 0x48, 0x8b, 4, 0x25, 0x28, 0, 0, 0 }, 1, 0 }, /* mov %fs:40, %rax */
		{ { 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8 }, 1, 0 },	/* movabs $x, %rax */
		{ { 0x48, 0xc7, 0xc0, 1, 0, 0, 0 }, 1, 0 },		/* mov $1, %rax */
		{ { 0x0f, 0xb7, 0xc7 }, 1, 0 },				/* movzwl %di, %eax */
		{ { 0x31, 0xc0 }, 1, 0 },				/* xor %eax, %eax */
		{ { 0x31, 0xc9 }, 3, 0 },				/* xor %ecx, %ecx */
		{ { 0x49, 0x89, 0xf8 }, 4, 0 },				/* mov %rdi, %r8 */
		{ { 0x48, 0x63, 0xd7 }, 2, 0 },				/* movslq %edi, %rdx */

		/* What is an argument, or may be one. */
		{ { 0x48, 0x89, 0xf8 }, 0, -1 },
		{ { 0x31, 0xc9 }, 0, -1 },
		{ { 0x31, 0xc9 }, 4, -1 },
		{ { 0x49, 0x89, 0xf8 }, 5, -1 },
		{ { 0x49, 0x89, 0xf8 }, 7, -1 },
		{ { 0x48, 0x89, 0xfe }, 2, -1 }, /* mov %rdi, %rsi */
		{ { 0x48, 0x8d, 0x7f, 8 }, 1, -1 },
		/* What functions keep. */
		{ { 0x48, 0x89, 0xfb }, 1, -1 }, /* mov %rdi, %rbx */
		{ { 0x49, 0x89, 0xe7 }, 1, -1 }, /* mov %rsp, %r15 */
		{ { 0x48, 0x89, 0xe5 }, 1, -1 }, /* mov %rsp, %rbp */
		{ { 0xbb, 1, 2, 3, 4 }, 1, -1 },
		{ { 0x41, 0xbc, 1, 2, 3, 4 }, 1, -1 },
		/* What does something else the second time, or after the hook. */
		{ { 0x48, 0x83, 0xc0, 1 }, 1, -1 },    /* add $1, %rax */
		{ { 0x48, 0x01, 0xf8 }, 1, -1 },       /* add %rdi, %rax */
		{ { 0x48, 0x31, 0xf8 }, 1, -1 },       /* xor %rdi, %rax */
		{ { 0x48, 0x29, 0xc8 }, 1, -1 },       /* sub %rcx, %rax */
		{ { 0x48, 0x8b, 0x00 }, 1, -1 },       /* mov (%rax), %rax */
		{ { 0x48, 0x8b, 4, 0x07 }, 1, -1 },    /* mov (%rdi, %rax), %rax */
		{ { 0x4a, 0x8b, 4, 0x17 }, 1, -1 },    /* mov (%rdi, %r10), %rax */
		{ { 0x4c, 0x89, 0xd0 }, 1, -1 },       /* mov %r10, %rax */
		{ { 0x48, 0x85, 0xc0 }, 1, -1 },       /* test %rax, %rax */
		{ { 0x0f, 0xb6, 0xc4 }, 1, -1 },       /* movzbl %ah, %eax */
		{ { 0x48, 0x0f, 0x44, 0xc7 }, 1, -1 }, /* cmove %rdi, %rax */
		{ { 0x48, 0x89, 0x07 }, 1, -1 },       /* mov %rax, (%rdi) */
		{ { 0xc7, 0x07, 1, 0, 0, 0 }, 1, -1 }, /* movl $1, (%rdi) */
		{ { 0xff, 0x07 }, 1, -1 },	       /* incl (%rdi) */
		{ { 0x58 }, 1, -1 },		       /* pop %rax */
		{ { 0x66, 0x50 }, 1, -1 },	       /* push %ax */
		{ { 0x9c }, 1, -1 },		       /* pushf */
		{ { 0xff, 0x37 }, 1, -1 },	       /* push (%rdi) */
		{ { 0xc8, 8, 0, 0 }, 1, -1 },	       /* enter */
		{ { 0x48, 0x83, 0xec, 0x80 }, 1, -1 }, /* sub $-128, %rsp */
		{ { 0x83, 0xec, 8 }, 1, -1 },	       /* sub $8, %esp */
		{ { 0x49, 0x83, 0xec, 8 }, 1, -1 },    /* sub $8, %r12 */
		{ { 0x48, 0x83, 0xc4, 8 }, 1, -1 },    /* add $8, %rsp */
		{ { 0x48, 0x91 }, 1, -1 },	       /* xchg %rax, %rcx */
		{ { 0x41, 0x90 }, 1, -1 },	       /* xchg %rax, %r8 */
		{ { 0xf3, 0x90 }, 1, -1 },	       /* pause */
		{ { 0xf0, 0x48, 0x0f, 0xb1, 0x07 }, 1, -1 },
		{ { 0xc5, 0xf9, 0x6f, 0x07 }, 1, -1 }, /* vmovdqa */
		{ { 0x0f, 0x05 }, 1, -1 },	       /* syscall */
		{ { 0xe9, 0, 0, 0, 0 }, 1, -1 },
		{ { 0x75, 0x10 }, 1, -1 },
		{ { 0xc3 }, 1, -1 },
		{ { 0xcc }, 1, -1 },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct x86_instruction insn;
		struct undo undo = { .size = 99 };
		bool found;

		assert_true(x86_decode(rows[i].code, sizeof(rows[i].code), &insn));
		found = undo_find(rows[i].code, &insn, rows[i].arguments, &undo);
		if (found != (rows[i].undo >= 0) || undo.size != (found ? rows[i].undo : 0))
			fail_msg("row %zu: %d, %u bytes", i, found, undo.size);
	}
}

/* ---- executed ---- */

#define OFFSET 0x100000

/* Functions of a size that return OFFSET more; of 0, some return 0. */
static const struct form {
	uint8_t code[32];
	uint8_t size, first;
	bool checks;
} forms[] = {
	/* push %rbx; mov %rdi, %rbx; lea OFFSET(%rbx), %rax; pop %rbx; ret */
	{ { 0x53, 0x48, 0x89, 0xfb, 0x48, 0x8d, 0x83, 0, 0, 0x10, 0, 0x5b, 0xc3 }, 13, 1, false },
	/* the same with r12 */
	{ { 0x41, 0x54, 0x49, 0x89, 0xfc, 0x49, 0x8d, 0x84, 0x24, 0, 0, 0x10, 0, 0x41, 0x5c, 0xc3 },
	  16,
	  2,
	  false },
	/* push $1; lea OFFSET - 1(%rdi), %rax; pop %r8; add %r8, %rax; ret */
	{ { 0x6a, 1, 0x48, 0x8d, 0x87, 0xff, 0xff, 0x0f, 0, 0x41, 0x58, 0x4c, 0x01, 0xc0, 0xc3 },
	  15,
	  2,
	  false },
	/* sub $24, %rsp; mov %rdi, 8(%rsp); mov 8(%rsp), %rax; add ...; add $24, %rsp; ret */
	{ { 0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0x7c, 0x24, 8,	  0x48, 0x8b, 0x44, 0x24,
	    8,	  0x48, 5,    0,    0,	  0x10, 0,    0x48, 0x83, 0xc4, 0x18, 0xc3 },
	  25,
	  4,
	  false },
	/* sub $4104, %rsp; lea OFFSET(%rdi), %rax; add $4104, %rsp; ret */
	{ { 0x48, 0x81, 0xec, 8,    0x10, 0,	0, 0x48, 0x8d, 0x87, 0,
	    0,	  0x10, 0,    0x48, 0x81, 0xc4, 8, 0x10, 0,    0,    0xc3 },
	  22,
	  7,
	  false },
	/* test %rdi, %rdi; lea OFFSET(%rdi), %rax; jne to ret; xor %eax, %eax; ret */
	{ { 0x48, 0x85, 0xff, 0x48, 0x8d, 0x87, 0, 0, 0x10, 0, 0x75, 2, 0x31, 0xc0, 0xc3 },
	  15,
	  3,
	  true },
	/* cmpb $0, %fs:0 (the thread pointer's lowest byte); mov %rdi, %rax; add ...; ret */
	{ { 0x64, 0x80, 0x3c, 0x25, 0, 0, 0, 0, 0, 0x48, 0x89, 0xf8, 0x48, 5, 0, 0, 0x10, 0, 0xc3 },
	  19,
	  9,
	  false },
	/* mov %rdi, %rax; add ...; ret */
	{ { 0x48, 0x89, 0xf8, 0x48, 5, 0, 0, 0x10, 0, 0xc3 }, 10, 3, false },
	{ { 0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x89, 0xf8, 0x48, 5, 0, 0, 0x10, 0, 0xc3 },
	  14,
	  4,
	  false },
	/* mov %rdi, %r8; lea OFFSET(%r8), %rax; ret */
	{ { 0x49, 0x89, 0xf8, 0x49, 0x8d, 0x80, 0, 0, 0x10, 0, 0xc3 }, 11, 3, false },
	/* lea 8(%rsp), %r10; lea OFFSET(%rdi), %rax; lea -8(%r10), %rsp; ret */
	{ { 0x4c, 0x8d, 0x54, 0x24, 8, 0x48, 0x8d, 0x87, 0, 0, 0x10, 0, 0x49, 0x8d, 0x62, 0xf8,
	    0xc3 },
	  17,
	  5,
	  false },
	/* movabs $OFFSET, %rax; add %rdi, %rax; add $0, %rax; ret */
	{ { 0x48, 0xb8, 0, 0, 0x10, 0, 0, 0, 0, 0, 0x48, 0x01, 0xf8, 0x48, 0x83, 0xc0, 0, 0xc3 },
	  18,
	  10,
	  false },
	/* xor %eax, %eax; lea OFFSET(%rdi, %rax), %rax; ret */
	{ { 0x31, 0xc0, 0x48, 0x8d, 0x84, 0x07, 0, 0, 0x10, 0, 0xc3 }, 11, 2, false },
	/* not to be undone: mov %rdi, %rdx; lea OFFSET(%rdx), %rax; ret, with three arguments */
	{ { 0x48, 0x89, 0xfa, 0x48, 0x8d, 0x82, 0, 0, 0x10, 0, 0xc3 }, 11, 0, false },
};

struct seen {
	uint64_t address, pc;
	unsigned count;
};

static void look(const struct world_block *block, void *data)
{
	struct seen *seen = data;

	seen->count++;
	if (block->address == seen->address)
		seen->pc = block->pc;
}

static uint64_t call(void *function, uint64_t size)
{
	uint64_t result;

	/* What is kept must be kept, and nothing below the stack pointer is ours. */
	__asm__ volatile("mov $0x1111, %%rbx; mov $0x2222, %%r12; mov $0x3333, %%r15\n"
			 "lea -256(%%rsp), %%rsp; mov %%rsp, %%r13; call *%%rdx\n"
			 "cmp %%rsp, %%r13; jne 1f; cmp $0x1111, %%rbx; jne 1f\n"
			 "cmp $0x2222, %%r12; jne 1f; cmp $0x3333, %%r15; je 2f\n"
			 "1: ud2\n"
			 "2: lea 256(%%rsp), %%rsp"
			 : "=a"(result), "+D"(size), "+d"(function)
			 :
			 : "rbx", "rcx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r15",
			   "memory", "cc");
	return result;
}

static void check_call(struct agent_world *world, const struct form *form, void *function,
		       uint64_t size)
{
	uint64_t pc, before = world_count(world, AGENT_COUNT_ALLOCS);
	struct seen seen = { .address = size + OFFSET };
	void *path = world_path(world, function, &pc);
	bool fails = form->checks && !size;

	assert_int_equal(call(path, size), fails ? 0 : size + OFFSET);
	assert_int_equal(world_count(world, AGENT_COUNT_ALLOCS), before + !fails);
	world_live(world, look, &seen);
	assert_int_equal(seen.count, before + !fails);
	assert_int_equal(seen.pc, fails ? 0 : pc);
}

static void hooks_undo(uint32_t mode)
{
	static const struct agent_slot slot = { .kind = AGENT_KIND_ALLOC,
						.arg_pointer = NONE,
						.arg_count = NONE,
						.arg_context = NONE };

	for (size_t i = 0; i < COUNT(forms); i++) {
		const struct form *form = &forms[i];
		struct agent_world *world = world_create(64);
		uint64_t size = 4096;
		void *function, *probed;
		size_t patch;

		world->mode = mode;
		function = world_hook_code(world, &slot, AGENT_ENTRY_SIZE_FIRST, form->code,
					   form->size, form->first ? 1 : 3, &patch);
		if (patch != form->first)
			fail_msg("form %zu is hooked at %zu", i, patch);
		/* It stays as it is. */
		assert_memory_equal(function, form->code, patch);
		probed = world_probed(world, form->code, patch, function);
		/* Through the hook, or through its template, without being of interest. */
		assert_int_equal(call(function, 64), 64 + OFFSET);
		assert_int_equal(call(probed, 64), 64 + OFFSET);
		world_start(world, mode, 1, 60);
		for (unsigned round = 0; round < 3; round++) {
			check_call(world, form, function, size += 64);
			check_call(world, form, probed, size += 64);
		}
		if (form->checks && mode == AGENT_EXACT)
			check_call(world, form, probed, 0);
		/* Counted down, but not sampled. */
		world->ctl->rate = 1ull << 40;
		call(function, 1 << 20);
		assert_int_equal(call(probed, 64), 64 + OFFSET);
		world_stop(world);
		assert_int_equal(call(function, 64), 64 + OFFSET);
		assert_int_equal(world_count(world, AGENT_COUNT_LOST), 0);
		world_destroy(world);
	}
}

static void hooks_undo_exact(void **state)
{
	hooks_undo(AGENT_EXACT);
}

static void hooks_undo_sampling(void **state)
{
	hooks_undo(AGENT_SAMPLING);
}

/* ---- where the jump goes ---- */

static void falls_back(void **state)
{
	static const struct {
		uint8_t code[24];
		uint8_t size, patch;
		uint64_t from;
	} rows[] = {
		/* push; four pushes, pop; ret */
		{ { 0x55, 0x53, 0x53, 0x53, 0x53, 0x5b, 0xc3 }, 7, 1, 0x10000 },
		/* there are no five bytes more */
		{ { 0x48, 0x89, 0xf8, 0x48, 0x85, 0xc0, 0xc3 }, 7, 0, 0x10000 },
		/* it comes back to behind its first instruction: lea OFFSET(%rdi), %rax; five nops;
		 * jmp there */
		{ { 0x48, 0x8d, 0x87, 0, 0, 0x10, 0, 0x90, 0x90, 0x90, 0x90, 0x90, 0xeb, 0xf9,
		    0xc3 },
		  15,
		  0,
		  0x10000 },
		/* ... or to the beginning, which is a call of itself */
		{ { 0x55, 0x48, 0x89, 0xe5, 0x90, 0x90, 0xeb, 0xf8, 0xc3 }, 9, 1, 0x10000 },
		/* ... or into what the jump would take */
		{ { 0x48, 0x89, 0xf8, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xeb, 0xfa, 0xc3 },
		  12,
		  0,
		  0x10000 },
		/* across two pages: behind, or both */
		{ { 0x48, 0x89, 0xf8, 0x48, 5, 0, 0, 0x10, 0, 0xc3 }, 10, 0, 0x10ffa },
		{ { 0x48, 0x89, 0xf8, 0x48, 5, 0, 0, 0x10, 0, 0xc3 }, 10, 3, 0x10ffd },
		/* push; call: it cannot be moved, but at the beginning it need not */
		{ { 0x48, 0x89, 0xf8, 0x90, 0x90, 0xe8, 0, 0, 0, 0, 0xc3 }, 11, 0, 0x10000 },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct relocated moved;
		const char *reason = relocate_function(rows[i].code, rows[i].size, rows[i].from,
						       0x20000, 1, &moved);

		if (reason || moved.patch_offset != rows[i].patch)
			fail_msg("row %zu: %s, at %zu", i, reason ? reason : "moved",
				 moved.patch_offset);
		assert_int_equal(moved.moved_start, 0);
		assert_true(moved.moved_end >= moved.patch_offset + RELOCATE_JUMP);
		assert_true(moved.patch_offset || !moved.undo.size);
	}
}

/* ---- return probes ---- */

static void *tail_target __attribute__((used)), *hidden __attribute__((used));

/* Jumps on, with another return address in place of its own, as the kernel's return probes have it.
 */
void probed_tail(void);
__asm__(".text\n"
	"probed_tail: endbr64\n"
	"	pop	%r10\n"
	"	mov	%r10, hidden(%rip)\n"
	"	lea	1f(%rip), %r10\n"
	"	push	%r10\n"
	"	jmp	*tail_target(%rip)\n"
	"1:	jmp	*hidden(%rip)\n");

static void return_probe_hides_nothing(void **state)
{
	static const struct agent_slot outer = { .original = 0,
						 .kind = AGENT_KIND_ALLOC,
						 .arg_pointer = NONE,
						 .arg_count = NONE,
						 .arg_context = NONE };
	struct agent_world *world = world_create(64);
	struct agent_slot slot = outer;
	uint64_t pc;
	void *path;
	size_t patch;

	tail_target = world_hook_code(world, &outer, AGENT_ENTRY_SIZE_FIRST, forms[0].code,
				      forms[0].size, 1, &patch);
	slot.original = (uint64_t)probed_tail;
	path = world_path(world, world_hook(world, &slot, AGENT_ENTRY_ANY), &pc);
	world_start(world, AGENT_EXACT, 1, 60);
	for (unsigned i = 1; i <= 3; i++) {
		struct seen seen = { .address = i * 64 + OFFSET };

		assert_int_equal(call(path, i * 64), i * 64 + OFFSET);
		world_live(world, look, &seen);
		assert_int_equal(seen.pc, pc);
		assert_int_equal(world_count(world, AGENT_COUNT_ALLOCS), i);
		assert_int_equal(world_count(world, AGENT_COUNT_NESTED), i);
	}
	assert_int_equal(world_count(world, AGENT_COUNT_REPLACED), 0);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds),
		cmocka_unit_test(hooks_undo_exact),
		cmocka_unit_test(hooks_undo_sampling),
		cmocka_unit_test(falls_back),
		cmocka_unit_test(return_probe_hides_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
