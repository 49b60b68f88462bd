/*
 * Opens the events: one for each thread, CPU and spec. An event of a thread on one CPU may be
 * inherited by new threads and still write to a ring, which one of a thread on all CPUs may not
 * (kernel/events/core.c, perf_mmap()).
 *
 * A thread that was born while the events were being opened may have inherited some and then got
 * its own: its samples by inherited events are left out, by the event's id.
 */
#include "perf_session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/log.h"
#include "memprobe/memory_room.h"
#include "memprobe/num.h"

/* Younger than the headers of some systems: PERF_FORMAT_LOST. */
#define FORMAT_LOST (1u << 4)

#define RING_BYTES (64u << 20)

/* Rings take no more than this part of what memory there is: they are to bring nobody to its
 * limit, who may share ours with the target. */
#define ROOM_SHARE 16
#define RING_MIN   (256u << 10)
#define PASSES_MAX 64
#define PARANOID   "/proc/sys/kernel/perf_event_paranoid"
#define MLOCK_KB   "/proc/sys/kernel/perf_event_mlock_kb"

/* Rings of less keep only halves, or quarters, of stacks that may be cut. */
#define STACKS_WHOLE (16u << 20)
#define STACKS_HALF  (2u << 20)

static long read_number(const char *path, long otherwise)
{
	cleanup(fclose) FILE *file = fopen(path, "re");
	long value;

	return file && fscanf(file, "%ld", &value) == 1 ? value : otherwise;
}

static struct error *explain(const struct perf_session *session, int errnum)
{
	pid_t pid = session->target->pid;

	if (errnum == EACCES || errnum == EPERM)
		return error_hint(
			error_create(ERROR_PERMISSION,
				     "cannot watch %d: not permitted (perf_event_paranoid is %ld)",
				     pid, read_number(PARANOID, -2)),
			"grant CAP_PERFMON (setcap cap_perfmon,cap_sys_ptrace+ep memprobe), run as "
			"root, or lower /proc/sys/kernel/perf_event_paranoid");
	if (errnum == ENOSYS || errnum == ENOENT || errnum == EOPNOTSUPP || errnum == ENODEV)
		return error_errno(ERROR_UNSUPPORTED, errnum,
				   "cannot watch %d: this kernel has no such event", pid);
	if (errnum == EMFILE || errnum == ENFILE)
		return error_hint(error_errno(ERROR_FAILED, errnum, "cannot watch %d", pid),
				  "each thread takes a descriptor for each CPU and event: raise "
				  "ulimit -n");
	return error_errno(ERROR_FAILED, errnum, "cannot watch %d", pid);
}

static void fill_attr(const struct perf_session *session, unsigned spec, bool first,
		      struct perf_event_attr *attr)
{
	const struct perf_spec *wanted = &session->specs[spec];

	*attr = (struct perf_event_attr){
		.size = sizeof(*attr),
		.type = wanted->type,
		.config = wanted->config,
		.config1 = wanted->config1,
		.config2 = wanted->config2,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_TYPE_ALL_OURS,
		.read_format = session->no_lost_format ? 0 : FORMAT_LOST,
		.disabled = 1,
		.inherit = !session->one_thread,
		.exclude_kernel = session->user_only,
		.exclude_hv = 1,
		.watermark = 1,
		.wakeup_watermark = (uint32_t)(session->ring_bytes / 4),
		.sample_id_all = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
		.sample_regs_user = perf_registers(session, spec),
		.sample_stack_user = perf_stack_bytes(session, spec),
		/* Births, ends and new programs are told once. */
		.task = first,
		.comm = first,
		.comm_exec = first,
	};
	if (!session->lean)
		attr->sample_type |= PERF_SAMPLE_IP | PERF_SAMPLE_ADDR;
	if (!attr->sample_stack_user)
		attr->sample_type &= ~(uint64_t)PERF_SAMPLE_STACK_USER;
}

/* PERF_FORMAT_LOST is Linux 6.0: without it only the records of loss are counted. */
static int open_event(struct perf_session *session, unsigned spec, pid_t tid, int cpu)
{
	struct perf_event_attr attr;
	int fd;

	for (;;) {
		fill_attr(session, spec, spec == 0, &attr);
		fd = (int)syscall(SYS_perf_event_open, &attr, tid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
		if (fd >= 0)
			return fd;
		if (errno == EINVAL && !session->no_lost_format && !session->events.size)
			session->no_lost_format = true;
		else if ((errno == EACCES || errno == EPERM) && session->user_only_allowed &&
			 !session->user_only && !session->events.size)
			session->user_only = true;
		else
			return -1;
	}
}

/* Joins the ring of its CPU, or makes it. */
static struct error *give_ring(struct perf_session *session, struct perf_ring *ring, int fd)
{
	if (ring->fd >= 0)
		return ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, ring->fd) ? explain(session, errno)
								      : NULL;
	for (;; session->ring_bytes /= 2, session->ring_limited = true) {
		int errnum = perf_ring_map(ring, fd, session->ring_bytes);

		if (!errnum)
			return NULL;
		if ((errnum != EPERM && errnum != ENOMEM) || session->ring_bytes <= RING_MIN)
			return error_hint(
				error_errno(ERROR_FAILED, errnum, "cannot map a ring for events"),
				"raise ulimit -l or "
				"/proc/sys/kernel/perf_event_mlock_kb");
	}
}

static struct error *add_event(struct perf_session *session, unsigned spec, pid_t tid, unsigned cpu)
{
	struct perf_ring *ring = &session->rings[cpu];
	struct perf_event event = { .spec = spec, .tid = tid, .cpu = cpu };
	struct error *error;

	event.fd = open_event(session, spec, tid, ring->cpu);
	if (event.fd < 0)
		return errno == ESRCH ? error_create(ERROR_NO_TARGET, "thread %d has ended", tid)
				      : explain(session, errno);
	error = give_ring(session, ring, event.fd);
	if (!error && ioctl(event.fd, PERF_EVENT_IOC_ID, &event.id))
		error = explain(session, errno);
	if (!error)
		error = perf_event_vec_append(&session->events, &event);
	if (error && ring->fd != event.fd)
		close(event.fd);
	return error;
}

static struct error *add_thread(struct perf_session *session, pid_t tid)
{
	struct error *error = NULL;

	for (unsigned spec = 0; spec < session->spec_count && !error; spec++)
		for (unsigned cpu = 0; cpu < session->ring_count && !error; cpu++)
			error = add_event(session, spec, tid, cpu);
	if (error_is(error, ERROR_NO_TARGET)) {
		/* It has ended; its siblings go on. */
		error_destroy(error);
		return NULL;
	}
	return error ? error : pid_vec_append(&session->own, &tid);
}

static bool is_known(const struct pid_vec *tids, pid_t tid)
{
	vec_for_each (known, tids)
		if (*known == tid)
			return true;
	return false;
}

/* Until a pass finds no thread that is new. */
static struct error *add_threads(struct perf_session *session)
{
	bool found = true;

	for (unsigned pass = 0; found && pass < PASSES_MAX; pass++) {
		struct pid_vec tids = { 0 };
		struct error *error = process_list_threads(session->target->process, &tids);

		found = false;
		for (size_t i = 0; !error && i < tids.size; i++) {
			if (is_known(&session->own, tids.data[i]))
				continue;
			found = true;
			error = add_thread(session, tids.data[i]);
		}
		pid_vec_deinit(&tids);
		if (error)
			return error;
	}
	if (!session->own.size)
		return error_create(ERROR_NO_TARGET, "no thread of %d is left",
				    session->target->pid);
	return NULL;
}

/* The first thread; where that has ended, another. */
static struct error *add_one(struct perf_session *session)
{
	struct pid_vec tids = { 0 };
	struct error *error = add_thread(session, session->target->pid);

	if (!error && !session->own.size)
		error = process_list_threads(session->target->process, &tids);
	for (size_t i = 0; !error && !session->own.size && i < tids.size; i++)
		error = add_thread(session, tids.data[i]);
	pid_vec_deinit(&tids);
	if (!error && !session->own.size)
		error = error_create(ERROR_NO_TARGET, "no thread of %d is left",
				     (int)session->target->pid);
	return error;
}

static int compare_ids(const void *a, const void *b)
{
	const struct perf_event *left = a, *right = b;

	return left->id < right->id ? -1 : left->id > right->id;
}

static void sort_events(struct perf_session *session)
{
	qsort(session->events.data, session->events.size, sizeof(*session->events.data),
	      compare_ids);
}

/* Online CPUs, from `0-3,5`. */
static struct error *find_cpus(struct perf_session *session)
{
	cleanup(fclose) FILE *file = fopen("/sys/devices/system/cpu/online", "re");
	unsigned first, last, count = 0;
	char separator = ',';
	int got;

	session->rings = calloc(CPUS_MAX, sizeof(*session->rings));
	if (!session->rings)
		return &error_no_memory;
	while (file && separator == ',' && (got = fscanf(file, "%u", &first)) == 1) {
		last = first;
		if (fscanf(file, "-%u", &last) < 0)
			last = first;
		for (; first <= last && count < CPUS_MAX; first++)
			session->rings[count++] = (struct perf_ring){ .fd = -1, .cpu = (int)first };
		if (fscanf(file, "%c", &separator) != 1)
			break;
	}
	if (!count)
		session->rings[count++] = (struct perf_ring){ .fd = -1 };
	session->ring_count = count;
	return NULL;
}

static void raise_limit(int resource)
{
	struct rlimit limit;

	if (!getrlimit(resource, &limit) && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(resource, &limit);
	}
}

static size_t power_of_two_below(size_t size)
{
	size_t power = 1;

	while (power <= size / 2)
		power *= 2;
	return power;
}

/* By CAP_IPC_LOCK, or since perf is free to all. Where the capability is only that of a container,
 * mapping fails, and is tried with less. */
static bool may_lock_freely(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (read_number(PARANOID, 2) < 0)
		return true;
	return !syscall(SYS_capget, &header, data) && data[0].effective >> CAP_IPC_LOCK & 1;
}

uint64_t perf_room(const struct target *target)
{
	return memory_room(target->process) / ROOM_SHARE;
}

/*
 * What the limits leave for each ring: without CAP_IPC_LOCK all of a user's rings together may have
 * perf_event_mlock_kb for each CPU, and what the process may lock (kernel/events/core.c,
 * perf_mmap()).
 */
static void choose_ring_size(struct perf_session *session, const struct perf_options *options)
{
	uint64_t most = PERF_RINGS_BYTES,
		 size = options->ring_bytes ? options->ring_bytes : RING_BYTES;
	struct rlimit limit;

	raise_limit(RLIMIT_NOFILE);
	raise_limit(RLIMIT_MEMLOCK);
	if (!may_lock_freely() && !getrlimit(RLIMIT_MEMLOCK, &limit) && limit.rlim_cur < most) {
		most = limit.rlim_cur +
		       1024 * session->ring_count * (uint64_t)read_number(MLOCK_KB, 0);
		/* Each ring has a page more. */
		most -= min_u64(most, session->ring_count * PAGE_SIZE);
	}
	session->ring_limited = most < PERF_RINGS_BYTES && size > most / session->ring_count;
	size = min_u64(size, min_u64(most, perf_room(session->target)) / session->ring_count);
	session->ring_bytes = power_of_two_below(max_u64(size, RING_MIN));
}

struct error *perf_open(struct target *target, const struct perf_options *options,
			struct perf_session **ret)
{
	cleanup(perf) struct perf_session *session = calloc(1, sizeof(*session));
	struct error *error;

	if (!session)
		return &error_no_memory;
	if (!target->process)
		return error_create(ERROR_UNSUPPORTED, "a core file has no events to watch");
	session->target = target;
	session->spec_count =
		options->spec_count < PERF_SPECS_MAX ? options->spec_count : PERF_SPECS_MAX;
	memcpy(session->specs, options->specs, session->spec_count * sizeof(*session->specs));
	session->stack_bytes = options->stack_bytes & ~7u;
	if (session->stack_bytes > PERF_STACK_MAX)
		session->stack_bytes = PERF_STACK_MAX;
	session->lean = options->lean;
	session->one_thread = options->one_thread;
	session->user_only_allowed = options->user_only_allowed;
	session->scratch = malloc(PERF_RECORD_MAX);
	if (!session->scratch)
		return &error_no_memory;
	error = find_cpus(session);
	if (error)
		return error;
	choose_ring_size(session, options);
	if (options->stack_flexible && session->ring_bytes < STACKS_WHOLE)
		session->stack_bytes /= session->ring_bytes < STACKS_HALF ? 4 : 2;
	session->stack_bytes &= ~7u;
	error = session->one_thread ? add_one(session) : add_threads(session);
	if (error)
		return error;
	sort_events(session);
	*ret = take_pointer(session);
	return NULL;
}

struct perf_event *perf_event_of(const struct perf_session *session, uint64_t id)
{
	const struct perf_event key = { .id = id };

	return bsearch(&key, session->events.data, session->events.size,
		       sizeof(*session->events.data), compare_ids);
}

static void switch_all(struct perf_session *session, unsigned long request)
{
	vec_for_each (event, &session->events)
		if (ioctl(event->fd, request, 0))
			log_debug("event of thread %d: %s", event->tid, strerror(errno));
}

void perf_enable(struct perf_session *session)
{
	switch_all(session, PERF_EVENT_IOC_ENABLE);
}

void perf_disable(struct perf_session *session)
{
	switch_all(session, PERF_EVENT_IOC_DISABLE);
}

uint64_t perf_lost(const struct perf_session *session)
{
	uint64_t lost = 0;

	if (session->no_lost_format)
		return session->lost_records;
	vec_for_each (event, &session->events) {
		uint64_t values[2]; /* the count, and how many of it were lost */

		if (read(event->fd, values, sizeof(values)) == (ssize_t)sizeof(values))
			lost += values[1];
	}
	return lost;
}

size_t perf_ring_limited(const struct perf_session *session)
{
	return session->ring_limited ? session->ring_bytes : 0;
}

bool perf_user_only(const struct perf_session *session)
{
	return session->user_only;
}

bool perf_target_execed(const struct perf_session *session)
{
	return session->exec_time != 0;
}

uint64_t perf_exec_time(const struct perf_session *session)
{
	return session->exec_time;
}

bool perf_target_exited(const struct perf_session *session)
{
	return session->exited;
}

void perf_close(struct perf_session *session)
{
	if (!session)
		return;
	for (unsigned i = 0; session->rings && i < session->ring_count; i++)
		perf_ring_unmap(&session->rings[i]);
	vec_for_each (event, &session->events)
		close(event->fd);
	perf_event_vec_deinit(&session->events);
	pid_vec_deinit(&session->own);
	free(session->rings);
	free(session->scratch);
	free(session);
}

/* ---- names of events ---- */

/* The files of the tracing system, also where nobody has mounted them: then by a mount that no
 * directory shows, and that goes away with the descriptor (Linux 5.2). -1 and errno. */
static int open_tracefs(void)
{
	static const char *const places[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };
	cleanup(close) int context = -1;
	int errnum = ENOENT, fd;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		fd = open(places[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 && !faccessat(fd, "events", F_OK, 0))
			return fd;
		if (errno != ENOENT)
			errnum = errno;
		if (fd >= 0)
			close(fd);
	}
	context = (int)syscall(SYS_fsopen, "tracefs", 1 /* FSOPEN_CLOEXEC */);
	if (context >= 0 && !syscall(SYS_fsconfig, context, 6 /* CMD_CREATE */, NULL, NULL, 0)) {
		fd = (int)syscall(SYS_fsmount, context, 1 /* FSMOUNT_CLOEXEC */, 0);
		if (fd >= 0)
			return fd;
	}
	if (errno == EPERM)
		errnum = EPERM;
	errno = errnum;
	return -1;
}

struct error *perf_tracepoint(const char *group, const char *name, uint64_t *id_ret)
{
	cleanup(close) int root = open_tracefs();
	cleanup(close) int fd = -1;
	char path[256], text[32] = "";
	int errnum = errno;

	if (root >= 0) {
		snprintf(path, sizeof(path), "events/%s/%s/id", group, name);
		fd = openat(root, path, O_RDONLY | O_CLOEXEC);
		errnum = errno;
	}
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0) {
		*id_ret = strtoull(text, NULL, 10);
		return NULL;
	}
	if (errnum == EACCES || errnum == EPERM)
		return error_hint(error_create(ERROR_PERMISSION,
					       "cannot use tracepoint %s:%s: tracefs is root's",
					       group, name),
				  "run as root, or let others read it: mount -t tracefs -o "
				  "mode=755 nodev /sys/kernel/tracing");
	return error_hint(error_create(ERROR_UNSUPPORTED,
				       "cannot use tracepoint %s:%s: tracefs is not mounted, or "
				       "this kernel has none of that name",
				       group, name),
			  "as root: mount -t tracefs nodev /sys/kernel/tracing");
}

struct error *perf_pmu_type(const char *name, uint32_t *ret)
{
	char path[256];
	long type;

	snprintf(path, sizeof(path), "/sys/bus/event_source/devices/%s/type", name);
	type = read_number(path, -1);
	if (type < 0)
		return error_create(ERROR_UNSUPPORTED, "this kernel has no %s events", name);
	*ret = (uint32_t)type;
	return NULL;
}
