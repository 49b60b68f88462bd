/*
 * Programs that an agent inside of them can harm: `alloc_perils KIND`. All of them allocate in one
 * thread all the time.
 *
 * filter SYSCALL...	a filter of that thread alone kills the process on one of these
 * sharer		a child process shares the memory, without being a thread, and allocates
 * tsc			the time stamp counter must not be read
 * dispatch		its system calls from elsewhere than libc are dispatched to itself
 * closer FILE		another thread closes descriptors that are not its own, and opens FILE
 * locked		mlockall(): what is mapped is to be in memory
 * later		nothing of this until it is told: `filter`, `share` and `unshare`, `lock`,
 *			`fork` (a child that allocates on and on), `strict` (the thread goes under
 *			strict seccomp, and so may neither call the kernel nor read the time stamp
 *			counter), `all` (a filter for all threads that kills for what no libc needs
 *			to allocate)
 */
#include "filter.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

#ifndef PR_SET_TSC
#define PR_SET_TSC     26
#define PR_TSC_SIGSEGV 2
#endif

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH  59
#define PR_SYS_DISPATCH_ON	      1
#define SYSCALL_DISPATCH_FILTER_BLOCK 1
#endif

#define BLOCKS 256

static int killers[8];
static unsigned killer_count;
static atomic_bool strict;

static void work_once(void *blocks[BLOCKS], unsigned long round)
{
	unsigned i = round * 7919 % BLOCKS;
	size_t size = 16 + round * 61 % 3000;

	if (blocks[i]) {
		unsigned char *bytes = blocks[i];

		if (bytes[0] != (unsigned char)i)
			say("WRONG block: %u is %u", bytes[0], (unsigned char)i);
		free(blocks[i]);
	}
	blocks[i] = malloc(size);
	memset(blocks[i], (int)i, size);
	if (round % 64 == 0)
		blocks[i] = realloc(blocks[i], size + 100);
}

static void *work(void *data)
{
	void *blocks[BLOCKS] = { NULL };

	if (killer_count)
		filter_install(killers, killer_count, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW);
	for (unsigned long round = 0;; round++) {
		work_once(blocks, round);
		victim_progress++;
		/* Strict: it may not even sleep. Its arena has been made large enough. */
		if (strict && round > 10 * BLOCKS && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
			break;
		if (round % 16 == 0)
			usleep(100);
	}
	say("strict");
	for (unsigned long round = 0;; round++) {
		work_once(blocks, round);
		victim_progress++;
	}
	return NULL;
}

/* ---- dispatch ---- */

static char dispatch_selector;

static void *begin_dispatch(void *data)
{
	unsigned long start = 0, end = 0;
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];

	while (maps && !start && fgets(line, sizeof(line), maps))
		if (strstr(line, " r-xp ") && strstr(line, "/libc.so.6"))
			sscanf(line, "%lx-%lx", &start, &end);
	check_that(maps && start, "libc");
	fclose(maps);
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, start, end - start,
		  &dispatch_selector))
		say("no dispatch");
	dispatch_selector = SYSCALL_DISPATCH_FILTER_BLOCK;
	say("dispatched");
	return work(NULL);
}

/* ---- closer ---- */

static const char *closer_file;

static void *close_others(void *data)
{
	for (;;) {
		for (int fd = 3; fd < 8; fd++)
			close(fd);
		for (int i = 0; i < 5; i++)
			open(closer_file, O_RDWR | O_CLOEXEC);
	}
	return NULL;
}

static void *begin_closer(void *data)
{
	pthread_t thread;

	check_that(!pthread_create(&thread, NULL, close_others, NULL), "pthread_create");
	return work(NULL);
}

/* ---- sharer ---- */

static volatile bool unshared;

static int share(void *data)
{
	void *blocks[BLOCKS] = { NULL };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned long round = 0; !unshared; round++) {
		work_once(blocks, round);
		if (round % 16 == 0)
			victim_progress++;
	}
	_exit(0);
	return 0;
}

/* The child has this thread's pointer, so this thread waits for it. */
static void *begin_share(void *data)
{
	size_t size = 1 << 18;
	char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int status, pid;

	pid = clone(share, stack + size, CLONE_VM | CLONE_FILES | SIGCHLD, NULL);
	check_that(pid > 0, "clone");
	say("sharer %d", pid);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		say("WRONG sharer: signal %d", WTERMSIG(status));
	say("unshared");
	return NULL;
}

/* ---- born ---- */

static bool command(const char *line)
{
	pthread_t thread;
	pid_t pid;

	if (!strcmp(line, "filter")) {
		filter_install((int[]){ SYS_getppid }, 1, SECCOMP_RET_KILL_PROCESS,
			       SECCOMP_RET_ALLOW);
		say("filtered");
		return true;
	}
	if (!strcmp(line, "strict")) {
		strict = true;
		return true;
	}
	if (!strcmp(line, "all")) {
		static const int calls[] = { SYS_read,		 SYS_write,    SYS_mmap,
					     SYS_munmap,	 SYS_mprotect, SYS_brk,
					     SYS_exit_group,	 SYS_futex,    SYS_clock_nanosleep,
					     SYS_restart_syscall };
		int count = sizeof(calls) / sizeof(calls[0]);

		check_that(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
		check_that(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
				    filter_make(calls, count, SECCOMP_RET_ALLOW,
						SECCOMP_RET_KILL_PROCESS)),
			   "seccomp");
		say("filtered");
		return true;
	}
	if (!strcmp(line, "lock")) {
		int result = mlockall(MCL_CURRENT | MCL_FUTURE);

		say("locked %s", result ? strerror(errno) : "all");
		return true;
	}
	if (!strcmp(line, "share")) {
		check_that(!pthread_create(&thread, NULL, begin_share, NULL), "pthread_create");
		return true;
	}
	if (!strcmp(line, "unshare")) {
		unshared = true;
		return true;
	}
	if (strcmp(line, "fork"))
		return false;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work(NULL);
	}
	say("born %d", (int)pid);
	return true;
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";
	void *(*begin)(void *) = work;
	pthread_attr_t attributes;
	pthread_t thread;

	victim_init();
	mallopt(M_TOP_PAD, 8 << 20);
	pthread_attr_init(&attributes);
	for (int i = 2; !strcmp(kind, "filter") && i < argc && killer_count < 8; i++)
		killers[killer_count++] = (int)victim_number(argc, argv, i, 0);
	if (!strcmp(kind, "sharer"))
		begin = begin_share;
	if (!strcmp(kind, "closer") && argc > 2) {
		closer_file = argv[2];
		begin = begin_closer;
	}
	if (!strcmp(kind, "dispatch"))
		begin = begin_dispatch;
	if (!strcmp(kind, "tsc"))
		check_that(!prctl(PR_SET_TSC, PR_TSC_SIGSEGV), "prctl");
	if (!strcmp(kind, "locked")) {
		check_that(!mlockall(MCL_CURRENT | MCL_FUTURE), "mlockall");
		pthread_attr_setstacksize(&attributes, 256 << 10);
	}
	check_that(!pthread_create(&thread, &attributes, begin, NULL), "pthread_create");
	victim_ready();
	victim_serve(command);
	return 0;
}
