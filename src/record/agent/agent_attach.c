/* Brings the agent into a target, and takes it out again. */
#include "agent_recorder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>
#include <x86intrin.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/pause.h"
#include "memprobe/pool_file.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

/* Address space that the tables may reserve, if there is no limit. */
#define SPACE_MAX (UINT64_C(64) << 30)
#define SPACE_MIN (UINT64_C(128) << 20)

/* How long is looked before the recording begins, to choose a rate. */
#define PROBE_US 100000

#define CTL(member) offsetof(struct agent_ctl, member)

static struct error *cannot_write(const struct agent_recorder *agent)
{
	return error_errno(ERROR_FAILED, errno, "cannot write the memory of %d",
			   (int)agent->target->pid);
}

/* From Linux 6.13 on. */
static bool kernel_has_guards(void)
{
	void *page = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool has = page != MAP_FAILED && !madvise(page, PAGE_SIZE, MADV_GUARD_INSTALL);

	if (page != MAP_FAILED)
		munmap(page, PAGE_SIZE);
	return has;
}

static struct error *set_up(struct agent_recorder *agent)
{
	const struct trace_options *options = agent->options;
	uint64_t seed = __rdtsc();

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
		seed ^= (uint64_t)getpid() << 32;
	if (!control_put_32(agent, CTL(flags), options->all ? AGENT_FLAG_TOTALS : 0) ||
	    !control_put_32(agent, CTL(max_frames), options->depth_max) || !rate_put(agent) ||
	    !control_put_range(agent, options->min_size,
			       options->max_size ? options->max_size : UINT64_MAX) ||
	    !control_put_64(agent, CTL(seed), seed) ||
	    !control_put_64(agent, CTL(clock), agent->clock.address) ||
	    !control_put_32(agent, CTL(tid_offset), agent->tid_offset) ||
	    !control_put_32(agent, CTL(guards), kernel_has_guards()) ||
	    !control_put_32(agent, CTL(epoch), ++agent->epoch) || !control_put_limits(agent))
		return cannot_write(agent);
	return NULL;
}

static struct error *activate(struct agent_recorder *agent)
{
	if (!control_renew_lease(agent) || !control_put_32(agent, CTL(active), control_mode(agent)))
		return cannot_write(agent);
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

static struct error *find_functions(struct agent_recorder *agent, struct call_session *call)
{
	const struct pool_file *pool = agent->options->pool;
	struct hooks *hooks = &agent->hooks;
	struct allocator allocator;
	struct error *error;

	if (pool) {
		agent->report->allocator = pool->name;
		return functions_find_pool(agent->target, pool, &hooks->functions,
					   &agent->config.pools, &hooks->text_start,
					   &hooks->text_end);
	}
	error = allocator_detect(agent->target, &allocator);
	if (error)
		return error;
	agent->report->allocator = allocator.name;
	return functions_find(agent->target, call, &allocator, &hooks->functions,
			      &hooks->text_start, &hooks->text_end);
}

/* All that can be known before the target is touched. */
static struct error *plan(struct agent_recorder *agent, struct call_session *call,
			  struct install *install)
{
	struct target *target = agent->target;
	struct hooks *hooks = &agent->hooks;
	uint64_t shm = AGENT_IMAGE_SPACE + sizeof(struct agent_ctl);
	struct text_range text;
	uint64_t space, memory;
	struct error *error = find_functions(agent, call);

	if (error)
		return error;
	text = (struct text_range){ hooks->text_start, hooks->text_end };
	error = space_of(target, &space);
	if (!error)
		error = memory_limit(agent, &memory);
	if (error)
		return error;
	hooks->near_size = round_up(AGENT_SLOTS * NEAR_SLOT, PAGE_SIZE);
	hooks->near_bytes = calloc(1, hooks->near_size);
	if (!hooks->near_bytes)
		return &error_no_memory;
	tables_plan(&agent->tables, agent->report->rate <= 1, agent->options->pool != NULL, space,
		    memory);
	install->image_space = shm + agent->tables.size;
	error = install_find_near(target, &text, hooks->near_size, &hooks->near);
	if (!error)
		error = call_find_gap(target, install->image_space, (unsigned)(clock_us() % 64),
				      &install->image);
	if (error)
		return error;
	tables_describe(&agent->tables, install->image + shm, &agent->config);
	agent->config.allocator_start = hooks->text_start;
	agent->config.allocator_end = hooks->text_end;
	agent->config.areas[0] = (struct agent_area){ hooks->near, hooks->near_size };
	agent->config.areas[1] = (struct agent_area){ install->image + shm, agent->tables.size };
	agent_sign(&agent->config, target);
	error = hooks_plan(hooks, install->image, control_mode(agent), &agent->config);
	if (error)
		return error;
	return functions_tell(&hooks->functions, target, "hooked", &agent->report->hooks);
}

static struct error *install(struct agent_recorder *agent, struct call_session *call,
			     struct install *install)
{
	struct error *error;

	install->session = call;
	install->memory = agent->memory;
	install->near = agent->hooks.near;
	install->near_size = agent->hooks.near_size;
	install->near_bytes = agent->hooks.near_bytes;
	install->config = agent->config;
	install->tables = &agent->tables;
	install->needs_tsc = !agent->clock.address;
	error = install_run(install);
	agent->tid_offset = install->tid_offset;
	log_debug("mapping the agent held a thread for %llu us",
		  (unsigned long long)call_stopped_us(call));
	agent->report->attach_stopped_us =
		max_u64(agent->report->attach_stopped_us, call_stopped_us(call));
	if (install->committed) {
		agent->image = install->image;
		agent->report->area_start = install->image;
		agent->report->area_end = install->image + install->image_space;
	}
	return error;
}

static struct error *hook(struct agent_recorder *agent)
{
	struct text_range ranges[AGENT_SLOTS];
	struct hooks_change change = {
		.memory = agent->memory,
		.image = agent->image,
		.config = &agent->config,
	};
	struct hold hold = {
		.target = agent->target,
		.unwind = agent->unwind,
		.ranges = ranges,
		.range_count = agent->hooks.count,
		.work = hooks_set,
		.data = &change,
		.interrupted = agent->options->interrupted,
		.deadline = clock_us() + agent->options->timeout_us,
	};
	struct error *error;

	/* Of the five bytes the first is where the function begins as before, or goes on behind an
	 * instruction that the hook undoes. */
	for (unsigned i = 0; i < agent->hooks.count; i++)
		ranges[i] = (struct text_range){ agent->config.slots[i].function + 1,
						 agent->config.slots[i].function + 5 };
	error = hold_run(&hold);
	agent->hooked = hold.done;
	log_debug("setting the hooks held the threads for %llu us, in %u stops",
		  (unsigned long long)hold.stopped_us, hold.stops);
	agent->report->attach_stopped_us =
		max_u64(agent->report->attach_stopped_us, hold.stopped_us);
	agent->report->attach_stops += hold.stops;
	hold_deinit(&hold);
	if (!error && change.foreign)
		error = error_create(ERROR_BUSY, "another tool is changing the code of %d",
				     (int)agent->target->pid);
	return error;
}

static struct error *build_unwind(struct agent_recorder *agent)
{
	struct unwind_table_stats stats;
	uint64_t since = clock_us();
	struct error *error = unwind_table_create(agent->target, &agent->unwind);

	if (error)
		return error;
	unwind_table_stats(agent->unwind, &stats);
	agent->report->tables_us = clock_us() - since;
	agent->report->table_bytes = stats.bytes;
	return NULL;
}

static struct error *publish_ranges(struct agent_recorder *agent)
{
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(agent->target, MAPS_PLAIN, &maps);

	if (!error && !ranges_publish(agent, &maps))
		error = cannot_write(agent);
	mappings_deinit(&maps);
	return error;
}

/* With the per-target lock held. */
static struct error *attach_locked(struct agent_recorder *agent, struct call_session *call)
{
	cleanup(free) struct install *mappings = calloc(1, sizeof(*mappings));
	struct error *error;

	if (!mappings)
		return &error_no_memory;
	error = leftovers_clear(call, agent->options->timeout_us,
				&agent->report->leftovers_removed);
	if (!error)
		error = plan(agent, call, mappings);
	if (!error)
		error = build_unwind(agent);
	if (!error)
		error = history_create(agent->target, &agent->history);
	if (!error)
		error = install(agent, call, mappings);
	if (!error)
		error = tables_publish_unwind(&agent->tables, agent->unwind);
	if (!error)
		error = set_up(agent);
	if (!error)
		error = publish_ranges(agent);
	if (!error)
		error = hook(agent);
	return error;
}

/* Nothing is recorded yet, but what would be is counted. */
static struct error *choose_rate(struct agent_recorder *agent)
{
	struct trace_counters counters = { 0 };
	struct error *error = NULL;
	uint64_t since;

	if (!control_put_range(agent, UINT64_MAX, UINT64_MAX))
		return cannot_write(agent);
	error = activate(agent);
	since = clock_us();
	if (error)
		return error;
	usleep(PROBE_US);
	control_put_32(agent, CTL(active), AGENT_INACTIVE);
	error = agent_count(agent, &counters);
	if (error)
		return error;
	agent->former.samples = rate_samples(&counters);
	rate_slow_down(agent, agent->former.samples, clock_us() - since);
	return set_up(agent);
}

static struct error *begin(struct agent_recorder *agent)
{
	struct error *error = NULL;

	if (!agent->options->rate)
		error = choose_rate(agent);
	if (error)
		return error;
	agent->begin_us = agent->rate_us = agent->former.since = clock_us();
	return activate(agent);
}

static void agent_destroy(void *recorder);

static struct error *create(struct target *target, const struct trace_options *options,
			    struct trace_report *report, struct agent_recorder **ret)
{
	struct agent_recorder *agent = calloc(1, sizeof(*agent));

	if (!agent)
		return &error_no_memory;
	agent->target = target;
	agent->options = options;
	agent->report = report;
	agent->memory = -1;
	tables_init(&agent->tables);
	rate_begin(agent);
	agent->clock_us_0 = clock_us();
	agent->tsc_0 = __rdtsc();
	lease_clock_find(target, &agent->clock);
	agent->doubt_since = calloc(AGENT_THREADS, sizeof(*agent->doubt_since));
	agent->ranges = calloc(2, sizeof(*agent->ranges));
	if (!agent->doubt_since || !agent->ranges) {
		agent_destroy(agent);
		return &error_no_memory;
	}
	*ret = agent;
	return NULL;
}

/* Of setting and removing the hooks. Who stands still anyway loses nothing. */
static struct error *agent_check(struct target *target, const struct trace_options *options)
{
	struct process_status status;
	struct error *error = process_read_status(target->process, 0, &status);

	if (error || status.state == 'T' || !options->max_pause_us)
		return error;
	return pause_check(target->pid, "hooking its allocator", pause_of_stop(status.threads, 0),
			   options->max_pause_us);
}

static struct error *agent_attach(struct target *target, const struct trace_options *options,
				  struct trace_report *report, void **ret)
{
	struct agent_recorder *agent = NULL;
	struct call_session *call = NULL;
	struct error *error = NULL;

	if (target->arch != &arch_x86_64)
		error = error_create(ERROR_UNSUPPORTED, "there is no agent for %s processes",
				     target->arch->name);
	if (!error)
		error = create(target, options, report, &agent);
	if (!error)
		error = call_open(target, options->timeout_us, &call);
	if (!error)
		error = agent_open_memory(target, &agent->memory);
	if (!error)
		error = attach_locked(agent, call);
	call_close(call);
	if (agent)
		agent->attached = agent->image != 0;
	if (!error)
		error = begin(agent);
	if (error)
		agent_destroy(agent);
	else
		*ret = agent;
	return error;
}

/* ---- the end ---- */

void agent_pause(void *recorder)
{
	struct agent_recorder *agent = recorder;

	if (agent->attached && !agent->gone && !agent->paused) {
		/* One since the last poll: nobody else would tell. */
		if (agent->begin_us)
			agent_has_lapsed(agent);
		control_put_32(agent, CTL(active), AGENT_INACTIVE);
	}
	agent->paused = true;
	agent_end(agent);
}

static struct error *agent_detach(void *recorder)
{
	struct agent_recorder *agent = recorder;
	cleanup(free) struct leave *leave = NULL;
	struct error *error, *children_error = NULL;

	if (!agent->attached)
		return NULL;
	agent_pause(agent);
	leave = calloc(1, sizeof(*leave));
	if (!leave)
		return &error_no_memory;
	leave->target = agent->target;
	leave->unwind = agent->unwind;
	leave->memory = agent->memory;
	leave->image = agent->image;
	leave->config = agent->config;
	leave->timeout_us = agent->options->timeout_us;
	leave->tables = &agent->tables;
	error = leave_run(leave);
	agent->report->detach_stopped_us = leave->stopped_us;
	agent->report->detach_stops = leave->stops;
	agent->report->remaining = leave->remaining;
	if (leave->remaining)
		agent->report->remaining_reason = strdup(leave->reason);
	agent->attached = false;
	if (agent->image && agent->hooked)
		children_error = children_clean(agent);
	if (error)
		error_destroy(children_error);
	return error ? error : children_error;
}

static struct target *agent_modules(void *recorder)
{
	struct agent_recorder *agent = recorder;

	return history_target(agent->history);
}

static void agent_destroy(void *recorder)
{
	struct agent_recorder *agent = recorder;
	struct error *error;

	if (!agent)
		return;
	error = agent_detach(agent);
	if (error)
		log_warn("%s", error->message);
	error_destroy(error);
	tables_close(&agent->tables);
	hooks_deinit(&agent->hooks);
	unwind_table_destroy(agent->unwind);
	history_destroy(agent->history);
	if (agent->memory >= 0)
		close(agent->memory);
	free(agent->doubt_since);
	free(agent->ranges);
	free(agent);
}

const struct recorder_ops recorder_agent = {
	.engine = TRACE_ENGINE_AGENT,
	.check = agent_check,
	.attach = agent_attach,
	.poll = agent_poll,
	.count = agent_count,
	.read = agent_read,
	.mark = agent_mark,
	.pause = agent_pause,
	.detach = agent_detach,
	.modules = agent_modules,
	.destroy = agent_destroy,
};
