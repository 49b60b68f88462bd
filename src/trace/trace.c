#include "memprobe/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <x86intrin.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/pause.h"
#include "memprobe/pool_file.h"
#include "session.h"
#include "uprobe.h"

#define TIMEOUT_US 10000000

/* Address space that the tables may reserve, if there is no limit. */
#define SPACE_MAX (UINT64_C(64) << 30)
#define SPACE_MIN (UINT64_C(128) << 20)

/* How long is looked before the recording begins, to choose a rate. */
#define PROBE_US 100000

#define RATE_LARGEST (UINT64_C(1) << 40)

#define CTL(member) offsetof(struct agent_ctl, member)

static struct error *cannot_write(const struct trace_session *session)
{
	return error_errno(ERROR_FAILED, errno, "cannot write the memory of %d",
			   (int)session->target->pid);
}

static struct error *set_up(struct trace_session *session)
{
	const struct trace_options *options = &session->options;
	uint64_t seed = __rdtsc();

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
		seed ^= (uint64_t)getpid() << 32;
	if (!control_put_32(session, CTL(flags), options->all ? AGENT_FLAG_TOTALS : 0) ||
	    !control_put_32(session, CTL(max_frames), options->depth_max) || !rate_put(session) ||
	    !control_put_range(session, options->min_size,
			       options->max_size ? options->max_size : UINT64_MAX) ||
	    !control_put_64(session, CTL(seed), seed) ||
	    !control_put_64(session, CTL(clock), session->clock.address) ||
	    !control_put_32(session, CTL(tid_offset), session->tid_offset) ||
	    !control_put_32(session, CTL(epoch), ++session->epoch) || !control_put_limits(session))
		return cannot_write(session);
	return NULL;
}

static struct error *activate(struct trace_session *session)
{
	if (!control_renew_lease(session) ||
	    !control_put_32(session, CTL(active), control_mode(session)))
		return cannot_write(session);
	return NULL;
}

/* ---- attaching ---- */

/*
 * For the tables a quarter of what is free under its limits: the target's own mmap() is not to fail
 * for want of address space, nor its mlockall() because of what is mapped.
 */
static struct error *space_of(struct target *target, uint64_t *ret)
{
	uint64_t limit = process_limit(target->process, "Max address space");
	uint64_t lockable = process_limit(target->process, "Max locked memory"), used = 0;
	struct mapping_vec maps = { 0 };
	struct error *error;

	*ret = SPACE_MAX;
	if (limit == UINT64_MAX && lockable == UINT64_MAX)
		return NULL;
	error = target_read_maps(target, MAPS_PLAIN, &maps);
	vec_for_each (mapping, &maps)
		used += mapping->end - mapping->start;
	mappings_deinit(&maps);
	if (error)
		return error;
	limit -= min_u64(limit, used);
	lockable -= min_u64(lockable, used);
	if (limit < 2 * SPACE_MIN)
		return error_create(ERROR_UNSUPPORTED,
				    "%d has no room for the recording's tables: only %llu MiB are "
				    "left of its address space (ulimit -v)",
				    (int)target->pid, (unsigned long long)(limit >> 20));
	/* Where it could hardly lock all of itself, nothing is lost. */
	if (lockable >= 2 * SPACE_MIN)
		limit = min_u64(limit, lockable);
	*ret = max_u64(SPACE_MIN, min_u64(SPACE_MAX, limit / 4));
	return NULL;
}

static struct error *tell_hooks(struct trace_session *session)
{
	vec_for_each (function, &session->hooks.functions) {
		struct error *error =
			function_tell(function, function->refused, &session->report.hooks);

		if (error)
			return error;
	}
	return NULL;
}

/* Without both of them the record would be nonsense. */
static struct error *check_hooks(const struct trace_session *session)
{
	vec_for_each (function, &session->hooks.functions) {
		if (!function->refused || function->is_optional)
			continue;
		log_warn("%s cannot be hooked: %s", function->name, function->refused);
		if (function->spec->kind == AGENT_KIND_FREE ||
		    function->spec->kind == AGENT_KIND_REALLOC ||
		    function->spec->kind == AGENT_KIND_RESET ||
		    function->spec->kind == AGENT_KIND_MOVE ||
		    function->spec->kind == AGENT_KIND_FREE_CHAIN ||
		    !strcmp(function->spec->name, "malloc"))
			return error_create(ERROR_UNSUPPORTED,
					    "cannot record the allocations of %d: %s at 0x%llx "
					    "cannot be hooked: %s",
					    (int)session->target->pid, function->name,
					    (unsigned long long)function->address,
					    function->refused);
	}
	return NULL;
}

static struct error *find_functions(struct trace_session *session, struct call_session *call)
{
	const struct pool_file *pool = session->options.pool;
	struct hooks *hooks = &session->hooks;
	struct allocator allocator;
	struct error *error;

	if (pool) {
		session->report.allocator = pool->name;
		return functions_find_pool(session->target, pool, &hooks->functions,
					   &session->config.pools, &hooks->text_start,
					   &hooks->text_end);
	}
	error = allocator_detect(session->target, &allocator);
	if (error)
		return error;
	session->report.allocator = allocator.name;
	return functions_find(session->target, call, &allocator, &hooks->functions,
			      &hooks->text_start, &hooks->text_end);
}

/* All that can be known before the target is touched. */
static struct error *plan(struct trace_session *session, struct call_session *call,
			  struct install *install)
{
	struct target *target = session->target;
	struct hooks *hooks = &session->hooks;
	uint64_t shm = AGENT_IMAGE_SPACE + sizeof(struct agent_ctl);
	struct text_range text;
	uint64_t space, memory;
	struct error *error = find_functions(session, call);

	if (error)
		return error;
	text = (struct text_range){ hooks->text_start, hooks->text_end };
	error = space_of(target, &space);
	if (!error)
		error = memory_limit(session, &memory);
	if (error)
		return error;
	hooks->near_size = round_up(AGENT_SLOTS * NEAR_SLOT, PAGE_SIZE);
	hooks->near_bytes = calloc(1, hooks->near_size);
	if (!hooks->near_bytes)
		return &error_no_memory;
	tables_plan(&session->tables, session->report.rate <= 1, session->options.pool != NULL,
		    space, memory);
	install->image_space = shm + session->tables.size;
	error = install_find_near(target, &text, hooks->near_size, &hooks->near);
	if (!error)
		error = call_find_gap(target, install->image_space, (unsigned)(clock_us() % 64),
				      &install->image);
	if (error)
		return error;
	tables_describe(&session->tables, install->image + shm, &session->config);
	session->config.allocator_start = hooks->text_start;
	session->config.allocator_end = hooks->text_end;
	session->config.areas[0] = (struct agent_area){ hooks->near, hooks->near_size };
	session->config.areas[1] =
		(struct agent_area){ install->image + shm, session->tables.size };
	trace_sign(&session->config, target);
	error = hooks_plan(hooks, install->image, control_mode(session), &session->config);
	if (!error)
		error = tell_hooks(session);
	return error ? error : check_hooks(session);
}

static struct error *install(struct trace_session *session, struct call_session *call,
			     struct install *install)
{
	struct error *error;

	install->session = call;
	install->memory = session->memory;
	install->near = session->hooks.near;
	install->near_size = session->hooks.near_size;
	install->near_bytes = session->hooks.near_bytes;
	install->config = session->config;
	install->tables = &session->tables;
	install->needs_tsc = !session->clock.address;
	error = install_run(install);
	session->tid_offset = install->tid_offset;
	log_debug("mapping the agent held a thread for %llu us",
		  (unsigned long long)call_stopped_us(call));
	session->report.attach_stopped_us =
		max_u64(session->report.attach_stopped_us, call_stopped_us(call));
	if (install->committed)
		session->image = install->image;
	return error;
}

static struct error *hook(struct trace_session *session)
{
	struct text_range ranges[AGENT_SLOTS];
	struct hooks_change change = {
		.memory = session->memory,
		.image = session->image,
		.config = &session->config,
	};
	struct hold hold = {
		.target = session->target,
		.unwind = session->unwind,
		.ranges = ranges,
		.range_count = session->hooks.count,
		.work = hooks_set,
		.data = &change,
		.interrupted = session->options.interrupted,
		.deadline = clock_us() + session->options.timeout_us,
	};
	struct error *error;

	/* Of the five bytes the first is where the function begins as before, or goes on behind an
	 * instruction that the hook undoes. */
	for (unsigned i = 0; i < session->hooks.count; i++)
		ranges[i] = (struct text_range){ session->config.slots[i].function + 1,
						 session->config.slots[i].function + 5 };
	error = hold_run(&hold);
	session->hooked = hold.done;
	log_debug("setting the hooks held the threads for %llu us, in %u stops",
		  (unsigned long long)hold.stopped_us, hold.stops);
	session->report.attach_stopped_us =
		max_u64(session->report.attach_stopped_us, hold.stopped_us);
	session->report.attach_stops += hold.stops;
	hold_deinit(&hold);
	if (!error && change.foreign)
		error = error_create(ERROR_BUSY, "another tool is changing the code of %d",
				     (int)session->target->pid);
	return error;
}

static struct error *build_unwind(struct trace_session *session)
{
	struct unwind_table_stats stats;
	uint64_t since = clock_us();
	struct error *error = unwind_table_create(session->target, &session->unwind);

	if (error)
		return error;
	unwind_table_stats(session->unwind, &stats);
	session->report.tables_us = clock_us() - since;
	session->report.table_bytes = stats.bytes;
	return NULL;
}

static struct error *publish_ranges(struct trace_session *session)
{
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(session->target, MAPS_PLAIN, &maps);

	if (!error && !ranges_publish(session, &maps))
		error = cannot_write(session);
	mappings_deinit(&maps);
	return error;
}

static struct error *still_in_use(const struct trace_session *session)
{
	return error_create(ERROR_BUSY,
			    "the agent of a memprobe that was killed is still in use in %d",
			    (int)session->target->pid);
}

/* With the per-target lock held. */
static struct error *attach_locked(struct trace_session *session, struct call_session *call)
{
	cleanup(free) struct install *mappings = calloc(1, sizeof(*mappings));
	uint64_t remaining = 0;
	struct error *error;

	if (!mappings)
		return &error_no_memory;
	error = leftovers_remove(call, session->options.timeout_us, &remaining,
				 &session->report.leftovers_removed);
	if (!error && remaining)
		error = still_in_use(session);
	if (!error)
		error = plan(session, call, mappings);
	if (!error)
		error = build_unwind(session);
	if (!error)
		error = history_create(session->target, &session->history);
	if (!error)
		error = install(session, call, mappings);
	if (!error)
		error = tables_publish_unwind(&session->tables, session->unwind);
	if (!error)
		error = set_up(session);
	if (!error)
		error = publish_ranges(session);
	if (!error)
		error = hook(session);
	return error;
}

/* Nothing is recorded yet, but what would be is counted. */
static struct error *choose_rate(struct trace_session *session)
{
	struct trace_counters counters = { 0 };
	struct error *error = NULL;
	uint64_t since;

	if (!control_put_range(session, UINT64_MAX, UINT64_MAX))
		return cannot_write(session);
	error = activate(session);
	since = clock_us();
	if (error)
		return error;
	usleep(PROBE_US);
	control_put_32(session, CTL(active), AGENT_INACTIVE);
	error = trace_count(session, &counters);
	if (error)
		return error;
	session->former.samples = rate_samples(&counters);
	rate_slow_down(session, session->former.samples, clock_us() - since);
	return set_up(session);
}

static struct error *begin(struct trace_session *session)
{
	struct error *error = NULL;

	if (!session->options.rate)
		error = choose_rate(session);
	if (error)
		return error;
	session->begin_us = session->rate_us = session->former.since = clock_us();
	return activate(session);
}

static struct error *check_options(const struct trace_options *options)
{
	if (options->rate > RATE_LARGEST)
		return error_create(ERROR_USAGE, "a rate of %llu bytes is too large",
				    (unsigned long long)options->rate);
	if (options->max_size && options->max_size < options->min_size)
		return error_create(ERROR_USAGE, "the largest size is below the smallest one");
	return NULL;
}

static struct error *create(struct target *target, const struct trace_options *options,
			    struct trace_session **ret)
{
	struct trace_session *session = calloc(1, sizeof(*session));

	if (!session)
		return &error_no_memory;
	session->target = target;
	session->memory = -1;
	tables_init(&session->tables);
	if (options)
		session->options = *options;
	if (!session->options.timeout_us)
		session->options.timeout_us = TIMEOUT_US;
	if (!session->options.depth_max || session->options.depth_max > TRACE_DEPTH_MAX)
		session->options.depth_max = TRACE_DEPTH_MAX;
	session->report.engine = TRACE_ENGINE_AGENT;
	rate_begin(session);
	session->clock_us_0 = clock_us();
	session->tsc_0 = __rdtsc();
	lease_clock_find(target, &session->clock);
	session->doubt_since = calloc(AGENT_THREADS, sizeof(*session->doubt_since));
	session->ranges = calloc(2, sizeof(*session->ranges));
	if (!session->doubt_since || !session->ranges) {
		trace_destroy(session);
		return &error_no_memory;
	}
	*ret = session;
	return NULL;
}

static struct error *attach_agent(struct target *target, const struct trace_options *options,
				  struct trace_session **ret)
{
	struct trace_session *session = NULL;
	struct call_session *call = NULL;
	struct error *error = NULL;

	if (target->arch != &arch_x86_64)
		error = error_create(ERROR_UNSUPPORTED, "there is no agent for %s processes",
				     target->arch->name);
	if (!error)
		error = create(target, options, &session);
	if (!error)
		error = call_open(target, session->options.timeout_us, &call);
	if (!error)
		error = trace_open_memory(target, &session->memory);
	if (!error)
		error = attach_locked(session, call);
	call_close(call);
	if (session)
		session->attached = session->image != 0;
	if (!error)
		error = begin(session);
	if (error)
		trace_destroy(session);
	else
		*ret = session;
	return error;
}

/* Probes are not set on functions that still lead into a predecessor's agent. */
static struct error *clear_leftovers(struct trace_session *session)
{
	struct trace_leftover_vec found = { 0 };
	uint64_t remaining = 0;
	struct error *error = trace_find_leftovers(session->target, &found);
	size_t count = found.size;

	trace_leftover_vec_deinit(&found);
	if (error || !count)
		return error;
	error = trace_remove_leftovers(session->target, session->options.timeout_us, &remaining);
	if (!error && remaining)
		error = still_in_use(session);
	session->report.leftovers_removed = !error;
	return error;
}

static struct error *attach_uprobes(struct target *target, const struct trace_options *options,
				    struct trace_session **ret)
{
	struct trace_session *session = NULL;
	struct error *error = create(target, options, &session);

	if (!error)
		error = clear_leftovers(session);
	if (!error)
		error = history_create(target, &session->history);
	if (!error)
		error = uprobe_attach(target, &session->options, &session->report,
				      &session->uprobe);
	if (error) {
		trace_destroy(session);
		return error;
	}
	session->report.engine = TRACE_ENGINE_UPROBE;
	session->attached = true;
	*ret = session;
	return NULL;
}

/* Why the one engine does not do is more than why the other does not, either. */
static struct error *join(struct error *agent, struct error *uprobe)
{
	if (!agent->hint)
		agent = error_hint(agent, "without the agent: %s", uprobe->message);
	error_destroy(uprobe);
	return agent;
}

/* Of setting and removing the hooks. Who stands still anyway loses nothing. */
static struct error *check_pause(const struct target *target, const struct trace_options *options)
{
	struct process_status status;
	struct error *error = process_read_status(target->process, 0, &status);

	if (error || status.state == 'T' || !options)
		return error;
	return pause_check(target->pid, "hooking its allocator", pause_of_stop(status.threads, 0),
			   options->max_pause_us);
}

struct error *trace_attach(struct target *target, const struct trace_options *options,
			   struct trace_session **ret)
{
	enum trace_engine engine = options ? options->engine : TRACE_ENGINE_AUTO;
	struct error *error = options ? check_options(options) : NULL, *refusal;
	bool too_long;

	if (!error && !target->process)
		error = error_create(ERROR_UNSUPPORTED, "only a live process can be recorded");
	if (error)
		return error;
	if (engine == TRACE_ENGINE_UPROBE)
		return attach_uprobes(target, options, ret);
	refusal = check_pause(target, options);
	too_long = error_is(refusal, ERROR_BUSY);
	if (!refusal)
		refusal = attach_agent(target, options, ret);
	if (engine == TRACE_ENGINE_AGENT || (!too_long && !error_is(refusal, ERROR_UNSUPPORTED) &&
					     !error_is(refusal, ERROR_PERMISSION)))
		return refusal;
	error = attach_uprobes(target, options, ret);
	if (error)
		return join(refusal, error);
	(*ret)->report.refused = strdup(refusal->message);
	error_destroy(refusal);
	return NULL;
}

/* ---- the end ---- */

void trace_pause(struct trace_session *session)
{
	if (session->uprobe) {
		uprobe_pause(session->uprobe);
	} else if (session->attached && !session->gone && !session->paused) {
		/* One since the last tick: nobody else would tell. */
		if (session->begin_us)
			trace_has_lapsed(session);
		control_put_32(session, CTL(active), AGENT_INACTIVE);
	}
	session->paused = true;
	trace_end(session);
}

struct error *trace_detach(struct trace_session *session)
{
	cleanup(free) struct leave *leave = NULL;
	struct error *error, *children_error = NULL;

	if (!session->attached)
		return NULL;
	trace_pause(session);
	if (session->uprobe) {
		session->attached = false;
		return uprobe_detach(session->uprobe);
	}
	leave = calloc(1, sizeof(*leave));
	if (!leave)
		return &error_no_memory;
	leave->target = session->target;
	leave->unwind = session->unwind;
	leave->memory = session->memory;
	leave->image = session->image;
	leave->unused = !session->hooked;
	leave->config = session->config;
	leave->timeout_us = session->options.timeout_us;
	leave->tables = &session->tables;
	error = leave_run(leave);
	session->report.detach_stopped_us = leave->stopped_us;
	session->report.detach_stops = leave->stops;
	session->report.remaining = leave->remaining;
	if (leave->remaining)
		session->report.remaining_reason = strdup(leave->reason);
	session->attached = false;
	if (session->image && session->hooked)
		children_error = children_clean(session);
	if (error)
		error_destroy(children_error);
	return error ? error : children_error;
}

const struct trace_report *trace_report(const struct trace_session *session)
{
	return &session->report;
}

struct target *trace_modules(struct trace_session *session)
{
	return history_target(session->history);
}

void trace_destroy(struct trace_session *session)
{
	struct error *error;

	if (!session)
		return;
	error = trace_detach(session);
	if (error)
		log_warn("%s", error->message);
	error_destroy(error);
	vec_for_each (hook, &session->report.hooks) {
		free(hook->name);
		free(hook->module);
		free(hook->reason);
	}
	trace_hook_vec_deinit(&session->report.hooks);
	free(session->report.refused);
	uprobe_destroy(session->uprobe);
	free(session->report.remaining_reason);
	tables_close(&session->tables);
	hooks_deinit(&session->hooks);
	unwind_table_destroy(session->unwind);
	history_destroy(session->history);
	if (session->memory >= 0)
		close(session->memory);
	free(session->doubt_since);
	free(session->ranges);
	free(session);
}
