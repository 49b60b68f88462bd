/*
 * oom_parser.h - the parts of the reader of kernel logs, in the order that bytes go through them:
 *
 * oom_lines.c	lines out of bytes, cleaned; records (messages) out of lines
 * oom_record.c	what is said in a record, found by its phrases (oom_messages.h)
 * oom_report.c	reports and kills made of that
 */
#ifndef MEMPROBE_OOM_PARSER_H
#define MEMPROBE_OOM_PARSER_H

#include "memprobe/oom.h"
#include "oom_scan.h"

/* Longest line that is looked at in one piece, and longest message. */
#define OOM_LINE_MAX   (64U << 10)
#define OOM_RECORD_MAX (2 * OOM_LINE_MAX)
/* Of a record that is too long, the end that waits for what follows: the longest phrase is shorter.
 */
#define OOM_TAIL_MAX (12U << 10)
/* Paths of cgroups, with PATH_MAX in view. */
#define OOM_PATH_MAX 4096U

#define OOM_COLUMNS_MAX 16

enum oom_column {
	COLUMN_OTHER,
	COLUMN_PID,
	COLUMN_UID,
	COLUMN_TOTAL_VM,
	COLUMN_RSS,
	COLUMN_ANON,
	COLUMN_FILE,
	COLUMN_SHMEM,
	COLUMN_PAGE_TABLES, /* in pages */
	COLUMN_PAGE_TABLE_BYTES,
	COLUMN_SWAP,
	COLUMN_OOM_SCORE_ADJ,
};

/* Figures of the report as they are printed, but in bytes. */
enum oom_figure {
	/* of a cgroup: version 1 says rss for anon, and cache for file */
	FIGURE_ANON,
	FIGURE_FILE,
	FIGURE_SHMEM,
	FIGURE_KERNEL,
	FIGURE_SLAB,
	FIGURE_STACKS,
	FIGURE_PAGE_TABLES,
	FIGURE_PERCPU,
	FIGURE_SWAP,
	/* of the machine; anonymous is with shared memory there */
	MACHINE_ACTIVE_ANON,
	MACHINE_INACTIVE_ANON,
	MACHINE_ACTIVE_FILE,
	MACHINE_INACTIVE_FILE,
	MACHINE_SHMEM,
	MACHINE_SLAB_RECLAIMABLE,
	MACHINE_SLAB_UNRECLAIMABLE,
	MACHINE_PAGE_TABLES,
	MACHINE_FREE_SWAP,
	MACHINE_TOTAL_SWAP,
	MACHINE_RAM,
	MACHINE_RESERVED,
	OOM_FIGURES,
};

/* What the current report has said so far. */
struct oom_current {
	bool is_open;		 /* log.reports has one that is not finished */
	size_t kills;		 /* of it */
	char time[OOM_TIME_MAX]; /* of the choice */
	int planned_pid;	 /* 0: none yet */
	char planned_name[OOM_NAME_MAX];
	uint64_t planned_score;
	uint64_t planned_uid;
	bool is_repeat;	 /* all of it has been said before */
	bool is_exiting; /* the chosen one had ended already */
	enum oom_column columns[OOM_COLUMNS_MAX];
	size_t column_count;   /* before the name; 0: not in the table of tasks */
	bool in_statistics;    /* of the cgroup */
	bool in_mem_info;      /* of the machine */
	char *statistics_path; /* of the first cgroup with statistics */
	uint64_t figures[OOM_FIGURES];
};

struct oom_parser {
	struct oom_log log;
	struct oom_current now;
	size_t process_count; /* of all reports */

	/* oom_lines.c */
	char *line;
	size_t line_size;
	bool line_goes_on; /* what is in the line continues a piece before it */
	char *record;
	size_t record_size;
	unsigned record_lines;
	bool record_has_prefix;
	char time[OOM_TIME_MAX];
	bool has_wall_time;
	size_t last_width, widest, widest_count;
};

/* ---- oom_lines.c ---- */

struct error *oom_lines_feed(struct oom_parser *parser, const char *bytes, size_t size);
struct error *oom_lines_finish(struct oom_parser *parser);

/* ---- oom_record.c ---- */

/*
 * Reads a record; @is_whole: there is no more of it, else phrases in its last OOM_TAIL_MAX bytes
 * are left. Bytes that need not be kept in *used_ret.
 */
struct error *oom_record_read(struct oom_parser *parser, const char *text, size_t size,
			      bool is_whole, size_t *used_ret);
/* Whether a message begins here, or a row of a table. */
bool oom_record_begins(const struct oom_parser *parser, const char *text, size_t size);
/* Whether text may be added to the current record without harm. */
bool oom_record_may_go_on(const struct oom_parser *parser);

/* ---- oom_report.c ---- */

struct error *oom_report_open(struct oom_parser *parser, struct oom_report **ret);
/* Closes the current one, with the kill that it announced if none was confirmed. */
struct error *oom_report_close(struct oom_parser *parser);
/* @kill has what its line says; the rest is filled in. */
struct error *oom_report_kill(struct oom_parser *parser, struct oom_kill *kill,
			      enum oom_constraint constraint);
struct oom_kill oom_kill_unknown(void);
struct error *oom_report_process(struct oom_parser *parser, const struct oom_process *process);
struct error *oom_report_reaped(struct oom_parser *parser, int pid, const char *name);
struct error *oom_set_path(char **path, const char *start, const char *end);

/* ---- oom_figures.c ---- */

/* The path of a group whose statistics follow. */
struct error *oom_report_statistics_of(struct oom_parser *parser, const char *start,
				       const char *end);
/* `anon 4194304` of it; in KiB where each group is printed by itself. */
void oom_report_statistic(struct oom_parser *parser, const char *key, uint64_t value, bool is_kib);
/* `active_anon:94139` of the machine, in pages, and its swap, in bytes. */
void oom_report_machine(struct oom_parser *parser, const char *key, uint64_t value);
/* Makes the report's memory of what was printed. */
void oom_sum_up(const struct oom_current *now, struct oom_report *report);

/* ---- oom_table.c ---- */

/* Behind `uid tgid total_vm rss`: the other columns. */
void oom_table_head(struct oom_parser *parser, struct scan *scan);
/* A row, if one comes next; passes it. */
bool oom_table_row(const struct oom_parser *parser, struct scan *scan, struct oom_process *ret);
/* `[ 4711]0471197590461851135...`: the pid, and then too few numbers. */
bool oom_table_row_is_broken(const struct oom_parser *parser, struct scan scan);

#endif
