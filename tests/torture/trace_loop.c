/*
 * trace_loop PID COMMAND...
 *
 * Records the allocations of PID by the library, without a command in between. COMMANDS, in turn:
 *	rate=N all min=N max=N uprobe	options of the attaching that follows
 *	attach				begins
 *	run=MS				records for so long
 *	some				until something was recorded
 *	wait				until a line comes on stdin, or its end
 *	hooks				prints the functions, their addresses and why not
 *	pause				records no more
 *	read				prints what is live, by stack
 *	detach				ends
 *	cycle=N				N times: attach, 20 ms, detach
 *	leftovers			prints what killed predecessors left
 *	remove				and removes it
 *	idle				waits until no agent is active; prints when one was seen so
 *					last and when none was at first (us of CLOCK_MONOTONIC)
 *
 * Prints lines of `KEY VALUE...`; exits with 1, and `error CODE MESSAGE`, if something fails.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/trace.h"

struct loop {
	struct target *target;
	struct trace_options options;
	struct trace_session *session;
	bool alive;
};

static void say_log(enum log_level level, const char *message)
{
	if (level == LOG_LEVEL_WARN || getenv("TRACE_LOOP_DEBUG"))
		printf("%s %s\n", level == LOG_LEVEL_WARN ? "warning" : "debug", message);
}

static struct error *tick(struct loop *loop, uint64_t us, bool until_input)
{
	uint64_t end = clock_us() + us;
	struct error *error = NULL;

	loop->alive = true;
	while (!error && loop->alive && (until_input || clock_us() < end)) {
		struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
		char line[256];

		error = trace_tick(loop->session, &loop->alive);
		if (!until_input)
			usleep(TRACE_TICK_US < us ? TRACE_TICK_US : us);
		else if (poll(&input, 1, TRACE_TICK_US / 1000) > 0 &&
			 read(STDIN_FILENO, line, sizeof(line)) >= 0)
			break;
	}
	return error;
}

static struct error *run(struct loop *loop, uint64_t us, bool until_input)
{
	struct error *error = tick(loop, us, until_input);

	printf("alive %d\n", loop->alive);
	return error;
}

static void say_report(const struct loop *loop)
{
	const struct trace_report *report = trace_report(loop->session);

	printf("report allocator=%s rate=%llu attach_us=%llu stops=%u detach_us=%llu stops=%u "
	       "tables_us=%llu removed=%d remaining=%llu\n",
	       report->allocator ? report->allocator : "-", (unsigned long long)report->rate,
	       (unsigned long long)report->attach_stopped_us, report->attach_stops,
	       (unsigned long long)report->detach_stopped_us, report->detach_stops,
	       (unsigned long long)report->tables_us, report->leftovers_removed,
	       (unsigned long long)report->remaining);
	if (report->engine == TRACE_ENGINE_UPROBE)
		printf("uprobes %s\n", report->refused ? report->refused : "wanted");
	if (report->remaining_reason)
		printf("remains %s\n", report->remaining_reason);
}

static void say_hooks(const struct loop *loop)
{
	const struct trace_report *report = trace_report(loop->session);

	vec_for_each (hook, &report->hooks)
		printf("hook %s %llx %d %s\n", hook->name, (unsigned long long)hook->address,
		       hook->hooked, hook->reason ? hook->reason : "-");
}

static struct error *say_data(struct loop *loop)
{
	cleanup(trace_data) struct trace_data *data = NULL;
	struct error *error = trace_read(loop->session, NULL, &data);
	const struct trace_counters *counters;
	double count = 0, bytes = 0;

	if (error)
		return error;
	counters = &data->counters;
	vec_for_each (site, &data->sites) {
		count += site->live_count;
		bytes += site->live_bytes;
		printf("site %.0f %.0f all %.0f %.0f pcs", site->live_count, site->live_bytes,
		       site->all_count, site->all_bytes);
		for (uint32_t i = 0; i < site->depth; i++)
			printf(" %llx", (unsigned long long)site->pcs[i]);
		printf("%s\n", site->truncated ? " ..." : "");
	}
	printf("live %.0f %.0f\n", count, bytes);
	printf("counters calls=%llu recorded=%llu freed=%llu lost=%llu lost_frees=%llu "
	       "truncated=%llu threads=%llu lost_threads=%llu filtered=%llu lapses=%llu "
	       "memory=%llu\n",
	       (unsigned long long)counters->calls, (unsigned long long)counters->recorded,
	       (unsigned long long)counters->freed, (unsigned long long)counters->lost_allocs,
	       (unsigned long long)counters->lost_frees, (unsigned long long)counters->truncated,
	       (unsigned long long)counters->threads, (unsigned long long)counters->lost_threads,
	       (unsigned long long)counters->filtered, (unsigned long long)counters->lapses,
	       (unsigned long long)counters->table_memory);
	return NULL;
}

/* However seldom the target gets a CPU, if at all. */
static struct error *await_some(struct loop *loop)
{
	uint64_t end = clock_us() + 60000000;
	bool found = false;

	while (!found && clock_us() < end) {
		cleanup(trace_data) struct trace_data *data = NULL;
		struct error *error = tick(loop, TRACE_TICK_US, false);

		if (!error)
			error = trace_read(loop->session, NULL, &data);
		if (error)
			return error;
		found = data->counters.recorded > 0;
	}
	return found ? NULL : error_create(ERROR_FAILED, "nothing was recorded");
}

static struct error *attach(struct loop *loop)
{
	struct error *error;

	trace_destroy(take_pointer(loop->session));
	error = trace_attach(loop->target, &loop->options, &loop->session);

	if (!error)
		printf("attached\n");
	return error;
}

static struct error *detach(struct loop *loop)
{
	struct error *error = trace_detach(loop->session);

	say_report(loop);
	return error;
}

static struct error *cycle(struct loop *loop, unsigned count)
{
	uint64_t attach_max = 0, detach_max = 0, attach_sum = 0, detach_sum = 0, remaining = 0;
	struct error *error = NULL;

	trace_destroy(take_pointer(loop->session));
	for (unsigned i = 0; !error && i < count; i++) {
		const struct trace_report *report;

		error = trace_attach(loop->target, &loop->options, &loop->session);
		if (error)
			return error;
		usleep(20000);
		error = trace_tick(loop->session, &loop->alive);
		if (!error)
			error = trace_detach(loop->session);
		report = trace_report(loop->session);
		attach_sum += report->attach_stopped_us;
		detach_sum += report->detach_stopped_us;
		if (report->attach_stopped_us > attach_max)
			attach_max = report->attach_stopped_us;
		if (report->detach_stopped_us > detach_max)
			detach_max = report->detach_stopped_us;
		remaining += report->remaining;
		if (report->engine == TRACE_ENGINE_UPROBE)
			printf("uprobes %s\n", report->refused ? report->refused : "wanted");
		if (report->remaining_reason)
			printf("remains %s\n", report->remaining_reason);
		trace_destroy(loop->session);
		loop->session = NULL;
	}
	printf("cycles %u remaining=%llu attach mean=%llu max=%llu detach mean=%llu max=%llu\n",
	       count, (unsigned long long)remaining, (unsigned long long)attach_sum / count,
	       (unsigned long long)attach_max, (unsigned long long)detach_sum / count,
	       (unsigned long long)detach_max);
	return error;
}

static struct error *say_leftovers(struct loop *loop)
{
	struct trace_leftover_vec found = { 0 };
	struct error *error = trace_find_leftovers(loop->target, &found);

	printf("leftovers %zu\n", found.size);
	vec_for_each (leftover, &found)
		printf("leftover %llx hooks=%u recording=%d active=%d known=%d\n",
		       (unsigned long long)leftover->address, leftover->hooks, leftover->recording,
		       leftover->active, leftover->known);
	trace_leftover_vec_deinit(&found);
	return error;
}

static struct error *await_idle(struct loop *loop)
{
	uint64_t last = 0, end = clock_us() + 60000000;

	for (bool active = true; active;) {
		struct trace_leftover_vec found = { 0 };
		uint64_t since = clock_us();
		struct error *error = trace_find_leftovers(loop->target, &found);
		size_t count = found.size;

		active = false;
		vec_for_each (leftover, &found)
			active |= leftover->active;
		trace_leftover_vec_deinit(&found);
		if (error)
			return error;
		if (!active)
			printf("idle active=%llu idle=%llu agents=%zu\n", (unsigned long long)last,
			       (unsigned long long)clock_us(), count);
		else if (since > end)
			return error_create(ERROR_FAILED, "an agent stays active");
		last = since;
		usleep(2000);
	}
	return NULL;
}

static struct error *perform(struct loop *loop, const char *command)
{
	const char *value = strchr(command, '=');
	size_t length = value ? (size_t)(value - command) : strlen(command);
	uint64_t number = value ? strtoull(value + 1, NULL, 10) : 0;

#define IS(name) (length == strlen(name) && !strncmp(command, name, length))
	if (IS("rate"))
		loop->options.rate = number;
	else if (IS("all"))
		loop->options.all = true;
	else if (IS("agent"))
		loop->options.engine = TRACE_ENGINE_AGENT;
	else if (IS("uprobe"))
		loop->options.engine = TRACE_ENGINE_UPROBE;
	else if (IS("min"))
		loop->options.min_size = number;
	else if (IS("max"))
		loop->options.max_size = number;
	else if (IS("attach"))
		return attach(loop);
	else if (IS("hooks"))
		say_hooks(loop);
	else if (IS("run"))
		return run(loop, number * 1000, false);
	else if (IS("some"))
		return await_some(loop);
	else if (IS("wait"))
		return run(loop, 0, true);
	else if (IS("read"))
		return say_data(loop);
	else if (IS("pause"))
		trace_pause(loop->session);
	else if (IS("detach"))
		return detach(loop);
	else if (IS("cycle"))
		return cycle(loop, (unsigned)number);
	else if (IS("leftovers"))
		return say_leftovers(loop);
	else if (IS("idle"))
		return await_idle(loop);
	else if (IS("remove")) {
		uint64_t remaining = 0;
		struct error *error = trace_remove_leftovers(loop->target, 30000000, &remaining);

		if (!error)
			printf("removed remaining=%llu\n", (unsigned long long)remaining);
		return error;
	} else
		return error_create(ERROR_USAGE, "unknown command %s", command);
	return NULL;
}

int main(int argc, char **argv)
{
	struct loop loop = { .options = { .rate = 1 } };
	struct error *error;
	int status = 0;

	if (argc < 3) {
		fprintf(stderr, "usage: trace_loop PID COMMAND...\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_set_sink(say_log);
	error = target_open_live((pid_t)strtol(argv[1], NULL, 10), &loop.target);
	for (int i = 2; !error && i < argc; i++)
		error = perform(&loop, argv[i]);
	if (error) {
		printf("error %d %s\n", error->code, error->message);
		status = 1;
	}
	error_destroy(error);
	trace_destroy(loop.session);
	target_destroy(loop.target);
	return status;
}
