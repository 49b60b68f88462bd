#include "children.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared *shared;
pid_t child, helper;

int make_shared(void **state)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	return shared == MAP_FAILED;
}

static void end(pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
		*pid = 0;
	}
}

int end_children(void **state)
{
	end(&child);
	end(&helper);
	munmap(shared, sizeof(*shared));
	return 0;
}

void start_child(void (*life)(void))
{
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		sigset_t none;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		life();
		_exit(0);
	}
}

void wait_for(volatile unsigned long *counter, unsigned long value)
{
	for (unsigned i = 0; i < 60000 && *counter < value; i++)
		usleep(1000);
	assert_true(*counter >= value);
}

void start_threads(unsigned count, void *(*life)(void *))
{
	for (uintptr_t i = 0; i < count; i++) {
		pthread_attr_t attributes;
		pthread_t thread;

		pthread_attr_init(&attributes);
		pthread_attr_setstacksize(&attributes, 128 << 10);
		if (pthread_create(&thread, &attributes, life, (void *)i))
			_exit(1);
		pthread_attr_destroy(&attributes);
	}
}

struct target *open_target(void)
{
	struct target *target = NULL;

	assert_null(target_open_live(child, &target));
	return target;
}

void assert_no_error(struct error *error)
{
	if (error)
		print_error("%s\n", error->message);
	assert_null(error);
}

char child_state(void)
{
	struct process *process = NULL;
	struct process_status status;

	assert_null(process_open(child, &process));
	assert_null(process_read_status(process, 0, &status));
	assert_int_equal(status.tracer_pid, 0);
	process_close(process);
	return status.state;
}

void wait_for_state(char wanted)
{
	for (unsigned i = 0; i < 60000 && child_state() != wanted; i++)
		usleep(1000);
	assert_int_equal(child_state(), wanted);
}

static int compare_us(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* @threads at least in every round. */
void stop_rounds(unsigned rounds, size_t threads, unsigned pause_us)
{
	struct target *target = open_target();
	uint64_t *us = calloc(rounds, sizeof(*us));

	for (unsigned i = 0; i < rounds; i++) {
		struct stop *stop = NULL;

		assert_no_error(stop_threads(target, NULL, &stop));
		assert_true(stop->threads.size >= threads);
		assert_int_equal(stop->missed.size, 0);
		us[i] = stop->stopped_us;
		stop_destroy(stop);
		if (pause_us)
			usleep(i % 50 == 49 ? 40000 : pause_us);
	}
	qsort(us, rounds, sizeof(*us), compare_us);
	print_message("  %u stops of %zu threads: held for %lu us (median), %lu us (99th), %lu us "
		      "(longest)\n",
		      rounds, threads, (unsigned long)us[rounds / 2],
		      (unsigned long)us[rounds - 1 - rounds / 100], (unsigned long)us[rounds - 1]);
	free(us);
	target_destroy(target);
}
