#include "metrics.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/io.h"
#include "memprobe/text.h"

/* Growth is a change over this time. */
#define GROWTH_SECONDS 60.0

/* ---- the figures ---- */

struct metric {
	const char *name; /* without _total */
	const char *help;
	size_t offset;	 /* in struct watch_sample, a uint64_t */
	bool is_counter; /* since the process began */
	double unit;	 /* in which the figure counts */
};

#define OF_PROCESS(name) offsetof(struct watch_sample, usage.name)
#define OF_GROUP(name)	 offsetof(struct watch_sample, name)

static const struct metric metrics[] = {
	{ "memprobe_resident_bytes", "Memory in RAM (RSS).", OF_PROCESS(rss), false, 1 },
	{ "memprobe_resident_anon_bytes", "Part of RSS that is in no file.", OF_PROCESS(anon),
	  false, 1 },
	{ "memprobe_resident_file_bytes", "Part of RSS that is mapped files.", OF_PROCESS(file),
	  false, 1 },
	{ "memprobe_resident_shmem_bytes", "Part of RSS that is shared memory.", OF_PROCESS(shmem),
	  false, 1 },
	{ "memprobe_swap_bytes", "Memory in swap space.", OF_PROCESS(swap), false, 1 },
	{ "memprobe_proportional_bytes",
	  "RSS with shared pages divided by the number of their users (PSS), read every 30 s.",
	  OF_PROCESS(pss), false, 1 },
	{ "memprobe_virtual_bytes", "Address space that is mapped.", OF_PROCESS(size), false, 1 },
	{ "memprobe_page_tables_bytes", "Memory for page tables.", OF_PROCESS(page_tables), false,
	  1 },
	{ "memprobe_threads", "Threads.", OF_PROCESS(threads), false, 1 },
	{ "memprobe_open_fds", "Open file descriptors.", OF_PROCESS(fds), false, 1 },
	{ "memprobe_minor_page_faults", "Page faults that took no input.", OF_PROCESS(minor_faults),
	  true, 1 },
	{ "memprobe_major_page_faults", "Page faults that took input.", OF_PROCESS(major_faults),
	  true, 1 },
	{ "memprobe_cpu_seconds", "CPU time of all threads.", OF_PROCESS(cpu_us), true, 1e-6 },
	{ "memprobe_read_bytes", "Bytes read by read() and its like, sockets included.",
	  OF_PROCESS(read_chars), true, 1 },
	{ "memprobe_written_bytes", "Bytes written by write() and its like, sockets included.",
	  OF_PROCESS(written_chars), true, 1 },
	{ "memprobe_cgroup_usage_bytes",
	  "Memory of the control group without page cache that is not in use.",
	  OF_GROUP(group_usage), false, 1 },
	{ "memprobe_cgroup_limit_bytes", "Limit of the control group.", OF_GROUP(group_limit),
	  false, 1 },
	{ "memprobe_cgroup_oom_kills",
	  "Processes of the control group that the kernel killed for want of memory.",
	  OF_GROUP(group_oom_kills), true, 1 },
};

#define METRICS (sizeof(metrics) / sizeof(metrics[0]))

static bool is_of_group(const struct metric *metric)
{
	return metric->offset >= offsetof(struct watch_sample, group_usage);
}

static uint64_t figure_of(const struct watch_sample *sample, const struct metric *metric)
{
	uint64_t value;

	if (is_of_group(metric) && !sample->has_group)
		return USAGE_UNKNOWN;
	memcpy(&value, (const char *)sample + metric->offset, sizeof(value));
	return value;
}

/* ---- text ---- */

struct writer {
	FILE *out;
	enum metrics_format format;
};

/* In OpenMetrics the family of a counter is called without _total. */
static void print_heading(const struct writer *writer, const char *name, const char *help,
			  bool is_counter)
{
	const char *suffix = is_counter && writer->format == METRICS_PROMETHEUS ? "_total" : "";

	fprintf(writer->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", name, suffix, help, name, suffix,
		is_counter ? "counter" : "gauge");
}

static void print_label(FILE *out, const char *key, const char *text)
{
	cleanup(free) char *printable = text_printable(text);

	fprintf(out, ",%s=\"", key);
	for (const char *c = printable; c && *c; c++) {
		if (*c == '"' || *c == '\\')
			fputc('\\', out);
		fputc(*c, out);
	}
	fputc('"', out);
}

static void print_value(const struct writer *writer, const char *name, bool is_counter,
			const struct metrics_row *row, double value)
{
	const struct watch_sample *last = &row->series->last;

	fprintf(writer->out, "%s%s{pid=\"%d\"", name, is_counter ? "_total" : "", last->pid);
	print_label(writer->out, "name", last->usage.name);
	if (last->has_group)
		print_label(writer->out, "cgroup", last->group_path);
	fprintf(writer->out, "} %.17g\n", value);
}

static void print_metric(const struct writer *writer, const struct metric *metric,
			 const struct metrics_vec *rows)
{
	bool has_heading = false;

	vec_for_each (row, rows) {
		uint64_t value = figure_of(&row->series->last, metric);

		if (!row->up || value == USAGE_UNKNOWN)
			continue;
		if (!has_heading)
			print_heading(writer, metric->name, metric->help, metric->is_counter);
		has_heading = true;
		print_value(writer, metric->name, metric->is_counter, row,
			    (double)value * metric->unit);
	}
}

static void print_growth(const struct writer *writer, const struct metrics_vec *rows)
{
	static const char name[] = "memprobe_resident_growth_bytes_per_second";
	bool has_heading = false;

	vec_for_each (row, rows) {
		double growth = watch_series_growth(row->series, GROWTH_SECONDS);

		if (!row->up || isnan(growth))
			continue;
		if (!has_heading)
			print_heading(writer, name, "Change of RSS over the last minute.", false);
		has_heading = true;
		print_value(writer, name, false, row, growth);
	}
}

static void print_states(const struct writer *writer, const struct metrics_vec *rows)
{
	if (!rows->size)
		return;
	print_heading(writer, "memprobe_up", "1: the process runs; 0: it has ended.", false);
	vec_for_each (row, rows)
		print_value(writer, "memprobe_up", false, row, row->up);
	print_heading(writer, "memprobe_restarts",
		      "Processes of the same name that took the place of one that ended.", true);
	vec_for_each (row, rows)
		print_value(writer, "memprobe_restarts", true, row, row->series->restarts);
}

void metrics_print(FILE *out, enum metrics_format format, const struct metrics_vec *rows)
{
	const struct writer writer = { out, format };

	print_states(&writer, rows);
	for (size_t i = 0; i < METRICS; i++)
		print_metric(&writer, &metrics[i], rows);
	print_growth(&writer, rows);
	if (format == METRICS_OPENMETRICS)
		fputs("# EOF\n", out);
}

/* ---- a file ---- */

static void file_path(const char *folder, const char *name, char path[PATH_MAX])
{
	int length = snprintf(path, PATH_MAX, "%.3000s/memprobe-", folder);

	/* What a process is called may be no name of a file. */
	for (; *name && length < PATH_MAX - 8; name++)
		path[length++] = isalnum((unsigned char)*name) || strchr("_-", *name) ? *name : '_';
	snprintf(path + length, 8, ".prom");
}

static struct error *write_text(int fd, const char *path, const struct metrics_vec *rows)
{
	FILE *out = fdopen(dup(fd), "w");

	if (!out)
		return error_errno(ERROR_FAILED, errno, "cannot write %s", path);
	metrics_print(out, METRICS_PROMETHEUS, rows);
	if ((ferror(out) | fclose(out)) || fchmod(fd, 0644))
		return error_errno(ERROR_FAILED, errno, "cannot write %s", path);
	return NULL;
}

struct error *metrics_write_file(const char *folder, const char *name,
				 const struct metrics_vec *rows)
{
	cleanup(output) struct output *output = NULL;
	char path[PATH_MAX];
	struct error *error;

	file_path(folder, name, path);
	error = output_open(path, &output);
	if (!error)
		error = write_text(output_fd(output), path, rows);
	return error ? error : output_commit(take_pointer(output));
}

void metrics_remove_file(const char *folder, const char *name)
{
	char path[PATH_MAX];

	file_path(folder, name, path);
	unlink(path);
}
