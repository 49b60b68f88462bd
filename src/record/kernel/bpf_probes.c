/* Opens the probes and reads their ring. */
#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf.h"
#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "perf_session.h"
#include "bpf_probes.h"
#include "probe_section.h"

#define RING_BYTES (128u << 20)
#define RING_LEAST (4u << 20)
#define LINKS	   4u

/* A thread that the kernel has put off in the middle of a record holds up what came behind. */
#define FINISH_US      1000000
#define FINISH_STEP_US 500

struct bpf_probes {
	struct target *target;
	pid_t thread; /* that stands for the memory of all */
	struct perf_spec specs[PERF_SPECS_MAX];
	int links[LINKS]; /* by group, or -1 */
	int events[PERF_SPECS_MAX];
	unsigned count;
	uint32_t stack_bytes; /* always; 0: what is wanted just then */
	struct bpf_ring ring;
	int shared_fd;
	struct bpf_shared *shared;
	struct perf_session *watch; /* of the process itself: does it execute another program? */
};

static struct error *make_ring(struct bpf_probes *probes)
{
	uint64_t room = perf_room(probes->target);
	size_t size = RING_BYTES;
	struct error *error;

	while (size > RING_LEAST && size > room)
		size /= 2;
	for (;; size /= 2) {
		error = bpf_ring_create(&probes->ring, size);
		if (error_is(error, ERROR_UNSUPPORTED) || !error || size == RING_LEAST)
			return error;
		/* No memory for it, or the limit of what may be locked (before Linux 5.11). */
		error_destroy(error);
		bpf_ring_destroy(&probes->ring);
	}
}

static struct error *watch(struct bpf_probes *probes)
{
	const struct perf_spec dummy = { .type = PERF_TYPE_SOFTWARE,
					 .config = PERF_COUNT_SW_DUMMY,
					 .no_stack = true };
	const struct perf_options options = { .specs = &dummy,
					      .spec_count = 1,
					      .ring_bytes = 1,
					      .user_only_allowed = true,
					      .one_thread = true };
	struct error *error = perf_open(probes->target, &options, &probes->watch);

	if (!error)
		perf_enable(probes->watch);
	return error;
}

static struct error *open_probe(struct bpf_probes *probes, unsigned number, int program)
{
	const struct perf_spec *spec = &probes->specs[number];
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = spec->type,
		.config = spec->config,
		.config1 = spec->config1,
		.config2 = spec->config2,
		.sample_period = 1,
		.disabled = 1,
	};
	int fd = PROBE_MAKE(
		syscall(SYS_perf_event_open, &attr, probes->thread, -1, -1, PERF_FLAG_FD_CLOEXEC));

	if (fd < 0)
		return error_errno(errno == EACCES || errno == EPERM ? ERROR_PERMISSION
								     : ERROR_UNSUPPORTED,
				   errno, "cannot probe %d", (int)probes->target->pid);
	probes->events[number] = fd;
	if (ioctl(fd, PERF_EVENT_IOC_SET_BPF, program))
		return error_errno(errno == EPERM ? ERROR_PERMISSION : ERROR_UNSUPPORTED, errno,
				   "cannot attach a program to a probe");
	return NULL;
}

/* Of the stack. */
static const uint32_t all_sizes[] = { 1024, 2048, 4096, 8192, 16384, 32768, PERF_STACK_MAX };

static struct bpf_record_options program_options(const struct bpf_probes *probes,
						 const struct perf_spec *spec, int number)
{
	struct bpf_record_options options = {
		.ring = probes->ring.fd,
		.shared = probes->shared_fd,
		.number = number,
		.registers = spec->registers,
	};

	if (spec->stack_bytes) {
		options.sizes = &spec->stack_bytes;
		options.size_count = 1;
	} else if (!spec->no_stack) {
		options.sizes = probes->stack_bytes ? &probes->stack_bytes : all_sizes;
		options.size_count =
			probes->stack_bytes ? 1 : sizeof(all_sizes) / sizeof(all_sizes[0]);
	}
	return options;
}

static struct error *make_program(const struct bpf_probes *probes, const struct perf_spec *spec,
				  int number, int *fd_ret)
{
	const struct bpf_record_options options = program_options(probes, spec, number);

	return bpf_record_program(&options, fd_ret);
}

static struct error *open_each(struct bpf_probes *probes)
{
	struct error *error = NULL;

	for (unsigned i = 0; i < probes->count && !error; i++) {
		cleanup(close) int program = -1;

		error = make_program(probes, &probes->specs[i], (int)i, &program);
		/* The event has its own reference. */
		if (!error)
			error = open_probe(probes, i, program);
	}
	return error;
}

/* What one link has: the returns of the kernel's, or not; with their stacks, some of them, or
 * without. */
struct group {
	bool returns, no_stack, some_stack;
};

static const struct group groups[LINKS] = {
	{ .returns = true }, { .no_stack = false }, { .no_stack = true }, { .some_stack = true }
};

static bool is_in(const struct perf_spec *spec, const struct group *group)
{
	return (spec->config != 0) == group->returns && spec->no_stack == group->no_stack &&
	       (spec->stack_bytes != 0) == group->some_stack;
}

/* All of a group: by one program, which takes the registers that any of them needs. */
static struct error *open_many(struct bpf_probes *probes, const struct group *group, int *fd_ret)
{
	uint64_t offsets[PERF_SPECS_MAX], cookies[PERF_SPECS_MAX];
	struct bpf_places many = { .offsets = offsets,
				   .cookies = cookies,
				   .returns = group->returns };
	struct perf_spec common = { .no_stack = group->no_stack };
	cleanup(close) int program = -1;
	struct error *error;

	for (unsigned i = 0; i < probes->count; i++) {
		const struct perf_spec *spec = &probes->specs[i];

		if (!is_in(spec, group))
			continue;
		common.stack_bytes = spec->stack_bytes;
		many.path = (const char *)(uintptr_t)spec->config1;
		offsets[many.count] = spec->config2;
		cookies[many.count++] = i;
		common.registers |= spec->registers;
	}
	if (!many.count)
		return NULL;
	error = make_program(probes, &common, -1, &program);
	if (!error)
		error = bpf_probe(program, probes->target->pid, &many, fd_ret);
	if (error)
		return error;
	for (unsigned i = 0; i < many.count; i++)
		probes->specs[cookies[i]].registers = common.registers;
	return NULL;
}

static void close_links(struct bpf_probes *probes)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (probes->links[i] >= 0)
			probe_close(probes->links[i]);
	memset(probes->links, -1, sizeof(probes->links));
}

/* The returns first: an entry whose return is not seen would look like one that was left. */
static struct error *open_all(struct bpf_probes *probes)
{
	struct perf_spec specs[PERF_SPECS_MAX];
	struct error *error = NULL;

	memcpy(specs, probes->specs, sizeof(specs));
	for (unsigned i = 0; i < LINKS && !error; i++)
		error = open_many(probes, &groups[i], &probes->links[i]);
	if (!error_is(error, ERROR_UNSUPPORTED))
		return error;
	log_debug("%s: one by one", error->message);
	error_destroy(error);
	close_links(probes);
	memcpy(probes->specs, specs, sizeof(specs));
	return open_each(probes);
}

/* Without any probe yet. */
static struct error *create(struct target *target, const struct perf_spec *specs, unsigned count,
			    uint32_t stack_bytes, struct bpf_probes **ret)
{
	struct bpf_probes *probes = calloc(1, sizeof(*probes));
	void *shared = NULL;
	struct error *error;

	if (!probes)
		return &error_no_memory;
	probes->target = target;
	probes->ring.fd = probes->shared_fd = -1;
	probes->count = count < PERF_SPECS_MAX ? count : PERF_SPECS_MAX;
	memcpy(probes->specs, specs, probes->count * sizeof(*specs));
	probes->stack_bytes = stack_bytes & ~7u;
	memset(probes->links, -1, sizeof(probes->links));
	memset(probes->events, -1, sizeof(probes->events));
	error = make_ring(probes);
	if (!error)
		error = bpf_value_create(sizeof(*probes->shared), &probes->shared_fd, &shared);
	probes->shared = shared;
	if (!error)
		error = watch(probes);
	if (error)
		bpf_probes_close(probes);
	else
		*ret = probes;
	return error;
}

static bool has_ended(const struct target *target, pid_t tid)
{
	struct process_status status = { 0 };

	error_destroy(process_read_status(target->process, tid, &status));
	return !status.state || status.state == 'Z' || status.state == 'X';
}

/* One that has ended has no memory: the first thread, or else the oldest. */
static struct error *choose_thread(struct bpf_probes *probes)
{
	const struct target *target = probes->target;
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(target->process, &tids);

	probes->thread = target->pid;
	for (size_t i = 0; !error && i < tids.size && has_ended(target, probes->thread); i++)
		probes->thread = tids.data[i];
	pid_vec_deinit(&tids);
	return error;
}

struct error *bpf_probes_open(struct target *target, const struct perf_spec *specs, unsigned count,
			      uint32_t stack_bytes, struct bpf_probes **ret)
{
	struct bpf_probes *probes = NULL;
	struct error *error = create(target, specs, count, stack_bytes, &probes);

	if (error)
		return error;
	error = choose_thread(probes);
	if (!error)
		/* A link is of a process, by its first thread only. */
		error = probes->thread == target->pid ? open_all(probes) : open_each(probes);
	if (error)
		bpf_probes_close(probes);
	else
		*ret = probes;
	return error;
}

struct error *bpf_probes_open_calls(struct target *target, const struct perf_spec *specs,
				    const int *numbers, unsigned count, uint32_t stack_bytes,
				    struct bpf_probes **ret)
{
	struct bpf_probes *probes = NULL;
	struct bpf_record_options options;
	struct error *error = create(target, specs, count, stack_bytes, &probes);

	if (error)
		return error;
	options = program_options(probes, specs, 0);
	error = bpf_record_program_for_calls(&options, target, numbers, probes->count,
					     &probes->links[0]);
	if (error)
		bpf_probes_close(probes);
	else
		*ret = probes;
	return error;
}

void bpf_probes_close(struct bpf_probes *probes)
{
	if (!probes)
		return;
	close_links(probes);
	/* Each takes the kernel some 80 ms: a function is fast again when its last one has gone. */
	for (unsigned i = 0; i < probes->count; i++)
		if (probes->events[i] >= 0)
			probe_close(probes->events[i]);
	perf_close(probes->watch);
	if (probes->shared)
		munmap(probes->shared, sizeof(*probes->shared));
	if (probes->shared_fd >= 0)
		close(probes->shared_fd);
	bpf_ring_destroy(&probes->ring);
	free(probes);
}

/* False: it makes no sense. */
static bool parse(const struct bpf_probes *probes, const void *bytes, size_t size,
		  struct perf_sample *ret)
{
	const struct bpf_record *record = bytes;
	const struct perf_spec *spec;
	size_t used = sizeof(*record), number = 0;

	if (size < used || record->spec >= probes->count)
		return false;
	spec = &probes->specs[record->spec];
	*ret = (struct perf_sample){
		.spec = (unsigned)record->spec,
		.pid = probes->target->pid,
		.tid = (pid_t)record->thread,
		.time = record->time,
		.has_regs = true,
	};
	for (unsigned i = 0; i < PERF_PLACES; i++) {
		if (!(spec->registers >> perf_places[i].bit & 1))
			continue;
		used += sizeof(uint64_t);
		if (used > size)
			return false;
		memcpy((uint8_t *)&ret->regs + perf_places[i].offset, &record->registers[number++],
		       sizeof(uint64_t));
	}
	if (record->stack_size > size - used)
		return false;
	ret->stack = (const uint8_t *)bytes + used;
	ret->stack_size = record->stack_size;
	return true;
}

static struct error *ignore(void *data, const struct perf_sample *sample)
{
	return NULL;
}

/* What lies before @end in the ring. */
static struct error *poll_to(struct bpf_probes *probes, uint64_t end, perf_visit *visit, void *data)
{
	struct error *error = perf_poll(probes->watch, 0, ignore, NULL);
	uint64_t execed = perf_exec_time(probes->watch);
	const void *record;
	size_t size;

	while (!error && (record = bpf_ring_record(&probes->ring, end, &size)) != NULL) {
		struct perf_sample sample;

		if (parse(probes, record, size, &sample) && (!execed || sample.time < execed))
			error = visit(data, &sample);
		bpf_ring_next(&probes->ring);
	}
	return error;
}

struct error *bpf_probes_poll(struct bpf_probes *probes, perf_visit *visit, void *data)
{
	/* What is in there by now is older than an execve() that poll_to() does not know of. */
	return poll_to(probes, bpf_ring_end(&probes->ring), visit, data);
}

struct error *bpf_probes_finish(struct bpf_probes *probes, perf_visit *visit, void *data)
{
	uint64_t end = bpf_ring_end(&probes->ring), deadline_us = clock_us() + FINISH_US;

	for (;;) {
		struct error *error = poll_to(probes, end, visit, data);

		if (error || bpf_ring_is_taken(&probes->ring, end))
			return error;
		if (clock_us() >= deadline_us) {
			log_warn("the last events are missing: the kernel has not come to write "
				 "one of them");
			return NULL;
		}
		usleep(FINISH_STEP_US);
	}
}

void bpf_probes_lost(const struct bpf_probes *probes, uint64_t *ret)
{
	for (unsigned i = 0; i < probes->count; i++)
		ret[i] = __atomic_load_n(&probes->shared->lost[i], __ATOMIC_RELAXED);
}

void bpf_probes_want_stack(struct bpf_probes *probes, uint32_t bytes)
{
	__atomic_store_n(&probes->shared->stack_bytes, bytes, __ATOMIC_RELAXED);
}

bool bpf_probes_ended(const struct bpf_probes *probes)
{
	return perf_exec_time(probes->watch) != 0;
}

bool bpf_probes_blind(const struct bpf_probes *probes)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (probes->links[i] >= 0)
			return false;
	return has_ended(probes->target, probes->thread) &&
	       !process_has_ended(probes->target->process);
}
