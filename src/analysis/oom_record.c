/*
 * What is said in a record, found by its phrases, which may stand anywhere in it: text that was
 * pasted together has many messages in one.
 */
#include "oom_messages.h"

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

enum phrase_flags {
	BEGINS = 1 << 0,       /* a message begins with it */
	ROBUST = 1 << 1,       /* what is added to its end does no harm */
	ENDS_IN_PATH = 1 << 2, /* ... does */
};

static const struct phrase {
	const char *word;
	oom_read_message *read;
	unsigned flags;
} phrases[] = {
	{ "invoked oom-killer:", oom_on_invoked, 0 },
	{ "Task in", oom_on_task_in, BEGINS | ENDS_IN_PATH },
	{ "memory: usage", oom_on_memory, BEGINS | ROBUST },
	{ "memory+swap: usage", oom_on_memory_swap, BEGINS | ROBUST },
	{ "kmem: usage", oom_on_kmem, BEGINS | ROBUST },
	{ "swap: usage", oom_on_swap, BEGINS | ROBUST },
	{ "Memory cgroup stats", oom_on_statistics, BEGINS | ENDS_IN_PATH },
	{ "uid tgid total_vm rss", oom_on_heading, BEGINS | ROBUST },
	{ "oom-kill:constraint=", oom_on_constraint, BEGINS | ROBUST },
	{ "Kill process", oom_on_choice, BEGINS | ROBUST },
	{ "kill process", oom_on_choice, BEGINS | ROBUST },
	{ "OOM victim", oom_on_exiting, BEGINS | ROBUST },
	{ "are going to be killed due to memory.oom.group", oom_on_group, ROBUST },
	{ "Killed process", oom_on_killed, BEGINS | ROBUST },
	{ "oom_reaper: reaped process", oom_on_reaped, BEGINS | ROBUST },
	{ "Mem-Info:", oom_on_mem_info, BEGINS },
	{ "active_anon:", oom_on_pages, 0 },
	{ "inactive_anon:", oom_on_pages, 0 },
	{ "active_file:", oom_on_pages, 0 },
	{ "inactive_file:", oom_on_pages, 0 },
	{ "shmem:", oom_on_pages, 0 },
	{ "slab_reclaimable:", oom_on_pages, 0 },
	{ "slab_unreclaimable:", oom_on_pages, 0 },
	{ "pagetables:", oom_on_pages, 0 },
	{ "Free swap =", oom_on_free_swap, BEGINS },
	{ "Total swap =", oom_on_total_swap, BEGINS },
	{ "pages RAM", oom_on_ram, 0 },
	{ "pages reserved", oom_on_reserved, 0 },
};

#define PHRASES (sizeof(phrases) / sizeof(*phrases))

/* The phrase that comes at @scan, which is moved behind it; NULL: none. */
static const struct phrase *phrase_at(struct scan *scan)
{
	static const bool is_first[256] = {
		['i'] = true, ['T'] = true, ['m'] = true, ['k'] = true, ['s'] = true,
		['M'] = true, ['u'] = true, ['o'] = true, ['K'] = true, ['O'] = true,
		['a'] = true, ['F'] = true, ['p'] = true,
	};

	if (!is_first[(unsigned char)*scan->at])
		return NULL;
	for (size_t i = 0; i < PHRASES; i++)
		if (*phrases[i].word == *scan->at && scan_word(scan, phrases[i].word))
			return &phrases[i];
	return NULL;
}

static void take_time(struct oom_parser *parser, const char *start, const char *end)
{
	if (!parser->has_wall_time)
		scan_copy(start, end, parser->time, sizeof(parser->time));
}

/* Rows and times, which begin with a bracket; passes what it reads. */
static struct error *read_bracket(struct oom_record *record, struct scan *scan)
{
	struct oom_parser *parser = record->parser;
	struct oom_process process;
	const char *start, *end;

	if (scan_uptime(scan, &start, &end)) {
		take_time(parser, start, end);
		return NULL;
	}
	if (oom_table_row(parser, scan, &process))
		return oom_report_process(parser, &process);
	if (oom_table_row_is_broken(parser, *scan))
		parser->log.reports.data[parser->log.reports.size - 1].rows_unreadable++;
	scan->at++;
	return NULL;
}

/* What is only known by its place: rows without brackets, and statistics in lines of their own. */
static struct error *read_start(struct oom_record *record)
{
	struct oom_parser *parser = record->parser;
	struct oom_process process;

	if (parser->now.in_statistics)
		oom_read_statistics(record, &record->scan);
	else if (record->scan.at < record->scan.end && *record->scan.at != '[' &&
		 oom_table_row(parser, &record->scan, &process))
		return oom_report_process(parser, &process);
	return NULL;
}

struct error *oom_record_read(struct oom_parser *parser, const char *text, size_t size,
			      bool is_whole, size_t *used_ret)
{
	struct oom_record record = { parser, { text, text + size }, text, text };
	const char *limit =
		is_whole || size < OOM_TAIL_MAX ? text + size : text + size - OOM_TAIL_MAX;
	struct scan *scan = &record.scan;
	struct error *error = read_start(&record);

	while (!error && scan->at < limit) {
		struct scan next = *scan;
		const struct phrase *phrase;

		if (*scan->at == '[') {
			error = read_bracket(&record, scan);
			record.before = scan->at;
			continue;
		}
		phrase = phrase_at(&next);
		if (!phrase) {
			scan->at++;
			continue;
		}
		record.phrase = scan->at;
		*scan = next;
		error = phrase->read(&record);
		record.before = scan->at;
	}
	*used_ret = (size_t)(scan->at - text);
	if (scan->at - record.before > (ptrdiff_t)OOM_LOOK_BACK)
		*used_ret -= OOM_LOOK_BACK;
	else
		*used_ret = (size_t)(record.before - text);
	return error;
}

/* `[ 4711]` or `[ pid ]` */
static bool begins_row(struct scan scan)
{
	uint64_t number;

	return scan_char(&scan, '[') && (scan_word(&scan, "pid") || scan_number(&scan, &number)) &&
	       scan_char(&scan, ']');
}

/* `anon 4194304` */
static bool is_statistic(struct scan scan)
{
	const char *start = scan.at;
	uint64_t value;

	while (scan.at < scan.end && is_letter(*scan.at))
		scan.at++;
	if (scan.at == start || scan.at == scan.end || *scan.at != ' ' ||
	    !scan_number(&scan, &value))
		return false;
	scan_blanks(&scan);
	return scan.at == scan.end;
}

bool oom_record_begins(const struct oom_parser *parser, const char *text, size_t size)
{
	static const char *const others[] = { "Tasks state",	"Memory cgroup out of memory",
					      "Out of memory:", "CPU:",
					      "Hardware name:", NULL };
	struct scan scan = { text, text + size }, try;
	const struct phrase *phrase;
	const char *found;

	scan_blanks(&scan);
	if (scan.at == scan.end)
		return false;
	try = scan;
	phrase = phrase_at(&try);
	if ((phrase && phrase->flags & BEGINS) || begins_row(scan) ||
	    (parser->now.in_statistics && is_statistic(scan)))
		return true;
	for (const char *const *word = others; *word; word++)
		if (scan_word(&scan, *word))
			return true;
	return scan_find(&scan, "invoked oom-killer:", NULL, 2 * OOM_NAME_MAX, &found);
}

/* Whether a message that ends in a path has come to that: `... limit of /A`, `... stats for /A:`.
 */
static bool is_at_path(const struct phrase *phrase, struct scan scan)
{
	const char *end = scan.end, *found;

	if (phrase->read == oom_on_task_in)
		return scan_find(&scan, "limit of", "Task in", OOM_PATH_MAX, &found);
	while (end > scan.at && scan_is_blank(end[-1]))
		end--;
	return end > scan.at && end[-1] == ':';
}

bool oom_record_may_go_on(const struct oom_parser *parser)
{
	struct scan scan = { parser->record, parser->record + parser->record_size };
	struct scan row = scan;
	struct oom_process process;
	unsigned flags = 0;

	if (oom_table_row(parser, &row, &process))
		return !*process.name;
	if (parser->now.column_count && begins_row(scan))
		return true;
	while (scan.at < scan.end) {
		const struct phrase *phrase = phrase_at(&scan);

		if (!phrase)
			scan.at++;
		else if (phrase->flags & ENDS_IN_PATH && !is_at_path(phrase, scan))
			flags |= ROBUST;
		else
			flags |= phrase->flags;
	}
	return !(flags & ENDS_IN_PATH) && (parser->record_has_prefix || flags & ROBUST);
}
