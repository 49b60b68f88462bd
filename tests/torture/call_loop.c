/*
 * call_loop COUNT PID WHAT [TIMEOUT_MS]
 *
 * Does WHAT to the process PID again and again, without a start of memprobe each time:
 *	info	the allocator's own figures (glibc: malloc_info)
 *	trim	the allocator's trim
 *	getpid	one system call in the target
 *	getppid one function that takes no lock
 *	stack	one stop of all threads
 *
 * Prints what became of it, and the times in microseconds:
 *
 *	ok=N busy=N failed=N
 *	stopped p50=N p99=N max=N
 *	round p50=N p99=N max=N
 *
 * busy: ERROR_BUSY, the exit status 7 of memprobe. failed: any other error; the messages of the
 * first ones are shown.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/allocator_calls.h"
#include "memprobe/clock.h"
#include "memprobe/stop.h"

struct loop {
	pid_t pid;
	const char *what;
	uint64_t timeout_us;
	uint64_t stopped_us;
};

static struct error *ask_allocator(struct loop *loop, struct target *target,
				   struct call_session *session)
{
	struct allocator_caller caller = { .target = target, .session = session };
	struct heap_stats stats = { 0 };
	int64_t returned = 0;
	struct error *error = allocator_detect(target, &caller.allocator);

	if (error)
		return error;
	if (!caller.allocator.ops || !caller.allocator.ops->stats || !caller.allocator.ops->trim)
		return error_create(ERROR_UNSUPPORTED, "no known allocator");
	if (!strcmp(loop->what, "trim"))
		return caller.allocator.ops->trim(&caller, 0, &returned);
	error = caller.allocator.ops->stats(&caller, &stats);
	if (!error && stats.arenas.size == 0)
		error = error_create(ERROR_FAILED, "figures without an arena");
	heap_stats_deinit(&stats);
	return error;
}

static struct error *call_one(struct loop *loop, struct target *target,
			      struct call_session *session)
{
	struct call_script script;
	struct call_options options = { 0 };
	struct call_result result;
	uint64_t function;
	struct error *error = NULL;
	size_t word;

	call_begin(&script, target->arch);
	if (!strcmp(loop->what, "getpid")) {
		word = call_add_syscall(&script, target->arch->bits == 64 ? 39 : 20, 0, NULL,
					CALL_ANY, 0);
	} else {
		error = call_find_function(session, "getppid", &function);
		if (error)
			return error;
		word = call_add_function(&script, function, 0, NULL);
	}
	call_add_marker(&script);
	error = call_run(session, &script, &options, &result);
	if (!error && !strcmp(loop->what, "getpid") &&
	    call_result_word(&result, &script, word) != (uint64_t)loop->pid)
		error = error_create(ERROR_FAILED, "getpid() returned something else");
	return error;
}

static struct error *stop_once(struct loop *loop, struct target *target)
{
	cleanup(stop) struct stop *stop = NULL;
	struct error *error = stop_threads(target, NULL, &stop);

	if (!error)
		loop->stopped_us = stop->stopped_us;
	return error;
}

static struct error *once(struct loop *loop)
{
	cleanup(target) struct target *target = NULL;
	cleanup(call) struct call_session *session = NULL;
	struct error *error = target_open_live(loop->pid, &target);

	loop->stopped_us = 0;
	if (error)
		return error;
	if (!strcmp(loop->what, "stack"))
		return stop_once(loop, target);
	error = call_open(target, loop->timeout_us, &session);
	if (error)
		return error;
	if (!strcmp(loop->what, "info") || !strcmp(loop->what, "trim"))
		error = ask_allocator(loop, target, session);
	else
		error = call_one(loop, target, session);
	loop->stopped_us = call_stopped_us(session);
	return error;
}

static int compare_times(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void print_times(const char *name, uint64_t *times, size_t count)
{
	if (!count)
		return;
	qsort(times, count, sizeof(*times), compare_times);
	printf("%s p50=%llu p99=%llu max=%llu\n", name, (unsigned long long)times[count / 2],
	       (unsigned long long)times[count * 99 / 100], (unsigned long long)times[count - 1]);
}

int main(int argc, char **argv)
{
	struct loop loop = { .timeout_us = 30000000 };
	size_t count, ok = 0, busy = 0, failed = 0;
	uint64_t *stopped, *round;

	if (argc < 4) {
		fprintf(stderr, "usage: call_loop COUNT PID WHAT [TIMEOUT_MS]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	count = strtoul(argv[1], NULL, 10);
	loop.pid = (pid_t)strtol(argv[2], NULL, 10);
	loop.what = argv[3];
	if (argc > 4)
		loop.timeout_us = 1000 * strtoull(argv[4], NULL, 10);
	stopped = calloc(count + 1, sizeof(*stopped));
	round = calloc(count + 1, sizeof(*round));
	if (!stopped || !round)
		return 2;
	for (size_t i = 0; i < count; i++) {
		uint64_t since = clock_us();
		struct error *error = once(&loop);

		if (!error) {
			stopped[ok] = loop.stopped_us;
			round[ok++] = clock_us() - since;
			continue;
		}
		busy += error->code == ERROR_BUSY;
		failed += error->code != ERROR_BUSY;
		if (busy + failed <= 20)
			printf("%zu: %d: %s\n", i, error->code, error->message);
		error_destroy(error);
	}
	printf("ok=%zu busy=%zu failed=%zu\n", ok, busy, failed);
	print_times("stopped", stopped, ok);
	print_times("round", round, ok);
	free(stopped);
	free(round);
	return 0;
}
