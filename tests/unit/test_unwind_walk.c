/* The walk of an unwind table: each rule on stacks made by hand, and on this program's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <elf.h>
#include <signal.h>
#include <unistd.h>
#include <unwind.h>

#include "agent/unwind_walk.h"
#include "memprobe/unwind_table.h"

#define STACK 0x7f0000001000ull
#define TEXT  0x400000ull
#define ROWS  64

static void assert_ok(struct error *error)
{
	if (error)
		fail_msg("%s", error->message);
}

/* ---- a table and a stack made by hand ---- */

/* Module @i lies at TEXT + i * 0x100000; each has the same rows, one for 0x1000 bytes. */
struct image {
	struct unwind_header header;
	struct unwind_module modules[3];
	struct unwind_row rows[ROWS];
	uint32_t index[ROWS * 0x1000 / UNWIND_BLOCK + 1];
	uint64_t stack[64];
	uint64_t cache[UNWIND_CACHE_SIZE];
	uint64_t pcs[32], sps[32];
	struct unwind_frames frames;
};

static struct image *new_image(const uint32_t *rules, size_t count)
{
	struct image *image = calloc(1, sizeof(*image));

	assert_non_null(image);
	for (size_t i = 0; i < count; i++)
		image->rows[i] = (struct unwind_row){ i * 0x1000, rules[i] };
	for (size_t i = 0; i < sizeof(image->index) / sizeof(image->index[0]); i++)
		image->index[i] = i / (0x1000 / UNWIND_BLOCK) < count ? i / (0x1000 / UNWIND_BLOCK)
								      : count - 1;
	for (uint64_t i = 0; i < 3; i++)
		image->modules[i] = (struct unwind_module){
			.start = TEXT + i * 0x100000,
			.end = TEXT + i * 0x100000 + count * 0x1000,
			.rows = offsetof(struct image, rows),
			.index = offsetof(struct image, index),
			.row_count = count,
		};
	image->header.modules = offsetof(struct image, modules) << UNWIND_COUNT_BITS | 3;
	return image;
}

/* An address in the text that has rule @number, of one module or another. */
static uint64_t code(unsigned number)
{
	return TEXT + number % 3 * 0x100000 + number * 0x1000 + 0x123;
}

static enum unwind_result walk(struct image *image, struct unwind_start start, unsigned max)
{
	struct unwind_memory memory = {
		.low = STACK,
		.high = STACK + sizeof(image->stack),
		.shift = (uint64_t)image->stack - STACK,
	};
	struct unwind_guesses guesses;
	enum unwind_result result = 0;

	memset(&guesses, 3, sizeof(guesses));
	image->frames = (struct unwind_frames){ .pcs = image->pcs, .sps = image->sps, .max = max };
	/* Looked up, then out of the cache, then with guesses, first wrong ones. */
	for (unsigned i = 0; i < 4; i++) {
		enum unwind_result before = result;

		image->frames.guesses = i < 2 ? NULL : &guesses;
		result = unwind_walk(&image->header, image->cache, &start, &memory, &image->frames);
		assert_true(!i || before == result);
	}
	return result;
}

static void frame_is(const struct image *image, unsigned number, uint64_t pc, uint64_t sp)
{
	assert_true(number < image->frames.count);
	assert_int_equal(image->pcs[number], pc);
	assert_int_equal(image->sps[number], sp);
}

#define START(rule)                                     \
	(struct unwind_start)                           \
	{                                               \
		.pc = code(rule), .sp = STACK, .bp = 77 \
	}

static void test_plain(void **state)
{
	static const uint32_t rules[] = {
		UNWIND_RULE(UNWIND_SP, 4, 2, 0),
		UNWIND_RULE(UNWIND_BP, 2, 2, 0),
		UNWIND_RULE_END,
	};
	struct image *image = new_image(rules, 3);

	image->stack[2] = STACK + 8 * 8; /* rbp */
	image->stack[3] = code(1);
	image->stack[8] = 0;
	image->stack[9] = code(2);
	assert_int_equal(walk(image, START(0), 32), UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 3);
	frame_is(image, 0, code(0) | UNWIND_PC_EXACT, STACK);
	frame_is(image, 1, code(1), STACK + 32);
	frame_is(image, 2, code(2), STACK + 80);
	/* There is room for two only. */
	assert_int_equal(walk(image, START(0), 2), UNWIND_FULL);
	assert_int_equal(image->frames.count, 2);
	assert_int_equal(walk(image, START(0), 0), UNWIND_FULL);
	assert_int_equal(image->frames.count, 0);
	/* Zero returns to nobody. */
	image->stack[9] = 0;
	assert_int_equal(walk(image, START(0), 32), UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 2);
	free(image);
}

/* A return address at the first byte of a rule is looked up in front of it. */
static void test_return_address(void **state)
{
	static const uint32_t rules[] = { UNWIND_RULE(UNWIND_SP, 1, 0, 0),
					  UNWIND_RULE(UNWIND_SP, 2, 0, 0), UNWIND_RULE_END };
	struct unwind_start start = { .pc = TEXT + 0x1000, .sp = STACK, .is_call = true };
	struct image *image = new_image(rules, 3);

	image->stack[0] = code(2);
	assert_int_equal(walk(image, start, 32), UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 2);
	frame_is(image, 0, TEXT + 0x1000, STACK);
	start.is_call = false;
	image->stack[1] = TEXT + 0x2001;
	assert_int_equal(walk(image, start, 32), UNWIND_COMPLETE);
	frame_is(image, 1, TEXT + 0x2001, STACK + 16);
	free(image);
}

static void test_rare(void **state)
{
	static const uint32_t rules[] = {
		UNWIND_RULE(UNWIND_BP_LOAD, -1, 1, 0),
		UNWIND_RULE(UNWIND_SP_LOAD, 3, 2, 2),
		UNWIND_RULE(UNWIND_REGISTER, 1, 0, 10),
		UNWIND_RULE(UNWIND_PLT, 1, 0, 11),
		UNWIND_RULE(UNWIND_PLT, 3, 0, UNWIND_EXTRA_FAR),
		UNWIND_RULE(UNWIND_REGISTER, 0, 1, 10 | UNWIND_EXTRA_RELATIVE),
		UNWIND_RULE_END,
	};
	struct image *image = new_image(rules, 7);
	uint64_t registers[16] = { 0 };
	struct unwind_start start = START(0);

	/* CFA = *(rbp - 8); rbp = *rbp. */
	start.bp = STACK + 40;
	image->stack[4] = STACK + 160;
	image->stack[5] = STACK + 240;
	image->stack[19] = code(1);
	/* CFA = *(rsp + 24) + 16. */
	image->stack[23] = STACK + 200;
	image->stack[26] = code(3) - 0x123 + 0x10b; /* CFA is rsp + 8: & 15 is 11, so + 16 */
	image->stack[28] = code(6);
	assert_int_equal(walk(image, start, 32), UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 4);
	frame_is(image, 1, code(1), STACK + 160);
	frame_is(image, 2, code(3) - 0x123 + 0x10b, STACK + 216);
	frame_is(image, 3, code(6), STACK + 232);

	/* Registers are known in the innermost frame only. */
	start = START(2);
	assert_int_equal(walk(image, start, 32), UNWIND_UNSUPPORTED);
	assert_int_equal(image->frames.count, 1);
	registers[10] = STACK + 40;
	start.registers = registers;
	image->stack[5] = code(4);
	image->stack[8] = code(6);
	assert_int_equal(walk(image, start, 32), UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 3);
	frame_is(image, 1, code(4), STACK + 48);
	frame_is(image, 2, code(6), STACK + 72);
	image->stack[5] = code(2);
	assert_int_equal(walk(image, start, 32), UNWIND_UNSUPPORTED);
	assert_int_equal(image->frames.count, 2);

	/* rbp counted from itself: = *rbp. */
	start = START(5);
	start.registers = registers;
	start.bp = STACK + 16;
	image->stack[2] = STACK + 240;
	image->stack[4] = code(0);
	image->stack[29] = STACK + 304;
	image->stack[37] = code(1);
	registers[10] = STACK + 40;
	assert_int_equal(walk(image, start, 2), UNWIND_FULL);
	frame_is(image, 1, code(0), STACK + 40);
	free(image);
}

/* As in the dynamic linker: rbx is the CFA of a frame that is not the innermost. */
static void test_bx(void **state)
{
	static const uint32_t rules[] = {
		UNWIND_RULE(UNWIND_SP, 3, 0, 2),
		UNWIND_RULE(UNWIND_REGISTER, 2, 0, 3),
		UNWIND_RULE_END,
		UNWIND_RULE(UNWIND_SP, 3, 0, UNWIND_EXTRA_UNKNOWN),
	};
	struct image *image = new_image(rules, 4);
	struct unwind_start start = START(0);

	image->stack[1] = STACK + 80;
	image->stack[2] = code(1);
	image->stack[11] = code(2);
	assert_int_equal(walk(image, start, 32), UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 3);
	frame_is(image, 2, code(2), STACK + 96);
	/* Not saved, but not known to begin with either; then known. */
	start = START(3);
	assert_int_equal(walk(image, start, 32), UNWIND_UNSUPPORTED);
	image->rows[3].rule = UNWIND_RULE(UNWIND_SP, 3, 0, 0);
	memset(image->cache, 0, sizeof(image->cache));
	assert_int_equal(walk(image, start, 32), UNWIND_UNSUPPORTED);
	start.bx = STACK + 80;
	start.has_bx = true;
	assert_int_equal(walk(image, start, 32), UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 3);
	free(image);
}

static void test_signal(void **state)
{
	static const uint32_t rules[] = {
		UNWIND_RULE(UNWIND_SP, 1, 0, 0),
		UNWIND_RULE(UNWIND_SIGNAL, 20, 0, 0),
		UNWIND_RULE(UNWIND_REGISTER, 1, 2, 12),
		UNWIND_RULE(UNWIND_BP, 1, 0, 0),
		UNWIND_RULE_END,
	};
	struct image *image = new_image(rules, 5);
	uint64_t *context = image->stack + 1 + 5; /* r8 of the sigcontext */

	image->stack[0] = code(1);
	context[4] = STACK + 40 * 8;		/* r12 */
	context[10] = STACK + 50 * 8;		/* rbp */
	context[15] = STACK + 30 * 8;		/* rsp */
	context[16] = TEXT + 0x2000 + 0x200000; /* rip: the first byte of the rule */
	image->stack[39] = STACK + 45 * 8;	/* rbp of its caller */
	image->stack[40] = code(3);
	image->stack[45] = code(4);
	assert_int_equal(walk(image, START(0), 32), UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 5);
	frame_is(image, 1, code(1) | UNWIND_PC_EXACT, STACK + 8);
	frame_is(image, 2, (TEXT + 0x202000) | UNWIND_PC_EXACT, STACK + 240);
	frame_is(image, 3, code(3), STACK + 41 * 8);
	frame_is(image, 4, code(4), STACK + 46 * 8);
	free(image);
}

static void test_without_cfi(void **state)
{
	static const uint32_t rules[] = { UNWIND_RULE_NO_CFI, UNWIND_RULE_UNSUPPORTED };
	struct image *image = new_image(rules, 2);
	struct unwind_start start = { .pc = 0x123456, .sp = STACK, .bp = STACK + 16 };

	/* In no module at all, in one without information, and at the end. */
	image->stack[2] = STACK + 64;
	image->stack[3] = code(0);
	image->stack[8] = 0;
	image->stack[9] = code(0);
	assert_int_equal(walk(image, start, 32), UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 3);
	frame_is(image, 2, code(0), STACK + 80);
	image->stack[9] = code(1);
	assert_int_equal(walk(image, start, 32), UNWIND_UNSUPPORTED);
	assert_int_equal(image->frames.count, 3);
	/* Nonsense in rbp, and no address. */
	image->stack[8] = STACK + 8;
	image->stack[9] = code(0);
	assert_int_equal(walk(image, start, 32), UNWIND_NONSENSE);
	image->stack[9] = 0x1234567890123456;
	assert_int_equal(walk(image, start, 32), UNWIND_NONSENSE);
	assert_int_equal(image->frames.count, 2);
	start.bp = STACK + 17;
	assert_int_equal(walk(image, start, 32), UNWIND_NONSENSE);
	start.bp = 0x1000;
	assert_int_equal(walk(image, start, 32), UNWIND_NONSENSE);
	start.bp = STACK + (1 << 20);
	assert_int_equal(walk(image, start, 32), UNWIND_UNREADABLE);
	/* rbp is 0 where a thread begins, but not only there. */
	start.bp = 0;
	assert_int_equal(walk(image, start, 32), UNWIND_NONSENSE);
	free(image);
}

static void test_edges(void **state)
{
	static const uint32_t rules[] = { UNWIND_RULE(UNWIND_SP, 1, 0, 0), UNWIND_RULE_END };
	struct image *image = new_image(rules, 2);
	struct unwind_start start = START(0);

	/* The last word can be read, the next cannot. */
	start.sp = STACK + sizeof(image->stack) - 8;
	image->stack[63] = code(1);
	assert_int_equal(walk(image, start, 32), UNWIND_COMPLETE);
	start.sp++;
	assert_int_equal(walk(image, start, 32), UNWIND_UNREADABLE);
	start.sp = STACK - 1;
	assert_int_equal(walk(image, start, 32), UNWIND_UNREADABLE);
	start.sp = -8ull;
	assert_int_equal(walk(image, start, 32), UNWIND_NONSENSE);
	start.sp = -20ull;
	assert_int_equal(walk(image, start, 32), UNWIND_UNREADABLE);
	free(image);
}

static bool read_elsewhere(struct unwind_memory *memory, uint64_t address, uint64_t *ret)
{
	++*(unsigned *)memory->data;
	*ret = code(1);
	return address == STACK;
}

static void test_read(void **state)
{
	static const uint32_t rules[] = { UNWIND_RULE(UNWIND_SP, 1, 0, 0), UNWIND_RULE_END };
	struct image *image = new_image(rules, 2);
	unsigned asked = 0;
	struct unwind_memory memory = {
		.low = 8,
		.high = 8,
		.read = read_elsewhere,
		.data = &asked,
	};
	struct unwind_start start = START(0);

	image->frames = (struct unwind_frames){ .pcs = image->pcs, .max = 32 };
	assert_int_equal(unwind_walk(&image->header, NULL, &start, &memory, &image->frames),
			 UNWIND_COMPLETE);
	assert_int_equal(image->frames.count, 2);
	assert_int_equal(asked, 1);
	start.sp++;
	assert_int_equal(unwind_walk(&image->header, NULL, &start, &memory, &image->frames),
			 UNWIND_UNREADABLE);
	free(image);
}

/* ---- the table of this program ---- */

struct backtrace {
	uint64_t pcs[64];
	unsigned count;
};

static _Unwind_Reason_Code visit(struct _Unwind_Context *context, void *data)
{
	struct backtrace *backtrace = data;
	uint64_t pc = _Unwind_GetIP(context);

	if (pc && backtrace->count < 64)
		backtrace->pcs[backtrace->count++] = pc;
	return _URC_NO_REASON;
}

static struct unwind_table *table;
static uint64_t cache[UNWIND_CACHE_SIZE];
static volatile unsigned compared;

/* Both walks begin here; the addresses within this function differ. */
static __attribute__((noinline)) void compare_walks(void)
{
	struct unwind_start start = UNWIND_START_CALLER;
	struct unwind_memory memory = { .low = start.sp, .high = start.sp + (64 << 10) };
	struct backtrace expected = { .count = 0 };
	uint64_t pcs[64];
	static struct unwind_guesses guesses;
	struct unwind_frames frames = {
		.pcs = pcs,
		.max = 64,
		.guesses = compared % 4 == 3 ? &guesses : NULL,
	};
	enum unwind_result result;

	_Unwind_Backtrace(visit, &expected);
	result = unwind_walk(unwind_table_image(table, NULL), compared % 2 ? cache : NULL, &start,
			     &memory, &frames);
	assert_int_equal(result, UNWIND_COMPLETE);
	assert_int_equal(frames.count, expected.count - 1);
	for (unsigned i = 0; i < frames.count; i++)
		assert_int_equal(pcs[i] & ~UNWIND_PC_EXACT, expected.pcs[i + 1]);
	compared++;
}

static int in_qsort(const void *a, const void *b)
{
	compare_walks();
	return *(const int *)a - *(const int *)b;
}

static void in_signal(int signal)
{
	compare_walks();
}

static __attribute__((noinline)) void recurse(unsigned depth, volatile char *room)
{
	char below[depth * 16 + 1];

	if (depth)
		recurse(depth - 1, below);
	else
		compare_walks();
	room[0] = below[0] = 1;
}

static void test_own(void **state)
{
	int numbers[] = { 3, 2, 1 };
	struct target *target;
	char room[1];

	assert_ok(target_open_live(getpid(), &target));
	assert_ok(unwind_table_create(target, &table));
	compare_walks();
	compare_walks();
	qsort(numbers, 3, sizeof(numbers[0]), in_qsort);
	recurse(20, room);
	recurse(20, room);
	signal(SIGUSR1, in_signal);
	raise(SIGUSR1);
	raise(SIGUSR1);
	assert_true(compared >= 8);
	unwind_table_destroy(table);
	target_destroy(target);
}

/* Every byte of the text has the rule of the last row at or below it. */
static void test_lookup(void **state)
{
	const struct unwind_module *module;
	const struct unwind_row *rows;
	struct unwind_view view;
	struct target *target;
	uint32_t row = 0;
	size_t size;

	assert_ok(target_open_live(getpid(), &target));
	assert_ok(unwind_table_create(target, &table));
	view = unwind_view(unwind_table_image(table, &size));
	assert_true(view.module_count > 2);
	module = &view.modules[0];
	for (uint64_t i = 1; i < view.module_count; i++) {
		assert_true(view.modules[i].start >= view.modules[i - 1].end);
		if (view.modules[i].row_count > 200 && view.modules[i].row_count < 20000)
			module = &view.modules[i];
	}
	rows = (const void *)((const char *)view.table + module->rows);
	for (uint64_t address = module->start; address < module->end; address++) {
		while (row + 1 < module->row_count &&
		       rows[row + 1].offset <= address - module->start)
			row++;
		if (unwind_lookup(&view, address) != rows[row].rule)
			fail_msg("at %#llx", (unsigned long long)address);
	}
	assert_int_equal(row, module->row_count - 1);
	assert_int_equal(unwind_lookup(&view, view.modules[0].start - 1), UNWIND_RULE_NO_CFI);
	assert_int_equal(unwind_lookup(&view, 0), UNWIND_RULE_NO_CFI);
	assert_int_equal(unwind_lookup(&view, UINT64_MAX), UNWIND_RULE_NO_CFI);
	unwind_table_destroy(table);
	target_destroy(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),  cmocka_unit_test(test_return_address),
		cmocka_unit_test(test_rare),   cmocka_unit_test(test_bx),
		cmocka_unit_test(test_signal), cmocka_unit_test(test_without_cfi),
		cmocka_unit_test(test_edges),  cmocka_unit_test(test_read),
		cmocka_unit_test(test_own),    cmocka_unit_test(test_lookup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
