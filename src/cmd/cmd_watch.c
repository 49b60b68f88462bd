#include "memprobe/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "metrics.h"
#include "watch_guard.h"
#include "watch_series.h"
#include "watch_trigger.h"

#define INTERVAL_DEFAULT_US 1000000u
#define INTERVAL_LEAST_US   10000u
/* PSS takes a walk along the page tables, during which the target can map nothing. */
#define PSS_EVERY_US 30000000u
#define WATCHED_MAX  256u
/* A kill counts at once; the process ends when all its memory has been released. */
#define KILL_TAKES_SECONDS 10.0
#define LINE_MOST	   16384u /* of a recording */

static const struct command_option options[] = {
	{ "interval", 'i', "TIME", "time between two looks (default 1s)" },
	{ "duration", 'd', "TIME", "end after so long (default: at Ctrl-C, or the target's end)" },
	{ "csv", 0, NULL, "comma-separated values" },
	{ "when", 0, "CONDITION", "'rss>2G', 'growth>10M/s for 60s', 'limit>90%', ..." },
	{ "run", 0, "COMMAND", "what --when runs, by sh: {pid}, {name}, {time} are replaced" },
	{ "every", 0, "TIME", "run it again at most so often (default: once)" },
	{ "guard", 0, "DIR", "keep a report in DIR of a process that runs out of memory" },
	{ "listen", 0, "ADDR:PORT", "serve metrics for Prometheus, at http://ADDR:PORT/metrics" },
	{ "textfile", 0, "DIR", "write metrics to DIR, for node_exporter" },
	{ NULL, 0, NULL, NULL },
};

enum form { FORM_TEXT, FORM_JSON, FORM_CSV };

/* One of those on the command line, or of the several that bear a name. */
struct watched {
	char *name;		 /* owned; by which its successor is found; NULL: a PID */
	struct process *process; /* NULL: it has ended */
	uint64_t oom_kills;	 /* of its control group, at the last look */
	double killed_at;	 /* when there was the last one more, in seconds; NaN: never */
	struct watch_series series;
	struct watch_trigger_state trigger;
};

struct watch_run {
	struct command_context *context;
	enum form form;
	uint64_t interval_us, duration_us; /* 0: without end */
	struct watch_trigger trigger;
	struct watched *watched[WATCHED_MAX];
	size_t count;
	FILE *record;		       /* -o; NULL: none */
	struct watch_guard *guard;     /* NULL: none */
	struct metrics_server *server; /* NULL: none */
	const char *metrics_folder;    /* NULL: no file */
	uint64_t begin_us;
	uint64_t pss_us; /* when it is read again */
	bool has_begun;
	bool has_heading;
	struct table_style style;
};

/* ---- whom to watch ---- */

static struct error *add(struct watch_run *run, pid_t pid, const char *name)
{
	struct watched *watched;
	struct error *error;

	if (run->count == WATCHED_MAX)
		return error_create(ERROR_USAGE, "more than %u processes", WATCHED_MAX);
	watched = calloc(1, sizeof(*watched));
	if (!watched)
		return &error_no_memory;
	run->watched[run->count++] = watched;
	watched->oom_kills = CGROUP_UNKNOWN;
	watched->killed_at = NAN;
	watched->name = name ? strdup(name) : NULL;
	error = process_open(pid, &watched->process);
	if (!error && process_has_ended(watched->process))
		error = error_create(ERROR_NO_TARGET, "process %d has ended", (int)pid);
	return error;
}

static struct error *add_named(struct watch_run *run, const char *name)
{
	struct pid_vec pids = { 0 };
	struct error *error = process_find_by_name(name, &pids);

	if (!error && !pids.size)
		error = error_hint(error_create(ERROR_NO_TARGET, "no process is called '%s'", name),
				   "give a PID, the exact name that `ps -e` shows, or a recording");
	vec_for_each (pid, &pids)
		if (!error)
			error = add(run, *pid, name);
	pid_vec_deinit(&pids);
	return error;
}

static struct error *add_target(struct watch_run *run, const char *text)
{
	uint64_t pid;
	struct error *error = parse_u64(text, &pid);

	if (error) {
		error_destroy(error);
		return add_named(run, text);
	}
	if (!pid || pid > INT32_MAX)
		return error_create(ERROR_NO_TARGET, "no process %s", text);
	return add(run, (pid_t)pid, NULL);
}

static bool is_watched(const struct watch_run *run, pid_t pid)
{
	for (size_t i = 0; i < run->count; i++)
		if (run->watched[i]->process && run->watched[i]->process->pid == pid)
			return true;
	return false;
}

/* Whether another process of its name has come. */
static void find_successor(struct watch_run *run, struct watched *watched)
{
	struct pid_vec pids = { 0 };

	if (watched->name)
		error_destroy(process_find_by_name(watched->name, &pids));
	vec_for_each (pid, &pids) {
		if (watched->process || is_watched(run, *pid))
			continue;
		error_destroy(process_open(*pid, &watched->process));
		if (watched->process && process_has_ended(watched->process))
			process_close(take_pointer(watched->process));
	}
	pid_vec_deinit(&pids);
	if (watched->process)
		log_warn("%s runs again, as %d", watched->name, (int)watched->process->pid);
}

/* ---- output ---- */

static struct error *check_stream(FILE *out, const char *what)
{
	if (fflush(out) || ferror(out))
		return error_errno(ERROR_FAILED, errno, "cannot write %s", what);
	return NULL;
}

static struct error *write_json_line(FILE *out, json_t *object)
{
	if (!object)
		return &error_no_memory;
	json_dumpf(object, out, JSON_COMPACT | JSON_REAL_PRECISION(15));
	fputc('\n', out);
	json_decref(object);
	return NULL;
}

static void write_heading(const struct watch_run *run)
{
	if (run->form == FORM_CSV)
		watch_csv_heading(stdout);
	else if (run->form == FORM_TEXT && !run->context->quiet)
		watch_text_heading(stdout);
}

static struct error *write_sample(struct watch_run *run, const struct watch_sample *sample,
				  const struct watch_sample *before)
{
	struct error *error = NULL;

	if (!run->has_heading)
		write_heading(run);
	run->has_heading = true;
	if (run->record)
		error = write_json_line(run->record, watch_sample_json(sample));
	if (!error && run->record)
		error = check_stream(run->record, run->context->output_path);
	if (error)
		return error;
	if (run->form == FORM_JSON)
		error = write_json_line(stdout, watch_sample_json(sample));
	else if (run->form == FORM_CSV)
		watch_csv_row(stdout, sample);
	else if (!run->context->quiet)
		watch_text_row(stdout, run->style, sample, before);
	return error ? error : check_stream(stdout, "standard output");
}

static struct error *write_summaries(struct watch_run *run)
{
	struct error *error = NULL;

	for (size_t i = 0; !error && i < run->count; i++) {
		const struct watch_series *series = &run->watched[i]->series;
		FILE *streams[] = { run->form == FORM_JSON ? stdout : NULL, run->record };

		for (unsigned j = 0; !error && j < 2; j++)
			if (streams[j] && series->samples)
				error = write_json_line(
					streams[j],
					json_pack("{s:o}", "summary", watch_series_json(series)));
		if (run->form == FORM_TEXT)
			watch_series_print(stdout, run->style, series);
	}
	if (!error && run->record)
		error = check_stream(run->record, run->context->output_path);
	return error ? error : check_stream(stdout, "standard output");
}

/* ---- a look ---- */

static struct error *take_sample(struct watch_run *run, size_t i, bool reads_pss,
				 struct watch_sample *ret)
{
	const struct process *process = run->watched[i]->process;
	unsigned parts = USAGE_ALL_QUICK | (reads_pss ? USAGE_PSS : 0);
	struct error *error = usage_read(process->dirfd, parts, &ret->usage);
	struct cgroup_memory group;

	if (error)
		return error;
	ret->series = (unsigned)i;
	ret->time = (double)clock_real_us() / 1e6;
	ret->seconds = (double)(clock_us() - run->begin_us) / 1e6;
	ret->pid = process->pid;
	cgroup_read_memory(process, &group);
	ret->has_group = group.known;
	if (group.known) {
		snprintf(ret->group_path, sizeof(ret->group_path), "%.511s", group.path);
		ret->group_usage = group.limit == CGROUP_UNKNOWN ? group.usage : group.limit_usage;
		ret->group_limit = group.limit;
		ret->group_oom_kills = group.oom_kills;
	}
	return NULL;
}

static void count_kills(struct watched *watched, uint64_t kills, double seconds)
{
	if (kills == CGROUP_UNKNOWN)
		return;
	if (watched->oom_kills != CGROUP_UNKNOWN && kills > watched->oom_kills)
		watched->killed_at = seconds;
	watched->oom_kills = kills;
}

static void see_end(struct watch_run *run, size_t i)
{
	struct watched *watched = run->watched[i];
	const struct watch_sample *last = &watched->series.last;
	uint64_t kills = last->has_group ? cgroup_oom_kills(last->group_path) : CGROUP_UNKNOWN;
	char size[SIZE_TEXT_MAX];
	bool killed;

	count_kills(watched, kills, last->seconds);
	killed = last->seconds - watched->killed_at < KILL_TAKES_SECONDS;

	log_warn("%s (%d) has ended%s; its RSS was %s", last->usage.name,
		 (int)watched->process->pid,
		 killed ? ", and its control group had a process killed for want of memory" : "",
		 format_size(last->usage.rss == USAGE_UNKNOWN ? 0 : last->usage.rss, size));
	process_close(take_pointer(watched->process));
	watched->series.ended = true;
	if (run->guard && watched->series.samples)
		watch_guard_ended(run->guard, (unsigned)i, &watched->series, killed);
}

static struct error *look_at(struct watch_run *run, size_t i, bool reads_pss)
{
	struct watched *watched = run->watched[i];
	struct watch_sample sample = { 0 }, before = watched->series.last;
	bool is_first = !watched->series.samples;
	struct error *error;

	if (!watched->process)
		find_successor(run, watched);
	if (!watched->process)
		return NULL;
	error = take_sample(run, i, reads_pss, &sample);
	if (error_is(error, ERROR_NO_TARGET)) {
		error_destroy(error);
		see_end(run, i);
		return NULL;
	}
	/* On its way out it has no memory any more. */
	if (error || sample.usage.rss == USAGE_UNKNOWN)
		return error;
	watched->series.ended = false;
	if (sample.has_group)
		count_kills(watched, sample.group_oom_kills, sample.seconds);
	watch_series_add(&watched->series, &sample);
	watch_trigger_look(&run->trigger, &watched->series, &watched->trigger);
	if (run->guard)
		watch_guard_look(run->guard, (unsigned)i, &watched->series);
	return write_sample(run, &sample, is_first ? NULL : &before);
}

/* ---- metrics ---- */

static struct error *publish(const struct watch_run *run)
{
	struct metrics_vec rows = { 0 };
	struct error *error = NULL;

	if (!run->server && !run->metrics_folder)
		return NULL;
	for (size_t i = 0; !error && i < run->count; i++) {
		const struct watched *watched = run->watched[i];
		struct metrics_row row = { &watched->series, watched->process != NULL };

		if (watched->series.samples)
			error = metrics_vec_append(&rows, &row);
	}
	if (!error && run->server)
		error = metrics_server_set(run->server, &rows);
	if (!error && run->metrics_folder)
		error = metrics_write_file(run->metrics_folder, run->context->arguments[0], &rows);
	metrics_vec_deinit(&rows);
	return error;
}

static struct error *start_server(struct watch_run *run)
{
	const char *address = command_option(run->context, "listen");
	struct error *error = address ? metrics_server_start(address, &run->server) : NULL;

	if (run->server && !run->context->quiet)
		fprintf(stderr, "memprobe: metrics at %s\n", metrics_server_url(run->server));
	return error;
}

/* Figures of who is not watched any more are none. */
static void stop_publishing(struct watch_run *run)
{
	metrics_server_stop(run->server);
	if (run->metrics_folder)
		metrics_remove_file(run->metrics_folder, run->context->arguments[0]);
}

/* Whether there is anything to wait for. */
static bool has_more(const struct watch_run *run)
{
	for (size_t i = 0; i < run->count; i++)
		if (run->watched[i]->process || run->watched[i]->name)
			return true;
	return false;
}

static struct error *watch(struct watch_run *run)
{
	uint64_t next = run->begin_us = clock_us();
	struct error *error = NULL;

	while (!error && !command_interrupted()) {
		bool reads_pss = next >= run->pss_us;

		for (size_t i = 0; !error && i < run->count; i++)
			error = look_at(run, i, reads_pss);
		if (reads_pss)
			run->pss_us = next + PSS_EVERY_US;
		if (!error)
			error = publish(run);
		if (!error && !run->has_begun)
			log_debug("recording begins");
		run->has_begun = true;
		if (run->trigger.command)
			watch_trigger_reap(false);
		if (error || !has_more(run))
			break;
		next += run->interval_us;
		if (run->duration_us && next > run->begin_us + run->duration_us)
			break;
		/* Looks that were missed are not made up for. */
		if (next < clock_us())
			next = clock_us();
		command_sleep_until(next);
	}
	if (!error)
		error = write_summaries(run);
	if (run->trigger.command)
		watch_trigger_reap(true);
	return error;
}

/* ---- a recording ---- */

static struct error *replay_line(struct watch_run *run, const char *line)
{
	struct watch_sample sample, before;
	struct watched *watched;
	bool is_first;

	if (!watch_sample_parse(line, &sample) || sample.series >= WATCHED_MAX)
		return NULL;
	while (run->count <= sample.series) {
		run->watched[run->count] = calloc(1, sizeof(struct watched));
		if (!run->watched[run->count])
			return &error_no_memory;
		run->count++;
	}
	watched = run->watched[sample.series];
	before = watched->series.last;
	is_first = !watched->series.samples;
	watch_series_add(&watched->series, &sample);
	return write_sample(run, &sample, is_first ? NULL : &before);
}

static struct error *replay(struct watch_run *run, const char *path)
{
	FILE *file = fopen(path, "re");
	struct error *error = NULL;
	char line[LINE_MOST];
	bool found = false;

	if (!file)
		return error_errno(ERROR_NO_TARGET, errno, "cannot open %s", path);
	/* What is longer is no line of ours, nor are its pieces. */
	while (!error && fgets(line, sizeof(line), file) && !command_interrupted())
		error = replay_line(run, line);
	fclose(file);
	for (size_t i = 0; i < run->count; i++)
		found = found || run->watched[i]->series.samples;
	if (!error && !found)
		error = error_create(ERROR_FAILED, "%s is no recording of `memprobe watch`", path);
	return error ? error : write_summaries(run);
}

/* A process may bear the name of a file here. */
static bool is_recording(const char *path)
{
	static const char begin[] = "{\"time\":";
	char text[sizeof(begin)] = "";
	FILE *file = fopen(path, "re");
	bool is_it = file && fgets(text, sizeof(text), file) && !strcmp(text, begin);

	if (file)
		fclose(file);
	return is_it;
}

/* ---- the command ---- */

static struct error *time_option(const struct command_context *context, const char *name,
				 uint64_t *ret)
{
	const char *text = command_option(context, name);

	return text ? parse_time(text, ret) : NULL;
}

static struct error *parse_trigger(struct watch_run *run)
{
	const struct command_context *context = run->context;
	const char *when = command_option(context, "when");

	run->trigger.command = command_option(context, "run");
	if (!when != !run->trigger.command)
		return error_create(ERROR_USAGE, "--when and --run belong together");
	/* Each waits for the children that it has started. */
	if (when && command_option(context, "guard"))
		return error_create(ERROR_USAGE, "--guard and --when exclude each other");
	return when ? watch_condition_parse(when, &run->trigger.condition) : NULL;
}

static struct error *parse(struct watch_run *run)
{
	struct command_context *context = run->context;
	bool csv = command_option(context, "csv");
	struct error *error = time_option(context, "interval", &run->interval_us);

	if (!error)
		error = time_option(context, "duration", &run->duration_us);
	if (!error)
		error = time_option(context, "every", &run->trigger.every_us);
	if (!error)
		error = parse_trigger(run);
	if (error)
		return error;
	if (csv && context->json)
		return error_create(ERROR_USAGE, "--csv and --json exclude each other");
	if (run->interval_us < INTERVAL_LEAST_US)
		return error_create(ERROR_USAGE, "--interval is 10ms at least");
	if (command_option(context, "duration") && !run->duration_us)
		return error_create(ERROR_USAGE, "--duration is more than 0");
	run->metrics_folder = command_option(context, "textfile");
	run->form = csv ? FORM_CSV : context->json ? FORM_JSON : FORM_TEXT;
	return NULL;
}

/* Written in place: what has been recorded is there even if memprobe is killed. */
static struct error *open_record(struct watch_run *run)
{
	const char *path = run->context->output_path;
	int fd;

	if (command_prints_to_stdout(run->context))
		return NULL;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	run->record = fd < 0 ? NULL : fdopen(fd, "w");
	if (run->record)
		return NULL;
	return error_errno(ERROR_FAILED, errno, "cannot write %s", path);
}

static void destroy(struct watch_run *run)
{
	for (size_t i = 0; i < run->count; i++) {
		process_close(run->watched[i]->process);
		free(run->watched[i]->name);
		free(run->watched[i]);
	}
	if (run->record)
		fclose(run->record);
}

static struct error *run(struct command_context *context)
{
	struct watch_run run = {
		.context = context,
		.interval_us = INTERVAL_DEFAULT_US,
		.style = command_style(context),
	};
	struct error *error = parse(&run);

	if (!error && context->argument_count == 1 && is_recording(context->arguments[0])) {
		error = command_prints_to_stdout(context)
				? replay(&run, context->arguments[0])
				: error_create(ERROR_USAGE, "a recording is not recorded again");
	} else {
		for (int i = 0; !error && i < context->argument_count; i++)
			error = add_target(&run, context->arguments[i]);
		if (!error)
			error = open_record(&run);
		if (!error && command_option(context, "guard"))
			error = watch_guard_create(command_option(context, "guard"), &run.guard);
		if (!error)
			error = start_server(&run);
		if (!error)
			error = watch(&run);
		stop_publishing(&run);
		watch_guard_destroy(run.guard);
	}
	destroy(&run);
	return error;
}

const struct command cmd_watch = {
	.name = "watch",
	.arguments = "TARGET...",
	.summary = "memory over time: how fast it grows, until when, and what it moves with",
	.notes =
		"TARGET: PIDs, names, which are followed when the process is started again, or one "
		"recording\nthat -o has written. Nothing is stopped but by --guard, and no mapping is walked.\n",
	.target = TARGET_NONE,
	.options = options,
	.arguments_min = 1,
	.arguments_max = WATCHED_MAX,
	.records = RECORDS_ALWAYS,
	.run = run,
};
