#include "memprobe/process_table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/num.h"
#include "proc_text.h"

#define SECOND_US 1000000

static void rows_clear(struct process_row_vec *rows)
{
	vec_for_each (row, rows) {
		free(row->group);
		free(row->container);
	}
	rows->size = 0;
}

static void rows_deinit(struct process_row_vec *rows)
{
	rows_clear(rows);
	process_row_vec_deinit(rows);
}

void process_table_deinit(struct process_table *table)
{
	rows_deinit(&table->rows);
	rows_deinit(&table->before);
	rows_deinit(&table->gone);
}

/* ---- a look ---- */

static void sort(struct process_row_vec *rows, int (*compare)(const void *left, const void *right))
{
	if (rows->size)
		qsort(rows->data, rows->size, sizeof(*rows->data), compare);
}

static int compare_pids(const void *left, const void *right)
{
	const struct process_row *a = left, *b = right;

	return a->pid < b->pid ? -1 : a->pid > b->pid;
}

static struct process_row *find(struct process_row_vec *rows, const struct process_row *key)
{
	struct process_row *row =
		rows->size ? bsearch(key, rows->data, rows->size, sizeof(*key), compare_pids)
			   : NULL;

	return row && row->start == key->start ? row : NULL;
}

/* That it has ended, or that it is a kernel thread, is no error. */
static struct error *add_row(struct process_table *table, int proc, const char *name)
{
	struct process_row row = { .growth = INT64_MIN,
				   .pss = USAGE_UNKNOWN,
				   .swap = USAGE_UNKNOWN };
	struct usage usage;
	struct error *error = usage_read_stat(proc, name, &usage);

	if (error || !usage.size) {
		error_destroy(error);
		return NULL;
	}
	row.pid = (pid_t)strtol(name, NULL, 10);
	row.start = usage.start;
	row.rss = usage.rss;
	memcpy(row.name, usage.name, sizeof(row.name));
	table->rss += row.rss;
	return process_row_vec_append(&table->rows, &row);
}

static struct error *check_interrupted(const struct process_table *table)
{
	return table->interrupted && table->interrupted()
		       ? error_create(ERROR_INTERRUPTED, "interrupted")
		       : NULL;
}

static struct error *read_all(struct process_table *table)
{
	DIR *folder = opendir("/proc");
	struct error *error = NULL;

	if (!folder)
		return error_errno(ERROR_FAILED, errno, "cannot open /proc");
	for (struct dirent *entry; !error && (entry = readdir(folder));) {
		error = check_interrupted(table);
		if (!error && entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			error = add_row(table, dirfd(folder), entry->d_name);
	}
	closedir(folder);
	return error;
}

static int compare_rss(const void *left, const void *right)
{
	const struct process_row *a = left, *b = right;

	if (a->rss != b->rss)
		return a->rss > b->rss ? -1 : 1;
	return compare_pids(left, right);
}

/* What is new grows by nothing: it is not known how fast. */
static void compare_looks(struct process_table *table)
{
	int64_t us = (int64_t)(table->time_us - table->before_us);

	vec_for_each (row, &table->rows) {
		const struct process_row *before = find(&table->before, row);

		if (before && us > 0)
			row->growth = (int64_t)((double)((int64_t)row->rss - (int64_t)before->rss) *
						SECOND_US / (double)us);
	}
}

static struct error *find_gone(struct process_table *table)
{
	struct error *error = NULL;

	vec_for_each (row, &table->before) {
		struct process_row copy = *row;

		copy.group = copy.container = NULL;
		if (!error && !find(&table->rows, row))
			error = process_row_vec_append(&table->gone, &copy);
	}
	sort(&table->gone, compare_rss);
	table->gone.size = min_u64(table->gone.size, PROCESS_GONE_MAX);
	return error;
}

/* The kernel counts them since it runs (Linux 4.13). */
static void count_oom_kills(struct process_table *table)
{
	cleanup(free) char *text = text_of_file(AT_FDCWD, "/proc/vmstat");
	uint64_t kills = text_number(text, "oom_kill ", 0);

	if (!table->before_us)
		table->oom_kills_first = kills;
	table->oom_kills = kills - min_u64(kills, table->oom_kills_first);
}

struct error *process_table_look(struct process_table *table)
{
	struct process_row_vec last = table->rows;
	struct error *error;

	table->rows = table->before;
	table->before = last;
	table->before_us = table->time_us;
	rows_clear(&table->rows);
	table->time_us = clock_us();
	table->rss = 0;
	count_oom_kills(table);
	error = read_all(table);
	if (error)
		return error;
	sort(&table->rows, compare_pids);
	sort(&table->before, compare_pids);
	compare_looks(table);
	return find_gone(table);
}

/* ---- what is shown ---- */

static int row_dirfd(const struct process_row *row)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", (int)row->pid);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void read_usage(struct process_row *row, unsigned parts)
{
	int dirfd = row_dirfd(row);
	struct usage usage;
	struct error *error = dirfd < 0 ? NULL : usage_read(dirfd, USAGE_STAT | parts, &usage);

	if (dirfd >= 0 && !error && usage.start == row->start) {
		if (parts & USAGE_STATUS)
			row->swap = usage.swap;
		if (parts & USAGE_PSS)
			row->pss = usage.pss;
	}
	error_destroy(error);
	if (dirfd >= 0)
		close(dirfd);
}

static struct error *read_usages(struct process_table *table, unsigned parts)
{
	struct error *error = NULL;

	vec_for_each (row, &table->rows) {
		if (!error)
			error = check_interrupted(table);
		if (!error)
			read_usage(row, parts);
	}
	return error;
}

static struct error *read_group(struct process_row *row)
{
	char path[PATH_MAX], name[CGROUP_NAME_MAX];
	int dirfd = row_dirfd(row);
	bool found = dirfd >= 0 && cgroup_memory_path(dirfd, path, sizeof(path));
	const char *container = found ? cgroup_container(path, name) : NULL;

	if (dirfd >= 0)
		close(dirfd);
	if (!found)
		return NULL;
	row->group = strdup(path);
	row->container = container ? strdup(container) : NULL;
	return row->group && (row->container || !container) ? NULL : &error_no_memory;
}

/* Unknown comes last. */
static int compare_values(uint64_t a, uint64_t b)
{
	a = a == USAGE_UNKNOWN ? 0 : a + 1;
	b = b == USAGE_UNKNOWN ? 0 : b + 1;
	return a > b ? -1 : a < b;
}

static int compare_pss(const void *left, const void *right)
{
	const struct process_row *a = left, *b = right;
	int order = compare_values(a->pss, b->pss);

	return order ? order : compare_rss(left, right);
}

static int compare_swap(const void *left, const void *right)
{
	const struct process_row *a = left, *b = right;
	int order = compare_values(a->swap, b->swap);

	return order ? order : compare_rss(left, right);
}

static int compare_growth(const void *left, const void *right)
{
	const struct process_row *a = left, *b = right;

	if (a->growth != b->growth)
		return a->growth > b->growth ? -1 : 1;
	return compare_rss(left, right);
}

struct error *process_table_sort(struct process_table *table, enum process_order order,
				 size_t shown)
{
	static int (*const comparers[])(const void *left, const void *right) = {
		[ORDER_RSS] = compare_rss,
		[ORDER_PSS] = compare_pss,
		[ORDER_GROWTH] = compare_growth,
		[ORDER_SWAP] = compare_swap,
	};
	struct process_row_vec *rows = &table->rows;
	struct error *error = NULL;

	if (order == ORDER_PSS || order == ORDER_SWAP)
		error = read_usages(table,
				    order == ORDER_PSS ? USAGE_PSS | USAGE_STATUS : USAGE_STATUS);
	if (error)
		return error;
	sort(rows, comparers[order]);
	for (size_t i = 0; !error && i < rows->size && i < shown; i++) {
		if (order == ORDER_RSS || order == ORDER_GROWTH)
			read_usage(&rows->data[i], USAGE_STATUS);
		error = read_group(&rows->data[i]);
	}
	return error;
}
