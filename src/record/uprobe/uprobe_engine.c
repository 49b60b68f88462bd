/* Its life: the reader's thread, and who asks it for what it has. */
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "uprobe.h"

/* Between two looks at the ring, which tells nobody that there is something in it. */
#define WAIT_MS 5

/* New modules are looked for at every so many polls. */
#define MODULES_EVERY 2

/* With less room than that, what is recorded may take a quarter of it. */
#define PLENTY (UINT64_C(1) << 30)

static void lock(struct uprobe_engine *engine)
{
	engine->wanted++;
	pthread_mutex_lock(&engine->lock);
	engine->wanted--;
}

static void unlock(struct uprobe_engine *engine)
{
	pthread_mutex_unlock(&engine->lock);
}

/* ---- the reader ---- */

/* With the lock. */
static struct error *read_ring(struct uprobe_engine *engine)
{
	struct error *error = (engine->until ? bpf_probes_finish : bpf_probes_poll)(
		engine->probes, uprobe_visit, engine);

	engine->execed |= bpf_probes_ended(engine->probes);
	bpf_probes_want_stack(engine->probes, engine->stack.bytes);
	return error ? error : sample_stacks_tick(engine->stacks);
}

static void *read_all_the_time(void *data)
{
	struct uprobe_engine *engine = data;
	struct error *error = NULL;

	while (!error && !engine->stop) {
		while (engine->wanted)
			usleep(20);
		pthread_mutex_lock(&engine->lock);
		error = read_ring(engine);
		if (error)
			engine->error = error;
		pthread_mutex_unlock(&engine->lock);
		usleep(WAIT_MS * 1000);
	}
	return NULL;
}

/* Signals are for others. */
static struct error *start_reader(struct uprobe_engine *engine)
{
	sigset_t all, before;
	int errnum;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	errnum = pthread_create(&engine->reader, NULL, read_all_the_time, engine);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	engine->reads = !errnum;
	return errnum ? error_errno(ERROR_FAILED, errnum, "cannot start a thread") : NULL;
}

static void stop_reader(struct uprobe_engine *engine)
{
	if (!engine->reads)
		return;
	engine->stop = true;
	pthread_join(engine->reader, NULL);
	engine->reads = false;
}

/* ---- begin ---- */

static void destroy(void *recorder);

static struct error *create(struct target *target, const struct trace_options *options,
			    struct trace_report *report, struct uprobe_engine **ret)
{
	struct uprobe_engine *engine = calloc(1, sizeof(*engine));
	struct error *error;

	if (!engine)
		return &error_no_memory;
	pthread_mutex_init(&engine->lock, NULL);
	engine->target = target;
	engine->file = -1;
	engine->options = options;
	engine->report = report;
	engine->rate = max_u64(options->rate, 1);
	if (getrandom(&engine->random, sizeof(engine->random), GRND_NONBLOCK) < 0)
		engine->random = clock_ns();
	engine->random |= 1;
	error = uprobe_calls_create(&engine->calls);
	if (error)
		destroy(engine);
	else
		*ret = engine;
	return error;
}

static struct error *begin(struct uprobe_engine *engine)
{
	uint64_t since = clock_us();
	struct error *error = history_create(engine->target, &engine->history);

	if (!error)
		error = sample_stacks_create(engine->target, &engine->stacks);
	engine->report->tables_us = clock_us() - since;
	if (!error)
		error = uprobe_open(engine, engine->report);
	if (error)
		return error;
	engine->report->rate = engine->rate;
	/* Of a block that was seen to come every free is seen, too: only from here on, when all
	 * probes are there, does one count. */
	engine->since = clock_ns();
	engine->begin_us = engine->rate_us = clock_us();
	memory_guard_begin(&engine->guard, engine->target, engine->options->memory_max);
	/* What is told is kept in tables that double. */
	if (engine->guard.room < PLENTY)
		engine->guard.least = max_u64(engine->guard.least, engine->guard.room / 4 * 3);
	log_debug("%u probes, after %llu ms", engine->spec_count,
		  (unsigned long long)(clock_us() - since) / 1000);
	return start_reader(engine);
}

static struct error *attach(struct target *target, const struct trace_options *options,
			    struct trace_report *report, void **ret)
{
	cleanup(call) struct call_session *call = NULL;
	struct uprobe_engine *engine = NULL;
	struct error *error = create(target, options, report, &engine);

	if (!error)
		error = recorder_keep_agents_out(target, options->timeout_us,
						 &report->leftovers_removed, &call);
	if (!error)
		error = begin(engine);
	if (error)
		destroy(engine);
	else
		*ret = engine;
	return error;
}

/* ---- meanwhile ---- */

static void measure_rate(struct uprobe_engine *engine)
{
	uint64_t now = clock_us();

	if (now - engine->rate_us < 1000000)
		return;
	engine->bytes_per_second = (double)(engine->counts.bytes - engine->rate_bytes) * 1e6 /
				   (double)(now - engine->rate_us);
	engine->rate_us = now;
	engine->rate_bytes = engine->counts.bytes;
}

static struct error *take_error(struct uprobe_engine *engine)
{
	struct error *error = engine->error;

	engine->error = NULL;
	return error;
}

static void pause_now(void *recorder);

/* Ends a recording that gets no further. */
static void check(struct uprobe_engine *engine)
{
	bool is_blind;

	if (engine->until || !engine->probes || engine->execed)
		return;
	is_blind = bpf_probes_blind(engine->probes);
	if (is_blind)
		log_warn("the recording of %d ends: the thread has ended by which its probes were "
			 "set",
			 (int)engine->target->pid);
	if (!is_blind && !memory_guard_is_over(&engine->guard))
		return;
	engine->report->cut_short = true;
	pause_now(engine);
}

/* What cannot be learnt now is tried again. */
static void look_at_maps(struct uprobe_engine *engine)
{
	cleanup(target) struct target *now = NULL;
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(engine->target, MAPS_PLAIN, &maps);

	if (!error)
		error = history_learn(engine->history, &maps, &now);
	mappings_deinit(&maps);
	if (error)
		log_debug("new modules: %s", error->message);
	error_destroy(error);
}

static struct error *poll(void *recorder, bool *alive_ret)
{
	struct uprobe_engine *engine = recorder;
	struct error *error;

	check(engine);
	if (!engine->until && engine->polls++ % MODULES_EVERY == 0)
		look_at_maps(engine);
	lock(engine);
	*alive_ret =
		engine->probes && !engine->execed && !process_has_ended(engine->target->process);
	measure_rate(engine);
	error = take_error(engine);
	unlock(engine);
	return error;
}

static struct error *read_recorded(void *recorder, const struct trace_wanted *wanted,
				   struct trace_data *data)
{
	struct uprobe_engine *engine = recorder;
	struct error *error;

	lock(engine);
	/* What has happened by now, not what the reader has come to. */
	error = engine->probes && !engine->until ? read_ring(engine) : NULL;
	if (!error)
		error = uprobe_collect(engine, wanted, data);
	unlock(engine);
	return error;
}

static struct error *count(void *recorder, struct trace_counters *ret)
{
	struct uprobe_engine *engine = recorder;

	lock(engine);
	uprobe_counters(engine, ret);
	unlock(engine);
	return NULL;
}

/* Blocks are told apart by their time. */
static uint64_t mark(void *recorder)
{
	return clock_ns();
}

static struct target *modules(void *recorder)
{
	struct uprobe_engine *engine = recorder;

	return history_target(engine->history);
}

/* ---- end ---- */

static void pause_now(void *recorder)
{
	struct uprobe_engine *engine = recorder;
	struct error *error;

	if (engine->until || !engine->probes)
		return;
	lock(engine);
	engine->until = clock_ns();
	engine->end_us = clock_us();
	unlock(engine);
	stop_reader(engine);
	error = read_ring(engine);
	if (!engine->error)
		engine->error = error;
	else
		error_destroy(error);
}

static struct error *detach(void *recorder)
{
	struct uprobe_engine *engine = recorder;
	struct trace_counters counters;
	uint64_t since = clock_us();

	if (!engine->probes)
		return NULL;
	pause_now(engine);
	uprobe_counters(engine, &counters);
	bpf_probes_close(take_pointer(engine->probes));
	log_debug("the probes were taken out in %llu ms",
		  (unsigned long long)(clock_us() - since) / 1000);
	return take_error(engine);
}

static void destroy(void *recorder)
{
	struct uprobe_engine *engine = recorder;

	if (!engine)
		return;
	stop_reader(engine);
	bpf_probes_close(engine->probes);
	if (engine->file >= 0)
		close(engine->file);
	error_destroy(engine->error);
	sample_stacks_destroy(engine->stacks);
	uprobe_calls_destroy(engine->calls);
	uprobe_table_deinit(&engine->table);
	uprobe_total_vec_deinit(&engine->totals);
	functions_deinit(&engine->functions);
	history_destroy(engine->history);
	pthread_mutex_destroy(&engine->lock);
	free(engine);
}

const struct recorder_ops recorder_uprobe = {
	.engine = TRACE_ENGINE_UPROBE,
	.attach = attach,
	.poll = poll,
	.count = count,
	.read = read_recorded,
	.mark = mark,
	.pause = pause_now,
	.detach = detach,
	.modules = modules,
	.destroy = destroy,
};
