/*
 * sandboxed MODEL: a program under the seccomp filter of a real sandbox, with a thread in each kind
 *of wait that the sandbox allows. The waits end by time, or by a byte from another thread; WRONG:
 *one ended too early, or with another result. `each` prints how many waits of each thread have
 *ended.
 *
 *	openssh		sshd's child before the login (sandbox-seccomp-filter.c): no restart_syscall
 *	chromium	a renderer (baseline_policy.cc, bpf_renderer_policy_linux.cc): SIGSYS
 *	systemd		SystemCallFilter=@system-service; systemd-errno: with
 *SystemCallErrorNumber=EPERM docker		Docker's default profile, which is also Kubernetes'
 *RuntimeDefault nsjail		a kafel policy that allows what the program uses, and kills;
 *nsjail-errno: EPERM
 *	restart-ACTION	all is allowed but restart_syscall: kill, thread, errno, trap, trace,
 *notify, log mixed		every second thread is under restart-kill, the others under no
 *filter late		as nsjail, put on all threads at once after they have begun to wait
 *
 * variants: 32
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <time.h>

#include "filter.h"

#define WAIT_MS	  30
#define FUTEX_ABS (FUTEX_WAIT_BITSET_OP | FUTEX_PRIVATE)
/* linux/futex.h */
#define FUTEX_WAIT_OP	     0
#define FUTEX_WAIT_BITSET_OP 9
#define FUTEX_PRIVATE	     128
#define FUTEX_ANY	     0xffffffff

#define RETURN_KILL	   SECCOMP_RET_KILL_PROCESS
#define RETURN_EPERM	   (SECCOMP_RET_ERRNO | EPERM)
#define CODE_MAX	   1024
#define DATA(field)	   ((uint32_t)offsetof(struct seccomp_data, field))
#define LOAD(field)	   put(BPF_LD | BPF_W | BPF_ABS, 0, 0, DATA(field))
#define SIZE(array)	   (sizeof(array) / sizeof((array)[0]))
#define GLIBC_THREAD_FLAGS 0x3d0f00
#define NAMESPACE_FLAGS	   0x7e020000

/* ---- filters ---- */

static struct sock_filter code[CODE_MAX];
static unsigned length;

static void put(unsigned short operation, unsigned char yes, unsigned char no, uint32_t k)
{
	if (length < CODE_MAX)
		code[length++] = (struct sock_filter){ operation, yes, no, k };
}

static void answer(uint32_t action)
{
	put(BPF_RET | BPF_K, 0, 0, action);
}

/* Expects the call's number in the accumulator, and leaves it there. */
static void on_call(int nr, uint32_t action)
{
	put(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (uint32_t)nr);
	answer(action);
}

static void on_calls(const int *calls, size_t count, uint32_t action)
{
	for (size_t i = 0; i < count; i++)
		on_call(calls[i], action);
}

/* By whether an argument (its low word) has no other bits than @mask, or is @equal to it. */
static void on_argument(int nr, unsigned index, bool equal, uint32_t mask, uint32_t yes,
			uint32_t no)
{
	put(BPF_JMP | BPF_JEQ | BPF_K, 0, equal ? 4 : 5, (uint32_t)nr);
	put(BPF_LD | BPF_W | BPF_ABS, 0, 0, DATA(args[0]) + 8 * index);
	if (!equal)
		put(BPF_ALU | BPF_AND | BPF_K, 0, 0, ~mask);
	put(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, equal ? mask : 0);
	answer(yes);
	answer(no);
}

static void begin(uint32_t other_architecture)
{
	length = 0;
	LOAD(arch);
	put(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, FILTER_ARCH);
	answer(other_architecture);
	LOAD(nr);
}

#ifdef __NR_mmap2
#define MMAP __NR_mmap2
#else
#define MMAP __NR_mmap
#endif

static const int openssh[] = {
	__NR_brk,
	__NR_clock_gettime,
	__NR_close,
	__NR_exit,
	__NR_exit_group,
	__NR_futex,
	__NR_geteuid,
	__NR_getpgid,
	__NR_getpid,
	__NR_getrandom,
	__NR_gettimeofday,
	__NR_getuid,
	__NR_madvise,
	__NR_mremap,
	__NR_munmap,
	__NR_nanosleep,
	__NR_clock_nanosleep,
	__NR_poll,
	__NR_pselect6,
	__NR_read,
	__NR_rt_sigprocmask,
	__NR_select,
	__NR_time,
	__NR_write,
};

static const int chromium[] = {
	__NR_brk,
	__NR_mlock,
	__NR_munlock,
	__NR_munmap,
	__NR_nanosleep,
	__NR_sched_yield,
	__NR_epoll_create1,
	__NR_epoll_ctl,
	__NR_epoll_wait,
	__NR_epoll_pwait,
	__NR_eventfd2,
	__NR_fstat,
	__NR_ftruncate,
	__NR_futex,
	__NR_lseek,
	__NR_poll,
	__NR_ppoll,
	__NR_pread64,
	__NR_read,
	__NR_readv,
	__NR_select,
	__NR_pselect6,
	__NR_write,
	__NR_writev,
	__NR_pipe2,
	__NR_gettimeofday,
	__NR_time,
	__NR_clock_gettime,
	__NR_clock_nanosleep,
	__NR_exit,
	__NR_exit_group,
	__NR_wait4,
	__NR_waitid,
	__NR_rt_sigaction,
	__NR_rt_sigprocmask,
	__NR_rt_sigreturn,
	__NR_rt_sigtimedwait,
	__NR_sigaltstack,
	__NR_getpid,
	__NR_getppid,
	__NR_gettid,
	__NR_getuid,
	__NR_geteuid,
	__NR_restart_syscall,
	__NR_close,
	__NR_dup,
	__NR_dup2,
	__NR_dup3,
	__NR_uname,
	__NR_mincore,
	__NR_memfd_create,
	__NR_mremap,
	__NR_sysinfo,
	__NR_getrandom,
	__NR_pwrite64,
	__NR_times,
};

static const int nsjail[] = {
	__NR_read,
	__NR_write,
	MMAP,
	__NR_munmap,
	__NR_mprotect,
	__NR_brk,
	__NR_mremap,
	__NR_madvise,
	__NR_futex,
	__NR_poll,
	__NR_ppoll,
	__NR_select,
	__NR_pselect6,
	__NR_epoll_wait,
	__NR_epoll_pwait,
	__NR_nanosleep,
	__NR_getpid,
	__NR_gettid,
	__NR_clock_nanosleep,
	__NR_clone,
	__NR_rt_sigaction,
	__NR_rt_sigreturn,
	__NR_rt_sigprocmask,
	__NR_rt_sigpending,
	__NR_exit,
	__NR_exit_group,
	__NR_close,
	__NR_wait4,
	__NR_clock_gettime,
#ifdef __NR_clock_gettime64
	__NR_clock_gettime64,
	__NR__newselect,
#endif
};

#ifdef __x86_64__
/* What the lists leave out of the calls up to 436; younger ones are left out, too. */
static const int not_docker[] = {
	__NR_syslog,	      __NR_uselib,	  __NR_ustat,
	__NR_sysfs,	      __NR_vhangup,	  __NR_pivot_root,
	__NR_chroot,	      __NR_acct,	  __NR_settimeofday,
	__NR_mount,	      __NR_umount2,	  __NR_swapon,
	__NR_swapoff,	      __NR_reboot,	  __NR_sethostname,
	__NR_setdomainname,   __NR_iopl,	  __NR_ioperm,
	__NR_init_module,     __NR_delete_module, __NR_quotactl,
	__NR_lookup_dcookie,  __NR_clock_settime, __NR_mbind,
	__NR_set_mempolicy,   __NR_get_mempolicy, __NR_kexec_load,
	__NR_add_key,	      __NR_request_key,	  __NR_keyctl,
	__NR_migrate_pages,   __NR_unshare,	  __NR_move_pages,
	__NR_perf_event_open, __NR_fanotify_init, __NR_open_by_handle_at,
	__NR_setns,	      __NR_kcmp,	  __NR_finit_module,
	__NR_kexec_file_load, __NR_bpf,		  __NR_userfaultfd,
	__NR_open_tree,	      __NR_move_mount,	  __NR_fsopen,
	__NR_fsconfig,	      __NR_fsmount,	  __NR_fspick,
};

static const int not_system_service[] = {
	__NR_mincore,
	__NR_ptrace,
	__NR_syslog,
	__NR_uselib,
	__NR_ustat,
	__NR_sysfs,
	__NR_vhangup,
	__NR_modify_ldt,
	__NR_pivot_root,
	__NR_adjtimex,
	__NR_chroot,
	__NR_acct,
	__NR_settimeofday,
	__NR_mount,
	__NR_umount2,
	__NR_swapon,
	__NR_swapoff,
	__NR_reboot,
	__NR_sethostname,
	__NR_setdomainname,
	__NR_iopl,
	__NR_ioperm,
	__NR_init_module,
	__NR_delete_module,
	__NR_quotactl,
	__NR_lookup_dcookie,
	__NR_clock_settime,
	__NR_kexec_load,
	__NR_perf_event_open,
	__NR_fanotify_init,
	__NR_fanotify_mark,
	__NR_open_by_handle_at,
	__NR_clock_adjtime,
	__NR_finit_module,
	__NR_seccomp,
	__NR_kexec_file_load,
	__NR_bpf,
	__NR_pkey_mprotect,
	__NR_pkey_alloc,
	__NR_pkey_free,
	__NR_open_tree,
	__NR_move_mount,
	__NR_fsopen,
	__NR_fsconfig,
	__NR_fsmount,
	__NR_fspick,
};
#endif

#ifdef __NR_clone3
#define CLONE3 __NR_clone3
#else
#define CLONE3 435
#endif

static void write_openssh(void)
{
	const uint32_t data = PROT_READ | PROT_WRITE;

	begin(SECCOMP_RET_KILL_THREAD);
	on_call(__NR_fstat, SECCOMP_RET_ERRNO | EACCES);
	on_call(__NR_openat, SECCOMP_RET_ERRNO | EACCES);
	on_calls(openssh, SIZE(openssh), SECCOMP_RET_ALLOW);
	on_argument(MMAP, 2, false, data, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_THREAD);
	on_argument(__NR_mprotect, 2, false, data, SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_THREAD);
	answer(SECCOMP_RET_KILL_THREAD);
}

static void write_chromium(void)
{
	const uint32_t flags = MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK |
			       MAP_NORESERVE | MAP_FIXED | MAP_DENYWRITE | MAP_LOCKED;

	begin(SECCOMP_RET_TRAP);
	on_calls(chromium, SIZE(chromium), SECCOMP_RET_ALLOW);
	on_call(CLONE3, SECCOMP_RET_ERRNO | ENOSYS);
	on_call(__NR_fork, RETURN_EPERM);
	on_argument(__NR_clone, 0, true, GLIBC_THREAD_FLAGS, SECCOMP_RET_ALLOW, SECCOMP_RET_TRAP);
	on_argument(MMAP, 3, false, flags, SECCOMP_RET_ALLOW, SECCOMP_RET_TRAP);
	on_argument(__NR_mprotect, 2, false, PROT_READ | PROT_WRITE | PROT_EXEC, SECCOMP_RET_ALLOW,
		    SECCOMP_RET_TRAP);
	on_argument(__NR_madvise, 2, true, MADV_DONTNEED, SECCOMP_RET_ALLOW, RETURN_EPERM);
	answer(SECCOMP_RET_TRAP);
}

#ifdef __x86_64__
static void write_all_but(const int *calls, size_t count, uint32_t action)
{
	begin(action);
	on_calls(calls, count, action);
	put(BPF_JMP | BPF_JGT | BPF_K, 0, 1, 436);
	answer(action);
}

static void write_docker(void)
{
	write_all_but(not_docker, SIZE(not_docker), RETURN_EPERM);
	on_call(CLONE3, SECCOMP_RET_ERRNO | ENOSYS);
	on_argument(__NR_clone, 0, false, ~NAMESPACE_FLAGS, SECCOMP_RET_ALLOW, RETURN_EPERM);
	answer(SECCOMP_RET_ALLOW);
}
#endif

static void write_nsjail(uint32_t action)
{
	begin(action);
	on_calls(nsjail, SIZE(nsjail), SECCOMP_RET_ALLOW);
	answer(action);
}

static void write_restart(const char *name)
{
	const struct {
		const char *name;
		uint32_t action;
	} actions[] = {
		{ "kill", RETURN_KILL },	{ "thread", SECCOMP_RET_KILL_THREAD },
		{ "errno", RETURN_EPERM },	{ "trap", SECCOMP_RET_TRAP },
		{ "trace", SECCOMP_RET_TRACE }, { "notify", SECCOMP_RET_USER_NOTIF },
		{ "log", SECCOMP_RET_LOG },
	};

	begin(RETURN_KILL);
	for (size_t i = 0; i < SIZE(actions); i++)
		if (!strcmp(name, actions[i].name))
			on_call(__NR_restart_syscall, actions[i].action);
	answer(SECCOMP_RET_ALLOW);
}

/* Nobody listens to what is to be asked. */
static void install(bool on_all)
{
	const struct sock_fprog program = { (unsigned short)length, code };
	long listener, flags = on_all ? SECCOMP_FILTER_FLAG_TSYNC : 0;

	check_that(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	for (unsigned i = 0; i < length; i++)
		if (code[i].code == (BPF_RET | BPF_K) && code[i].k == SECCOMP_RET_USER_NOTIF)
			flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
	listener = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
	check_that(listener >= 0, "seccomp");
	if (listener > 0)
		close((int)listener);
}

static bool write_model(const char *model)
{
	if (!strcmp(model, "openssh"))
		write_openssh();
	else if (!strcmp(model, "chromium"))
		write_chromium();
#ifdef __x86_64__
	else if (!strcmp(model, "docker"))
		write_docker();
	else if (!strncmp(model, "systemd", 7)) {
		write_all_but(not_system_service, SIZE(not_system_service),
			      model[7] ? RETURN_EPERM : RETURN_KILL);
		answer(SECCOMP_RET_ALLOW);
	}
#endif
	else if (!strcmp(model, "nsjail") || !strcmp(model, "late"))
		write_nsjail(RETURN_KILL);
	else if (!strcmp(model, "nsjail-errno"))
		write_nsjail(RETURN_EPERM);
	else if (!strcmp(model, "mixed"))
		write_restart("kill");
	else if (!strncmp(model, "restart-", 8))
		write_restart(model + 8);
	else
		return false;
	return true;
}

/* ---- waits ---- */

static int quiet[2], woken[2]; /* nothing is ever written to the first */
static int epoll;

static struct timespec span(void)
{
	return (struct timespec){ 0, WAIT_MS * 1000000l };
}

static bool by_nanosleep(void)
{
	struct timespec time = span();

	return syscall(__NR_nanosleep, &time, NULL) == 0;
}

/* As sleep(3) does: what is left goes where the time came from. */
static bool by_remainder(void)
{
	struct timespec time = span();

	return syscall(__NR_nanosleep, &time, &time) == 0;
}

static bool by_clock_nanosleep(void)
{
	struct timespec time = span();

	return syscall(__NR_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, NULL) == 0;
}

static bool by_poll(void)
{
	struct pollfd fd = { quiet[0], POLLIN, 0 };

	return syscall(__NR_poll, &fd, 1, WAIT_MS) == 0;
}

static bool by_futex(void)
{
	struct timespec time = span();
	int word = 0;

	return syscall(__NR_futex, &word, FUTEX_WAIT_OP | FUTEX_PRIVATE, 0, &time, NULL, 0) == -1 &&
	       errno == ETIMEDOUT;
}

static bool by_futex_until(void)
{
	struct timespec time;
	int word = 0;

	clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_nsec += WAIT_MS * 1000000l;
	time.tv_sec += time.tv_nsec / 1000000000;
	time.tv_nsec %= 1000000000;
	return syscall(__NR_futex, &word, FUTEX_ABS, 0, &time, NULL, FUTEX_ANY) == -1 &&
	       errno == ETIMEDOUT;
}

static bool by_select(void)
{
	struct timespec time = span();
	fd_set fds;

	FD_ZERO(&fds);
	FD_SET(quiet[0], &fds);
	return syscall(__NR_pselect6, quiet[0] + 1, &fds, NULL, NULL, &time, NULL) == 0;
}

static bool by_ppoll(void)
{
	struct pollfd fd = { quiet[0], POLLIN, 0 };
	struct timespec time = span();

	return syscall(__NR_ppoll, &fd, 1, &time, NULL, 8) == 0;
}

static bool by_epoll(void)
{
	struct epoll_event event;

	return syscall(__NR_epoll_wait, epoll, &event, 1, WAIT_MS) == 0;
}

/* A poll without a limit, which the kernel restarts like one that has. */
static bool for_ever(void)
{
	struct pollfd fd = { woken[0], POLLIN, 0 };
	char byte;

	return syscall(__NR_poll, &fd, 1, -1) == 1 && read(woken[0], &byte, 1) == 1;
}

static bool waking(void)
{
	return by_nanosleep() && write(woken[1], "", 1) == 1;
}

static const struct waiter {
	const char *name;
	bool (*wait)(void);
	bool everywhere; /* also OpenSSH's allows it */
} waiters[] = {
	{ "nanosleep", by_nanosleep, true },
	{ "remainder", by_remainder, true },
	{ "clock_nanosleep", by_clock_nanosleep, true },
	{ "poll", by_poll, true },
	{ "futex", by_futex, true },
	{ "futex_until", by_futex_until, true },
	{ "for_ever", for_ever, true },
	{ "waking", waking, true },
	{ "select", by_select, true },
	{ "ppoll", by_ppoll, false },
	{ "epoll", by_epoll, false },
};

#define WAITERS SIZE(waiters)

static const char *model;
static atomic_ulong ended[WAITERS];
static pthread_barrier_t locked;

static uint64_t now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

static void *serve_waiter(void *data)
{
	const struct waiter *waiter = data;
	size_t index = (size_t)(waiter - waiters);

	if (strcmp(model, "late") && (strcmp(model, "mixed") || index % 2))
		install(false);
	pthread_barrier_wait(&locked);
	for (;;) {
		uint64_t began = now_ms();

		errno = 0;
		if (!waiter->wait())
			say("WRONG %s ended with errno %d", waiter->name, errno);
		else if (waiter->wait != for_ever && now_ms() - began + 1 < WAIT_MS)
			say("WRONG %s took %u ms only", waiter->name, (unsigned)(now_ms() - began));
		ended[index]++;
		victim_progress++;
	}
	return NULL;
}

static bool command(const char *line)
{
	char text[512];
	size_t used = 0;

	if (strcmp(line, "each"))
		return false;
	for (size_t i = 0; i < WAITERS; i++)
		if (waiters[i].everywhere || strcmp(model, "openssh"))
			used += (size_t)snprintf(text + used, sizeof(text) - used, " %lu",
						 (unsigned long)ended[i]);
	say("each%s", text);
	return true;
}

static void on_sigsys(int signal)
{
	say("WRONG SIGSYS");
	_exit(1);
}

int main(int argc, char **argv)
{
	unsigned count = 0;

	model = argc > 1 ? argv[1] : "";
	victim_init();
	if (!write_model(model))
		return 2;
	signal(SIGSYS, on_sigsys);
	check_that(!pipe(quiet) && !pipe(woken) && (epoll = epoll_create1(0)) >= 0, "pipe");
	for (size_t i = 0; i < WAITERS; i++)
		count += waiters[i].everywhere || strcmp(model, "openssh");
	pthread_barrier_init(&locked, NULL, count + 1);
	for (size_t i = 0; i < WAITERS; i++) {
		pthread_t thread;

		if (!waiters[i].everywhere && !strcmp(model, "openssh"))
			continue;
		check_that(!pthread_create(&thread, NULL, serve_waiter, (void *)&waiters[i]),
			   "pthread_create");
	}
	for (int i = 0; i < 5000; i++)
		free(malloc((size_t)(50 + i % 40)));
	victim_ready();
	pthread_barrier_wait(&locked);
	if (!strcmp(model, "late") || strcmp(model, "mixed"))
		install(!strcmp(model, "late"));
	say("locked");
	victim_serve(command);
	syscall(SYS_exit, 0);
	return 0;
}
