/* The JSON of `oom`. */
#include "memprobe/num.h"
#include "memprobe/records.h"
#include "oom_output.h"

static json_t *name_json(const void *row)
{
	return json_text(((const struct oom_process *)row)->name);
}

static json_t *adj_json(const void *row)
{
	const struct oom_process *process = row;

	return process->has_oom_score_adj ? json_integer(process->oom_score_adj) : json_null();
}

static const struct record_column columns[] = {
	RECORD(oom_process, pid, "pid", NULL, RECORD_ID),
	RECORD(oom_process, name, "name", NULL, RECORD_OTHER, .json = name_json),
	RECORD(oom_process, uid, "uid", NULL, RECORD_NUMBER, .optional = true),
	RECORD(oom_process, rss, "rss", NULL, RECORD_SIZE),
	RECORD(oom_process, anon, "anon", NULL, RECORD_SIZE, .optional = true),
	RECORD(oom_process, file, "file", NULL, RECORD_SIZE, .optional = true),
	RECORD(oom_process, shmem, "shmem", NULL, RECORD_SIZE, .optional = true),
	RECORD(oom_process, total_vm, "total_vm", NULL, RECORD_SIZE),
	RECORD(oom_process, swap, "swap", NULL, RECORD_SIZE, .optional = true),
	RECORD(oom_process, page_tables, "page_tables", NULL, RECORD_SIZE, .optional = true),
	RECORD(oom_process, oom_score_adj, "oom_score_adj", NULL, RECORD_OTHER, .optional = true,
	       .json = adj_json),
	{ 0 },
};

static void set_number(json_t *object, const char *key, uint64_t value)
{
	if (value != OOM_UNKNOWN)
		json_object_set_new(object, key, json_number(value));
}

static void set_text(json_t *object, const char *key, const char *value)
{
	if (value && *value)
		json_object_set_new(object, key, json_text(value));
}

static void set_counter(json_t *object, const char *key, const struct oom_counter *counter)
{
	json_t *value = json_object();

	if (counter->usage != OOM_UNKNOWN) {
		set_number(value, "usage", counter->usage);
		set_number(value, "limit", counter->limit);
		set_number(value, "failures", counter->failures);
		json_object_set(object, key, value);
	}
	json_decref(value);
}

static json_t *memory_json(const struct oom_memory *memory)
{
	json_t *object = json_object();

	set_number(object, "anon", memory->anon);
	set_number(object, "file", memory->file);
	set_number(object, "shmem", memory->shmem);
	set_number(object, "kernel", memory->kernel);
	set_number(object, "swap", memory->swap);
	set_number(object, "swap_total", memory->swap_total);
	set_number(object, "swap_free", memory->swap_free);
	set_number(object, "ram", memory->ram);
	return object;
}

/* What the kernel printed with the kill. */
static void set_report(json_t *object, const struct oom_report *report)
{
	if (report->reached != OOM_COUNTERS) {
		const struct oom_counter *counter = &report->counters[report->reached];

		set_number(object, "limit", counter->limit);
		set_number(object, "usage", counter->usage);
		set_number(object, "failures", counter->failures);
		set_text(object, "limit_of", oom_counter_name(report->reached));
	}
	set_text(object, "cgroup", report->cgroup);
	set_text(object, "task_cgroup", report->task_cgroup);
	set_text(object, "constraint", oom_constraint_name(report->constraint));
	set_text(object, "trigger", report->trigger);
	if (report->order != OOM_ORDER_UNKNOWN)
		json_object_set_new(object, "order", json_integer(report->order));
	json_object_set_new(object, "group", json_boolean(report->group));
	set_counter(object, "memory_swap", &report->counters[OOM_COUNTER_MEMORY_SWAP]);
	set_counter(object, "kmem", &report->counters[OOM_COUNTER_KMEM]);
	set_counter(object, "swap", &report->counters[OOM_COUNTER_SWAP]);
	json_object_set_new(object, "page_size", json_integer(report->page_size));
	json_object_set_new(object, "memory", memory_json(&report->memory));
}

/* Kills of one group repeat its table, as far as @budget goes. */
static void set_processes(json_t *object, const struct oom_report *report, size_t *budget)
{
	struct records records = {
		.columns = columns,
		.count = min_u64(report->processes.size, *budget),
		.rows = report->processes.data,
		.size = sizeof(*report->processes.data),
	};

	*budget -= records.count;
	json_object_set_new(object, "processes", records_array(&records));
	json_object_set_new(
		object, "processes_left_out",
		json_number(report->processes_left_out + report->processes.size - records.count));
	json_object_set_new(object, "processes_unreadable", json_number(report->rows_unreadable));
}

static json_t *kill_json(const struct oom_kill *kill, const struct oom_report *report,
			 size_t *budget)
{
	json_t *object = json_object();

	json_object_set_new(object, "time", *kill->time ? json_text(kill->time) : json_null());
	json_object_set_new(object, "victim_pid", json_integer(kill->pid));
	json_object_set_new(object, "victim", json_text(kill->name));
	json_object_set_new(object, "certain", json_boolean(kill->is_certain));
	json_object_set_new(object, "rss", json_number(kill->rss));
	set_number(object, "anon_rss", kill->anon);
	set_number(object, "file_rss", kill->file);
	set_number(object, "shmem_rss", kill->shmem);
	set_number(object, "total_vm", kill->total_vm);
	set_number(object, "page_tables", kill->page_tables);
	set_number(object, "uid", kill->uid);
	set_number(object, "score", kill->score);
	if (kill->has_oom_score_adj)
		json_object_set_new(object, "oom_score_adj", json_integer(kill->oom_score_adj));
	json_object_set_new(object, "reaped", json_boolean(kill->is_reaped));
	set_report(object, report);
	set_processes(object, report, budget);
	return object;
}

struct error *oom_output_json(struct oom_output *output)
{
	const struct oom_log *log = &output->log;
	json_t *document = command_json(output->context), *kills = json_array();
	size_t budget = OOM_PROCESSES_MAX;

	vec_for_each (kill, &log->kills)
		json_array_append_new(kills,
				      kill_json(kill, &log->reports.data[kill->report], &budget));
	json_object_set_new(document, "source", json_text(output->source));
	json_object_set_new(document, "kills", kills);
	json_object_set_new(document, "kills_left_out", json_number(log->kills_left_out));
	json_object_set_new(document, "without_kill", json_number(log->without_kill));
	return command_write_json(output->context, document);
}
