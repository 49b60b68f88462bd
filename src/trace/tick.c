/* What keeps a recording going. */
#include "session.h"
#include "uprobe.h"

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

static bool is_there(const struct trace_session *session)
{
	char magic[sizeof(AGENT_MAGIC)];

	return pread(session->memory, magic, sizeof(magic), (off_t)session->image) ==
		       (ssize_t)sizeof(magic) &&
	       !memcmp(magic, AGENT_MAGIC, sizeof(magic)) &&
	       process_is_alive(session->target->process);
}

static uint64_t hash_code(const struct mapping_vec *maps)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	vec_for_each (mapping, maps) {
		if (!(mapping->perms & PERM_EXEC) || !mapping->inode)
			continue;
		hash = (hash ^ mapping->start) * UINT64_C(0x100000001b3);
		hash = (hash ^ mapping->end) * UINT64_C(0x100000001b3);
		hash = (hash ^ mapping->inode) * UINT64_C(0x100000001b3);
	}
	return hash;
}

static struct error *take_modules(struct trace_session *session)
{
	cleanup(target) struct target *now = NULL;
	bool changed = false, removed = false;
	struct error *error = target_open_live(session->target->pid, &now);

	if (!error)
		error = history_add(session->history, now);
	if (session->uprobe)
		return error;
	if (!error)
		error = unwind_table_update(session->unwind, now, &changed, &removed);
	if (!error && changed)
		error = tables_publish_unwind(&session->tables, session->unwind);
	if (!error && removed) {
		cleanup(free) void *zeros = calloc(AGENT_UNWIND_CACHE, 8);

		if (!zeros)
			return &error_no_memory;
		control_put(session, CTL(unwind_cache), zeros, AGENT_UNWIND_CACHE * 8);
	}
	return error;
}

/* Libraries and stacks come and go; what cannot be learnt now is tried again. */
static void look_at_maps(struct trace_session *session)
{
	struct mapping_vec maps = { 0 };
	uint64_t since = clock_us();
	struct error *error = target_read_maps(session->target, MAPS_PLAIN, &maps);
	uint64_t hash = error ? session->maps_hash : hash_code(&maps);

	if (!error && !session->uprobe)
		ranges_publish(session, &maps);
	mappings_deinit(&maps);
	session->maps_rest = (unsigned)((clock_us() - since) / MAPS_US);
	if (!error && hash != session->maps_hash) {
		error = take_modules(session);
		if (!error)
			session->maps_hash = hash;
	}
	if (error)
		log_debug("new modules: %s", error->message);
	error_destroy(error);
}

/* ---- threads that have gone ---- */

/* The ids by which the target knows its threads. */
static struct error *list_threads(struct trace_session *session, struct pid_vec *ret)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(session->target->process, &tids);

	for (size_t i = 0; !error && i < tids.size; i++) {
		struct process_status status = { 0 };
		pid_t tid = tids.data[i];

		error_destroy(process_read_status(session->target->process, tid, &status));
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

static void look_at_slot(struct trace_session *session, unsigned i,
			 const struct agent_thread *thread, const struct pid_vec *tids)
{
	uint64_t offset = CTL(threads) + i * sizeof(*thread), now = clock_us();

	if (thread->key <= AGENT_KEY_RECYCLED || !thread->tid || thread->tid == AGENT_TID_UNKNOWN ||
	    has_thread(tids, thread->tid)) {
		session->doubt_since[i] = 0;
	} else if (!thread->doubt || !session->doubt_since[i]) {
		control_put_32(session, offset + offsetof(struct agent_thread, doubt), 1);
		session->doubt_since[i] = now;
	} else if (now - session->doubt_since[i] >= DOUBT_US) {
		control_put_64(session, offset + AGENT_THREAD_KEY, AGENT_KEY_RECYCLED);
		session->doubt_since[i] = 0;
	}
}

static void recycle_slots(struct trace_session *session)
{
	cleanup(free) struct agent_thread *threads = calloc(AGENT_THREADS, sizeof(*threads));
	struct pid_vec tids = { 0 };
	struct process_status status;
	struct error *error;

	if (!threads ||
	    !control_get(session, CTL(threads), threads, AGENT_THREADS * sizeof(*threads)))
		return;
	error = process_read_status(session->target->process, 0, &status);
	/* A thread that is stopped cannot object. */
	if (!error && status.state != 'T' && status.state != 't')
		error = list_threads(session, &tids);
	for (unsigned i = 0; !error && tids.size && i < AGENT_THREADS; i++)
		look_at_slot(session, i, &threads[i], &tids);
	error_destroy(error);
	pid_vec_deinit(&tids);
}

bool trace_has_lapsed(struct trace_session *session)
{
	uint32_t active = AGENT_INACTIVE;

	if (!control_get(session, CTL(active), &active, sizeof(active)) || active != AGENT_INACTIVE)
		return false;
	if (!session->lapses++)
		log_warn("memprobe was kept from its work for more than %.1f s: what the target "
			 "allocated or freed in that time is missing",
			 TRACE_LEASE_US / 1e6);
	return true;
}

static void go_on_after_lapse(struct trace_session *session)
{
	if (!trace_has_lapsed(session))
		return;
	control_put_32(session, CTL(epoch), ++session->epoch);
	control_put_32(session, CTL(active), control_mode(session));
}

static void measure_rate(struct trace_session *session, const struct trace_counters *counters)
{
	uint64_t now = clock_us(), elapsed = now - session->rate_us;

	if (elapsed < RATE_EVERY_US)
		return;
	session->bytes_per_second = (counters->bytes - session->rate_bytes) * 1e6 / (double)elapsed;
	session->rate_bytes = counters->bytes;
	session->rate_us = now;
}

#define MODULES_EVERY 2
#define THREADS_EVERY 20

struct error *trace_tick(struct trace_session *session, bool *alive_ret)
{
	struct trace_counters counters;
	struct error *error;

	*alive_ret = false;
	if (session->gone || !session->attached)
		return NULL;
	if (!session->paused) {
		session->report.cut_short = memory_is_short(session);
		if (session->report.cut_short)
			trace_pause(session);
	}
	if (session->uprobe) {
		if (!session->paused && session->ticks++ % MODULES_EVERY == 0)
			look_at_maps(session);
		return uprobe_tick(session->uprobe, alive_ret);
	}
	if (!is_there(session) || !control_renew_lease(session)) {
		session->gone = true;
		trace_end(session);
		return NULL;
	}
	*alive_ret = true;
	if (session->paused)
		return NULL;
	go_on_after_lapse(session);
	error = trace_count(session, &counters);
	if (error)
		return error;
	if (tables_grow(&session->tables,
			counters.recorded - min_u64(counters.recorded, counters.freed)))
		control_put_limits(session);
	rate_thin_out(session, &counters);
	measure_rate(session, &counters);
	rate_follow(session, &counters);
	if (session->maps_rest)
		session->maps_rest--;
	else
		look_at_maps(session);
	if (session->ticks % THREADS_EVERY == THREADS_EVERY - 1)
		recycle_slots(session);
	session->ticks++;
	return NULL;
}
