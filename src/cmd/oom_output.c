/* The text of `oom`: the answer, the limit, what memory was used for, and the table of tasks. */
#include "oom_output.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/records.h"

/* IDs of containers; on a terminal their beginning is enough, as `docker ps` shows it. */
#define ID_LEAST 32U
#define ID_SHOWN 12U

/* ---- words ---- */

/* To be freed; NULL: out of memory. */
static char *path_text(struct table_style style, const char *path)
{
	cleanup(free) char *copy = malloc(strlen(path) + 4);
	char *to = copy;

	if (!copy)
		return NULL;
	while (*path) {
		size_t length = 0;

		while (isxdigit((unsigned char)path[length]))
			length++;
		if (style.width && length >= ID_LEAST) {
			memcpy(to, path, ID_SHOWN);
			memcpy(to + ID_SHOWN, "...", 3);
			to += ID_SHOWN + 3;
		} else {
			length = length ? length : 1;
			memcpy(to, path, length);
			to += length;
		}
		path += length;
	}
	*to = '\0';
	return text_printable(copy);
}

static const char *size_text(struct table_style style, uint64_t bytes, char buffer[TABLE_SIZE_MAX])
{
	return bytes == OOM_UNKNOWN ? "unknown" : table_size(style, bytes, buffer);
}

static unsigned percent(uint64_t part, uint64_t whole)
{
	return whole ? (unsigned)((unsigned __int128)part * 100 / whole) : 0;
}

/* Seconds since the boot, as dmesg prints them. */
static bool is_uptime(const char *time)
{
	size_t whole = strspn(time, "0123456789");

	return whole && whole < 10 && time[whole] == '.';
}

static void print_time(FILE *out, const char *time)
{
	cleanup(free) char *text = text_printable(time);

	if (*time && text)
		fprintf(out, is_uptime(time) ? " %s s after boot" : " at %s", text);
}

/* `main (PID 11344, RSS 180M)` */
static void print_victim(FILE *out, struct table_style style, const struct oom_kill *kill)
{
	cleanup(free) char *name = text_printable(kill->name);
	char size[TABLE_SIZE_MAX];

	fprintf(out, "%s (PID %d, RSS %s)", name ? name : "?", (int)kill->pid,
		size_text(style, kill->rss, size));
}

/* Why, in as few words as the answer needs. */
static void print_cause(FILE *out, struct table_style style, const struct oom_report *report)
{
	char size[TABLE_SIZE_MAX];

	if (report->order == OOM_ORDER_BY_HAND) {
		fputs("somebody asked the kernel to (SysRq f)", out);
		return;
	}
	switch (report->constraint) {
	case OOM_CONSTRAINT_MEMCG:
		fputs("its cgroup reached its limit", out);
		if (report->reached != OOM_COUNTERS)
			fprintf(out, " of %s",
				table_size(style, report->counters[report->reached].limit, size));
		break;
	case OOM_CONSTRAINT_CPUSET:
		fputs("the memory nodes of its cpuset were full", out);
		break;
	case OOM_CONSTRAINT_MEMORY_POLICY:
		fputs("the nodes of its NUMA memory policy were full", out);
		break;
	case OOM_CONSTRAINT_NONE:
		fputs("the machine was out of memory", out);
		if (report->memory.ram != OOM_UNKNOWN)
			fprintf(out, " (%s RAM)", table_size(style, report->memory.ram, size));
		break;
	case OOM_CONSTRAINT_UNKNOWN:
		fputs("the log does not say which limit was reached", out);
		break;
	}
}

/* ---- lines ---- */

static void print_limit(FILE *out, struct table_style style, const struct oom_report *report)
{
	const char *cgroup = report->cgroup ? report->cgroup : "(unknown)";
	cleanup(free) char *path = path_text(style, cgroup);
	const struct oom_counter *counter;
	char size[2][TABLE_SIZE_MAX], count[COUNT_TEXT_MAX];

	if (report->constraint != OOM_CONSTRAINT_MEMCG)
		return;
	if (!report->cgroup && report->reached == OOM_COUNTERS) {
		fputs("cgroup:  the log names neither the cgroup nor its limit\n", out);
		return;
	}
	fprintf(out, "cgroup:  %s", path ? path : "?");
	if (report->reached != OOM_COUNTERS) {
		counter = &report->counters[report->reached];
		fprintf(out, "%s%s limit %s, usage %s",
			report->reached == OOM_COUNTER_MEMORY ? "" : ", ",
			report->reached == OOM_COUNTER_MEMORY ? ""
							      : oom_counter_name(report->reached),
			table_size(style, counter->limit, size[0]),
			size_text(style, counter->usage, size[1]));
		if (counter->failures != OOM_UNKNOWN)
			fprintf(out, ", failed %s time%s", format_count(counter->failures, count),
				counter->failures == 1 ? "" : "s");
	} else {
		fputs(", limit unknown", out);
	}
	fputc('\n', out);
}

/* What shares are of. */
static uint64_t whole_of(const struct oom_report *report)
{
	if (report->constraint == OOM_CONSTRAINT_MEMCG)
		return report->counters[OOM_COUNTER_MEMORY].usage;
	return report->memory.ram;
}

static const char *whole_name(const struct oom_report *report)
{
	return report->constraint == OOM_CONSTRAINT_MEMCG ? "the usage" : "RAM";
}

/* `, anonymous 179M` */
static void print_part(FILE *out, struct table_style style, bool *any, const char *name,
		       uint64_t bytes)
{
	char size[TABLE_SIZE_MAX];

	if (bytes == OOM_UNKNOWN)
		return;
	fprintf(out, "%s%s %s", *any ? ", " : "", name, table_size(style, bytes, size));
	*any = true;
}

static void print_kill(FILE *out, struct table_style style, const struct oom_kill *kill,
		       const struct oom_report *report)
{
	uint64_t whole = whole_of(report);
	bool any = false;

	fputs("killed:  ", out);
	print_part(out, style, &any, "anonymous", kill->anon);
	print_part(out, style, &any, "file", kill->file);
	print_part(out, style, &any, "shared", kill->shmem);
	print_part(out, style, &any, "virtual", kill->total_vm);
	if (!any)
		fputs("the log does not say what it had", out);
	if (kill->rss != OOM_UNKNOWN && whole != OOM_UNKNOWN && whole >= kill->rss)
		fprintf(out, "; %u%% of %s", percent(kill->rss, whole), whole_name(report));
	if (kill->has_oom_score_adj && kill->oom_score_adj)
		fprintf(out, ", oom_score_adj %d", kill->oom_score_adj);
	if (kill->is_reaped)
		fputs("; the kernel's reaper freed its memory", out);
	fputc('\n', out);
}

struct use {
	uint64_t bytes;
	const char *name, *meaning;
};

/* What most of the memory was; false: unknown. */
static bool largest_use(const struct oom_memory *memory, struct use *ret)
{
	const struct use uses[] = {
		{ memory->anon, "anonymous memory", "heaps and stacks, not page cache" },
		{ memory->shmem, "shared memory", "tmpfs files, System V and POSIX segments" },
		{ memory->file, "page cache", "files that could not be dropped in time" },
		{ memory->kernel, "kernel memory", "slab, page tables, socket buffers" },
	};

	*ret = (struct use){ 0 };
	for (size_t i = 0; i < sizeof(uses) / sizeof(*uses); i++)
		if (uses[i].bytes != OOM_UNKNOWN && uses[i].bytes >= ret->bytes)
			*ret = uses[i];
	return ret->name && ret->bytes;
}

static void print_memory(FILE *out, struct table_style style, const struct oom_report *report)
{
	const struct oom_memory *memory = &report->memory;
	uint64_t whole = whole_of(report);
	struct use use;
	bool any = false, known, half;

	if (!largest_use(memory, &use))
		return;
	fputs("memory:  ", out);
	print_part(out, style, &any, "anonymous", memory->anon);
	print_part(out, style, &any, "page cache", memory->file);
	print_part(out, style, &any, "shared", memory->shmem);
	print_part(out, style, &any, "kernel", memory->kernel);
	known = whole != OOM_UNKNOWN && whole >= use.bytes;
	half = !known || percent(use.bytes, whole) >= 50;
	fprintf(out, "\n         %s %s", half ? "mostly" : "the largest part is", use.name);
	if (known)
		fprintf(out, ", %u%% of %s", percent(use.bytes, whole), whole_name(report));
	fprintf(out, "%s%s\n", half ? ": " : "", half ? use.meaning : "");
}

static void print_swap(FILE *out, struct table_style style, const struct oom_report *report)
{
	const struct oom_memory *memory = &report->memory;
	const struct oom_counter *swap = &report->counters[OOM_COUNTER_SWAP];
	const struct oom_counter *both = &report->counters[OOM_COUNTER_MEMORY_SWAP];
	bool is_group = report->constraint == OOM_CONSTRAINT_MEMCG;
	char size[2][TABLE_SIZE_MAX];

	if (is_group && memory->swap != OOM_UNKNOWN) {
		fprintf(out, "swap:    %s used by the cgroup",
			table_size(style, memory->swap, size[0]));
		if (swap->limit != OOM_UNKNOWN)
			fprintf(out, ", limit %s", table_size(style, swap->limit, size[1]));
		else if (both->limit != OOM_UNKNOWN)
			fprintf(out, ", limit %s together with memory",
				table_size(style, both->limit, size[1]));
		fputc('\n', out);
	} else if (is_group && both->usage == 0) {
		fputs("swap:    the kernel did not count that of the cgroup\n", out);
	} else if (memory->swap_total != OOM_UNKNOWN && memory->swap_total) {
		fprintf(out, "swap:    %s free of %s\n",
			size_text(style, memory->swap_free, size[0]),
			table_size(style, memory->swap_total, size[1]));
	} else if (memory->swap_total == 0) {
		fputs("swap:    the machine has none\n", out);
	}
}

/* ---- tables ---- */

enum part { PART_SPLIT = 1, PART_SWAP = 2, PART_ADJ = 4 };

struct row {
	const char *name;
	int pid, oom_score_adj;
	bool is_killed;
	uint64_t rss, anon, file, shmem, total_vm, swap;
};

static void name_cell(struct table *table, const void *data)
{
	const struct row *row = data;

	table_cell(table, "%s%s", row->name, row->is_killed ? " (killed)" : "");
}

static const struct record_column columns[] = {
	RECORD(row, pid, NULL, "PID", RECORD_ID),
	RECORD(row, name, NULL, "NAME", RECORD_TEXT, .cell = name_cell),
	RECORD(row, rss, NULL, "RSS", RECORD_SIZE),
	RECORD(row, anon, NULL, "ANON", RECORD_SIZE, .part = PART_SPLIT, .rank = 2),
	RECORD(row, file, NULL, "FILE", RECORD_SIZE, .part = PART_SPLIT, .rank = 3),
	RECORD(row, shmem, NULL, "SHARED", RECORD_SIZE, .part = PART_SPLIT, .rank = 4),
	RECORD(row, swap, NULL, "SWAP", RECORD_SIZE, .part = PART_SWAP, .rank = 1),
	RECORD(row, total_vm, NULL, "VIRTUAL", RECORD_SIZE, .rank = 6),
	RECORD(row, oom_score_adj, NULL, "ADJ", RECORD_INT, .part = PART_ADJ, .rank = 5),
	{ 0 },
};

struct rows {
	const struct oom_log *log;
	const struct oom_kill *kill;
	const struct oom_report *report;
	struct row row;
};

/* All kills of a report stand together. */
static bool is_killed(const struct rows *rows, int pid)
{
	const struct oom_kill *first = rows->log->kills.data, *kill = rows->kill;

	while (kill > first && kill[-1].report == rows->kill->report)
		kill--;
	for (; kill < first + rows->log->kills.size && kill->report == rows->kill->report; kill++)
		if (kill->pid == pid)
			return true;
	return false;
}

static const void *row_at(void *data, size_t i)
{
	struct rows *rows = data;
	const struct oom_process *process = &rows->report->processes.data[i];

	rows->row = (struct row){
		.name = process->name,
		.pid = process->pid,
		.oom_score_adj = process->oom_score_adj,
		.is_killed = is_killed(rows, process->pid),
		.rss = process->rss,
		.anon = process->anon,
		.file = process->file,
		.shmem = process->shmem,
		.total_vm = process->total_vm,
		.swap = process->swap,
	};
	return &rows->row;
}

/* Columns that this kernel does not print. */
static unsigned missing_parts(const struct oom_process *process)
{
	return (process->anon == OOM_UNKNOWN ? PART_SPLIT : 0) |
	       (process->swap == OOM_UNKNOWN ? PART_SWAP : 0) |
	       (process->has_oom_score_adj ? 0 : PART_ADJ);
}

static struct error *print_processes(FILE *out, const struct oom_output *output,
				     const struct oom_kill *kill)
{
	const struct oom_report *report = &output->log.reports.data[kill->report];
	uint64_t shown = min_u64(output->top, report->processes.size);
	struct rows rows = { &output->log, kill, report, { 0 } };
	uint64_t left_out = report->processes.size - shown + report->processes_left_out;
	cleanup(table) struct table *table = NULL;
	struct error *error;

	if (report->rows_unreadable)
		fprintf(out,
			"tasks:   %" PRIu64 " rows of the table cannot be read: their columns run "
			"together\n",
			report->rows_unreadable);
	if (!shown)
		return NULL;
	fputc('\n', out);
	table = records_table(
		&(const struct records){
			.columns = columns,
			.without = missing_parts(report->processes.data),
			.count = shown,
			.row = row_at,
			.data = &rows,
		},
		command_style(output->context));
	error = table_print(table, out);
	if (!error && left_out)
		fprintf(out, "and %" PRIu64 " more\n", left_out);
	return error;
}

/* ---- several kills ---- */

static void time_cell(struct table *table, const void *data)
{
	const struct oom_kill *kill = data;

	table_cell_text(table, *kill->time ? kill->time : "-");
}

static void victim_cell(struct table *table, const void *data)
{
	const struct oom_kill *kill = data;

	table_cell_text(table, kill->name);
}

static const struct record_column kill_columns[] = {
	RECORD(oom_kill, time, NULL, "TIME", RECORD_OTHER, .cell = time_cell, .rank = 2),
	RECORD(oom_kill, pid, NULL, "PID", RECORD_ID),
	RECORD(oom_kill, name, NULL, "NAME", RECORD_OTHER, .cell = victim_cell),
	RECORD(oom_kill, rss, NULL, "RSS", RECORD_SIZE),
	RECORD(oom_kill, total_vm, NULL, "VIRTUAL", RECORD_SIZE, .rank = 3),
	{ 0 },
};

/* With the limit and the group, which are the report's. */
static struct table *kills_table(const struct oom_output *output, size_t first)
{
	const struct oom_log *log = &output->log;
	struct table_style style = command_style(output->context);
	struct table *table = table_create(style);

	records_columns(table, kill_columns, 0);
	table_column(table, "LIMIT", TABLE_RIGHT);
	table_column(table, "CGROUP", TABLE_LEFT);
	table_column_fit(table, TABLE_PATH, 1);
	for (size_t i = first; i < log->kills.size; i++) {
		const struct oom_kill *kill = &log->kills.data[i];
		const struct oom_report *report = &log->reports.data[kill->report];
		cleanup(free) char *path = path_text(style, report->cgroup ? report->cgroup : "-");

		records_row(table, kill_columns, 0, kill);
		table_cell_size(table, report->reached == OOM_COUNTERS
					       ? OOM_UNKNOWN
					       : report->counters[report->reached].limit);
		table_cell_text(table, path ? path : "?");
	}
	return table;
}

static struct error *print_kills(FILE *out, const struct oom_output *output)
{
	size_t count = output->log.kills.size, first = count - min_u64(count, output->top);
	cleanup(table) struct table *table = kills_table(output, first);

	fputc('\n', out);
	if (first)
		fprintf(out, "%zu earlier kills are not shown\n", first);
	return table_print(table, out);
}

/* If it is another process, or more than a page was asked for: memory may be only in pieces. */
static void print_trigger(FILE *out, struct table_style style, const struct oom_kill *kill,
			  const struct oom_report *report)
{
	cleanup(free) char *trigger = text_printable(report->trigger);
	char size[TABLE_SIZE_MAX];

	if (!*report->trigger || report->order == OOM_ORDER_BY_HAND ||
	    (!strcmp(report->trigger, kill->name) && report->order <= 0))
		return;
	fprintf(out, "trigger: an allocation of %s", trigger ? trigger : "?");
	if (report->order > 0)
		fprintf(out, ": %s in one piece (order %d)",
			table_size(style, (uint64_t)report->page_size << report->order, size),
			report->order);
	fputc('\n', out);
}

static struct error *print_details(FILE *out, const struct oom_output *output,
				   const struct oom_kill *kill)
{
	struct table_style style = command_style(output->context);
	const struct oom_report *report = &output->log.reports.data[kill->report];

	print_limit(out, style, report);
	print_kill(out, style, kill, report);
	print_memory(out, style, report);
	print_swap(out, style, report);
	print_trigger(out, style, kill, report);
	if (report->group)
		fputs("group:   memory.oom.group is set: all processes of the cgroup were killed\n",
		      out);
	return print_processes(out, output, kill);
}

static void print_answer(FILE *out, const struct oom_output *output, const struct oom_kill *kill)
{
	struct table_style style = command_style(output->context);
	const struct oom_report *report = &output->log.reports.data[kill->report];

	print_victim(out, style, kill);
	fputs(kill->is_certain ? " was killed" : " was chosen to be killed", out);
	print_time(out, kill->time);
	fputs(": ", out);
	print_cause(out, style, report);
	fputc('\n', out);
}

/* Of kills of one group, the kernel's choice comes first. */
static bool is_choice(const struct oom_kill_vec *kills, const struct oom_kill *kill)
{
	return kill == kills->data || kill[-1].report != kill->report;
}

const struct oom_kill *oom_output_last(const struct oom_log *log)
{
	const struct oom_kill *kill = log->kills.data + log->kills.size - 1;

	while (!is_choice(&log->kills, kill))
		kill--;
	return kill;
}

static struct error *print_all_details(FILE *out, const struct oom_output *output)
{
	const struct oom_kill_vec *kills = &output->log.kills;
	const struct oom_kill *last = oom_output_last(&output->log);
	struct error *error = NULL;

	for (const struct oom_kill *kill = output->all ? kills->data : last;
	     kill < kills->data + kills->size && !error; kill++) {
		if (kill > last || !is_choice(kills, kill))
			continue;
		fputc('\n', out);
		if (kills->size > 1)
			print_answer(out, output, kill);
		error = print_details(out, output, kill);
	}
	return error;
}

struct error *oom_output_text(FILE *out, void *data)
{
	const struct oom_output *output = data;
	const struct oom_kill_vec *kills = &output->log.kills;
	char count[COUNT_TEXT_MAX];
	struct error *error = NULL;

	if (!kills->size) {
		fprintf(out, "oom: no out-of-memory kill in %s\n", output->source);
		return NULL;
	}
	fputs("oom: ", out);
	if (kills->size > 1)
		fprintf(out, "%s kills; the last: ",
			format_count(kills->size + output->log.kills_left_out, count));
	print_answer(out, output, oom_output_last(&output->log));
	if (kills->size > 1)
		error = print_kills(out, output);
	return error ? error : print_all_details(out, output);
}
