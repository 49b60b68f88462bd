/* Stacks and control blocks against what pthread_getattr_np() says, without touching a page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "child.h"
#include "memprobe/stack_use.h"
#include "memprobe/target.h"

#define THREADS	  12
#define OWN_STACK (256u << 10)

struct truth {
	pid_t tid;
	uint64_t start, end, self;
};

static volatile bool spinning = true;

static void tell(void)
{
	struct truth truth = { .tid = (pid_t)syscall(SYS_gettid), .self = pthread_self() };
	pthread_attr_t attributes;
	void *start;
	size_t size;

	if (pthread_getattr_np(pthread_self(), &attributes) ||
	    pthread_attr_getstack(&attributes, &start, &size))
		abort();
	truth.start = (uintptr_t)start;
	truth.end = (uintptr_t)start + size;
	pthread_attr_destroy(&attributes);
	child_tell(&truth, sizeof(truth));
}

static void *spin(void *unused)
{
	tell();
	while (spinning)
		;
	return NULL;
}

static void *wait_deep(void *unused)
{
	volatile char deep[100000];

	memset((char *)deep, 1, sizeof(deep));
	tell();
	pause();
	return (void *)(uintptr_t)deep[0];
}

static void *wait_here(void *unused)
{
	tell();
	pause();
	return NULL;
}

/* Some with their own stacks in one mapping, without guards, one behind the other. */
static void start_threads(void *unused)
{
	char *own = mmap(NULL, THREADS * OWN_STACK, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* Large and untouched: to be left so. */
	char *untouched =
		mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	child_tell(&untouched, sizeof(untouched));
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_attr_t attributes;

		pthread_attr_init(&attributes);
		if (i % 4 == 1)
			pthread_attr_setstack(&attributes, own + i * OWN_STACK, OWN_STACK);
		if (i % 4 == 2)
			pthread_attr_setguardsize(&attributes, 0);
		if (pthread_create(&thread, &attributes,
				   i == 3  ? spin
				   : i % 3 ? wait_here
					   : wait_deep,
				   NULL))
			abort();
	}
}

static const struct thread *thread_of(const struct thread_vec *threads, pid_t ns_tid)
{
	for (size_t i = 0; i < threads->size; i++)
		if (threads->data[i].ns_tid == ns_tid)
			return &threads->data[i];
	return NULL;
}

static unsigned count_waiting(const struct thread_vec *threads)
{
	unsigned count = 0;

	for (size_t i = 0; i < threads->size; i++)
		count += threads->data[i].sp != 0;
	return count;
}

static uint64_t count_present(struct target *target)
{
	struct mapping_vec maps = { 0 };
	uint64_t rss = 0;

	assert_null(target_read_maps(target, MAPS_USAGE, &maps));
	for (size_t i = 0; i < maps.size; i++)
		rss += maps.data[i].usage.rss;
	mappings_deinit(&maps);
	return rss;
}

static void check_stacks(pid_t ns_pid)
{
	pid_t pid = child_start(start_threads, NULL);
	struct thread_vec threads = { 0 };
	struct truth truth[THREADS];
	const struct thread *thread;
	struct target *target;
	static bool present[(64 << 20) / 4096];
	uint64_t untouched, before;

	child_hear(&untouched, sizeof(untouched));
	child_hear(truth, sizeof(truth));
	assert_null(target_open_live(pid, &target));
	/* Who has not come to its pause() yet shows no stack pointer. */
	do {
		threads.size = 0;
		assert_null(target_read_threads(target, &threads));
	} while (count_waiting(&threads) < THREADS);
	before = count_present(target);
	threads.size = 0;
	assert_null(target_read_threads(target, &threads));
	assert_int_equal(count_present(target), before);
	assert_int_equal(threads.size, THREADS + 1);
	for (unsigned i = 0; i < THREADS; i++) {
		thread = thread_of(&threads, truth[i].tid);
		assert_non_null(thread);
		assert_int_equal(thread->thread_pointer, truth[i].self);
		assert_int_equal(thread->stack_start, truth[i].start);
		assert_int_equal(thread->stack_end, truth[i].end);
		if (thread->sp)
			assert_in_range(thread->sp, truth[i].start, truth[i].end);
	}
	thread = thread_of(&threads, ns_pid ? ns_pid : pid);
	assert_int_equal(thread->tid, pid);
	assert_int_not_equal(thread->thread_pointer, 0);
	assert_int_not_equal(thread->stack_end, 0);
	assert_null(target_page_present(target, untouched, sizeof(present), present));
	assert_null(memchr(present, true, sizeof(present)));
	thread_vec_deinit(&threads);
	target_destroy(target);
	child_stop(pid);
}

static void test_stacks(void **state)
{
	check_stacks(0);
}

/* In a PID namespace the ids are small numbers, of which memory is full. */
static void test_namespace(void **state)
{
	cleanup(close) int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);

	if (own < 0 || unshare(CLONE_NEWPID))
		skip();
	check_stacks(1);
	/* The namespace ended with its first process; in it nobody could be made any more, not even
	 * by the sanitizer that looks for leaks. */
	assert_int_equal(setns(own, CLONE_NEWPID), 0);
}

static void test_space_32(void **state)
{
	const struct {
		uint64_t last_end, space;
	} cases[] = {
		{ 0xfff0e000, 4ull << 30 },
		{ 0xc0001000, 4ull << 30 },
		{ 0xc0000000, 3ull << 30 },
		{ 0x80000000, 3ull << 30 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct mapping_vec maps = { 0 };
		struct mapping first = { .start = 0x8048000, .end = 0x8049000 };
		struct mapping last = { .start = cases[i].last_end - PAGE_SIZE,
					.end = cases[i].last_end };
		struct stack_use use = { .size = cases[i].space / 4 - 1 };

		assert_null(mapping_vec_append(&maps, &first));
		assert_null(mapping_vec_append(&maps, &last));
		assert_int_equal(stack_use_space_32(&maps), cases[i].space);
		assert_false(stack_use_is_wasteful(&use, cases[i].space));
		use.size++;
		assert_true(stack_use_is_wasteful(&use, cases[i].space));
		mapping_vec_deinit(&maps);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stacks),
		cmocka_unit_test(test_namespace),
		cmocka_unit_test(test_space_32),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
