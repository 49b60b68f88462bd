/*
 * killer at|random KILLS PID COMMAND...
 *
 * Runs COMMAND (memprobe at work on the process PID) again and again and kills it by SIGKILL each
 * time: `at` each of its system calls in turn, at entry and at exit, from the first that changes
 * the target on; `random`: at an instant drawn from [0, 1.3 x its median duration]. No hook in
 * memprobe is needed for either.
 *
 * After every kill PID must live, none of its threads may be traced, and none stopped (with
 * KILLER_STOPPED=1 in the environment: all must be). Prints where it killed and
 *
 *	kills=N ended=N failed=N bad=N
 *
 * where `ended` are runs that were over before their turn, and `failed` those of them that did not
 * exit with 0 or 7. Exits with 1 if any was bad.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/ptrace.h>

#define RUN_LIMIT 60 /* seconds for one run */

struct place {
	char name[64];
	unsigned count;
};

struct killer {
	pid_t target;
	char **command;
	bool stopped; /* how the target is meant to be */
	unsigned kills, ended, failed, bad;
	struct place places[256];
	unsigned place_count;
};

static void die(const char *what)
{
	fprintf(stderr, "killer: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- the target afterwards ---- */

/* One thread's state and tracer; false: it is gone. */
static bool read_thread(pid_t target, const char *tid, char *state_ret, int *tracer_ret)
{
	char path[320], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)target, tid);
	file = fopen(path, "r");
	if (!file)
		return false;
	*state_ret = 0;
	*tracer_ret = 0;
	while (fgets(line, sizeof(line), file)) {
		sscanf(line, "State: %c", state_ret);
		sscanf(line, "TracerPid: %d", tracer_ret);
	}
	fclose(file);
	return *state_ret != 0;
}

/* NULL: as it should be. */
static const char *look_at_target(const struct killer *killer)
{
	static char text[320];
	char path[64], state;
	const char *found = "it is gone";
	struct dirent *entry;
	int tracer;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)killer->target);
	directory = opendir(path);
	while (directory && (entry = readdir(directory))) {
		bool stopped;

		if (entry->d_name[0] == '.' ||
		    !read_thread(killer->target, entry->d_name, &state, &tracer))
			continue;
		stopped = state == 'T' || state == 't';
		if (state != 'X' &&
		    (state != 'Z' || strtol(entry->d_name, NULL, 10) == killer->target))
			found = NULL;
		if (!tracer && stopped == killer->stopped && state != 'Z')
			continue;
		snprintf(text, sizeof(text), "thread %s is in state %c, traced by %d",
			 entry->d_name, state, tracer);
		found = text;
		break;
	}
	if (directory)
		closedir(directory);
	return found;
}

/* What the kernel does at the end of a tracer takes an instant. */
static void check_target(struct killer *killer, const char *where)
{
	uint64_t deadline = now_us() + 60000000;
	const char *problem;

	while ((problem = look_at_target(killer)) && now_us() < deadline)
		usleep(1000);
	if (!problem)
		return;
	killer->bad++;
	printf("BAD after %s: %s\n", where, problem);
	if (kill(killer->target, 0) < 0)
		exit(1);
}

/* ---- runs ---- */

static pid_t start(const struct killer *killer, bool traced)
{
	pid_t pid = fork();
	int null;

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	null = open("/dev/null", O_RDWR);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	if (!getenv("KILLER_VERBOSE"))
		dup2(null, STDERR_FILENO);
	if (traced && ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(127);
	execvp(killer->command[0], killer->command);
	_exit(127);
}

static void note_end(struct killer *killer, int status)
{
	bool good = WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7);

	killer->ended++;
	if (good)
		return;
	killer->failed++;
	printf("run ended with status %x\n", status);
}

static void note_kill(struct killer *killer, const char *where)
{
	struct place *place = killer->places;

	killer->kills++;
	while (place < killer->places + killer->place_count && strcmp(place->name, where))
		place++;
	if (place == killer->places + killer->place_count) {
		if (killer->place_count == sizeof(killer->places) / sizeof(killer->places[0]))
			return;
		snprintf(place->name, sizeof(place->name), "%s", where);
		killer->place_count++;
	}
	place->count++;
}

/* ---- at random ---- */

static int compare_times(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t median_duration(struct killer *killer)
{
	uint64_t times[7];

	for (unsigned i = 0; i < 7; i++) {
		uint64_t since = now_us();
		int status;
		pid_t pid = start(killer, false);

		waitpid(pid, &status, 0);
		if (!WIFEXITED(status) || (WEXITSTATUS(status) && WEXITSTATUS(status) != 7)) {
			printf("run ended with status %x\n", status);
			exit(1);
		}
		times[i] = now_us() - since;
	}
	qsort(times, 7, sizeof(times[0]), compare_times);
	return times[3];
}

static void kill_at_random(struct killer *killer, unsigned kills)
{
	uint64_t span = median_duration(killer) * 13 / 10;

	printf("killing within %llu us\n", (unsigned long long)span);
	srandom((unsigned)now_us());
	for (unsigned i = 0; i < kills; i++) {
		uint64_t delay = (uint64_t)random() % span;
		pid_t pid = start(killer, false);
		int status;

		usleep((useconds_t)delay);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		if (WIFSIGNALED(status))
			note_kill(killer, "some instant");
		else
			note_end(killer, status);
		check_target(killer, "some instant");
	}
}

/* ---- at its system calls ---- */

static const char *request_name(uint64_t request)
{
	switch (request) {
	case PTRACE_PEEKDATA:
		return "PEEKDATA";
	case PTRACE_POKEDATA:
		return "POKEDATA";
	case PTRACE_POKEUSER:
		return "POKEUSER";
	case PTRACE_CONT:
		return "CONT";
	case PTRACE_GETREGS:
		return "GETREGS";
	case PTRACE_SETREGS:
		return "SETREGS";
	case PTRACE_DETACH:
		return "DETACH";
	case PTRACE_SYSCALL:
		return "SYSCALL";
	case PTRACE_GETEVENTMSG:
		return "GETEVENTMSG";
	case PTRACE_SEIZE:
		return "SEIZE";
	case PTRACE_INTERRUPT:
		return "INTERRUPT";
	case PTRACE_LISTEN:
		return "LISTEN";
	default:
		return "other";
	}
}

static void name_call(const struct __ptrace_syscall_info *info, char name[48])
{
	static const struct {
		long number;
		const char *name;
	} names[] = {
		{ SYS_pwrite64, "pwrite64" },
		{ SYS_pread64, "pread64" },
		{ SYS_waitid, "waitid" },
		{ SYS_rt_sigtimedwait, "rt_sigtimedwait" },
		{ SYS_read, "read" },
		{ SYS_process_vm_readv, "process_vm_readv" },
		{ SYS_openat, "openat" },
		{ SYS_close, "close" },
		{ SYS_write, "write" },
		{ SYS_clock_nanosleep, "clock_nanosleep" },
		{ SYS_futex, "futex" },
		{ SYS_exit, "exit" },
		{ SYS_exit_group, "exit_group" },
	};

	if (info->entry.nr == SYS_ptrace) {
		snprintf(name, 48, "ptrace(%s)", request_name(info->entry.args[0]));
		return;
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if ((long)info->entry.nr == names[i].number) {
			snprintf(name, 48, "%s", names[i].name);
			return;
		}
	snprintf(name, 48, "system call %d", (int)info->entry.nr);
}

/* One traced run of memprobe. */
struct traced {
	pid_t pid;
	unsigned event;	  /* stops seen since the first change */
	unsigned kill_at; /* at this one */
	bool changing;
	struct {
		pid_t tid;
		char call[48];
	} threads[16];
	char where[64];
	bool killed;
};

/* The name that a thread's last entry was given. */
static char *call_of(struct traced *traced, pid_t tid)
{
	for (unsigned i = 0; i < 16; i++)
		if (traced->threads[i].tid == tid || !traced->threads[i].tid) {
			traced->threads[i].tid = tid;
			return traced->threads[i].call;
		}
	return traced->threads[15].call;
}

/* A thread of memprobe is stopped at a system call: kills it, or lets it go on. */
static void on_call(struct traced *traced, pid_t tid)
{
	struct __ptrace_syscall_info info = { 0 };
	char *name = call_of(traced, tid);

	if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) < 0)
		return;
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
		name_call(&info, name);
		if (info.entry.nr == SYS_pwrite64 || info.entry.nr == SYS_ptrace)
			traced->changing = true;
	}
	if (!traced->changing)
		return;
	if (traced->event++ != traced->kill_at)
		return;
	snprintf(traced->where, sizeof(traced->where), "%s %s", name,
		 info.op == PTRACE_SYSCALL_INFO_ENTRY ? "entry" : "exit");
	traced->killed = true;
	kill(traced->pid, SIGKILL);
}

/*
 * Status of the process that was started, as wait(2) gives it. A child that does its work outlives
 * its kill to finish something, and is let go as it is seen then.
 */
static int follow(struct traced *traced)
{
	uint64_t deadline = now_us() + RUN_LIMIT * UINT64_C(1000000);
	int status, result = 0;
	pid_t tid;

	for (;;) {
		int signal;

		tid = waitpid(-1, &status, __WALL);
		if (tid < 0 && errno == ECHILD)
			return result;
		if (tid < 0)
			die("waitpid");
		if (!WIFSTOPPED(status)) {
			if (tid == traced->pid)
				result = status;
			continue;
		}
		if (now_us() > deadline) {
			printf("a run lasted more than %d s\n", RUN_LIMIT);
			kill(traced->pid, SIGKILL);
			continue;
		}
		signal = WSTOPSIG(status);
		if (signal == (SIGTRAP | 0x80))
			on_call(traced, tid);
		if (traced->killed) {
			ptrace(PTRACE_DETACH, tid, NULL, NULL);
			continue;
		}
		if (signal == (SIGTRAP | 0x80) || signal == SIGTRAP || signal == SIGSTOP)
			signal = 0;
		ptrace(PTRACE_SYSCALL, tid, NULL, (void *)(uintptr_t)signal);
	}
}

static int run_traced(struct killer *killer, struct traced *traced)
{
	int status;

	traced->pid = start(killer, true);
	waitpid(traced->pid, &status, 0);
	if (!WIFSTOPPED(status) ||
	    ptrace(PTRACE_SETOPTIONS, traced->pid, NULL,
		   PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
			   PTRACE_O_EXITKILL) < 0 ||
	    ptrace(PTRACE_SYSCALL, traced->pid, NULL, NULL) < 0)
		die("cannot trace");
	return follow(traced);
}

static void kill_at_calls(struct killer *killer, unsigned kills)
{
	struct traced whole = { .kill_at = UINT32_MAX };
	unsigned events;
	int status = run_traced(killer, &whole);

	if (status && status != 7 << 8) {
		printf("run ended with status %x\n", status);
		exit(1);
	}
	events = whole.event;
	printf("killing at %u of %u stops\n", kills < events ? kills : events, events);
	for (unsigned i = 0; i < kills; i++) {
		struct traced traced = {
			.kill_at = kills < events ? (unsigned)((uint64_t)i * events / kills)
						  : i % events,
		};

		status = run_traced(killer, &traced);
		if (traced.killed)
			note_kill(killer, traced.where);
		else
			note_end(killer, status);
		check_target(killer, traced.killed ? traced.where : "a whole run");
	}
}

int main(int argc, char **argv)
{
	static struct killer killer;
	const char *stopped = getenv("KILLER_STOPPED");
	unsigned kills;

	if (argc < 5) {
		fprintf(stderr, "usage: killer at|random KILLS PID COMMAND...\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	kills = (unsigned)strtoul(argv[2], NULL, 10);
	killer.target = (pid_t)strtol(argv[3], NULL, 10);
	killer.command = argv + 4;
	killer.stopped = stopped && *stopped == '1';
	if (!strcmp(argv[1], "at"))
		kill_at_calls(&killer, kills);
	else
		kill_at_random(&killer, kills);
	for (unsigned i = 0; i < killer.place_count; i++)
		printf("%6u  %s\n", killer.places[i].count, killer.places[i].name);
	printf("kills=%u ended=%u failed=%u bad=%u\n", killer.kills, killer.ended, killer.failed,
	       killer.bad);
	return killer.bad != 0;
}
