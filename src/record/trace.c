/* Recordings, whoever records. */
#include "memprobe/trace.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/log.h"
#include "recorder.h"

#define TIMEOUT_US   10000000
#define RATE_LARGEST (UINT64_C(1) << 40)

/* In the order in which they are tried. */
static const struct recorder_ops *const recorders[] = { &recorder_agent, &recorder_uprobe };

struct trace_session {
	const struct recorder_ops *ops;
	void *recorder; /* NULL: none has begun */
	struct trace_options options;
	struct trace_report report;
	bool attached;
};

/* ---- attaching ---- */

static struct error *check_options(const struct trace_options *options)
{
	if (options->rate > RATE_LARGEST)
		return error_create(ERROR_USAGE, "a rate of %llu bytes is too large",
				    (unsigned long long)options->rate);
	if (options->max_size && options->max_size < options->min_size)
		return error_create(ERROR_USAGE, "the largest size is below the smallest one");
	return NULL;
}

static void report_deinit(struct trace_report *report)
{
	vec_for_each (hook, &report->hooks) {
		free(hook->name);
		free(hook->module);
		free(hook->reason);
	}
	trace_hook_vec_deinit(&report->hooks);
	free(report->refused);
	free(report->remaining_reason);
}

static struct error *try(struct trace_session *session, const struct recorder_ops *ops,
			 struct target *target)
{
	uint64_t stopped_us = session->report.attach_stopped_us;
	struct error *error;

	/* One that was refused may have told of hooks. */
	report_deinit(&session->report);
	session->report =
		(struct trace_report){ .engine = ops->engine, .attach_stopped_us = stopped_us };
	session->ops = ops;
	error = ops->attach(target, &session->options, &session->report, &session->recorder);
	session->attached = !error;
	return error;
}

/* Whether another one may do what this one may not. */
static bool is_refusal(const struct error *error)
{
	return error_is(error, ERROR_UNSUPPORTED) || error_is(error, ERROR_PERMISSION);
}

/* Why the first one does not do is more than why another does not, either. */
static struct error *join(struct error *first, struct error *next)
{
	if (!first)
		return next;
	if (!first->hint)
		first = error_hint(first, "without the agent: %s", next->message);
	error_destroy(next);
	return first;
}

static struct error *try_all(struct trace_session *session, struct target *target)
{
	enum trace_engine wanted = session->options.engine;
	struct error *refusal = NULL;

	for (size_t i = 0; i < sizeof(recorders) / sizeof(recorders[0]); i++) {
		const struct recorder_ops *ops = recorders[i];
		struct error *error = NULL;
		bool goes_on;

		if (wanted != TRACE_ENGINE_AUTO && wanted != ops->engine)
			continue;
		if (ops->check)
			error = ops->check(target, &session->options);
		goes_on = error_is(error, ERROR_BUSY);
		if (!error)
			error = try(session, ops, target);
		if (!error && refusal)
			session->report.refused = strdup(refusal->message);
		if (!error) {
			error_destroy(refusal);
			return NULL;
		}
		goes_on |= is_refusal(error);
		refusal = join(refusal, error);
		if (!goes_on)
			break;
	}
	return refusal;
}

struct error *trace_attach(struct target *target, const struct trace_options *options,
			   struct trace_session **ret)
{
	cleanup(trace) struct trace_session *session = NULL;
	struct error *error = options ? check_options(options) : NULL;

	if (!error && !target->process)
		error = error_create(ERROR_UNSUPPORTED, "only a live process can be recorded");
	if (error)
		return error;
	session = calloc(1, sizeof(*session));
	if (!session)
		return &error_no_memory;
	if (options)
		session->options = *options;
	if (!session->options.timeout_us)
		session->options.timeout_us = TIMEOUT_US;
	if (!session->options.depth_max || session->options.depth_max > TRACE_DEPTH_MAX)
		session->options.depth_max = TRACE_DEPTH_MAX;
	error = try_all(session, target);
	if (!error)
		*ret = take_pointer(session);
	return error;
}

/* ---- meanwhile ---- */

struct error *trace_tick(struct trace_session *session, bool *alive_ret)
{
	*alive_ret = false;
	return session->attached ? session->ops->poll(session->recorder, alive_ret) : NULL;
}

struct error *trace_count(struct trace_session *session, struct trace_counters *ret)
{
	return session->ops->count(session->recorder, ret);
}

struct error *trace_read(struct trace_session *session, const struct trace_wanted *wanted,
			 struct trace_data **ret)
{
	static const struct trace_wanted sums;
	cleanup(trace_data) struct trace_data *data = calloc(1, sizeof(*data));
	struct error *error;

	if (!data)
		return &error_no_memory;
	error = session->ops->read(session->recorder, wanted ? wanted : &sums, data);
	if (!error)
		*ret = take_pointer(data);
	return error;
}

void trace_data_destroy(struct trace_data *data)
{
	if (!data)
		return;
	trace_site_vec_deinit(&data->sites);
	trace_block_vec_deinit(&data->blocks);
	trace_context_vec_deinit(&data->contexts);
	free(data->pcs);
	free(data);
}

uint64_t trace_number(struct trace_session *session)
{
	return session->ops->mark(session->recorder);
}

const struct trace_report *trace_report(const struct trace_session *session)
{
	return &session->report;
}

struct target *trace_modules(struct trace_session *session)
{
	return session->ops->modules(session->recorder);
}

/* ---- the end ---- */

void trace_pause(struct trace_session *session)
{
	if (session->attached)
		session->ops->pause(session->recorder);
}

struct error *trace_detach(struct trace_session *session)
{
	if (!session->attached)
		return NULL;
	session->attached = false;
	session->ops->pause(session->recorder);
	return session->ops->detach(session->recorder);
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
	if (session->recorder)
		session->ops->destroy(session->recorder);
	report_deinit(&session->report);
	free(session);
}
