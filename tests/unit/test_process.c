/* What /proc tells about processes of every state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "memprobe/predecessor.h"
#include "memprobe/process.h"

static void assert_ok(struct error *error)
{
	if (error)
		fail_msg("%s", error->message);
}

static void assert_code(struct error *error, enum error_code code)
{
	assert_true(error_is(error, code));
	error_destroy(error);
}

static void set_name(void *name)
{
	prctl(PR_SET_NAME, name);
}

static void test_odd_names(void **state)
{
	static const char *const names[] = {
		"a b",	     "a) R 1 (",	 "x\ny",	   "back\\nslash",
		") S 5 6 7", "\303\244\302\266", "fifteen-letters"
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		pid_t pid = child_start(set_name, (void *)names[i]);
		struct process_status status;
		struct pid_vec pids = { 0 };
		struct process *process;

		assert_ok(process_open(pid, &process));
		assert_int_not_equal(process->start_time, 0);
		assert_ok(process_read_status(process, 0, &status));
		assert_string_equal(status.name, names[i]);
		assert_int_equal(status.ppid, getpid());
		assert_int_equal(status.tgid, pid);
		assert_int_equal(status.uid, getuid());
		assert_false(status.kernel_thread);
		assert_true(process_is_alive(process));
		assert_ok(process_find_by_name(names[i], &pids));
		assert_int_equal(pids.size, 1);
		assert_int_equal(pids.data[0], pid);
		pid_vec_deinit(&pids);
		child_stop(pid);
		assert_false(process_is_alive(process));
		assert_code(process_read_status(process, 0, &status), ERROR_NO_TARGET);
		process_close(process);
	}
}

/* memprobe itself never; a part of a name neither. */
static void test_find(void **state)
{
	static const char *const absent[] = { "", "test_proces", "test_process-not", "/" };
	struct pid_vec pids = { 0 };

	for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
		assert_ok(process_find_by_name(absent[i], &pids));
		assert_int_equal(pids.size, 0);
	}
	assert_ok(process_find_by_name("test_process", &pids));
	for (size_t i = 0; i < pids.size; i++)
		assert_int_not_equal(pids.data[i], getpid());
	pid_vec_deinit(&pids);
}

static void test_nobody(void **state)
{
	static const pid_t pids[] = { 0, -1, INT32_MAX };
	struct process *process;

	for (size_t i = 0; i < sizeof(pids) / sizeof(pids[0]); i++)
		assert_code(process_open(pids[i], &process), ERROR_NO_TARGET);
}

static void exit_at_once(void *unused)
{
	_exit(0);
}

static void test_zombie(void **state)
{
	pid_t pid = child_start(exit_at_once, NULL);
	struct process_status status;
	struct process *process;
	siginfo_t info;

	assert_int_equal(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
	assert_ok(process_open(pid, &process));
	assert_ok(process_read_status(process, 0, &status));
	assert_int_equal(status.state, 'Z');
	assert_false(status.kernel_thread);
	assert_true(process_is_alive(process));
	assert_true(process_has_ended(process));
	/* Its program is gone: whatever it traces it will not hold for long. */
	assert_true(predecessor_is_ending(pid));
	assert_false(predecessor_is_ending(getppid()));
	waitpid(pid, NULL, 0);
	assert_false(process_is_alive(process));
	assert_false(predecessor_is_ending(pid));
	assert_true(process_has_ended(process));
	process_close(process);
}

static void test_kernel_thread(void **state)
{
	struct process_status status;
	struct process *process;

	if (access("/proc/2/comm", F_OK))
		skip();
	assert_ok(process_open(2, &process));
	assert_ok(process_read_status(process, 0, &status));
	if (!strcmp(status.name, "kthreadd"))
		assert_true(status.kernel_thread);
	process_close(process);
}

static void *wait_in_read(void *unused)
{
	pid_t tid = (pid_t)syscall(SYS_gettid);
	int fds[2];
	char byte;

	if (pipe(fds))
		abort();
	child_tell(&tid, sizeof(tid));
	child_tell(&fds[0], sizeof(fds[0]));
	return (void *)read(fds[0], &byte, 1);
}

static void start_thread(void *unused)
{
	pthread_t thread;

	prctl(PR_SET_NAME, "leader");
	if (pthread_create(&thread, NULL, wait_in_read, NULL))
		abort();
}

static void test_thread(void **state)
{
	pid_t tid, pid = child_start(start_thread, NULL);
	struct process_syscall syscall = { .running = true };
	struct pid_vec tids = { 0 };
	struct process_status status;
	struct process *process;
	struct error *error;
	char text[32];
	int fd;

	child_hear(&tid, sizeof(tid));
	child_hear(&fd, sizeof(fd));
	error = process_open(tid, &process);
	assert_true(error_is(error, ERROR_NO_TARGET));
	snprintf(text, sizeof(text), "process %d", (int)pid);
	assert_non_null(strstr(error->hint, text));
	error_destroy(error);
	assert_ok(process_open(pid, &process));
	assert_ok(process_list_threads(process, &tids));
	assert_int_equal(tids.size, 2);
	pid_vec_deinit(&tids);
	assert_ok(process_read_status(process, tid, &status));
	assert_int_equal(status.ns_tid, tid);
	/* It is on its way into read(). */
	while (syscall.running || syscall.nr != SYS_read)
		assert_ok(process_read_syscall(process, tid, &syscall));
	assert_int_equal(syscall.args[0], fd);
	assert_int_equal(syscall.args[2], 1);
	assert_int_not_equal(syscall.sp, 0);
	assert_code(process_read_status(process, getpid(), &status), ERROR_NO_TARGET);
	child_stop(pid);
	assert_code(process_list_threads(process, &tids), ERROR_NO_TARGET);
	process_close(process);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_odd_names),     cmocka_unit_test(test_find),
		cmocka_unit_test(test_nobody),	      cmocka_unit_test(test_zombie),
		cmocka_unit_test(test_kernel_thread), cmocka_unit_test(test_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
