/* What keeps a recording going. */
#include "agent_recorder.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

#define CTL(member) offsetof(struct agent_ctl, member)

/* How often bytes per second are worked out. */
#define RATE_EVERY_US 1000000

/* For each of these that reading the maps takes, a tick is left out: 2 % of the time. */
#define MAPS_US 1000

/* How long a thread that seems to have ended may object. */
#define DOUBT_US 2000000

static bool is_there(const struct agent_recorder *agent)
{
	char magic[sizeof(AGENT_MAGIC)];

	return pread(agent->memory, magic, sizeof(magic), (off_t)agent->image) ==
		       (ssize_t)sizeof(magic) &&
	       !memcmp(magic, AGENT_MAGIC, sizeof(magic)) &&
	       process_is_alive(agent->target->process);
}

/* A library has come or gone. */
static struct error *update_unwind(struct agent_recorder *agent, struct target *now)
{
	bool changed = false, removed = false;
	struct error *error = unwind_table_update(agent->unwind, now, &changed, &removed);

	if (!error && changed)
		error = tables_publish_unwind(&agent->tables, agent->unwind);
	if (!error && removed) {
		cleanup(free) void *zeros = calloc(AGENT_UNWIND_CACHE, 8);

		if (!zeros)
			return &error_no_memory;
		control_put(agent, CTL(unwind_cache), zeros, AGENT_UNWIND_CACHE * 8);
	}
	return error;
}

/* Libraries and stacks come and go; what cannot be learnt now is tried again. */
static void look_at_maps(struct agent_recorder *agent)
{
	cleanup(target) struct target *now = NULL;
	struct mapping_vec maps = { 0 };
	uint64_t since = clock_us();
	struct error *error = target_read_maps(agent->target, MAPS_PLAIN, &maps);

	if (!error)
		ranges_publish(agent, &maps);
	agent->maps_rest = (unsigned)((clock_us() - since) / MAPS_US);
	if (!error)
		error = history_learn(agent->history, &maps, &now);
	mappings_deinit(&maps);
	if (!error && now) {
		error = update_unwind(agent, now);
		if (error)
			history_learn_again(agent->history);
	}
	if (error)
		log_debug("new modules: %s", error->message);
	error_destroy(error);
}

/* ---- threads that have gone ---- */

/* The ids by which the target knows its threads. */
static struct error *list_threads(struct agent_recorder *agent, struct pid_vec *ret)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(agent->target->process, &tids);

	for (size_t i = 0; !error && i < tids.size; i++) {
		struct process_status status = { 0 };
		pid_t tid = tids.data[i];

		error_destroy(process_read_status(agent->target->process, tid, &status));
		if (status.ns_tid)
			tid = status.ns_tid;
		error = pid_vec_append(ret, &tid);
	}
	pid_vec_deinit(&tids);
	return error;
}

static bool has_thread(const struct pid_vec *tids, uint32_t tid)
{
	vec_for_each (known, tids)
		if ((uint32_t)*known == tid)
			return true;
	return false;
}

static void look_at_slot(struct agent_recorder *agent, unsigned i,
			 const struct agent_thread *thread, const struct pid_vec *tids)
{
	uint64_t offset = CTL(threads) + i * sizeof(*thread), now = clock_us();

	if (thread->key <= AGENT_KEY_RECYCLED || !thread->tid || thread->tid == AGENT_TID_UNKNOWN ||
	    has_thread(tids, thread->tid)) {
		agent->doubt_since[i] = 0;
	} else if (!thread->doubt || !agent->doubt_since[i]) {
		control_put_32(agent, offset + offsetof(struct agent_thread, doubt), 1);
		agent->doubt_since[i] = now;
	} else if (now - agent->doubt_since[i] >= DOUBT_US) {
		control_put_64(agent, offset + AGENT_THREAD_KEY, AGENT_KEY_RECYCLED);
		agent->doubt_since[i] = 0;
	}
}

static void recycle_slots(struct agent_recorder *agent)
{
	cleanup(free) struct agent_thread *threads = calloc(AGENT_THREADS, sizeof(*threads));
	struct pid_vec tids = { 0 };
	struct process_status status;
	struct error *error;

	if (!threads ||
	    !control_get(agent, CTL(threads), threads, AGENT_THREADS * sizeof(*threads)))
		return;
	error = process_read_status(agent->target->process, 0, &status);
	/* A thread that is stopped cannot object. */
	if (!error && status.state != 'T' && status.state != 't')
		error = list_threads(agent, &tids);
	for (unsigned i = 0; !error && tids.size && i < AGENT_THREADS; i++)
		look_at_slot(agent, i, &threads[i], &tids);
	error_destroy(error);
	pid_vec_deinit(&tids);
}

bool agent_has_lapsed(struct agent_recorder *agent)
{
	uint32_t active = AGENT_INACTIVE;

	if (!control_get(agent, CTL(active), &active, sizeof(active)) || active != AGENT_INACTIVE)
		return false;
	if (!agent->lapses++)
		log_warn("memprobe was kept from its work for more than %.1f s: what the target "
			 "allocated or freed in that time is missing",
			 TRACE_LEASE_US / 1e6);
	return true;
}

static void go_on_after_lapse(struct agent_recorder *agent)
{
	if (!agent_has_lapsed(agent))
		return;
	control_put_32(agent, CTL(epoch), ++agent->epoch);
	control_put_32(agent, CTL(active), control_mode(agent));
}

static void measure_rate(struct agent_recorder *agent, const struct trace_counters *counters)
{
	uint64_t now = clock_us(), elapsed = now - agent->rate_us;

	if (elapsed < RATE_EVERY_US)
		return;
	agent->bytes_per_second = (counters->bytes - agent->rate_bytes) * 1e6 / (double)elapsed;
	agent->rate_bytes = counters->bytes;
	agent->rate_us = now;
}

#define THREADS_EVERY 20

/* True: it goes on. */
static bool check_memory(struct agent_recorder *agent)
{
	if (!agent->paused && memory_is_short(agent)) {
		agent->report->cut_short = true;
		agent_pause(agent);
	}
	return !agent->paused;
}

struct error *agent_poll(void *recorder, bool *alive_ret)
{
	struct agent_recorder *agent = recorder;
	struct trace_counters counters;
	struct error *error;
	bool goes_on;

	*alive_ret = false;
	if (agent->gone)
		return NULL;
	goes_on = check_memory(agent);
	if (!is_there(agent) || !control_renew_lease(agent)) {
		agent->gone = true;
		agent_end(agent);
		return NULL;
	}
	*alive_ret = true;
	if (!goes_on)
		return NULL;
	go_on_after_lapse(agent);
	error = agent_count(agent, &counters);
	if (error)
		return error;
	if (tables_grow(&agent->tables,
			counters.recorded - min_u64(counters.recorded, counters.freed)))
		control_put_limits(agent);
	rate_thin_out(agent, &counters);
	measure_rate(agent, &counters);
	rate_follow(agent, &counters);
	if (agent->maps_rest)
		agent->maps_rest--;
	else
		look_at_maps(agent);
	if (agent->ticks % THREADS_EVERY == THREADS_EVERY - 1)
		recycle_slots(agent);
	agent->ticks++;
	return NULL;
}
