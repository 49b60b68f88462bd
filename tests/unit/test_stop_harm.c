/* What waits and signals of a process notice of 1,000 stops: nothing. */
#include "children.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/ptrace.h"

#define ROUNDS	1000
#define WAIT_MS 20

/* ---- waits ---- */

static long in_nanosleep(void)
{
	struct timespec time = { .tv_nsec = WAIT_MS * 1000000 };

	return nanosleep(&time, NULL);
}

static long in_epoll_wait(void)
{
	struct epoll_event event;
	static int fd = -1;

	if (fd < 0)
		fd = epoll_create1(0);
	return epoll_wait(fd, &event, 1, WAIT_MS);
}

static long in_sigtimedwait(void)
{
	struct timespec time = { .tv_nsec = WAIT_MS * 1000000 };
	sigset_t set;
	long result;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	result = sigtimedwait(&set, NULL, &time);
	return result < 0 && errno == EAGAIN ? 0 : result;
}

static int semaphore = -1;

static long in_semtimedop(void)
{
	struct timespec time = { .tv_nsec = WAIT_MS * 1000000 };
	struct sembuf take = { .sem_op = -1 };
	long result = semtimedop(semaphore, &take, 1, &time);

	return result < 0 && errno == EAGAIN ? 0 : result;
}

static long (*const waits[])(void) = { in_nanosleep, in_epoll_wait, in_sigtimedwait,
				       in_semtimedop };

#define WAIT_KINDS (sizeof(waits) / sizeof(waits[0]))

static void *wait_forever(void *data)
{
	uintptr_t kind = (uintptr_t)data % WAIT_KINDS;

	__atomic_add_fetch(&shared->ready, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		uint64_t begin = clock_us();
		long result = waits[kind]();

		if (result < 0 && errno == EINTR)
			__atomic_add_fetch(&shared->eintr, 1, __ATOMIC_SEQ_CST);
		else if (result)
			__atomic_add_fetch(&shared->wrong, 1, __ATOMIC_SEQ_CST);
		else if (clock_us() - begin < WAIT_MS * 1000)
			__atomic_add_fetch(&shared->early, 1, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&shared->waits[kind], 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void live_waiting(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	start_threads(2 * WAIT_KINDS, wait_forever);
	for (;;)
		pause();
}

static void test_waits_go_on(void **state)
{
	unsigned long before[WAIT_KINDS], eintr, early, wrong;

	semaphore = semget(IPC_PRIVATE, 1, 0600);
	assert_true(semaphore >= 0);
	start_child(live_waiting);
	wait_for(&shared->ready, 2 * WAIT_KINDS);
	stop_rounds(ROUNDS, 2 * WAIT_KINDS + 1, 300);
	for (size_t i = 0; i < WAIT_KINDS; i++)
		before[i] = shared->waits[i];
	for (size_t i = 0; i < WAIT_KINDS; i++) {
		assert_true(before[i] > 0);
		wait_for(&shared->waits[i], before[i] + 2);
	}
	eintr = shared->eintr;
	early = shared->early;
	wrong = shared->wrong;
	/* From here on semtimedop() fails. */
	semctl(semaphore, 0, IPC_RMID);
	assert_int_equal(eintr, 0);
	assert_int_equal(early, 0);
	assert_int_equal(wrong, 0);
	child_state();
}

/* ---- signals ---- */

static void on_queued(int signal, siginfo_t *info, void *context)
{
	static volatile int next;

	/* Real-time signals of one number arrive in order, whichever thread takes them; the handler
	 * blocks them for its own thread only, so that order is checked with one thread open to
	 * them. */
	if (info->si_value.sival_int != next)
		shared->disordered++;
	next = info->si_value.sival_int + 1;
	shared->received++;
}

static void on_alarm(int signal)
{
	shared->alarms++;
}

static void *spin(void *data)
{
	sigset_t set;

	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	__atomic_add_fetch(&shared->ready, 1, __ATOMIC_SEQ_CST);
	for (;;)
		usleep(500);
	return NULL;
}

static void live_signalled(void)
{
	struct sigaction action = { .sa_sigaction = on_queued,
				    .sa_flags = SA_SIGINFO | SA_RESTART };
	struct itimerspec tick = { .it_interval.tv_nsec = 1000000, .it_value.tv_nsec = 1000000 };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	sigset_t set;
	timer_t timer;

	sigaction(SIGRTMIN, &action, NULL);
	action.sa_handler = on_alarm;
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	action.sa_handler = SIG_IGN;
	sigaction(SIGUSR2, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGALRM);
	/* The threads inherit a mask without the signals that the main thread counts. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	start_threads(3, spin);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &tick, NULL))
		_exit(1);
	__atomic_add_fetch(&shared->ready, 1, __ATOMIC_SEQ_CST);
	for (;;)
		for (volatile unsigned i = 0; i < 100000; i++)
			;
}

/* Another process queues real-time signals, as fast as the queue takes them, until told to end. */
static void start_sender(void)
{
	helper = fork();
	assert_true(helper >= 0);
	if (helper == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (!shared->end) {
			union sigval value = { .sival_int = (int)shared->sent };

			if (sigqueue(child, SIGRTMIN, value) == 0)
				shared->sent++;
			else if (errno != EAGAIN)
				_exit(1);
			kill(child, SIGUSR2);
			usleep(100);
		}
		_exit(0);
	}
}

static void check_signals(void)
{
	int status;
	unsigned long alarms;

	wait_for(&shared->sent, 101);
	shared->end = true;
	assert_int_equal(waitpid(helper, &status, 0), helper);
	helper = 0;
	assert_int_equal(status, 0);
	wait_for(&shared->received, shared->sent);
	assert_int_equal(shared->received, shared->sent);
	assert_int_equal(shared->disordered, 0);
	alarms = shared->alarms;
	wait_for(&shared->alarms, alarms + 5);
	assert_true(child_state() != 'T');
}

static void test_signals_are_kept(void **state)
{
	start_child(live_signalled);
	wait_for(&shared->ready, 4);
	start_sender();
	stop_rounds(ROUNDS, 4, 0);
	check_signals();
}

/* The same with a memprobe that is killed at any instant. */
static void start_prober(pid_t *pid)
{
	*pid = fork();
	assert_true(*pid >= 0);
	if (*pid == 0) {
		struct target *target;
		struct stop *stop;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (target_open_live(child, &target))
			_exit(1);
		for (;;) {
			if (stop_threads(target, NULL, &stop))
				_exit(1);
			stop_destroy(stop);
		}
	}
}

static void test_signals_are_kept_by_the_killed(void **state)
{
	start_child(live_signalled);
	wait_for(&shared->ready, 4);
	start_sender();
	for (unsigned kills = 0; kills < ROUNDS / 4; kills++) {
		pid_t prober;
		int status;

		start_prober(&prober);
		usleep(1000 + kills * 7919 % 4000);
		kill(prober, SIGKILL);
		assert_int_equal(waitpid(prober, &status, 0), prober);
		assert_true(WIFSIGNALED(status));
	}
	check_signals();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHILD_TEST(test_waits_go_on),
		CHILD_TEST(test_signals_are_kept),
		CHILD_TEST(test_signals_are_kept_by_the_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
