/*
 * Reports and kills: what the messages say is gathered in the current report, which the next one
 * closes. A kernel that limits the rate of its messages prints kills without a report.
 */
#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"
#include "oom_parser.h"

/* A log that has its lines twice has the second ones near the first. */
#define NEAR_KILLS 64U

static struct oom_report *current(struct oom_parser *parser)
{
	return &parser->log.reports.data[parser->log.reports.size - 1];
}

struct error *oom_set_path(char **path, const char *start, const char *end)
{
	char text[OOM_PATH_MAX + 1];
	char *copy;

	scan_copy(start, end, text, sizeof(text));
	if (!*text)
		return NULL;
	copy = strdup(text);
	if (!copy)
		return &error_no_memory;
	free(*path);
	*path = copy;
	return NULL;
}

static void report_deinit(struct oom_report *report)
{
	free(report->cgroup);
	free(report->task_cgroup);
	oom_process_vec_deinit(&report->processes);
}

struct error *oom_report_open(struct oom_parser *parser, struct oom_report **ret)
{
	struct oom_report report = {
		.reached = OOM_COUNTERS,
		.order = OOM_ORDER_UNKNOWN,
		.page_size = OOM_PAGE_SIZE,
	};
	struct oom_current *now = &parser->now;
	struct error *error;

	if (!now->is_open) {
		memset(&report.memory, 0xff, sizeof(report.memory));
		memset(report.counters, 0xff, sizeof(report.counters));
		error = oom_report_vec_append(&parser->log.reports, &report);
		if (error)
			return error;
		*now = (struct oom_current){
			.is_open = true,
			.planned_uid = OOM_UNKNOWN,
			.planned_score = OOM_UNKNOWN,
		};
		memset(now->figures, 0xff, sizeof(now->figures));
	}
	*ret = current(parser);
	return NULL;
}

/* ---- closing ---- */

static int compare_processes(const void *a, const void *b)
{
	const struct oom_process *one = a, *two = b;

	if (one->rss != two->rss)
		return one->rss > two->rss ? -1 : 1;
	return one->pid < two->pid ? -1 : one->pid > two->pid;
}

/* The counter that was full, or nearly: it is read after the fact. */
static enum oom_counter_kind reached(const struct oom_report *report)
{
	const enum oom_counter_kind kinds[] = { OOM_COUNTER_MEMORY, OOM_COUNTER_MEMORY_SWAP,
						OOM_COUNTER_KMEM };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		const struct oom_counter *counter = &report->counters[kinds[i]];

		if (counter->limit != OOM_UNKNOWN && counter->usage != OOM_UNKNOWN &&
		    counter->usage >= counter->limit - counter->limit / 64)
			return kinds[i];
	}
	return report->counters[OOM_COUNTER_MEMORY].limit != OOM_UNKNOWN ? OOM_COUNTER_MEMORY
									 : OOM_COUNTERS;
}

static const struct oom_process *find_process(const struct oom_report *report, int pid)
{
	vec_for_each (process, &report->processes)
		if (process->pid == pid)
			return process;
	return NULL;
}

static void scale(uint64_t *bytes, unsigned factor)
{
	if (*bytes != OOM_UNKNOWN)
		*bytes = *bytes > OOM_LARGEST / factor ? OOM_LARGEST : *bytes * factor;
}

/* Pages of 16 and 64 KiB make the table's figures too small by that factor. */
static void scale_processes(struct oom_report *report, unsigned factor)
{
	vec_for_each (process, &report->processes) {
		scale(&process->rss, factor);
		scale(&process->anon, factor);
		scale(&process->file, factor);
		scale(&process->shmem, factor);
		scale(&process->total_vm, factor);
		scale(&process->swap, factor);
	}
}

/* The virtual size may have changed by some pages between the two lines. */
static void find_page_size(const struct oom_kill *kill, struct oom_report *report,
			   uint64_t figures[OOM_FIGURES])
{
	const struct oom_process *process = find_process(report, kill->pid);
	static const unsigned factors[] = { 4, 16 };

	if (!process || report->page_size != OOM_PAGE_SIZE || kill->total_vm == OOM_UNKNOWN ||
	    process->total_vm == OOM_UNKNOWN)
		return;
	for (size_t i = 0; i < sizeof(factors) / sizeof(*factors); i++) {
		uint64_t bytes = process->total_vm;

		scale(&bytes, factors[i]);
		if (kill->total_vm < bytes - bytes / 4 || kill->total_vm > bytes + bytes / 4)
			continue;
		report->page_size = OOM_PAGE_SIZE * factors[i];
		scale_processes(report, factors[i]);
		for (size_t j = MACHINE_ACTIVE_ANON; j < OOM_FIGURES; j++)
			if (j != MACHINE_FREE_SWAP && j != MACHINE_TOTAL_SWAP)
				scale(&figures[j], factors[i]);
		return;
	}
}

/* What the line of the kill does not say, the table may. */
static void complete(struct oom_kill *kill, const struct oom_report *report)
{
	bool counted = kill->anon != OOM_UNKNOWN && kill->file != OOM_UNKNOWN;
	const struct oom_process *process;

	if (counted) {
		kill->rss = min_u64(kill->anon + kill->file, OOM_LARGEST);
		if (kill->shmem != OOM_UNKNOWN)
			kill->rss = min_u64(kill->rss + kill->shmem, OOM_LARGEST);
	}
	if (counted && kill->has_oom_score_adj)
		return;
	process = find_process(report, kill->pid);
	if (!process)
		return;
	if (kill->rss == OOM_UNKNOWN)
		kill->rss = process->rss;
	if (kill->total_vm == OOM_UNKNOWN)
		kill->total_vm = process->total_vm;
	if (kill->uid == OOM_UNKNOWN)
		kill->uid = process->uid;
	if (!kill->has_oom_score_adj) {
		kill->oom_score_adj = process->oom_score_adj;
		kill->has_oom_score_adj = process->has_oom_score_adj;
	}
}

/* The same line once more: by another logger, at another time, say. */
static bool is_same(const struct oom_kill *kill, const struct oom_kill *other)
{
	return kill->pid == other->pid && !strcmp(kill->name, other->name) &&
	       ((*kill->time && !strcmp(kill->time, other->time)) ||
		(kill->total_vm != OOM_UNKNOWN && kill->total_vm == other->total_vm &&
		 kill->anon != OOM_UNKNOWN && kill->anon == other->anon &&
		 kill->file == other->file));
}

static bool is_said_again(const struct oom_parser *parser, const struct oom_kill *kill)
{
	const struct oom_kill_vec *kills = &parser->log.kills;
	const struct oom_report_vec *reports = &parser->log.reports;
	/* Of a group, the chosen one is killed once more with the others. */
	bool in_group = parser->now.kills && reports->data[reports->size - 1].group;

	for (size_t i = kills->size; i-- > 0 && kills->size - i <= NEAR_KILLS;) {
		const struct oom_kill *other = &kills->data[i];

		if (is_same(kill, other) ||
		    (in_group && other->report + 1 == reports->size && kill->pid == other->pid))
			return true;
	}
	return false;
}

static struct error *add_kill(struct oom_parser *parser, struct oom_kill *kill)
{
	struct oom_current *now = &parser->now;

	if (parser->log.kills.size >= OOM_KILLS_MAX) {
		parser->log.kills_left_out++;
		return NULL;
	}
	find_page_size(kill, current(parser), now->figures);
	complete(kill, current(parser));
	kill->report = parser->log.reports.size - 1;
	now->kills++;
	return oom_kill_vec_append(&parser->log.kills, kill);
}

/* The log is cut, or the line lost, between the choice and the kill. */
static struct error *add_planned(struct oom_parser *parser)
{
	struct oom_current *now = &parser->now;
	struct oom_kill kill = oom_kill_unknown();

	kill.pid = now->planned_pid;
	kill.uid = now->planned_uid;
	kill.score = now->planned_score;
	memcpy(kill.name, now->planned_name, sizeof(kill.name));
	memcpy(kill.time, now->time, sizeof(kill.time));
	now->is_repeat = is_said_again(parser, &kill);
	return now->is_repeat ? NULL : add_kill(parser, &kill);
}

struct error *oom_report_close(struct oom_parser *parser)
{
	struct oom_current *now = &parser->now;
	struct oom_report *report;
	struct error *error = NULL;

	if (!now->is_open)
		return NULL;
	report = current(parser);
	if (!now->kills && now->planned_pid && !now->is_exiting)
		error = add_planned(parser);
	if (report->constraint == OOM_CONSTRAINT_UNKNOWN &&
	    (report->cgroup || report->counters[OOM_COUNTER_MEMORY].usage != OOM_UNKNOWN))
		report->constraint = OOM_CONSTRAINT_MEMCG;
	if (now->kills) {
		oom_sum_up(now, report);
		report->reached = reached(report);
		if (report->processes.size)
			qsort(report->processes.data, report->processes.size,
			      sizeof(*report->processes.data), compare_processes);
	} else {
		parser->log.without_kill += *report->trigger && !now->is_repeat;
		parser->process_count -= report->processes.size;
		report_deinit(report);
		parser->log.reports.size--;
	}
	free(now->statistics_path);
	*now = (struct oom_current){ 0 };
	return error;
}

/* ---- kills and tasks ---- */

struct oom_kill oom_kill_unknown(void)
{
	return (struct oom_kill){
		.rss = OOM_UNKNOWN,
		.anon = OOM_UNKNOWN,
		.file = OOM_UNKNOWN,
		.shmem = OOM_UNKNOWN,
		.total_vm = OOM_UNKNOWN,
		.page_tables = OOM_UNKNOWN,
		.uid = OOM_UNKNOWN,
		.score = OOM_UNKNOWN,
	};
}

struct error *oom_report_kill(struct oom_parser *parser, struct oom_kill *kill,
			      enum oom_constraint constraint)
{
	struct oom_current *now = &parser->now;
	struct error *error = NULL;
	struct oom_report *report;

	if (is_said_again(parser, kill)) {
		now->is_repeat = true;
		return NULL;
	}
	if (now->kills && !current(parser)->group)
		error = oom_report_close(parser);
	if (!error)
		error = oom_report_open(parser, &report);
	if (error)
		return error;
	if (report->constraint == OOM_CONSTRAINT_UNKNOWN)
		report->constraint = constraint;
	if (kill->pid == now->planned_pid) {
		kill->score = now->planned_score;
		if (kill->uid == OOM_UNKNOWN)
			kill->uid = now->planned_uid;
	}
	now->column_count = 0;
	now->in_statistics = now->in_mem_info = false;
	return add_kill(parser, kill);
}

struct error *oom_report_process(struct oom_parser *parser, const struct oom_process *process)
{
	struct oom_report *report = current(parser);
	struct error *error;

	if (parser->process_count >= OOM_PROCESSES_MAX) {
		report->processes_left_out++;
		return NULL;
	}
	error = oom_process_vec_append(&report->processes, process);
	if (!error)
		parser->process_count++;
	return error;
}

struct error *oom_report_reaped(struct oom_parser *parser, int pid, const char *name)
{
	struct oom_kill_vec *kills = &parser->log.kills;
	struct oom_kill kill = oom_kill_unknown();

	for (size_t i = kills->size; i-- > 0 && kills->size - i <= NEAR_KILLS;) {
		if (kills->data[i].pid == pid && !strcmp(kills->data[i].name, name)) {
			kills->data[i].is_reaped = true;
			return NULL;
		}
	}
	kill.pid = pid;
	memcpy(kill.name, name, strlen(name) + 1);
	memcpy(kill.time, parser->time, sizeof(kill.time));
	kill.is_reaped = true;
	return oom_report_kill(parser, &kill, OOM_CONSTRAINT_UNKNOWN);
}

void oom_log_deinit(struct oom_log *log)
{
	vec_for_each (report, &log->reports)
		report_deinit(report);
	oom_report_vec_deinit(&log->reports);
	oom_kill_vec_deinit(&log->kills);
	*log = (struct oom_log){ 0 };
}
