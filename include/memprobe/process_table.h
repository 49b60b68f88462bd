/*
 * process_table.h - all processes of this machine and what memory they hold, look after look.
 *
 *	process_table_look(&table);		as often as wanted
 *	process_table_sort(&table, by, shown);
 *	process_table_deinit(&table);
 *
 * A look costs one small file for each process; what costs more is read of those that are shown.
 */
#ifndef MEMPROBE_PROCESS_TABLE_H
#define MEMPROBE_PROCESS_TABLE_H

#include "memprobe/cgroup.h"
#include "memprobe/process_usage.h"
#include "memprobe/vec.h"

enum process_order { ORDER_RSS, ORDER_PSS, ORDER_GROWTH, ORDER_SWAP };

/* Bytes; USAGE_UNKNOWN, and INT64_MIN for growth: not known. */
struct process_row {
	pid_t pid;
	uint64_t start; /* with the PID, who it is */
	char name[64];
	uint64_t rss, pss, swap;
	int64_t growth;	 /* bytes a second, of rss, since the last look */
	char *group;	 /* owned; the path of its memory control group; NULL */
	char *container; /* owned; as cgroup_container(); NULL */
};

VEC_DEFINE(process_row_vec, struct process_row)

#define PROCESS_GONE_MAX 16u

/* Zeroed at first. */
struct process_table {
	struct process_row_vec rows, before; /* of this look and the last */
	uint64_t time_us, before_us;
	/* Asked between processes: true ends a look or a sort with ERROR_INTERRUPTED. May be NULL.
	 */
	bool (*interrupted)(void);
	uint64_t rss; /* of all; what they share counts several times */
	/* Processes that the kernel has killed for want of memory since the first look; a count. */
	uint64_t oom_kills, oom_kills_first;
	/* That have ended since the first look, the largest first, at most PROCESS_GONE_MAX. */
	struct process_row_vec gone;
};

/* Kernel threads are left out. */
struct error *process_table_look(struct process_table *table);

/* The largest of that order first. Reads pss, swap, group and container of the first @shown (pss
 * and swap of all, if they are the order). */
struct error *process_table_sort(struct process_table *table, enum process_order order,
				 size_t shown);

void process_table_deinit(struct process_table *table);

#endif
