/* Stops of living children: threads that come and go, cannot stop, or are stopped; what is copied.
 */
#include "children.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define IDLE 8 /* threads of live_idle() beside the main one */

static void *just_wait(void *data)
{
	__atomic_add_fetch(&shared->ready, 1, __ATOMIC_SEQ_CST);
	for (;;)
		pause();
	return NULL;
}

static void live_idle(void)
{
	start_threads(IDLE, just_wait);
	for (;;)
		pause();
}

/* ---- threads that come and go, that cannot stop, that are stopped already ---- */

static void *be_born(void *data)
{
	shared->births++;
	return NULL;
}

static void live_breeding(void)
{
	for (;;) {
		pthread_t threads[8];

		for (unsigned i = 0; i < 8; i++)
			if (pthread_create(&threads[i], NULL, be_born, NULL))
				_exit(1);
		for (unsigned i = 0; i < 8; i++)
			pthread_join(threads[i], NULL);
		shared->ready++;
	}
}

static void test_threads_come_and_go(void **state)
{
	unsigned long births;

	start_child(live_breeding);
	wait_for(&shared->ready, 1);
	stop_rounds(500, 1, 0);
	births = shared->births;
	wait_for(&shared->births, births + 100);
	child_state();
}

static void *never_stop(void *data)
{
	/* The parent of a vfork() sleeps uninterruptibly until the child has gone. */
	pid_t pid = vfork();

	if (pid == 0) {
		while (!shared->end)
			usleep(1000);
		_exit(0);
	}
	__atomic_add_fetch(&shared->births, 1, __ATOMIC_SEQ_CST);
	for (;;)
		pause();
}

static void live_unstoppable(void)
{
	start_threads(1, never_stop);
	__atomic_add_fetch(&shared->ready, 1, __ATOMIC_SEQ_CST);
	for (;;)
		usleep(1000);
}

static bool has_uninterruptible_thread(struct target *target)
{
	struct pid_vec tids = { 0 };
	bool found = false;

	assert_null(process_list_threads(target->process, &tids));
	vec_for_each (tid, &tids) {
		struct process_status status;

		assert_null(process_read_status(target->process, *tid, &status));
		found |= status.state == 'D';
	}
	pid_vec_deinit(&tids);
	return found;
}

static bool always(void)
{
	return true;
}

static void test_unstoppable_thread_is_left_out(void **state)
{
	struct stop_options options = { .interrupted = always };
	struct target *target;
	struct stop *stop = NULL;
	struct error *error;

	start_child(live_unstoppable);
	wait_for(&shared->ready, 1);
	target = open_target();
	while (!has_uninterruptible_thread(target))
		usleep(1000);
	assert_no_error(stop_threads(target, NULL, &stop));
	assert_int_equal(stop->threads.size, 1);
	assert_int_equal(stop->missed.size, 1);
	stop_destroy(stop);
	error = stop_threads(target, &options, &stop);
	assert_non_null(error);
	assert_int_equal(error->code, ERROR_FAILED);
	error_destroy(error);
	child_state();
	/* It is not held when it wakes up, though memprobe lives. */
	shared->end = true;
	wait_for(&shared->births, 1);
	target_destroy(target);
}

static void test_stopped_process_stays_stopped(void **state)
{
	struct target *target;
	struct stop *stop = NULL;

	start_child(live_idle);
	wait_for(&shared->ready, IDLE);
	kill(child, SIGSTOP);
	assert_int_equal(waitpid(child, NULL, WUNTRACED), child);
	target = open_target();
	for (unsigned i = 0; i < 20; i++) {
		assert_no_error(stop_threads(target, NULL, &stop));
		assert_int_equal(stop->threads.size, IDLE + 1);
		stop_destroy(stop);
		/* The kernel walks it from the traced to the stopped state; it runs no code of its
		 * own. */
		wait_for_state('T');
	}
	kill(child, SIGCONT);
	while (child_state() == 'T')
		usleep(1000);
	target_destroy(target);
}

/* ---- what is copied ---- */

static void test_one_thread_alone(void **state)
{
	struct stop_options options = { .tid_count = 1 };
	struct target *target;
	struct stop *stop = NULL;
	struct error *error;
	pid_t tid;

	start_child(live_idle);
	wait_for(&shared->ready, IDLE);
	target = open_target();
	tid = child;
	options.tids = &tid;
	assert_no_error(stop_threads(target, &options, &stop));
	assert_int_equal(stop->threads.size, 1);
	assert_int_equal(stop->threads.data[0].tid, child);
	stop_destroy(stop);
	tid = getpid();
	error = stop_threads(target, &options, &stop);
	assert_non_null(error);
	assert_int_equal(error->code, ERROR_NO_TARGET);
	error_destroy(error);
	target_destroy(target);
}

static void live_with_mark(void)
{
	volatile char mark[32];

	memcpy((char *)mark, "MARK on the stack", 18);
	shared->births = (unsigned long)mark;
	shared->ready = 1;
	for (;;)
		pause();
}

static void test_stack_bytes(void **state)
{
	struct stop_options options = { .stack_max = 4096 };
	struct target *target;
	struct stop *stop = NULL;
	const struct thread_state *thread;
	uint64_t mark;

	start_child(live_with_mark);
	wait_for(&shared->ready, 1);
	mark = shared->births;
	target = open_target();
	assert_no_error(stop_threads(target, NULL, &stop));
	assert_int_equal(stop->threads.size, 1);
	thread = &stop->threads.data[0];
	assert_non_null(thread->stack);
	assert_true(thread->stack_start <= target->arch->sp(&thread->regs));
	assert_true(mark >= thread->stack_start);
	assert_true(mark + 18 <= thread->stack_start + thread->stack_size);
	assert_memory_equal(thread->stack + (mark - thread->stack_start), "MARK on the stack", 18);
	stop_destroy(stop);
	assert_no_error(stop_threads(target, &options, &stop));
	assert_true(stop->threads.data[0].stack_size <= 4096);
	stop_destroy(stop);
	options.no_stacks = true;
	assert_no_error(stop_threads(target, &options, &stop));
	assert_null(stop->threads.data[0].stack);
	stop_destroy(stop);
	target_destroy(target);
}

static void live_crowded(void)
{
	start_threads(200, just_wait);
	for (;;)
		pause();
}

static void test_many_threads(void **state)
{
	start_child(live_crowded);
	wait_for(&shared->ready, 200);
	stop_rounds(50, 201, 0);
	child_state();
}

static void note_held(void *data, struct stop *stop, struct error *error)
{
	struct error **ret = data;

	stop_destroy(stop);
	*ret = error;
}

/* Whoever waits to be called while all are held is also called if that fails. */
static void test_refusal_is_told(void **state)
{
	struct error *told = NULL, *error;
	struct stop_options options = { .held = note_held, .data = &told };
	struct target *target;

	start_child(live_idle);
	wait_for(&shared->ready, IDLE);
	target = open_target();
	assert_int_equal(ptrace(PTRACE_SEIZE, child, 0, 0), 0);
	error = stop_threads(target, &options, NULL);
	assert_null(error);
	assert_non_null(told);
	error_destroy(told);
	target_destroy(target);
}

static void test_exited_target(void **state)
{
	struct target *target;
	struct stop *stop = NULL;
	struct error *error;

	start_child(live_idle);
	target = open_target();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	child = 0;
	error = stop_threads(target, NULL, &stop);
	assert_non_null(error);
	error_destroy(error);
	target_destroy(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHILD_TEST(test_threads_come_and_go),
		CHILD_TEST(test_unstoppable_thread_is_left_out),
		CHILD_TEST(test_stopped_process_stays_stopped),
		CHILD_TEST(test_one_thread_alone),
		CHILD_TEST(test_stack_bytes),
		CHILD_TEST(test_many_threads),
		CHILD_TEST(test_refusal_is_told),
		CHILD_TEST(test_exited_target),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
