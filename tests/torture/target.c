/*
 * `torture [KIND[=THREADS]]... [alarm=HZ] [exec=MS]`: threads that each verify their own semantics
 * (target.h). Without a KIND: all of them. alarm: a process-directed SIGALRM with a handler that
 * often. exec: the process executes itself again every so many milliseconds.
 *
 * Commands: `report` prints `report KIND wrong=N eintr=N checks=N` for each kind, then
 * `reported`; `alive` waits until every thread has gone on, then prints `alive` (or `stuck TID
 * KIND`); `ping` and `exit` as in victim.h.
 */
#include "target.h"

#include <sys/time.h>

static struct kind kinds[] = {
	{ "cpu", run_cpu, 1, false, 0, 0, 0, 0 },
	{ "red_zone", run_red_zone, 1, false, 0, 0, 0, 0 },
	{ "vector", run_vector, 1, false, 0, 0, 0, 0 },
	{ "nanosleep", run_nanosleep, 2, true, 0, 0, 0, 0 },
	{ "poll", run_poll, 1, true, 0, 0, 0, 0 },
	{ "epoll", run_epoll, 1, true, 0, 0, 0, 0 },
	{ "epoll_timeout", run_epoll_timeout, 1, true, 0, 0, 0, 0 },
	{ "futex", run_futex, 1, true, 0, 0, 0, 0 },
	{ "futex_timeout", run_futex_timeout, 1, true, 0, 0, 0, 0 },
	{ "sigtimedwait", run_sigtimedwait, 1, true, 0, 0, 0, 0 },
	{ "semtimedop", run_semtimedop, 1, true, 0, 0, 0, 0 },
	{ "pipe", run_pipe, 2, true, 0, 0, 0, 0 },
	{ "cond", run_cond, 2, false, 0, 0, 0, 0 },
	{ "accept", run_accept, 2, true, 0, 0, 0, 0 },
	{ "sigsuspend", run_sigsuspend, 1, false, 0, 0, 0, 0 },
	{ "queue", run_queue, 1, false, 0, 0, 0, 0 },
	{ "malloc", run_malloc, 1, false, 0, 0, 0, 0 },
	{ "cancel", run_cancel, 1, false, 0, 0, 0, 0 },
	{ "create", run_create, 1, false, 0, 0, 0, 0 },
	{ "fork", run_fork, 1, true, 0, 0, 0, 0 },
	{ "signal_stack", run_signal_stack, 1, false, 0, 0, 0, 0 },
	{ "small_stack", run_small_stack, 2, true, 0, 0, 0, 0 },
};

#define KIND_COUNT  (sizeof(kinds) / sizeof(kinds[0]))
#define THREADS_MAX 256

__thread struct progress *own_progress;
__thread volatile sig_atomic_t handlers_run;

static struct progress progress[THREADS_MAX];
static unsigned thread_count;
static atomic_ulong lines_said;

void round_done(struct kind *kind)
{
	kind->checks++;
	victim_progress++;
	if (own_progress)
		own_progress->rounds++;
}

void round_wrong(struct kind *kind, const char *format, ...)
{
	int saved = errno;
	char text[256];
	va_list args;

	kind->wrong++;
	if (lines_said++ > 40)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	say("WRONG %s in %d: %s (errno %d)", kind->name, (int)victim_tid(), text, saved);
}

bool wait_failed(struct kind *kind, int handlers_before, int expected)
{
	if (errno == EINTR) {
		if (handlers_run == handlers_before)
			kind->eintr++;
		return true;
	}
	if (errno != expected)
		round_wrong(kind, "the wait failed");
	return false;
}

void expect_errno(struct kind *kind, const char *what)
{
	if (errno != ERRNO_SENTINEL)
		round_wrong(kind, "%s changed errno", what);
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

struct timespec ns_to_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

void expect_elapsed(struct kind *kind, uint64_t start, uint64_t ns, const char *what)
{
	uint64_t elapsed = now_ns() - start;

	if (elapsed < ns)
		round_wrong(kind, "%s lasted %llu of %llu ns", what, (unsigned long long)elapsed,
			    (unsigned long long)ns);
}

uint32_t random_next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

uint32_t random_seed(void)
{
	return 2463534242u ^ ((uint32_t)victim_tid() * 2654435761u);
}

void sleep_us(unsigned us)
{
	struct timespec left = ns_to_timespec((uint64_t)us * 1000);

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

pthread_t spawn(void *(*function)(void *), void *data)
{
	pthread_t thread;
	int failed = pthread_create(&thread, NULL, function, data);

	if (failed) {
		say("WRONG pthread_create: %s", strerror(failed));
		exit(3);
	}
	return thread;
}

/* ---- the threads ---- */

static void *thread_main(void *data)
{
	own_progress = data;
	own_progress->tid = victim_tid();
	own_progress->kind->run(own_progress->kind,
				(unsigned)(own_progress - progress) % THREADS_MAX);
	return NULL;
}

static void start_kind(struct kind *kind)
{
	/* Pairs begin at even indexes. */
	thread_count = (thread_count + 1) & ~1u;
	for (unsigned i = 0; i < kind->threads && thread_count < THREADS_MAX; i++) {
		progress[thread_count].kind = kind;
		spawn(thread_main, &progress[thread_count]);
		thread_count++;
	}
}

static void report(void)
{
	for (size_t i = 0; i < KIND_COUNT; i++)
		if (kinds[i].threads)
			say("report %s wrong=%lu eintr=%lu checks=%lu", kinds[i].name,
			    (unsigned long)kinds[i].wrong, (unsigned long)kinds[i].eintr,
			    (unsigned long)kinds[i].checks);
	say("reported");
}

/* Every thread must make a round within half a minute, which none of them needs. */
static void check_alive(void)
{
	unsigned long before[THREADS_MAX];
	uint64_t deadline = now_ns() + UINT64_C(30000000000);

	for (unsigned i = 0; i < thread_count; i++)
		before[i] = progress[i].rounds;
	for (unsigned i = 0; i < thread_count; i++) {
		while (progress[i].kind && progress[i].rounds == before[i] && now_ns() < deadline)
			sleep_us(1000);
		if (progress[i].kind && progress[i].rounds == before[i]) {
			say("stuck %d %s", (int)progress[i].tid, progress[i].kind->name);
			return;
		}
	}
	say("alive");
}

static bool command(const char *line)
{
	if (!strcmp(line, "report"))
		report();
	else if (!strcmp(line, "alive"))
		check_alive();
	else
		return false;
	return true;
}

static void on_alarm(int signal)
{
	handlers_run++;
}

static void start_alarm(unsigned long hertz)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct itimerval timer = { .it_interval.tv_usec = 1000000 / (long)hertz };

	timer.it_value = timer.it_interval;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

static char **own_argv;

static void *exec_again(void *milliseconds)
{
	sleep_us(1000 * (unsigned)(uintptr_t)milliseconds);
	/* It says ready only once. */
	setenv("TORTURE_AGAIN", "1", 1);
	execv("/proc/self/exe", own_argv);
	say("WRONG execve: %s", strerror(errno));
	return NULL;
}

static bool parse(const char *word, bool *any_kind)
{
	const char *equals = strchr(word, '=');
	size_t length = equals ? (size_t)(equals - word) : strlen(word);
	unsigned long number = equals ? strtoul(equals + 1, NULL, 10) : 0;

	for (size_t i = 0; i < KIND_COUNT; i++)
		if (strlen(kinds[i].name) == length && !strncmp(kinds[i].name, word, length)) {
			kinds[i].threads = equals ? (unsigned)number : kinds[i].default_threads;
			return *any_kind = true;
		}
	return (!strncmp(word, "alarm=", 6) || !strncmp(word, "exec=", 5)) && number;
}

int main(int argc, char **argv)
{
	bool any_kind = false;

	own_argv = argv;
	victim_init();
	for (int i = 1; i < argc; i++)
		if (!parse(argv[i], &any_kind)) {
			fprintf(stderr, "torture: unknown: %s\n", argv[i]);
			return 2;
		}
	for (size_t i = 0; i < KIND_COUNT && !any_kind; i++)
		kinds[i].threads = kinds[i].default_threads;
	for (size_t i = 0; i < KIND_COUNT; i++)
		if (kinds[i].threads)
			start_kind(&kinds[i]);
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "alarm=", 6))
			start_alarm(strtoul(argv[i] + 6, NULL, 10));
		if (!strncmp(argv[i], "exec=", 5))
			spawn(exec_again, (void *)(uintptr_t)strtoul(argv[i] + 5, NULL, 10));
	}
	if (!getenv("TORTURE_AGAIN"))
		victim_ready();
	victim_serve(command);
	return 0;
}
