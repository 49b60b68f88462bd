#include "watch_sample.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "memprobe/text.h"

/* ---- the figures, by name ---- */

struct figure {
	const char *key;
	size_t offset; /* in struct watch_sample, a uint64_t */
	bool optional; /* left out of the JSON where it is unknown */
};

#define FIGURE(name) offsetof(struct watch_sample, usage.name)

static const struct figure figures[] = {
	{ "rss", FIGURE(rss), false },
	{ "anon", FIGURE(anon), false },
	{ "file", FIGURE(file), false },
	{ "shmem", FIGURE(shmem), false },
	{ "swap", FIGURE(swap), false },
	{ "pss", FIGURE(pss), true },
	{ "threads", FIGURE(threads), false },
	{ "fds", FIGURE(fds), false },
	{ "minor_faults", FIGURE(minor_faults), false },
	{ "major_faults", FIGURE(major_faults), false },
	{ "cpu_us", FIGURE(cpu_us), false },
	{ "read_chars", FIGURE(read_chars), false },
	{ "written_chars", FIGURE(written_chars), false },
};

#define FIGURES (sizeof(figures) / sizeof(figures[0]))

static uint64_t figure_of(const struct watch_sample *sample, size_t i)
{
	uint64_t value;

	memcpy(&value, (const char *)sample + figures[i].offset, sizeof(value));
	return value;
}

/* ---- JSON ---- */

static json_t *group_json(const struct watch_sample *sample)
{
	json_t *object;

	if (!sample->has_group)
		return json_null();
	object = json_object();
	json_object_set_new(object, "path", json_text(sample->group_path));
	json_object_set_new(object, "usage", json_number(sample->group_usage));
	json_object_set_new(object, "limit", json_number(sample->group_limit));
	json_object_set_new(object, "oom_kills", json_number(sample->group_oom_kills));
	return object;
}

json_t *watch_sample_json(const struct watch_sample *sample)
{
	json_t *object = json_object();

	json_object_set_new(object, "time", json_real(sample->time));
	json_object_set_new(object, "seconds", json_real(sample->seconds));
	json_object_set_new(object, "series", json_integer(sample->series));
	json_object_set_new(object, "pid", json_integer(sample->pid));
	json_object_set_new(object, "name", json_text(sample->usage.name));
	for (size_t i = 0; i < FIGURES; i++) {
		uint64_t value = figure_of(sample, i);

		if (value != USAGE_UNKNOWN || !figures[i].optional)
			json_object_set_new(object, figures[i].key, json_number(value));
	}
	json_object_set_new(object, "cgroup", group_json(sample));
	return object;
}

static uint64_t number_in(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;

	return number < 0 ? USAGE_UNKNOWN : (uint64_t)number;
}

static void take_text(const json_t *object, const char *key, char *buffer, size_t size)
{
	const char *text = json_string_value(json_object_get(object, key));

	snprintf(buffer, size, "%s", text ? text : "");
}

static void parse_group(const json_t *group, struct watch_sample *ret)
{
	ret->has_group = json_is_object(group);
	if (!ret->has_group)
		return;
	take_text(group, "path", ret->group_path, sizeof(ret->group_path));
	ret->group_usage = number_in(group, "usage");
	ret->group_limit = number_in(group, "limit");
	ret->group_oom_kills = number_in(group, "oom_kills");
}

#define SERIES_MAX 4096u

static bool parse_object(const json_t *object, struct watch_sample *ret)
{
	const json_t *time = json_object_get(object, "time");
	const json_t *seconds = json_object_get(object, "seconds");
	uint64_t series = number_in(object, "series"), pid = number_in(object, "pid");

	if (!json_is_number(time) || !json_is_number(seconds) || series >= SERIES_MAX ||
	    pid > INT32_MAX || number_in(object, "rss") == USAGE_UNKNOWN)
		return false;
	memset(ret, 0xff, sizeof(*ret));
	ret->series = (unsigned)series;
	ret->time = json_number_value(time);
	ret->seconds = json_number_value(seconds);
	ret->pid = (int)pid;
	take_text(object, "name", ret->usage.name, sizeof(ret->usage.name));
	for (size_t i = 0; i < FIGURES; i++) {
		uint64_t value = number_in(object, figures[i].key);

		memcpy((char *)ret + figures[i].offset, &value, sizeof(value));
	}
	parse_group(json_object_get(object, "cgroup"), ret);
	return true;
}

bool watch_sample_parse(const char *text, struct watch_sample *ret)
{
	json_error_t unused;
	json_t *object = json_loads(text, 0, &unused);
	bool found = json_is_object(object) && parse_object(object, ret);

	json_decref(object);
	return found;
}

/* ---- CSV ---- */

void watch_csv_heading(FILE *out)
{
	fputs("time,pid,name", out);
	for (size_t i = 0; i < FIGURES; i++)
		fprintf(out, ",%s", figures[i].key);
	fputs(",cgroup_usage,cgroup_limit\n", out);
}

/* As RFC 4180 has it: quotes doubled. */
static void csv_text(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"')
			fputc('"', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void csv_number(FILE *out, uint64_t value)
{
	fputc(',', out);
	if (value != USAGE_UNKNOWN)
		fprintf(out, "%" PRIu64, value);
}

void watch_csv_row(FILE *out, const struct watch_sample *sample)
{
	fprintf(out, "%.3f,%d,", sample->time, sample->pid);
	csv_text(out, sample->usage.name);
	for (size_t i = 0; i < FIGURES; i++)
		csv_number(out, figure_of(sample, i));
	csv_number(out, sample->has_group ? sample->group_usage : USAGE_UNKNOWN);
	csv_number(out, sample->has_group ? sample->group_limit : USAGE_UNKNOWN);
	fputc('\n', out);
}

/* ---- text ---- */

void watch_text_heading(FILE *out)
{
	fprintf(out, "%-8s  %7s  %7s  %7s  %7s  %6s  %7s  %5s  %s\n", "TIME", "PID", "RSS", "ANON",
		"SWAP", "CPU%", "THREADS", "FDS", "NAME");
}

static const char *size_text(struct table_style style, uint64_t bytes, char *buffer)
{
	return bytes == USAGE_UNKNOWN ? "-" : table_size(style, bytes, buffer);
}

static const char *count_text(uint64_t count, char buffer[24])
{
	if (count == USAGE_UNKNOWN)
		return "-";
	snprintf(buffer, 24, "%" PRIu64, count);
	return buffer;
}

static void cpu_text(const struct watch_sample *sample, const struct watch_sample *before,
		     char buffer[16])
{
	double seconds = before ? sample->seconds - before->seconds : 0;

	snprintf(buffer, 16, "-");
	if (seconds > 0 && before->pid == sample->pid &&
	    sample->usage.cpu_us >= before->usage.cpu_us && sample->usage.cpu_us != USAGE_UNKNOWN)
		snprintf(buffer, 16, "%.0f",
			 (double)(sample->usage.cpu_us - before->usage.cpu_us) / seconds / 1e4);
}

void watch_text_row(FILE *out, struct table_style style, const struct watch_sample *sample,
		    const struct watch_sample *before)
{
	char sizes[3][TABLE_SIZE_MAX], counts[2][24], cpu[16], clock[16] = "";
	cleanup(free) char *name = text_printable(sample->usage.name);
	time_t seconds = (time_t)sample->time;
	struct tm local;

	if (localtime_r(&seconds, &local))
		strftime(clock, sizeof(clock), "%H:%M:%S", &local);
	cpu_text(sample, before, cpu);
	fprintf(out, "%-8s  %7d  %7s  %7s  %7s  %6s  %7s  %5s  %s\n", clock, sample->pid,
		size_text(style, sample->usage.rss, sizes[0]),
		size_text(style, sample->usage.anon, sizes[1]),
		size_text(style, sample->usage.swap, sizes[2]), cpu,
		count_text(sample->usage.threads, counts[0]),
		count_text(sample->usage.fds, counts[1]), name ? name : "");
}
