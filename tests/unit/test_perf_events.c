/*
 * perf_events.h on a child that touches known pages: in its main thread, in threads born before and
 * during the recording, in the kernel (read(2) into fresh memory), and in a forked child.
 */
#include <fcntl.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "child.h"
#include "record/kernel/perf_events.h"

#define PAGE	     4096u
#define MAIN_PAGES   3000u
#define THREAD_PAGES 500u
#define THREADS	     4u
#define KERNEL_PAGES 64u
#define FORK_PAGES   200u

struct shared {
	volatile int go, done;
	char *area; /* one part for each of the above */
	volatile pid_t forked;
};

static struct shared *shared;

static char *part(unsigned page)
{
	return shared->area + (size_t)page * PAGE;
}

static void touch(unsigned first, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		*(volatile char *)part(first + i) = 1;
}

static void *touching_thread(void *argument)
{
	while (!shared->go)
		sched_yield();
	touch(MAIN_PAGES + (unsigned)(uintptr_t)argument * THREAD_PAGES, THREAD_PAGES);
	return NULL;
}

static void life(void *argument)
{
	pthread_t threads[THREADS];
	int zero = open("/dev/zero", O_RDONLY);
	const unsigned kernel_first = MAIN_PAGES + THREADS * THREAD_PAGES;

	for (uintptr_t i = 0; i < THREADS / 2; i++)
		pthread_create(&threads[i], NULL, touching_thread, (void *)i);
	child_ready();
	while (!shared->go)
		sched_yield();
	touch(0, MAIN_PAGES);
	for (uintptr_t i = THREADS / 2; i < THREADS; i++)
		pthread_create(&threads[i], NULL, touching_thread, (void *)i);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	if (read(zero, part(kernel_first), (size_t)KERNEL_PAGES * PAGE) < 0)
		abort();
	shared->forked = fork();
	if (!shared->forked) {
		touch(kernel_first + KERNEL_PAGES, FORK_PAGES);
		_exit(0);
	}
	waitpid(shared->forked, NULL, 0);
	shared->done = 1;
	for (;;)
		pause();
}

static int setup(void **state)
{
	const size_t pages = MAIN_PAGES + THREADS * THREAD_PAGES + KERNEL_PAGES + FORK_PAGES;

	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared->area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	madvise(shared->area, pages * PAGE, MADV_NOHUGEPAGE);
	return 0;
}

struct seen {
	pid_t pid;
	unsigned of_main, of_threads, of_kernel, of_forked, foreign;
	unsigned disordered, without_stack;
	uint64_t last;
	uint8_t pages[MAIN_PAGES + THREADS * THREAD_PAGES + KERNEL_PAGES + FORK_PAGES];
};

static struct error *see(void *data, const struct perf_sample *sample)
{
	struct seen *seen = data;
	uint64_t page = (sample->address - (uintptr_t)shared->area) / PAGE;

	seen->disordered += sample->time < seen->last;
	seen->last = sample->time;
	if (sample->address < (uintptr_t)shared->area || page >= sizeof(seen->pages))
		return NULL;
	seen->without_stack += !sample->has_regs || !sample->stack_size;
	seen->pages[page]++;
	if (sample->pid != seen->pid)
		seen->of_forked++;
	else if (page < MAIN_PAGES)
		seen->of_main++;
	else if (page < MAIN_PAGES + THREADS * THREAD_PAGES)
		seen->of_threads++;
	else if (page < MAIN_PAGES + THREADS * THREAD_PAGES + KERNEL_PAGES)
		seen->of_kernel++;
	else
		seen->foreign++;
	return NULL;
}

static void test_every_fault_once(void **state)
{
	const struct perf_spec spec = { .type = PERF_TYPE_SOFTWARE,
					.config = PERF_COUNT_SW_PAGE_FAULTS };
	const struct perf_options options = { .specs = &spec,
					      .spec_count = 1,
					      .stack_bytes = 1024 };
	struct perf_session *session;
	struct target *target;
	struct error *error;
	struct seen *seen = calloc(1, sizeof(*seen));

	seen->pid = child_start(life, NULL);
	assert_null(target_open_live(seen->pid, &target));
	error = perf_open(target, &options, &session);
	if (error_is(error, ERROR_PERMISSION)) {
		print_message("not permitted here: %s\n", error->message);
		error_destroy(error);
		child_stop(seen->pid);
		skip();
	}
	assert_null(error);
	perf_enable(session);
	shared->go = 1;
	while (!shared->done)
		assert_null(perf_poll(session, 10, see, seen));
	perf_disable(session);
	assert_null(perf_poll(session, 0, see, seen));
	assert_int_equal(perf_lost(session), 0);
	assert_int_equal(seen->disordered, 0);
	assert_int_equal(seen->without_stack, 0);
	assert_int_equal(seen->of_main, MAIN_PAGES);
	assert_int_equal(seen->of_threads, THREADS * THREAD_PAGES);
	if (!perf_user_only(session))
		assert_int_equal(seen->of_kernel, KERNEL_PAGES);
	assert_int_equal(seen->of_forked, FORK_PAGES);
	assert_int_equal(seen->foreign, 0);
	for (size_t i = 0; i < MAIN_PAGES; i++)
		assert_int_equal(seen->pages[i], 1);
	perf_close(session);
	target_destroy(target);
	child_stop(seen->pid);
	free(seen);
}

static struct error *count(void *data, const struct perf_sample *sample)
{
	++*(unsigned *)data;
	return NULL;
}

/* A ring that is far too small loses events, and says how many. */
static void test_losses_are_counted(void **state)
{
	const struct perf_spec spec = { .type = PERF_TYPE_SOFTWARE,
					.config = PERF_COUNT_SW_PAGE_FAULTS };
	const struct perf_options options = {
		.specs = &spec, .spec_count = 1, .stack_bytes = 8192, .ring_bytes = 256 << 10
	};
	struct perf_session *session;
	struct target *target;
	unsigned visited = 0;
	struct error *error;
	pid_t pid;

	shared->go = shared->done = 0;
	pid = child_start(life, NULL);
	assert_null(target_open_live(pid, &target));
	error = perf_open(target, &options, &session);
	if (error_is(error, ERROR_PERMISSION)) {
		error_destroy(error);
		child_stop(pid);
		skip();
	}
	assert_null(error);
	perf_enable(session);
	shared->go = 1;
	while (!shared->done)
		usleep(1000);
	perf_disable(session);
	assert_null(perf_poll(session, 0, count, &visited));
	assert_true(perf_lost(session) > 0);
	assert_in_range(visited + perf_lost(session),
			MAIN_PAGES + THREADS * THREAD_PAGES + KERNEL_PAGES, 20000);
	perf_close(session);
	target_destroy(target);
	child_stop(pid);
}

/* The target's end is noticed, and waiting for it does not spin. */
static void test_end_of_target(void **state)
{
	const struct perf_spec spec = { .type = PERF_TYPE_SOFTWARE,
					.config = PERF_COUNT_SW_PAGE_FAULTS };
	const struct perf_options options = { .specs = &spec, .spec_count = 1 };
	struct perf_session *session;
	struct target *target;
	unsigned visited = 0;
	struct error *error;
	pid_t pid;

	shared->go = shared->done = 0;
	pid = child_start(life, NULL);
	assert_null(target_open_live(pid, &target));
	error = perf_open(target, &options, &session);
	if (error_is(error, ERROR_PERMISSION)) {
		error_destroy(error);
		child_stop(pid);
		skip();
	}
	assert_null(error);
	perf_enable(session);
	child_stop(pid);
	for (int i = 0; i < 100 && !perf_target_exited(session); i++)
		assert_null(perf_poll(session, 10, count, &visited));
	assert_true(perf_target_exited(session));
	perf_close(session);
	target_destroy(target);
}

static void test_names(void **state)
{
	struct error *error;
	uint64_t id;
	uint32_t type;

	error = perf_tracepoint("no_such_group", "no_such_name", &id);
	assert_non_null(error);
	assert_non_null(error->hint);
	error_destroy(error);
	error = perf_pmu_type("no_such_pmu", &type);
	assert_true(error_is(error, ERROR_UNSUPPORTED));
	error_destroy(error);
	assert_null(perf_pmu_type("software", &type));
	assert_int_equal(type, PERF_TYPE_SOFTWARE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_fault_once),
		cmocka_unit_test(test_losses_are_counted),
		cmocka_unit_test(test_end_of_target),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests_name("perf_events", tests, setup, NULL);
}
