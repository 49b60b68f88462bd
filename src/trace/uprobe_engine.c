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
	struct error *error = (engine->until ? uprobe_probes_finish : uprobe_probes_poll)(
		engine->probes, uprobe_visit, engine);

	engine->execed |= uprobe_probes_ended(engine->probes);
	uprobe_probes_want_stack(engine->probes, engine->stack.bytes);
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
	engine->options = *options;
	engine->report = report;
	if (!engine->options.depth_max)
		engine->options.depth_max = TRACE_DEPTH_MAX;
	engine->rate = max_u64(options->rate, 1);
	if (getrandom(&engine->random, sizeof(engine->random), GRND_NONBLOCK) < 0)
		engine->random = clock_ns();
	engine->random |= 1;
	error = uprobe_calls_create(&engine->calls);
	if (error)
		uprobe_destroy(engine);
	else
		*ret = engine;
	return error;
}

struct error *uprobe_attach(struct target *target, const struct trace_options *options,
			    struct trace_report *report, struct uprobe_engine **ret)
{
	struct uprobe_engine *engine = NULL;
	uint64_t since = clock_us();
	struct error *error = create(target, options, report, &engine);

	if (!error)
		error = sample_stacks_create(target, &engine->stacks);
	report->tables_us = clock_us() - since;
	if (!error)
		error = uprobe_open(engine, report);
	if (!error) {
		report->rate = engine->rate;
		/* Of a block that was seen to come every free is seen, too: only once all events
		 * are on does one count. */
		engine->since = UINT64_MAX;
		engine->since = clock_ns();
		engine->begin_us = engine->rate_us = clock_us();
		log_debug("%u probes, after %llu ms", engine->spec_count,
			  (unsigned long long)(clock_us() - since) / 1000);
		error = start_reader(engine);
	}
	if (error)
		uprobe_destroy(engine);
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

static void end_if_blind(struct uprobe_engine *engine)
{
	if (engine->until || !engine->probes || engine->execed ||
	    !uprobe_probes_blind(engine->probes))
		return;
	log_warn("the recording of %d ends: the thread has ended by which its probes were set",
		 (int)engine->target->pid);
	engine->report->cut_short = true;
	uprobe_pause(engine);
}

struct error *uprobe_tick(struct uprobe_engine *engine, bool *alive_ret)
{
	struct error *error;

	end_if_blind(engine);
	lock(engine);
	*alive_ret =
		engine->probes && !engine->execed && !process_has_ended(engine->target->process);
	measure_rate(engine);
	error = take_error(engine);
	unlock(engine);
	return error;
}

struct error *uprobe_read(struct uprobe_engine *engine, const struct trace_wanted *wanted,
			  struct trace_data **ret)
{
	cleanup(trace_data) struct trace_data *data = calloc(1, sizeof(*data));
	struct error *error;

	if (!data)
		return &error_no_memory;
	lock(engine);
	/* What has happened by now, not what the reader has come to. */
	error = engine->probes && !engine->until ? read_ring(engine) : NULL;
	if (!error)
		error = uprobe_collect(engine, wanted, data);
	unlock(engine);
	if (!error)
		*ret = take_pointer(data);
	return error;
}

struct error *uprobe_count(struct uprobe_engine *engine, struct trace_counters *ret)
{
	lock(engine);
	uprobe_counters(engine, ret);
	unlock(engine);
	return NULL;
}

/* ---- end ---- */

void uprobe_pause(struct uprobe_engine *engine)
{
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

struct error *uprobe_detach(struct uprobe_engine *engine)
{
	struct trace_counters counters;
	uint64_t since = clock_us();

	if (!engine->probes)
		return NULL;
	uprobe_pause(engine);
	uprobe_counters(engine, &counters);
	uprobe_probes_close(take_pointer(engine->probes));
	log_debug("the probes were taken out in %llu ms",
		  (unsigned long long)(clock_us() - since) / 1000);
	return take_error(engine);
}

void uprobe_destroy(struct uprobe_engine *engine)
{
	if (!engine)
		return;
	stop_reader(engine);
	uprobe_probes_close(engine->probes);
	if (engine->file >= 0)
		close(engine->file);
	error_destroy(engine->error);
	sample_stacks_destroy(engine->stacks);
	uprobe_calls_destroy(engine->calls);
	uprobe_table_deinit(&engine->table);
	uprobe_total_vec_deinit(&engine->totals);
	functions_deinit(&engine->functions);
	pthread_mutex_destroy(&engine->lock);
	free(engine);
}
