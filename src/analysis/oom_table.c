/*
 * The table of tasks: mm/oom_kill.c, dump_tasks(). Its columns are those of its heading:
 *
 * 2.6.27	[ pid ]   uid  tgid total_vm      rss cpu oom_adj name
 * 2.6.36	... cpu oom_adj oom_score_adj name
 * 3.6		... nr_ptes swapents oom_score_adj name
 * 4.1		... nr_ptes nr_pmds swapents oom_score_adj name (4.14 also nr_puds)
 * 4.15		... pgtables_bytes swapents oom_score_adj name
 * by 6.8	... rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name
 */
#include <limits.h>
#include <string.h>

#include "memprobe/num.h"
#include "oom_parser.h"

static const struct {
	const char *word;
	enum oom_column column;
} names[] = {
	/* What begins another name comes after it. */
	{ "rss_anon", COLUMN_ANON },
	{ "rss_file", COLUMN_FILE },
	{ "rss_shmem", COLUMN_SHMEM },
	{ "cpu", COLUMN_OTHER },
	{ "oom_adj", COLUMN_OTHER },
	{ "nr_ptes", COLUMN_PAGE_TABLES },
	{ "nr_pmds", COLUMN_PAGE_TABLES },
	{ "nr_puds", COLUMN_PAGE_TABLES },
	{ "pgtables_bytes", COLUMN_PAGE_TABLE_BYTES },
	{ "swapents", COLUMN_SWAP },
	{ "oom_score_adj", COLUMN_OOM_SCORE_ADJ },
};

static bool next_column(struct scan *scan, enum oom_column *ret)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (scan_word(scan, names[i].word)) {
			*ret = names[i].column;
			return true;
		}
	}
	return false;
}

void oom_table_head(struct oom_parser *parser, struct scan *scan)
{
	static const enum oom_column first[] = { COLUMN_PID, COLUMN_UID, COLUMN_OTHER,
						 COLUMN_TOTAL_VM, COLUMN_RSS };
	struct oom_current *now = &parser->now;

	memcpy(now->columns, first, sizeof(first));
	now->column_count = sizeof(first) / sizeof(*first);
	while (now->column_count < OOM_COLUMNS_MAX &&
	       next_column(scan, &now->columns[now->column_count]))
		now->column_count++;
	scan_word(scan, "name");
}

static uint64_t pages(uint64_t count)
{
	return count > OOM_LARGEST / OOM_PAGE_SIZE ? OOM_LARGEST : count * OOM_PAGE_SIZE;
}

static void add_pages(uint64_t *to, uint64_t count)
{
	uint64_t bytes = pages(count);

	*to = *to == OOM_UNKNOWN ? bytes : min_u64(*to + bytes, OOM_LARGEST);
}

static bool set_column(struct oom_process *process, enum oom_column column, uint64_t value)
{
	switch (column) {
	case COLUMN_PID:
		process->pid = value > INT_MAX ? 0 : (int)value;
		return process->pid != 0;
	case COLUMN_UID:
		process->uid = value;
		break;
	case COLUMN_TOTAL_VM:
		process->total_vm = pages(value);
		break;
	case COLUMN_RSS:
		process->rss = pages(value);
		break;
	case COLUMN_ANON:
		process->anon = pages(value);
		break;
	case COLUMN_FILE:
		process->file = pages(value);
		break;
	case COLUMN_SHMEM:
		process->shmem = pages(value);
		break;
	case COLUMN_PAGE_TABLES:
		add_pages(&process->page_tables, value);
		break;
	case COLUMN_PAGE_TABLE_BYTES:
		process->page_tables = value;
		break;
	case COLUMN_SWAP:
		process->swap = pages(value);
		break;
	case COLUMN_OTHER:
	case COLUMN_OOM_SCORE_ADJ:
		break;
	}
	return true;
}

/* Without @join, a line break within a row stands for a blank. */
static bool next_number(struct scan *scan, bool join, uint64_t *ret)
{
	struct scan digits;

	if (join)
		return scan_number(scan, ret);
	scan_blanks(scan);
	digits = (struct scan){ scan->at, scan->at };
	while (digits.end < scan->end && *digits.end >= '0' && *digits.end <= '9')
		digits.end++;
	if (!scan_number(&digits, ret))
		return false;
	scan->at = digits.at;
	return true;
}

static bool read_column(struct scan *scan, enum oom_column column, bool join,
			struct oom_process *process)
{
	bool minus = scan_char(scan, '-');
	uint64_t value;

	if (!next_number(scan, join, &value) || (column == COLUMN_OOM_SCORE_ADJ && value > 1000))
		return false;
	if (column == COLUMN_OOM_SCORE_ADJ) {
		process->oom_score_adj = minus ? -(int)value : (int)value;
		process->has_oom_score_adj = true;
	} else if (minus && column != COLUMN_OTHER) {
		return false;
	}
	return set_column(process, column, value);
}

/* What can only be the next row or message, where line breaks are missing. */
static bool ends_name(struct scan scan)
{
	static const char *const words[] = {
		"Memory cgroup",  "Out of memory", "oom-kill:", "Kill process",
		"Killed process", "kernel:",	   NULL
	};
	const char *from, *to;
	struct scan row = scan;
	uint64_t pid;

	if (*scan.at == '<')
		return scan_level(&scan);
	if (*scan.at == '[')
		return scan_uptime(&scan, &from, &to) ||
		       (scan_char(&row, '[') && scan_number(&row, &pid) && scan_char(&row, ']'));
	for (const char *const *word = words; *word; word++)
		if (**word == *scan.at && scan_word(&scan, *word))
			return true;
	return false;
}

/* Up to the line's end. */
static void read_name(struct scan *scan, char name[OOM_NAME_MAX])
{
	const char *start, *most;

	scan_blanks(scan);
	start = scan->at;
	most = scan->end - start > 2 * OOM_NAME_MAX ? start + 2 * OOM_NAME_MAX : scan->end;
	while (scan->at < most && *scan->at != '\n' && !ends_name(*scan))
		scan->at++;
	scan_copy(start, scan->at, name, OOM_NAME_MAX);
}

static bool read_row(const struct oom_parser *parser, struct scan *scan, bool join,
		     struct oom_process *ret)
{
	const struct oom_current *now = &parser->now;
	bool bracket = scan_char(scan, '[');

	*ret = (struct oom_process){
		.uid = OOM_UNKNOWN,
		.rss = OOM_UNKNOWN,
		.anon = OOM_UNKNOWN,
		.file = OOM_UNKNOWN,
		.shmem = OOM_UNKNOWN,
		.total_vm = OOM_UNKNOWN,
		.swap = OOM_UNKNOWN,
		.page_tables = OOM_UNKNOWN,
	};
	for (size_t i = 0; i < now->column_count; i++) {
		if (!read_column(scan, now->columns[i], join, ret))
			return false;
		if (i == 0 && bracket)
			scan_char(scan, ']');
		else if (scan->at == scan->end || !scan_is_blank(*scan->at))
			return false;
	}
	read_name(scan, ret->name);
	return true;
}

bool oom_table_row(const struct oom_parser *parser, struct scan *scan, struct oom_process *ret)
{
	struct scan try = *scan;

	if (!parser->now.column_count)
		return false;
	if (!read_row(parser, &try, true, ret)) {
		try = *scan;
		if (!read_row(parser, &try, false, ret))
			return false;
	}
	*scan = try;
	return true;
}

bool oom_table_row_is_broken(const struct oom_parser *parser, struct scan scan)
{
	uint64_t number;

	return parser->now.column_count && scan_char(&scan, '[') && scan_number(&scan, &number) &&
	       scan_char(&scan, ']') && scan_number(&scan, &number);
}
