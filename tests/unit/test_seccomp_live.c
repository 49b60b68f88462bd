/* The kernel's own filters: fetched from children, and the simulator held against the kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/audit.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memprobe/arch.h"
#include "memprobe/clock.h"
#include "memprobe/ptrace.h"
#include "memprobe/seccomp.h"

#define DATA(field)	  ((unsigned)offsetof(struct seccomp_data, field))
#define RETURN(action)	  BPF_STMT(BPF_RET | BPF_K, action)
#define IF_EQUAL(k, t, f) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, t, f)

#define BODY_MAX 24
#define ROUNDS	 300
#define KILLED	 -1
#define CHILD_ARG                                                            \
	{                                                                    \
		1, 0xffffffff, 0x8000000000000001, 42, 0, 0x123456789abcdef0 \
	}

static bool install(const struct sock_filter *code, unsigned length)
{
	struct sock_fprog program = { (unsigned short)length, (struct sock_filter *)code };

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* ---- fetching ---- */

static const struct sock_filter first[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(nr)),
	IF_EQUAL(SYS_mmap, 0, 1),
	RETURN(SECCOMP_RET_KILL_PROCESS),
	RETURN(SECCOMP_RET_ALLOW),
};
static const struct sock_filter second[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(nr)),
	IF_EQUAL(SYS_getppid, 0, 1),
	RETURN(SECCOMP_RET_ERRNO | 13),
	RETURN(SECCOMP_RET_ALLOW),
};

static pid_t filtered_child(void)
{
	int ready[2];
	pid_t child;
	char byte;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!install(first, 4) || !install(second, 4))
			_exit(1);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return child;
}

static struct error *check_mmap(const struct seccomp_filters *filters, pid_t tid)
{
	const struct seccomp_call calls[] = {
		{ "rt_sigprocmask", SYS_rt_sigprocmask, { 0 }, false },
		{ "mmap", SYS_mmap, { 0, 4096, 3, 0x22, -1, 0 }, false },
	};

	assert_null(seccomp_allows(filters, tid, AUDIT_ARCH_X86_64, 0, calls, 1));
	return seccomp_allows(filters, tid, AUDIT_ARCH_X86_64, 0, calls, 2);
}

static void filters_are_fetched(void **state)
{
	struct seccomp_filters filters = { 0 };
	struct ptrace_stop stop;
	struct error *error;
	uint64_t begin, end;
	pid_t child;

	if (geteuid() != 0)
		skip();
	child = filtered_child();
	ptrace_prepare();
	assert_null(ptrace_seize(child, 0));
	assert_null(ptrace_interrupt(child));
	assert_null(ptrace_wait(child, 60000000, &stop));
	assert_int_equal(stop.kind, PTRACE_STOP_TRAP);
	begin = clock_us();
	error = seccomp_load(child, 2, &filters);
	end = clock_us();
	ptrace_detach(child, 0);
	print_message("two filters fetched in %d us\n", (int)(end - begin));
	assert_null(error);
	assert_int_equal(filters.programs.size, 2);
	assert_int_equal(filters.programs.data[0].length, 4);
	assert_memory_equal(filters.programs.data[0].code, first, sizeof(first));
	assert_memory_equal(filters.programs.data[1].code, second, sizeof(second));
	error = check_mmap(&filters, child);
	assert_true(error_is(error, ERROR_PERMISSION));
	assert_non_null(strstr(error->message, "kills the process on mmap"));
	error_destroy(error);
	seccomp_deinit(&filters);
	/* Looked at and let go, it lives. */
	assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

/* ---- the simulator against the kernel ---- */

struct random {
	uint64_t state;
};

static uint32_t next(struct random *random)
{
	random->state = random->state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random->state >> 33);
}

static struct sock_filter random_alu(struct random *random)
{
	static const uint16_t ops[] = { BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_AND,
					BPF_OR,	 BPF_XOR, BPF_LSH, BPF_RSH, BPF_NEG };
	uint16_t op = ops[next(random) % 10];
	uint32_t k = next(random) % 3 ? next(random) : 1 + next(random) % 40;

	if (op == BPF_NEG)
		return (struct sock_filter)BPF_STMT(BPF_ALU | BPF_NEG, 0);
	if (next(random) % 2)
		return (struct sock_filter)BPF_STMT(BPF_ALU | op | BPF_X, 0);
	if (op == BPF_LSH || op == BPF_RSH)
		k %= 32;
	return (struct sock_filter)BPF_STMT(BPF_ALU | op | BPF_K, k ? k : 1);
}

static struct sock_filter random_load(struct random *random)
{
	static const unsigned offsets[] = { DATA(nr), DATA(arch) };
	unsigned which = next(random) % 14;

	switch (next(random) % 4) {
	case 0:
		return (struct sock_filter)BPF_STMT(BPF_LD | BPF_MEM, next(random) % 2);
	case 1:
		return (struct sock_filter)BPF_STMT(BPF_LDX | BPF_MEM, next(random) % 2);
	case 2:
		return (struct sock_filter)BPF_STMT(BPF_LDX | BPF_IMM, next(random) % 4);
	}
	/* Not the instruction pointer: the child's is not known. */
	return (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
					    which < 2 ? offsets[which]
						      : DATA(args[0]) + 4 * (which - 2));
}

static struct sock_filter random_jump(struct random *random, unsigned left)
{
	static const uint16_t ops[] = { BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET };
	unsigned reach = left < 200 ? left : 200;
	uint8_t jt = (uint8_t)(next(random) % reach), jf = (uint8_t)(next(random) % reach);

	if (next(random) % 8 == 0)
		return (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, jt);
	return (struct sock_filter)BPF_JUMP(BPF_JMP | ops[next(random) % 4] |
						    (next(random) % 2 ? BPF_X : BPF_K),
					    next(random) % 2 ? next(random) : 42, jt, jf);
}

static struct sock_filter random_instruction(struct random *random, unsigned left)
{
	switch (next(random) % 8) {
	case 0:
		return (struct sock_filter)BPF_STMT(BPF_ST, next(random) % 2);
	case 1:
		return (struct sock_filter)BPF_STMT(BPF_STX, next(random) % 2);
	case 2:
		return (struct sock_filter)BPF_STMT(
			BPF_MISC | (next(random) % 2 ? BPF_TAX : BPF_TXA), 0);
	case 3:
	case 4:
		return random_load(random);
	case 5:
		return random_jump(random, left);
	}
	return random_alu(random);
}

/* Everything but getppid is allowed; its errno is what the random part computes. */
static unsigned random_program(struct random *random, struct sock_filter *code)
{
	unsigned n = 0, body = 1 + next(random) % BODY_MAX;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(nr));
	code[n++] = (struct sock_filter)IF_EQUAL(SYS_getppid, 1, 0);
	code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_ST, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_ST, 1);
	for (unsigned i = 0; i < body; i++)
		code[n++] = random_instruction(random, body - i);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x7ff);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_A, 0);
	return n;
}

/* errno of getppid under the program in a child, or KILLED. */
static int kernel_says(const struct sock_filter *code, unsigned length)
{
	int result = -2, status, answer[2];
	pid_t child;

	assert_int_equal(pipe(answer), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		const uint64_t args[6] = CHILD_ARG;

		if (!install(code, length))
			_exit(1);
		errno = 0;
		syscall(SYS_getppid, args[0], args[1], args[2], args[3], args[4], args[5]);
		result = errno;
		_exit(write(answer[1], &result, sizeof(result)) == sizeof(result) ? 0 : 1);
	}
	close(answer[1]);
	if (read(answer[0], &result, sizeof(result)) != sizeof(result))
		result = KILLED;
	close(answer[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	/* Refused by prctl: the generator is wrong. */
	assert_false(WIFEXITED(status) && WEXITSTATUS(status));
	return result;
}

static int simulator_says(struct sock_filter *code, unsigned length)
{
	struct seccomp_program program = { code, length };
	struct seccomp_filters filters = { .programs = { &program, 1, 1 } };
	const uint64_t args[6] = CHILD_ARG;
	uint32_t action = seccomp_action(&filters, arch_native()->audit_arch, SYS_getppid, args, 0);

	if ((action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO)
		return (int)(action & SECCOMP_RET_DATA);
	return KILLED;
}

static bool may_harm(struct sock_filter *code, unsigned length, int nr)
{
	const struct seccomp_program program = { code, length };

	return seccomp_program_may_harm(&program, arch_native()->audit_arch, nr);
}

static void simulator_agrees_with_the_kernel(void **state)
{
	struct random random = { 20240229 };
	unsigned killed = 0;

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct sock_filter code[BODY_MAX + 16];
		unsigned length = random_program(&random, code);
		int expected = kernel_says(code, length);

		if (simulator_says(code, length) != expected)
			fail_msg("program %u: %d, but the kernel %d", round,
				 simulator_says(code, length), expected);
		killed += expected == KILLED;
		/* Foreseen without the arguments, and without the number. */
		if (expected == KILLED && (!may_harm(code, length, SYS_getppid) ||
					   !may_harm(code, length, SECCOMP_ANY_CALL)))
			fail_msg("program %u: its kill was not foreseen", round);
	}
	/* Divisions by zero were among them, and were not all. */
	assert_in_range(killed, 1, ROUNDS / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(filters_are_fetched),
		cmocka_unit_test(simulator_agrees_with_the_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
