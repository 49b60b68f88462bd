/* What is asked of an architecture: registers by what they are for, names of calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memprobe/arch.h"

static void a_word_has_the_width_of_its_architecture(void **state)
{
	const struct arch *wide = &arch_x86_64, *narrow = &arch_i386;
	struct user_regs_struct regs;

	memset(&regs, 0xff, sizeof(regs));
	assert_true(arch_word(wide, &regs, wide->places.result) == UINT64_MAX);
	assert_true(arch_word(narrow, &regs, narrow->places.result) == UINT32_MAX);
	assert_true(arch_word(narrow, &regs, ARCH_NONE) == 0);
	assert_true(arch_call_result(narrow, &regs) == -1 && arch_call_number(narrow, &regs) == -1);
	arch_set_word(narrow, &regs, narrow->places.result, 0xfffffffc);
	assert_true(arch_word(wide, &regs, wide->places.result) == (uint64_t)-4);
	arch_set_word(wide, &regs, wide->places.pc, 0x7f0012345678);
	assert_true(wide->pc(&regs) == 0x7f0012345678 && narrow->pc(&regs) == 0x12345678);
	arch_set_word(wide, &regs, ARCH_NONE, 1);
	assert_false(arch_runs(wide, &regs) || arch_runs(narrow, &regs));
	arch_set_word(wide, &regs, wide->places.mode, 0x23);
	assert_true(arch_runs(narrow, &regs) && !arch_runs(wide, &regs));
}

/* From a real process: which register is which. */
static void a_call_is_seen_as_the_kernel_takes_it(void **state)
{
	const struct arch *arch = arch_native();
	struct user_regs_struct regs = { 0 };
	uint64_t arguments[6];
	int status;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		kill(getpid(), SIGSTOP);
		syscall(SYS_getdents64, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666);
		_exit(0);
	}
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	/* Up to the entry of that call. */
	for (int i = 0; i < 10 && arch_call_number(arch, &regs) != SYS_getdents64; i++) {
		assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
		assert_true(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
		assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
	}
	arch_call_arguments(arch, &regs, arguments);
	for (uint64_t i = 0; i < 6; i++)
		assert_true(arguments[i] == 0x1111 * (i + 1));
	assert_true(arch_runs(arch, &regs));
	assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
	assert_true(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
	assert_int_equal(arch_call_result(arch, &regs), -EBADF);
	/* The offset is one of PTRACE_PEEKUSER, too. */
	assert_int_equal(ptrace(PTRACE_PEEKUSER, pid, arch->places.result, NULL), -EBADF);
	kill(pid, SIGKILL);
	assert_true(waitpid(pid, &status, 0) == pid);
}

/* Sorted, so that a number that stands there twice is seen. */
static void numbers_of_calls_are_told_apart(void **state)
{
	static const struct arch *const all[] = { &arch_x86_64, &arch_i386, &arch_aarch64 };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		assert_null(arch_call_name(all[i], 9999));
		assert_null(arch_call_name(all[i], -1));
		for (const struct arch_call *call = all[i]->calls; call->number >= 0; call++)
			assert_true(call[1].number < 0 || call[1].number > call->number);
		assert_string_equal(arch_call_name(all[i], all[i]->syscalls.futex), "futex");
		assert_string_equal(arch_call_name(all[i], all[i]->syscalls.wait4), "wait4");
	}
	assert_string_equal(arch_call_name(arch_native(), SYS_recvmmsg), "recvmmsg");
	assert_string_equal(arch_call_name(arch_native(), SYS_process_vm_writev),
			    "process_vm_writev");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_word_has_the_width_of_its_architecture),
		cmocka_unit_test(a_call_is_seen_as_the_kernel_takes_it),
		cmocka_unit_test(numbers_of_calls_are_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
