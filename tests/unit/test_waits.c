/* What a stop does to a system call, by its number, arguments and descriptor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/waits.h"

static enum wait_kind kind(const struct arch *arch, long nr, enum wait_file file, uint64_t a0,
			   uint64_t a1, uint64_t a2, uint64_t a3)
{
	struct process_syscall call = { .nr = nr, .args = { a0, a1, a2, a3 } };

	return wait_kind_of(arch, &call, file);
}

static void test_running_is_running(void **state)
{
	struct process_syscall call = { .running = true, .nr = 35 };

	assert_int_equal(wait_kind_of(&arch_x86_64, &call, WAIT_FILE_UNKNOWN), WAIT_RUNNING);
	assert_int_equal(kind(&arch_x86_64, -1, WAIT_FILE_UNKNOWN, 0, 0, 0, 0), WAIT_RUNNING);
	assert_int_equal(kind(&arch_x86_64, 9999, WAIT_FILE_UNKNOWN, 0, 0, 0, 0), WAIT_UNKNOWN);
}

/* The same number is another call elsewhere. */
static void test_numbers_are_of_an_architecture(void **state)
{
	static const struct {
		const struct arch *arch;
		long nanosleep, epoll_pwait, vfork;
	} all[] = {
		{ &arch_x86_64, 35, 281, 58 },
		{ &arch_i386, 162, 319, 190 },
		{ &arch_aarch64, 101, 22, -1 },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		const struct arch *arch = all[i].arch;

		assert_int_equal(kind(arch, all[i].nanosleep, 0, 0, 0, 0, 0), WAIT_RESTARTS);
		assert_string_equal(arch_call_name(arch, all[i].nanosleep), "nanosleep");
		assert_int_equal(kind(arch, all[i].epoll_pwait, 0, 0, 0, 0, 0), WAIT_FAILS);
		if (all[i].vfork >= 0)
			assert_int_equal(kind(arch, all[i].vfork, 0, 0, 0, 0, 0), WAIT_STAYS);
	}
	assert_int_equal(kind(&arch_i386, 35, 0, 0, 0, 0, 0), WAIT_UNKNOWN);
	assert_null(arch_call_name(&arch_x86_64, 9999));
}

static void test_reads_end_with_the_first_bytes(void **state)
{
	static const int reads[] = { 0, 19 };

	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(kind(&arch_x86_64, reads[i], WAIT_FILE_PIPE, 3, 0, 1 << 20, 0),
				 WAIT_RESTARTS);
		assert_int_equal(kind(&arch_x86_64, reads[i], WAIT_FILE_SOCKET, 3, 0, 1 << 20, 0),
				 WAIT_FAILS);
		assert_int_equal(kind(&arch_x86_64, reads[i], WAIT_FILE_OTHER, 3, 0, 1 << 20, 0),
				 WAIT_CUT);
		assert_int_equal(kind(&arch_x86_64, reads[i], WAIT_FILE_UNKNOWN, 3, 0, 1, 0),
				 WAIT_UNKNOWN);
	}
}

static void test_writes_end_when_all_has_gone(void **state)
{
	assert_int_equal(kind(&arch_x86_64, 1, WAIT_FILE_PIPE, 3, 0, 4096, 0), WAIT_RESTARTS);
	assert_int_equal(kind(&arch_x86_64, 1, WAIT_FILE_PIPE, 3, 0, 4097, 0), WAIT_CUT);
	assert_int_equal(kind(&arch_x86_64, 20, WAIT_FILE_PIPE, 3, 0, 1, 0), WAIT_CUT);
	assert_int_equal(kind(&arch_x86_64, 1, WAIT_FILE_ANON, 3, 0, 8, 0), WAIT_RESTARTS);
	assert_int_equal(kind(&arch_x86_64, 1, WAIT_FILE_SOCKET, 3, 0, 1000, 0), WAIT_CUT);
	assert_int_equal(kind(&arch_i386, 4, WAIT_FILE_PIPE, 3, 0, 300000, 0), WAIT_CUT);
}

static void test_messages(void **state)
{
	const uint64_t all = MSG_WAITALL;

	assert_int_equal(kind(&arch_x86_64, 45, 0, 3, 0, 65536, 0), WAIT_FAILS);
	assert_int_equal(kind(&arch_x86_64, 45, 0, 3, 0, 65536, all), WAIT_CUT);
	assert_int_equal(kind(&arch_x86_64, 47, 0, 3, 0, 0, all), WAIT_FAILS);
	assert_int_equal(kind(&arch_x86_64, 47, 0, 3, 0, all, 0), WAIT_CUT);
	assert_int_equal(kind(&arch_x86_64, 299, 0, 3, 0, 1, 0), WAIT_FAILS);
	assert_int_equal(kind(&arch_x86_64, 299, 0, 3, 0, 2, 0), WAIT_CUT);
	assert_int_equal(kind(&arch_x86_64, 44, 0, 3, 0, 1 << 20, 0), WAIT_CUT);
	assert_int_equal(kind(&arch_x86_64, 288, 0, 3, 0, 0, 0), WAIT_FAILS);
	/* socketcall: recv, accept4 */
	assert_int_equal(kind(&arch_i386, 102, 0, 10, 0, 0, 0), WAIT_CUT);
	assert_int_equal(kind(&arch_i386, 102, 0, 18, 0, 0, 0), WAIT_FAILS);
}

static void test_what_depends_on_arguments(void **state)
{
	/* io_uring_enter: waits only; submits first. The upper half of the word is no count. */
	assert_int_equal(kind(&arch_x86_64, 426, 0, 3, 0, 1, 1), WAIT_FAILS);
	assert_int_equal(kind(&arch_x86_64, 426, 0, 3, 1ull << 32, 1, 1), WAIT_FAILS);
	assert_int_equal(kind(&arch_x86_64, 426, 0, 3, 1, 1, 1), WAIT_CUT);
	/* fallocate: plain; FALLOC_FL_COLLAPSE_RANGE */
	assert_int_equal(kind(&arch_x86_64, 285, 0, 3, 0, 0, 8 << 20), WAIT_FAILS);
	assert_int_equal(kind(&arch_x86_64, 285, 0, 3, 0x08, 0, 8 << 20), WAIT_CUT);
	assert_int_equal(kind(&arch_x86_64, 318, 0, 0, 256, 0, 0), WAIT_RESTARTS);
	assert_int_equal(kind(&arch_x86_64, 318, 0, 0, 1 << 20, 0, 0), WAIT_CUT);
	assert_int_equal(kind(&arch_x86_64, 56, 0, CLONE_VFORK | CLONE_VM, 0, 0, 0), WAIT_STAYS);
	assert_int_equal(kind(&arch_x86_64, 56, 0, CLONE_VM, 0, 0, 0), WAIT_RESTARTS);
}

static void test_files_by_their_links(void **state)
{
	assert_int_equal(wait_file_of("pipe:[123]", 0), WAIT_FILE_PIPE);
	assert_int_equal(wait_file_of("socket:[123]", 0), WAIT_FILE_SOCKET);
	assert_int_equal(wait_file_of("anon_inode:[eventfd]", 0), WAIT_FILE_ANON);
	assert_int_equal(wait_file_of("/dev/pts/0", 0), WAIT_FILE_TERMINAL);
	assert_int_equal(wait_file_of("/dev/zero", 0), WAIT_FILE_OTHER);
	assert_int_equal(wait_file_of("/srv/pipe:[1]", 0), WAIT_FILE_OTHER);
	assert_int_equal(wait_file_of("/tmp/fifo", S_IFIFO | 0600), WAIT_FILE_PIPE);
	assert_int_equal(wait_file_of("/tmp/file", S_IFREG | 0600), WAIT_FILE_OTHER);
	assert_int_equal(wait_file_of("", 0), WAIT_FILE_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_running_is_running),
		cmocka_unit_test(test_numbers_are_of_an_architecture),
		cmocka_unit_test(test_reads_end_with_the_first_bytes),
		cmocka_unit_test(test_writes_end_when_all_has_gone),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_what_depends_on_arguments),
		cmocka_unit_test(test_files_by_their_links),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
