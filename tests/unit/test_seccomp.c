/* Seccomp filters: programs assembled by hand, run on system calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/audit.h>
#include <sys/syscall.h>

#include "memprobe/seccomp.h"

#define DATA(field)	  ((unsigned)offsetof(struct seccomp_data, field))
#define LOAD(field)	  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(field))
#define RETURN(action)	  BPF_STMT(BPF_RET | BPF_K, action)
#define IF_EQUAL(k, t, f) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, t, f)
#define X32_BIT		  0x40000000

static const uint64_t no_args[6];

#define RUN(data, ...)                                              \
	({                                                          \
		struct sock_filter code_[] = { __VA_ARGS__ };       \
		run(code_, sizeof(code_) / sizeof(code_[0]), data); \
	})
#define IS_MALFORMED(...)                                              \
	({                                                             \
		struct sock_filter code_[] = { __VA_ARGS__ };          \
		is_malformed(code_, sizeof(code_) / sizeof(code_[0])); \
	})

static uint32_t run(struct sock_filter *code, unsigned length, const struct seccomp_data *data)
{
	struct seccomp_program program = { code, length };

	return seccomp_program_run(&program, data);
}

static bool is_malformed(struct sock_filter *code, unsigned length)
{
	struct seccomp_program program = { code, length };
	struct seccomp_data data = { 0 };
	struct error *error = seccomp_program_check(&program);

	if (!error)
		return false;
	assert_int_equal(error->code, ERROR_UNSUPPORTED);
	error_destroy(error);
	/* Whatever it is, it runs to an end, and to the safe side. */
	assert_int_equal(seccomp_program_run(&program, &data), SECCOMP_RET_KILL_PROCESS);
	return true;
}

static void add(struct seccomp_filters *filters, const struct sock_filter *code, unsigned length)
{
	struct seccomp_program program = { malloc(length * sizeof(*code)), length };

	assert_non_null(program.code);
	memcpy(program.code, code, length * sizeof(*code));
	assert_null(seccomp_program_vec_append(&filters->programs, &program));
}

static void add_constant(struct seccomp_filters *filters, uint32_t action)
{
	struct sock_filter code[] = { RETURN(action) };

	add(filters, code, 1);
}

/* Like the default profile of docker: architecture, a list of allowed calls, x32 refused, a call
 * that depends on an argument, and EPERM for the rest. */
static const struct sock_filter container[] = {
	LOAD(arch),
	IF_EQUAL(AUDIT_ARCH_X86_64, 1, 0),
	RETURN(SECCOMP_RET_KILL_PROCESS),
	LOAD(nr),
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 8, 0),
	IF_EQUAL(SYS_read, 6, 0),
	IF_EQUAL(SYS_mmap, 5, 0),
	IF_EQUAL(SYS_rt_sigprocmask, 4, 0),
	IF_EQUAL(SYS_clone, 0, 4),
	LOAD(args[0]), /* clone: no new user namespace */
	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x10000000, 2, 0),
	RETURN(SECCOMP_RET_ALLOW),
	RETURN(SECCOMP_RET_ALLOW),
	RETURN(SECCOMP_RET_ERRNO | 1),
};
#define CONTAINER_LENGTH (sizeof(container) / sizeof(container[0]))

static uint32_t container_action(uint32_t arch, int nr, uint64_t first)
{
	struct seccomp_filters filters = { 0 };
	uint64_t args[6] = { first };
	uint32_t action;

	add(&filters, container, CONTAINER_LENGTH);
	action = seccomp_action(&filters, arch, nr, args, 0);
	seccomp_deinit(&filters);
	return action;
}

static void container_profile(void **state)
{
	const uint32_t denied = SECCOMP_RET_ERRNO | 1;

	assert_int_equal(container_action(AUDIT_ARCH_X86_64, SYS_read, 0), SECCOMP_RET_ALLOW);
	assert_int_equal(container_action(AUDIT_ARCH_X86_64, SYS_mmap, 0), SECCOMP_RET_ALLOW);
	assert_int_equal(container_action(AUDIT_ARCH_X86_64, SYS_rt_sigprocmask, 0),
			 SECCOMP_RET_ALLOW);
	assert_int_equal(container_action(AUDIT_ARCH_X86_64, SYS_ptrace, 0), denied);
	assert_int_equal(container_action(AUDIT_ARCH_X86_64, SYS_clone, 0x11), SECCOMP_RET_ALLOW);
	assert_int_equal(container_action(AUDIT_ARCH_X86_64, SYS_clone, 0x10000011), denied);
	/* Another architecture's numbers mean other calls. */
	assert_int_equal(container_action(AUDIT_ARCH_I386, SYS_read, 0), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(container_action(AUDIT_ARCH_X86_64, SYS_read | X32_BIT, 0), denied);
}

#define MAY_HARM(nr, ...)                                                                      \
	({                                                                                     \
		struct sock_filter code_[] = { __VA_ARGS__ };                                  \
		struct seccomp_program program_ = { code_, sizeof(code_) / sizeof(code_[0]) }; \
		seccomp_program_may_harm(&program_, AUDIT_ARCH_X86_64, nr);                    \
	})

/* What a call may do with arguments that nobody knows. */
static void harm_is_found_for_any_arguments(void **state)
{
	const struct sock_filter kill = RETURN(SECCOMP_RET_KILL_PROCESS);
	const struct sock_filter allow = RETURN(SECCOMP_RET_ALLOW);
	struct sock_filter copy[CONTAINER_LENGTH];
	struct seccomp_program program = { copy, CONTAINER_LENGTH };

	/* Another architecture does not come there. */
	memcpy(copy, container, sizeof(copy));
	assert_false(seccomp_program_may_harm(&program, AUDIT_ARCH_X86_64, SECCOMP_ANY_CALL));
	assert_true(seccomp_program_may_harm(&program, AUDIT_ARCH_I386, SECCOMP_ANY_CALL));
	/* By an argument, and by it masked. */
	assert_true(MAY_HARM(56, LOAD(nr), IF_EQUAL(56, 0, 3), LOAD(args[0]),
			     IF_EQUAL(0x3d0f00, 1, 0), kill, allow));
	assert_false(MAY_HARM(57, LOAD(nr), IF_EQUAL(56, 0, 3), LOAD(args[0]),
			      IF_EQUAL(0x3d0f00, 1, 0), kill, allow));
	assert_true(MAY_HARM(9, LOAD(args[2]), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 4),
			     IF_EQUAL(0, 1, 0), kill, allow));
	/* Two ways that leave different numbers in the accumulator. */
	assert_true(MAY_HARM(1, LOAD(args[0]), IF_EQUAL(7, 0, 1), BPF_STMT(BPF_LD | BPF_IMM, 5),
			     IF_EQUAL(5, 0, 1), kill, allow));
	/* Through memory, a register and a division. */
	assert_true(MAY_HARM(1, LOAD(nr), BPF_STMT(BPF_ST, 0), BPF_STMT(BPF_LD | BPF_MEM, 0),
			     IF_EQUAL(2, 0, 1), kill, allow));
	assert_true(MAY_HARM(1, LOAD(args[0]), BPF_STMT(BPF_MISC | BPF_TAX, 0), LOAD(nr),
			     BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), allow));
	assert_true(MAY_HARM(1, LOAD(args[0]), BPF_STMT(BPF_RET | BPF_A, 0)));
	assert_false(MAY_HARM(1, LOAD(nr), BPF_STMT(BPF_MISC | BPF_TAX, 0),
			      BPF_STMT(BPF_LD | BPF_IMM, 2), BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0),
			      IF_EQUAL(1, 1, 0), kill, allow));
	/* Answers that harm nobody, and what is no program at all. */
	assert_false(MAY_HARM(SECCOMP_ANY_CALL, RETURN(SECCOMP_RET_ERRNO | 1)));
	assert_false(MAY_HARM(SECCOMP_ANY_CALL, RETURN(SECCOMP_RET_TRACE)));
	assert_true(MAY_HARM(SECCOMP_ANY_CALL, RETURN(SECCOMP_RET_TRAP)));
	assert_true(MAY_HARM(SECCOMP_ANY_CALL, LOAD(nr)));
}

static void no_filter_allows(void **state)
{
	struct seccomp_filters filters = { 0 };

	assert_int_equal(seccomp_action(&filters, AUDIT_ARCH_X86_64, SYS_mmap, no_args, 0),
			 SECCOMP_RET_ALLOW);
}

static void most_restrictive_wins(void **state)
{
	static const uint32_t order[] = {
		SECCOMP_RET_ALLOW,	 SECCOMP_RET_LOG,	   SECCOMP_RET_TRACE,
		SECCOMP_RET_USER_NOTIF,	 SECCOMP_RET_ERRNO | 13,   SECCOMP_RET_TRAP,
		SECCOMP_RET_KILL_THREAD, SECCOMP_RET_KILL_PROCESS,
	};
	enum { COUNT = sizeof(order) / sizeof(order[0]) };

	for (int i = 0; i < COUNT; i++) {
		for (int j = 0; j < COUNT; j++) {
			struct seccomp_filters filters = { 0 };

			add_constant(&filters, order[i]);
			add_constant(&filters, order[j]);
			assert_int_equal(seccomp_action(&filters, AUDIT_ARCH_X86_64, 0, no_args, 0),
					 order[i > j ? i : j]);
			seccomp_deinit(&filters);
		}
	}
}

static void the_newest_errno_wins(void **state)
{
	struct seccomp_filters filters = { 0 };

	add_constant(&filters, SECCOMP_RET_ERRNO | 1);
	add_constant(&filters, SECCOMP_RET_ERRNO | 38);
	assert_int_equal(seccomp_action(&filters, AUDIT_ARCH_X86_64, 0, no_args, 0),
			 SECCOMP_RET_ERRNO | 38);
	seccomp_deinit(&filters);
}

static void data_is_seen(void **state)
{
	struct seccomp_data data = {
		.nr = 9,
		.arch = 7,
		.instruction_pointer = 0x1111222233334444,
		.args = { 1, 2, 3, 4, 5, 0x5555666677778888 },
	};

	assert_int_equal(RUN(&data, LOAD(nr), BPF_STMT(BPF_RET | BPF_A, 0)), 9);
	assert_int_equal(RUN(&data, LOAD(arch), BPF_STMT(BPF_RET | BPF_A, 0)), 7);
	assert_int_equal(RUN(&data, LOAD(instruction_pointer), BPF_STMT(BPF_RET | BPF_A, 0)),
			 0x33334444);
	assert_int_equal(
		RUN(&data, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 60), BPF_STMT(BPF_RET | BPF_A, 0)),
		0x55556666);
	assert_int_equal(
		RUN(&data, BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), BPF_STMT(BPF_RET | BPF_A, 0)),
		64);
}

static uint32_t alu(unsigned op, uint32_t a, uint32_t operand)
{
	struct seccomp_data data = { 0 };
	uint32_t by_x =
		RUN(&data, BPF_STMT(BPF_LDX | BPF_IMM, operand), BPF_STMT(BPF_LD | BPF_IMM, a),
		    BPF_STMT(BPF_ALU | op | BPF_X, 0), BPF_STMT(BPF_RET | BPF_A, 0));
	uint32_t by_k = RUN(&data, BPF_STMT(BPF_LD | BPF_IMM, a),
			    BPF_STMT(BPF_ALU | op | BPF_K, operand), BPF_STMT(BPF_RET | BPF_A, 0));

	assert_int_equal(by_x, by_k);
	return by_x;
}

static void arithmetic(void **state)
{
	struct seccomp_data data = { 0 };

	assert_int_equal(alu(BPF_ADD, 0xffffffff, 2), 1);
	assert_int_equal(alu(BPF_SUB, 1, 2), 0xffffffff);
	assert_int_equal(alu(BPF_MUL, 0x10001, 0x10001), 0x20001);
	assert_int_equal(alu(BPF_DIV, 7, 2), 3);
	assert_int_equal(alu(BPF_AND, 0xff00ff, 0x0ff0), 0x0f0);
	assert_int_equal(alu(BPF_OR, 0xf0, 0x0f), 0xff);
	assert_int_equal(alu(BPF_XOR, 0xff, 0x0f), 0xf0);
	assert_int_equal(alu(BPF_LSH, 1, 31), 0x80000000);
	assert_int_equal(alu(BPF_RSH, 0x80000000, 31), 1);
	assert_int_equal(RUN(&data, BPF_STMT(BPF_LD | BPF_IMM, 5), BPF_STMT(BPF_ALU | BPF_NEG, 0),
			     BPF_STMT(BPF_RET | BPF_A, 0)),
			 (uint32_t)-5);
	/* By X, the kernel takes the lower five bits. */
	assert_int_equal(RUN(&data, BPF_STMT(BPF_LDX | BPF_IMM, 33), BPF_STMT(BPF_LD | BPF_IMM, 1),
			     BPF_STMT(BPF_ALU | BPF_LSH | BPF_X, 0), BPF_STMT(BPF_RET | BPF_A, 0)),
			 2);
}

static void memory_and_registers(void **state)
{
	struct seccomp_data data = { 0 };

	assert_int_equal(RUN(&data, BPF_STMT(BPF_LD | BPF_IMM, 5), BPF_STMT(BPF_ST, 15),
			     BPF_STMT(BPF_LDX | BPF_MEM, 15), BPF_STMT(BPF_STX, 0),
			     BPF_STMT(BPF_LD | BPF_IMM, 0), BPF_STMT(BPF_MISC | BPF_TXA, 0),
			     BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_LD | BPF_MEM, 0),
			     BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0), BPF_STMT(BPF_RET | BPF_A, 0)),
			 10);
}

static bool jumps(unsigned op, uint32_t a, uint32_t operand)
{
	struct seccomp_data data = { 0 };
	uint32_t by_x =
		RUN(&data, BPF_STMT(BPF_LDX | BPF_IMM, operand), BPF_STMT(BPF_LD | BPF_IMM, a),
		    BPF_JUMP(BPF_JMP | op | BPF_X, 0, 1, 0), RETURN(0), RETURN(1));
	uint32_t by_k = RUN(&data, BPF_STMT(BPF_LD | BPF_IMM, a),
			    BPF_JUMP(BPF_JMP | op | BPF_K, operand, 1, 0), RETURN(0), RETURN(1));

	assert_int_equal(by_x, by_k);
	return by_x;
}

static void conditions(void **state)
{
	struct seccomp_data data = { 0 };

	assert_true(jumps(BPF_JEQ, 5, 5));
	assert_false(jumps(BPF_JEQ, 5, 6));
	assert_true(jumps(BPF_JGT, 0xffffffff, 5));
	assert_false(jumps(BPF_JGT, 5, 5));
	assert_true(jumps(BPF_JGE, 5, 5));
	assert_false(jumps(BPF_JGE, 4, 5));
	assert_true(jumps(BPF_JSET, 6, 2));
	assert_false(jumps(BPF_JSET, 5, 2));
	assert_int_equal(RUN(&data, BPF_STMT(BPF_JMP | BPF_JA, 1), RETURN(1), RETURN(2)), 2);
}

static void division_by_zero_kills(void **state)
{
	struct seccomp_data data = { 0 };

	assert_true(
		IS_MALFORMED(BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), RETURN(SECCOMP_RET_ALLOW)));
	assert_int_equal(
		RUN(&data, BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), RETURN(SECCOMP_RET_ALLOW)),
		SECCOMP_RET_KILL_THREAD);
}

static void malformed_programs(void **state)
{
	struct sock_filter none[1];

	assert_true(is_malformed(none, 0));
	assert_true(IS_MALFORMED(LOAD(nr)));
	/* Jumps past the end, also where they are not taken. */
	assert_true(IS_MALFORMED(IF_EQUAL(0, 0, 1), RETURN(0)));
	assert_true(IS_MALFORMED(IF_EQUAL(0, 255, 0), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_JMP | BPF_JA, 1), RETURN(0)));
	/* Backwards, as it were. */
	assert_true(IS_MALFORMED(BPF_STMT(BPF_JMP | BPF_JA, 0xffffffff), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_JMP | BPF_JA, 0xfffffffe), RETURN(0)));
	/* Loads beside and past the data. */
	assert_true(IS_MALFORMED(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0xfffffffc), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_LD | BPF_MEM, 16), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_LDX | BPF_MEM, 0xffffffff), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_ST, 16), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_STX, 0x80000000), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), RETURN(0)));
	/* Seccomp has no modulo; nothing has this code. */
	assert_true(IS_MALFORMED(BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), RETURN(0)));
	assert_true(IS_MALFORMED(BPF_STMT(0xffff, 0), RETURN(0)));
}

static void any_code_ends(void **state)
{
	struct seccomp_data data = { 0 };

	for (unsigned code = 0; code <= 0xffff; code++) {
		struct sock_filter program[] = {
			{ .code = (uint16_t)code, .jt = 1, .jf = 0, .k = 1 },
			RETURN(SECCOMP_RET_ERRNO),
			RETURN(SECCOMP_RET_ERRNO),
		};

		run(program, 3, &data);
	}
}

static void huge_programs(void **state)
{
	struct sock_filter *code = calloc(BPF_MAXINSNS + 1, sizeof(*code));
	struct seccomp_data data = { 0 };

	assert_non_null(code);
	for (unsigned i = 0; i <= BPF_MAXINSNS; i++)
		code[i] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 1);
	code[BPF_MAXINSNS - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_A, 0);
	code[BPF_MAXINSNS] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
	assert_int_equal(run(code, BPF_MAXINSNS, &data), BPF_MAXINSNS - 1);
	assert_true(is_malformed(code, BPF_MAXINSNS + 1));
	free(code);
}

static void assert_refused(const struct seccomp_filters *filters, const char *words)
{
	const struct seccomp_call calls[] = {
		{ "rt_sigprocmask", SYS_rt_sigprocmask, { 0 }, false },
		{ "nothing", -1, { 0 }, false },
		{ "futex", SYS_futex, { 0 }, false },
	};
	struct error *error = seccomp_allows(filters, 42, AUDIT_ARCH_X86_64, 0, calls, 3);

	if (!words) {
		assert_null(error);
		return;
	}
	assert_non_null(error);
	assert_int_equal(error->code, ERROR_PERMISSION);
	if (!strstr(error->message, words))
		fail_msg("'%s' is not in '%s'", words, error->message);
	error_destroy(error);
}

static void judgement_names_call_and_action(void **state)
{
	struct seccomp_filters strict = { .strict = true }, filters = { 0 };
	struct sock_filter kill_futex[] = {
		LOAD(nr),
		IF_EQUAL(SYS_futex, 0, 1),
		RETURN(SECCOMP_RET_KILL_PROCESS),
		RETURN(SECCOMP_RET_ALLOW),
	};

	assert_refused(&filters, NULL);
	assert_refused(&strict, "strict, which kills the thread on rt_sigprocmask");
	add_constant(&filters, SECCOMP_RET_LOG);
	assert_refused(&filters, NULL);
	add(&filters, kill_futex, 4);
	assert_refused(&filters, "kills the process on futex");
	add_constant(&filters, SECCOMP_RET_ERRNO | 1);
	assert_refused(&filters, "answers errno 1 on rt_sigprocmask");
	seccomp_deinit(&filters);
}

static void some_calls_may_fail(void **state)
{
	static const uint32_t fine[] = { SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_ERRNO | 12,
					 SECCOMP_RET_USER_NOTIF, SECCOMP_RET_TRACE };
	static const uint32_t deadly[] = { SECCOMP_RET_TRAP, SECCOMP_RET_KILL_THREAD,
					   SECCOMP_RET_KILL_PROCESS, 0x12340000 };
	const struct seccomp_call call = { .nr = SYS_brk, .may_fail = true };

	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
		struct seccomp_filters filters = { 0 };

		add_constant(&filters, fine[i]);
		assert_null(seccomp_allows(&filters, 42, AUDIT_ARCH_X86_64, 0, &call, 1));
		seccomp_deinit(&filters);
	}
	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
		struct seccomp_filters filters = { 0 };
		struct error *error;

		add_constant(&filters, deadly[i]);
		error = seccomp_allows(&filters, 42, AUDIT_ARCH_X86_64, 0, &call, 1);
		assert_true(error_is(error, ERROR_PERMISSION));
		assert_non_null(strstr(error->message, "on system call 12"));
		error_destroy(error);
		seccomp_deinit(&filters);
	}
}

static void modes(void **state)
{
	struct seccomp_filters filters = { 0 };
	struct error *error;

	/* No thread is asked: there is no such one. */
	assert_null(seccomp_load(-1, 0, &filters));
	assert_false(filters.strict);
	assert_null(seccomp_load(-1, 1, &filters));
	assert_true(filters.strict);
	error = seccomp_load(-1, 2, &filters);
	assert_non_null(error);
	error_destroy(error);
	error = seccomp_load(-1, -1, &filters);
	assert_true(error_is(error, ERROR_UNSUPPORTED));
	error_destroy(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(container_profile),
		cmocka_unit_test(harm_is_found_for_any_arguments),
		cmocka_unit_test(no_filter_allows),
		cmocka_unit_test(most_restrictive_wins),
		cmocka_unit_test(the_newest_errno_wins),
		cmocka_unit_test(data_is_seen),
		cmocka_unit_test(arithmetic),
		cmocka_unit_test(memory_and_registers),
		cmocka_unit_test(conditions),
		cmocka_unit_test(division_by_zero_kills),
		cmocka_unit_test(malformed_programs),
		cmocka_unit_test(any_code_ends),
		cmocka_unit_test(huge_programs),
		cmocka_unit_test(judgement_names_call_and_action),
		cmocka_unit_test(some_calls_may_fail),
		cmocka_unit_test(modes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
