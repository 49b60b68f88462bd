#include "watch_guard.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/cmd.h"
#include "memprobe/io.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

#define GUARDED_MAX 256u
/* A report is begun here, of the limit. */
#define FULL_PERCENT 90u
/* Or where the machine has less available, of its memory. */
#define LEFT_PERCENT 5u
/* No recording begins above it. */
#define RECORD_PERCENT 80u
/* Or where the limit will be reached in so many seconds, which a report may take. */
#define LEAD_SECONDS   20.0
#define GROWTH_SECONDS 5.0
/* Another report of the same process is begun at most so often. */
#define AGAIN_SECONDS 300.0
#define REPORTS_MAX   20u
#define COMMAND_US    30000000u
#define END_US	      20000000u
#define LOOK_US	      20000u

static const char self[] = "/proc/self/exe";

/* ---- the state ---- */

struct guarded {
	int pid;	       /* whom the recording is of; 0: nobody */
	pid_t recorder;	       /* 0: does not run */
	pid_t writer;	       /* of a report; 0: none */
	char report[PATH_MAX]; /* to which the recording belongs when it has ended; "": none yet */
	char recording[PATH_MAX];
	double last; /* when a report was begun; valid with has_report */
	bool has_report;
};

struct watch_guard {
	char *folder;
	unsigned serial; /* of recordings */
	struct guarded guarded[GUARDED_MAX];
};

/* ---- children ---- */

static const char *const capture_commands[][7] = {
	{ "maps", "--by-type", "-o", "maps.txt" },
	{ "mallinfo", "--json", "-o", "mallinfo.json" },
	{ "heap", "--json", "--top=50", "-o", "heap.json" },
	{ "diagnose", "-o", "diagnose.txt" },
};

#define CAPTURE_COMMANDS (sizeof(capture_commands) / sizeof(capture_commands[0]))
#define ARGUMENTS_MAX	 12u

/* Without @parent nobody would end it, were it killed even before this. */
static void end_with(pid_t parent, int signal)
{
	prctl(PR_SET_PDEATHSIG, signal);
	if (getppid() != parent)
		_exit(0);
}

/* The child's part; only what may be called between fork() and exec(). */
static void become(const char *const arguments[], int errors, pid_t parent)
{
	const struct sigaction usual = { .sa_handler = SIG_DFL };

	end_with(parent, SIGINT);
	sigaction(SIGPIPE, &usual, NULL);
	sigaction(SIGXFSZ, &usual, NULL);
	dup2(errors, STDERR_FILENO);
	dup2(errors, STDOUT_FILENO);
	execv(self, (char *const *)arguments);
	_exit(127);
}

/* Its exit status; 124: its time was up. */
static int run_bounded(const char *const arguments[], int errors)
{
	const struct timespec pause = { .tv_nsec = LOOK_US * 1000 };
	uint64_t end = clock_us() + COMMAND_US;
	pid_t parent = getpid(), child = fork();
	bool asked = false;
	int status;

	if (child == 0)
		become(arguments, errors, parent);
	if (child < 0)
		return 126;
	while (waitpid(child, &status, WNOHANG) == 0) {
		if (clock_us() > end) {
			/* It lets its target go. */
			kill(child, asked ? SIGKILL : SIGTERM);
			asked = true;
			end = clock_us() + COMMAND_US / 10;
		}
		nanosleep(&pause, NULL);
	}
	return asked || !WIFEXITED(status) ? 124 : WEXITSTATUS(status);
}

/* `memprobe COMMAND PID ARGUMENT...` for each of @commands, in @report. */
static _Noreturn void write_report(const char *report, const char *const (*commands)[7],
				   size_t count, const char *pid, pid_t parent)
{
	int errors = -1;

	setsid();
	end_with(parent, SIGKILL);
	if (!chdir(report))
		errors = open("messages.txt", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	for (size_t i = 0; errors >= 0 && i < count; i++) {
		const char *arguments[ARGUMENTS_MAX] = { "memprobe", commands[i][0] };
		unsigned used = 2;
		char line[64];

		if (pid)
			arguments[used++] = pid;
		for (unsigned j = 1; j < 7 && commands[i][j]; j++)
			arguments[used++] = commands[i][j];
		snprintf(line, sizeof(line), "%s: exit status %d\n", commands[i][0],
			 run_bounded(arguments, errors));
		if (write(errors, line, strlen(line)) < 0)
			_exit(1);
	}
	_exit(0);
}

/* ---- folders ---- */

static int is_report(const struct dirent *entry)
{
	return !strncmp(entry->d_name, "report-", 7);
}

static void remove_report(int folder, const char *name)
{
	int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *report = fd < 0 ? NULL : fdopendir(fd);

	if (!report)
		return;
	for (struct dirent *entry; (entry = readdir(report));)
		unlinkat(fd, entry->d_name, 0);
	closedir(report);
	unlinkat(folder, name, AT_REMOVEDIR);
}

/* By their names, which begin with the time. */
static void rotate(const struct watch_guard *guard)
{
	struct dirent **entries;
	int count = scandir(guard->folder, &entries, is_report, alphasort);
	int folder = open(guard->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (int i = 0; i < count; i++) {
		if (folder >= 0 && i + (int)REPORTS_MAX < count)
			remove_report(folder, entries[i]->d_name);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	if (folder >= 0)
		close(folder);
}

static bool make_report(const struct watch_guard *guard, const struct watch_sample *sample,
			char path[PATH_MAX])
{
	time_t now = (time_t)sample->time;
	char name[sizeof(sample->usage.name)], text[32] = "";
	struct tm local;

	snprintf(name, sizeof(name), "%s", sample->usage.name);
	for (char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("_-.", *c))
			*c = '_';
	if (localtime_r(&now, &local))
		strftime(text, sizeof(text), "%Y%m%d-%H%M%S", &local);
	snprintf(path, PATH_MAX, "%.3000s/report-%s-%s-%d", guard->folder, text, name, sample->pid);
	if (mkdir(path, 0700) && errno != EEXIST) {
		log_warn("cannot write a report: %s: %s", path, strerror(errno));
		return false;
	}
	rotate(guard);
	return true;
}

static FILE *open_in(const char *report, const char *name)
{
	char path[PATH_MAX];
	FILE *file;

	if (snprintf(path, sizeof(path), "%s/%s", report, name) >= (int)sizeof(path))
		return NULL;
	file = fopen(path, "we");
	if (!file)
		log_warn("cannot write %s: %s", path, strerror(errno));
	return file;
}

/* What the looks have seen: why, the last one, and RSS over time. */
static void write_looks(const char *report, const struct watch_series *series, const char *reason)
{
	unsigned kept = series->samples < WATCH_RECENT ? series->samples : WATCH_RECENT;
	json_t *event =
		json_pack("{s:s, s:o, s:o}", "reason", reason, "last",
			  watch_sample_json(&series->last), "summary", watch_series_json(series));
	FILE *file = open_in(report, "event.json");

	if (file) {
		json_dumpf(event, file, JSON_INDENT(1));
		fputc('\n', file);
		fclose(file);
	}
	json_decref(event);
	file = open_in(report, "rss.csv");
	if (!file)
		return;
	fputs("seconds,rss\n", file);
	for (unsigned i = kept; i > 0; i--) {
		unsigned at = (series->samples - i) % WATCH_RECENT;

		fprintf(file, "%.3f,%.0f\n", series->recent_time[at], series->recent_rss[at]);
	}
	fclose(file);
}

/* ---- the recording ---- */

static void begin_recording(struct watch_guard *guard, struct guarded *guarded, int pid)
{
	char text[16];
	const char *arguments[] = { "memprobe",
				    "allocs",
				    text,
				    "-q",
				    "--format=table",
				    "--top=200",
				    "--max-memory=16M",
				    "-o",
				    guarded->recording,
				    NULL };
	int errors = open("/dev/null", O_WRONLY | O_CLOEXEC);
	pid_t parent = getpid();

	guarded->pid = pid;
	guarded->report[0] = '\0';
	snprintf(text, sizeof(text), "%d", pid);
	snprintf(guarded->recording, sizeof(guarded->recording), "%.3000s/recording-%d-%u.txt",
		 guard->folder, pid, ++guard->serial);
	guarded->recorder = errors < 0 ? -1 : fork();
	if (guarded->recorder == 0) {
		setsid();
		become(arguments, errors, parent);
	}
	if (guarded->recorder < 0)
		guarded->recorder = 0;
	if (errors >= 0)
		close(errors);
}

/* Into its report; where there is none, nobody needs it. */
static void put_recording(struct guarded *guarded)
{
	char path[PATH_MAX];

	if (!guarded->report[0] ||
	    snprintf(path, sizeof(path), "%s/stacks.txt", guarded->report) >= (int)sizeof(path) ||
	    rename(guarded->recording, path))
		unlink(guarded->recording);
}

static void reap(struct guarded *guarded)
{
	int status;

	if (guarded->writer && waitpid(guarded->writer, NULL, WNOHANG))
		guarded->writer = 0;
	if (!guarded->recorder || !waitpid(guarded->recorder, &status, WNOHANG))
		return;
	guarded->recorder = 0;
	if (guarded->report[0])
		put_recording(guarded);
	else if (access(guarded->recording, F_OK))
		log_warn("%d: no stacks: its allocations cannot be recorded (exit status %d)",
			 guarded->pid, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	/* Else its target has ended, which the next look will see. */
}

/* Until all that runs for it has ended, or the time is up. */
static void wait_for(struct guarded *guarded, uint64_t limit_us)
{
	uint64_t end = clock_us() + limit_us;
	const struct timespec pause = { .tv_nsec = LOOK_US * 1000 };

	reap(guarded);
	while ((guarded->recorder || guarded->writer) && clock_us() < end) {
		nanosleep(&pause, NULL);
		reap(guarded);
	}
}

/* ---- when ---- */

static bool machine_is_full(void)
{
	char *text = NULL;
	struct error *error = read_file_at(AT_FDCWD, "/proc/meminfo", &text, NULL);
	const char *total = text ? strstr(text, "MemTotal:") : NULL;
	const char *available = text ? strstr(text, "MemAvailable:") : NULL;
	bool is_full = total && available &&
		       strtoull(available + strlen("MemAvailable:"), NULL, 10) <
			       strtoull(total + strlen("MemTotal:"), NULL, 10) / 100 * LEFT_PERCENT;

	error_destroy(error);
	free(text);
	return is_full;
}

/* An agent takes memory, too: not at the expense of a group that has none left. */
static bool may_record(const struct watch_sample *last)
{
	return !last->has_group || last->group_limit == CGROUP_UNKNOWN ||
	       last->group_usage == CGROUP_UNKNOWN ||
	       last->group_usage / RECORD_PERCENT < last->group_limit / 100;
}

/* NULL: there is none. */
static const char *reason_for(const struct watch_series *series)
{
	const struct watch_sample *last = &series->last;
	double growth = watch_series_growth(series, GROWTH_SECONDS);

	if (!last->has_group || last->group_limit == CGROUP_UNKNOWN ||
	    last->group_usage == CGROUP_UNKNOWN)
		return machine_is_full() ? "the machine's memory is nearly full" : NULL;
	if (last->group_usage / FULL_PERCENT >= last->group_limit / 100)
		return "the control group is nearly full";
	if (!isnan(growth) && growth > 0 && last->group_usage > last->group_limit / 2 &&
	    (double)(last->group_limit - min_u64(last->group_usage, last->group_limit)) / growth <
		    LEAD_SECONDS)
		return "at this rate the control group is full within seconds";
	return machine_is_full() ? "the machine's memory is nearly full" : NULL;
}

static void begin_report(struct watch_guard *guard, struct guarded *guarded,
			 const struct watch_series *series, const char *reason)
{
	char report[PATH_MAX], pid[16];
	pid_t parent = getpid();

	guarded->has_report = true;
	guarded->last = series->last.seconds;
	if (!make_report(guard, &series->last, report))
		return;
	log_warn("%s (%d): %s: writing %s", series->last.usage.name, series->last.pid, reason,
		 report);
	write_looks(report, series, reason);
	snprintf(pid, sizeof(pid), "%d", series->last.pid);
	guarded->writer = fork();
	if (guarded->writer == 0)
		write_report(report, capture_commands, CAPTURE_COMMANDS, pid, parent);
	if (guarded->writer < 0)
		guarded->writer = 0;
	/* It writes what it has, and another one begins. */
	if (guarded->recorder) {
		memcpy(guarded->report, report, sizeof(guarded->report));
		kill(guarded->recorder, SIGINT);
	}
}

void watch_guard_look(struct watch_guard *guard, unsigned index, const struct watch_series *series)
{
	struct guarded *guarded = &guard->guarded[index];
	const char *reason;

	reap(guarded);
	/* Not again where it has failed. */
	if ((guarded->pid != series->last.pid || (!guarded->recorder && guarded->report[0])) &&
	    may_record(&series->last))
		begin_recording(guard, guarded, series->last.pid);
	if (guarded->writer ||
	    (guarded->has_report && series->last.seconds - guarded->last < AGAIN_SECONDS))
		return;
	reason = reason_for(series);
	if (reason)
		begin_report(guard, guarded, series, reason);
}

void watch_guard_ended(struct watch_guard *guard, unsigned index, const struct watch_series *series,
		       bool killed)
{
	static const char *const commands[][7] = { { "oom", "-o", "oom.txt" } };
	struct guarded *guarded = &guard->guarded[index];
	char report[PATH_MAX];
	pid_t parent = getpid();

	/* An end like any other leaves nothing. */
	if (killed && make_report(guard, &series->last, report)) {
		log_warn("%s (%d) was killed for want of memory: writing %s",
			 series->last.usage.name, series->last.pid, report);
		if (!guarded->report[0])
			memcpy(guarded->report, report, sizeof(guarded->report));
		write_looks(report, series, "killed for want of memory");
		wait_for(guarded, END_US);
		guarded->writer = fork();
		if (guarded->writer == 0)
			write_report(report, commands, 1, NULL, parent);
		if (guarded->writer < 0)
			guarded->writer = 0;
	}
	wait_for(guarded, END_US);
	put_recording(guarded);
	guarded->report[0] = '\0';
	guarded->has_report = false;
	guarded->pid = 0;
}

/* ---- begin and end ---- */

struct error *watch_guard_create(const char *folder, struct watch_guard **ret)
{
	struct watch_guard *guard;

	if (mkdir(folder, 0700) && errno != EEXIST)
		return error_errno(ERROR_FAILED, errno, "cannot make %s", folder);
	if (access(folder, W_OK | X_OK))
		return error_errno(ERROR_FAILED, errno, "cannot write in %s", folder);
	guard = calloc(1, sizeof(*guard));
	if (!guard)
		return &error_no_memory;
	/* Children work in folders of their own. */
	guard->folder = realpath(folder, NULL);
	if (!guard->folder) {
		free(guard);
		return error_errno(ERROR_FAILED, errno, "cannot write in %s", folder);
	}
	*ret = guard;
	return NULL;
}

void watch_guard_destroy(struct watch_guard *guard)
{
	if (!guard)
		return;
	for (unsigned i = 0; i < GUARDED_MAX; i++)
		if (guard->guarded[i].recorder)
			kill(guard->guarded[i].recorder, SIGINT);
	for (unsigned i = 0; i < GUARDED_MAX; i++)
		wait_for(&guard->guarded[i], END_US);
	for (unsigned i = 0; i < GUARDED_MAX; i++)
		if (guard->guarded[i].pid)
			put_recording(&guard->guarded[i]);
	free(guard->folder);
	free(guard);
}
