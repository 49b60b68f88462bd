/*
 * The messages of mm/oom_kill.c and mm/memcontrol.c, and of show_free_areas(). Where versions
 * differ, the function says so.
 */
#include "oom_messages.h"

#include <string.h>

/* Limits from here on are none: the kernel's largest counters, of 32 bits and of 64. */
#define NO_LIMIT (1ULL << 62)
/* Flags and nodes stand between the phrase and the order, which no kernel allows to be larger. */
#define ORDER_REACH 1024U
#define ORDER_MAX   30

/* ---- parts ---- */

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* The current report; another one if that has had its kill, and this begins the next. */
static struct error *report_before_kill(struct oom_record *record, struct oom_report **ret)
{
	struct oom_current *now = &record->parser->now;
	struct error *error = now->kills ? oom_report_close(record->parser) : NULL;

	return error ? error : oom_report_open(record->parser, ret);
}

/* What may follow `(NAME)`: comm may have brackets itself. */
static bool ends_name(struct scan scan)
{
	static const char *const words[] = { "total-vm:", "vsz:",    "score",	   "with score",
					     "points",	  "sharing", "is already", ",",
					     ".",	  NULL };

	scan_blanks(&scan);
	if (scan.at == scan.end)
		return true;
	for (const char *const *word = words; *word; word++)
		if (scan_word(&scan, *word))
			return true;
	return false;
}

/* `(NAME)` */
static bool read_name(struct scan *scan, char name[OOM_NAME_MAX])
{
	struct scan try = *scan;
	const char *start, *first = NULL, *last = NULL;

	if (!scan_char(&try, '('))
		return false;
	start = try.at;
	for (; try.at < try.end && try.at - start < 4 * OOM_NAME_MAX && *try.at != '\n'; try.at++) {
		if (*try.at != ')')
			continue;
		first = first ? first : try.at;
		if (ends_name((struct scan){ try.at + 1, try.end })) {
			last = try.at;
			break;
		}
	}
	if (!first)
		return false;
	last = last ? last : first;
	scan_copy(start, last, name, OOM_NAME_MAX);
	scan->at = last + 1;
	return true;
}

/* `4711 (NAME)`; Red Hat's 2.6.32 has `4711, UID 500, (NAME)`. */
static bool read_task(struct scan *scan, int *pid, uint64_t *uid, char name[OOM_NAME_MAX])
{
	struct scan try = *scan;

	scan_char(&try, ':');
	if (!scan_pid(&try, pid))
		return false;
	if (scan_word(&try, ", UID") && !scan_number(&try, uid))
		return false;
	scan_char(&try, ',');
	if (!read_name(&try, name))
		return false;
	*scan = try;
	return true;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* `Sep511:05:35`: what a logger put before the next message, without blanks. */
static bool is_squeezed_time(struct scan scan)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	const char *at = scan.at + 3;

	if (scan.end - scan.at < 12)
		return false;
	for (const char *month = months; *month; month += 3) {
		if (memcmp(scan.at, month, 3) != 0)
			continue;
		while (at < scan.end && is_digit(*at))
			at++;
		return at - scan.at >= 6 && at - scan.at <= 7 && scan.end - at >= 6 &&
		       at[0] == ':' && is_digit(at[1]) && is_digit(at[2]) && at[3] == ':';
	}
	return false;
}

/* What cannot be in a path: a prefix, or the next message. */
static bool ends_path(struct scan scan)
{
	static const char *const words[] = { "memory: usage",  "Memory cgroup", "Tasks state",
					     "Killed process", "kernel:",	NULL };
	const char *from, *to;
	char c = *scan.at;

	if (scan_is_blank(c))
		return c != SCAN_WRAP;
	if (c == '[')
		return scan_uptime(&scan, &from, &to);
	if (c == '<')
		return scan.end - scan.at > 2 && is_digit(scan.at[1]) && scan.at[2] == '>';
	for (const char *const *word = words; *word; word++)
		if (**word == c && scan_word(&scan, *word))
			return true;
	return c >= 'A' && c <= 'Z' && is_squeezed_time(scan);
}

/* Where a path ends that ends its message. */
static const char *path_end(struct scan scan)
{
	const char *most = scan.end;

	if (most - scan.at > (ptrdiff_t)OOM_PATH_MAX)
		most = scan.at + OOM_PATH_MAX;
	while (scan.at < most && !ends_path(scan))
		scan.at++;
	return scan.at;
}

/* `Out of memory`, `Memory cgroup out of memory` and their like, before `Kill process`. */
static enum oom_constraint constraint_of_message(const struct oom_record *record)
{
	static const struct {
		const char *word;
		enum oom_constraint constraint;
	} messages[] = {
		{ "cgroup out of memory", OOM_CONSTRAINT_MEMCG },
		{ "(MPOL_BIND)", OOM_CONSTRAINT_MEMORY_POLICY },
		{ "memory in cpuset", OOM_CONSTRAINT_CPUSET },
		{ "Out of memory", OOM_CONSTRAINT_NONE },
		{ "Out of Memory", OOM_CONSTRAINT_NONE },
	};
	struct scan back = { record->before, record->phrase };
	const char *found;

	if (back.end - back.at > (ptrdiff_t)OOM_LOOK_BACK)
		back.at = back.end - OOM_LOOK_BACK;
	for (size_t i = 0; i < sizeof(messages) / sizeof(*messages); i++) {
		struct scan try = back;

		if (scan_find(&try, messages[i].word, NULL, OOM_LOOK_BACK, &found))
			return messages[i].constraint;
	}
	return OOM_CONSTRAINT_UNKNOWN;
}

/* ---- before the kill ---- */

/* What stands before the phrase, behind the tag of a logger. */
static const char *trigger_name(const struct oom_record *record)
{
	const char *start = record->phrase, *found;
	struct scan tag;

	while (start > record->before && start[-1] != '\n' && start[-1] != ']' &&
	       record->phrase - start < OOM_NAME_MAX + 8)
		start--;
	tag = (struct scan){ start, record->phrase };
	while (scan_find(&tag, "kernel:", NULL, OOM_LOOK_BACK, &found))
		start = tag.at;
	return start;
}

/*
 * `NAME invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0`: all reports
 * begin so, where they are not cut.
 */
struct error *oom_on_invoked(struct oom_record *record)
{
	const char *start = trigger_name(record), *found;
	struct scan scan = record->scan;
	struct oom_report *report;
	struct error *error = oom_report_close(record->parser);
	int order;

	if (!error)
		error = oom_report_open(record->parser, &report);
	if (error)
		return error;
	scan_copy(start, record->phrase, report->trigger, sizeof(report->trigger));
	if (scan_find(&scan, "order=", "invoked oom", ORDER_REACH, &found) &&
	    scan_signed(&scan, &order) && order >= OOM_ORDER_BY_HAND && order <= ORDER_MAX)
		report->order = order;
	return NULL;
}

/* `Task in /A/B killed as a result of limit of /A`, to 4.18. */
struct error *oom_on_task_in(struct oom_record *record)
{
	struct scan scan = record->scan;
	const char *task = scan.at, *task_end, *end;
	struct oom_report *report;
	struct error *error;

	if (!scan_find(&scan, "killed as a result of limit of", "Task in", OOM_PATH_MAX, &task_end))
		return NULL;
	scan_blanks(&scan);
	end = path_end(scan);
	error = report_before_kill(record, &report);
	if (!error)
		error = oom_set_path(&report->task_cgroup, task, task_end);
	if (!error)
		error = oom_set_path(&report->cgroup, scan.at, end);
	if (error)
		return error;
	report->constraint = OOM_CONSTRAINT_MEMCG;
	record->scan.at = end;
	return NULL;
}

/* `memory: usage 204800kB, limit 204800kB, failcnt 4563` */
static struct error *read_counter(struct oom_record *record, enum oom_counter_kind kind)
{
	struct oom_counter counter = { OOM_UNKNOWN, OOM_UNKNOWN, OOM_UNKNOWN };
	struct scan scan = record->scan;
	struct oom_report *report;
	struct error *error;

	if (!scan_kib(&scan, &counter.usage))
		return NULL;
	if (scan_word(&scan, ", limit") && scan_kib(&scan, &counter.limit) &&
	    scan_word(&scan, ", failcnt") && scan_number(&scan, &counter.failures) &&
	    scan.at < scan.end && *scan.at == ',')
		counter.failures = OOM_UNKNOWN; /* ... and the prefix of the next line */
	if (counter.limit >= NO_LIMIT)
		counter.limit = OOM_UNKNOWN;
	error = report_before_kill(record, &report);
	if (error)
		return error;
	report->counters[kind] = counter;
	record->scan = scan;
	return NULL;
}

struct error *oom_on_memory(struct oom_record *record)
{
	return read_counter(record, OOM_COUNTER_MEMORY);
}

struct error *oom_on_memory_swap(struct oom_record *record)
{
	return read_counter(record, OOM_COUNTER_MEMORY_SWAP);
}

struct error *oom_on_kmem(struct oom_record *record)
{
	return read_counter(record, OOM_COUNTER_KMEM);
}

struct error *oom_on_swap(struct oom_record *record)
{
	return read_counter(record, OOM_COUNTER_SWAP);
}

/*
 * `cache:108KB rss:197168KB ...` in one line to 5.2, of each child group by itself; `anon 4194304`
 * in lines of their own since.
 */
bool oom_read_statistics(struct oom_record *record, struct scan *scan)
{
	bool any = false;

	for (;;) {
		struct scan try = *scan;
		const char *start, *from, *to;
		char key[48];
		uint64_t value;

		if (scan_uptime(&try, &from, &to))
			*scan = try;
		scan_blanks(&try);
		for (start = try.at;
		     try.at < try.end && (is_letter(*try.at) || *try.at == SCAN_WRAP); try.at++)
			;
		if (try.at == start || (size_t)(try.at - start) >= sizeof(key))
			return any;
		scan_copy(start, try.at, key, sizeof(key));
		scan_char(&try, ':');
		if (!scan_number(&try, &value))
			return any;
		oom_report_statistic(record->parser, key, value,
				     scan_word(&try, "KB") || scan_word(&try, "kB"));
		any = true;
		*scan = try;
	}
}

/* `Memory cgroup stats for /A:` */
struct error *oom_on_statistics(struct oom_record *record)
{
	struct scan scan = record->scan;
	const char *start, *end;
	struct oom_report *report;
	struct error *error = report_before_kill(record, &report);

	if (error)
		return error;
	if (scan_word(&scan, "for")) {
		scan_blanks(&scan);
		start = scan.at;
		/* The last colon before a blank, or the only one. */
		end = path_end(scan);
		for (const char *at = start; at < end; at++) {
			struct scan next = { at + 1, scan.end };

			if (*at == ':' && (scan_word(&next, "cache") || scan_word(&next, "anon")))
				end = at;
		}
		if (end > start && end[-1] == ':')
			end--;
		error = oom_report_statistics_of(record->parser, start, end);
		scan.at = end;
	}
	scan_char(&scan, ':');
	record->parser->now.in_statistics = true;
	oom_read_statistics(record, &scan);
	record->scan = scan;
	return error;
}

struct error *oom_on_heading(struct oom_record *record)
{
	struct oom_report *report;
	struct error *error = report_before_kill(record, &report);

	if (error)
		return error;
	record->parser->now.in_statistics = record->parser->now.in_mem_info = false;
	oom_table_head(record->parser, &record->scan);
	return NULL;
}

static enum oom_constraint read_constraint(struct scan *scan)
{
	static const struct {
		const char *word;
		enum oom_constraint constraint;
	} names[] = {
		{ "CONSTRAINT_NONE", OOM_CONSTRAINT_NONE },
		{ "CONSTRAINT_CPUSET", OOM_CONSTRAINT_CPUSET },
		{ "CONSTRAINT_MEMORY_POLICY", OOM_CONSTRAINT_MEMORY_POLICY },
		{ "CONSTRAINT_MEMCG", OOM_CONSTRAINT_MEMCG },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (scan_word(scan, names[i].word))
			return names[i].constraint;
	return OOM_CONSTRAINT_UNKNOWN;
}

/* The text up to @until, which is passed. */
static bool read_until(struct scan *scan, const char *until, const char **start, const char **end)
{
	*start = scan->at;
	return scan_find(scan, until, "oom-kill:c", 2 * OOM_PATH_MAX, end);
}

/*
 * `oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=A,mems_allowed=0,oom_memcg=/A,`
 * `task_memcg=/A/B,task=NAME,pid=1,uid=0`, since 4.19; `global_oom` in place of `oom_memcg=`.
 */
struct error *oom_on_constraint(struct oom_record *record)
{
	struct oom_current *now = &record->parser->now;
	struct scan scan = record->scan;
	const char *start, *end;
	bool has_task;
	struct oom_report *report;
	struct error *error = report_before_kill(record, &report);

	if (error)
		return error;
	report->constraint = read_constraint(&scan);
	if (read_until(&scan, ",oom_memcg=", &start, &end)) {
		has_task = read_until(&scan, ",task_memcg=", &start, &end);
		error = oom_set_path(&report->cgroup, start, has_task ? end : path_end(scan));
	} else {
		has_task = scan_find(&scan, ",task_memcg=", "oom-kill:c", 2 * OOM_PATH_MAX, &end);
	}
	if (!error && read_until(&scan, ",task=", &start, &end) && has_task)
		error = oom_set_path(&report->task_cgroup, start, end);
	if (!error && read_until(&scan, ",pid=", &start, &end) &&
	    scan_pid(&scan, &now->planned_pid)) {
		scan_copy(start, end, now->planned_name, sizeof(now->planned_name));
		memcpy(now->time, record->parser->time, sizeof(now->time));
		if (scan_word(&scan, ",uid="))
			scan_number(&scan, &now->planned_uid);
	}
	record->scan = scan;
	return error;
}

/* `Kill process 4711 (NAME) score 904 or sacrifice child`, to 4.20. */
struct error *oom_on_choice(struct oom_record *record)
{
	struct oom_current *now = &record->parser->now;
	struct scan scan = record->scan;
	enum oom_constraint constraint = constraint_of_message(record);
	uint64_t uid = OOM_UNKNOWN, score = OOM_UNKNOWN;
	char name[OOM_NAME_MAX];
	struct oom_report *report;
	struct error *error;
	int pid;

	if (!read_task(&scan, &pid, &uid, name))
		return NULL;
	scan_word(&scan, "with");
	if (!scan_word(&scan, "score") && !scan_word(&scan, "points"))
		return NULL;
	scan_number(&scan, &score);
	error = report_before_kill(record, &report);
	if (error)
		return error;
	now->planned_pid = pid;
	now->planned_uid = uid;
	now->planned_score = score;
	memcpy(now->planned_name, name, sizeof(name));
	memcpy(now->time, record->parser->time, sizeof(now->time));
	if (report->constraint == OOM_CONSTRAINT_UNKNOWN)
		report->constraint = constraint;
	record->scan = scan;
	return NULL;
}

struct error *oom_on_exiting(struct oom_record *record)
{
	struct scan scan = record->scan;
	char name[OOM_NAME_MAX];
	uint64_t uid;
	int pid;

	if (read_task(&scan, &pid, &uid, name) && scan_word(&scan, "is already exiting") &&
	    pid == record->parser->now.planned_pid)
		record->parser->now.is_exiting = true;
	return NULL;
}

/* `Tasks in /A are going to be killed due to memory.oom.group set` */
struct error *oom_on_group(struct oom_record *record)
{
	struct oom_report *report;
	struct error *error = oom_report_open(record->parser, &report);

	if (!error)
		report->group = true;
	return error;
}

/* ---- the kill ---- */

/* `total-vm:390360kB, anon-rss:183712kB, ...`: whatever follows of that form. */
static void read_fields(struct scan *scan, struct oom_kill *kill)
{
	for (;;) {
		struct scan try = *scan;
		const char *start;
		uint64_t *to = NULL, value;
		char key[24];

		while (scan_char(&try, ',') || scan_char(&try, '.'))
			;
		scan_blanks(&try);
		for (start = try.at; try.at < try.end && (is_letter(*try.at) || *try.at == '-' ||
							  *try.at == SCAN_WRAP);)
			try.at++;
		scan_copy(start, try.at, key, sizeof(key));
		if (!scan_char(&try, ':'))
			return;
		if (!strcmp(key, "total-vm") || !strcmp(key, "vsz"))
			to = &kill->total_vm;
		else if (!strcmp(key, "anon-rss"))
			to = &kill->anon;
		else if (!strcmp(key, "file-rss"))
			to = &kill->file;
		else if (!strcmp(key, "shmem-rss"))
			to = &kill->shmem;
		else if (!strcmp(key, "pgtables"))
			to = &kill->page_tables;
		if (to			  ? !scan_kib(&try, to)
		    : !strcmp(key, "UID") ? !scan_number(&try, &kill->uid)
		    : !strcmp(key, "oom_score_adj")
			    ? !(kill->has_oom_score_adj = scan_signed(&try, &kill->oom_score_adj))
			    : !scan_kib(&try, &value))
			return;
		*scan = try;
	}
}

/*
 * `Killed process 4711 (NAME) total-vm:...`; only `Killed process 4711 (NAME)` in 2.6.32, `vsz:` in
 * 2.6.33 to 2.6.35, shmem-rss since 4.5, UID, pgtables and oom_score_adj since 5.4.
 */
struct error *oom_on_killed(struct oom_record *record)
{
	struct oom_kill kill = oom_kill_unknown();
	struct scan scan = record->scan;

	if (!read_task(&scan, &kill.pid, &kill.uid, kill.name))
		return NULL;
	read_fields(&scan, &kill);
	kill.is_certain = true;
	memcpy(kill.time, record->parser->time, sizeof(kill.time));
	record->scan = scan;
	return oom_report_kill(record->parser, &kill, constraint_of_message(record));
}

/* `oom_reaper: reaped process 4711 (NAME), now anon-rss:0kB, ...`, since 4.6. */
struct error *oom_on_reaped(struct oom_record *record)
{
	struct scan scan = record->scan;
	char name[OOM_NAME_MAX];
	uint64_t uid;
	int pid;

	if (!read_task(&scan, &pid, &uid, name))
		return NULL;
	record->scan = scan;
	return oom_report_reaped(record->parser, pid, name);
}
