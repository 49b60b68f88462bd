#include "memprobe/faults.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "fault_pages.h"
#include "record/memory_guard.h"
#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "pages.h"
#include "perf_events.h"
#include "sample_stacks.h"

#define STACK_BYTES 8192u

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

/* What is watched; the calls are left out where they cannot be. */
enum { SPEC_FAULT, SPEC_MREMAP, SPEC_MMAP, SPEC_MADVISE, SPEC_COUNT };

VEC_DEFINE(fault_count_vec, uint64_t)

struct faults_recording {
	struct target *target;
	bool all, calls_unknown;
	struct memory_guard guard;
	struct sample_stacks *stacks;
	struct perf_session *perf;
	struct pages before;
	struct fault_pages pages;
	struct fault_count_vec counts; /* by stack: faults, later pages */
	uint64_t until;		       /* ns; later samples are none of ours. 0: no end yet */
	uint64_t events, child_events;
};

/* ---- samples ---- */

static struct error *count_stack(struct faults_recording *recording, uint32_t stack, uint64_t count)
{
	const uint64_t none = 0;

	while (recording->counts.size <= stack) {
		struct error *error = fault_count_vec_append(&recording->counts, &none);

		if (error)
			return error;
	}
	recording->counts.data[stack] += count;
	return NULL;
}

/* A system call that has returned: its arguments are still in the registers (x86-64's system calls
 * change rax, rcx and r11 only). */
static struct error *visit_call(struct faults_recording *recording,
				const struct perf_sample *sample)
{
	const struct user_regs_struct *regs = &sample->regs;
	uint64_t from = regs->rdi, size = regs->rsi, to = regs->rax;
	uint32_t stack;
	struct error *error;

	if (!sample->has_regs || (regs->rax > -4096ull))
		return NULL;
	if (sample->spec == SPEC_MMAP && !(regs->r10 & (MAP_POPULATE | MAP_LOCKED)))
		return NULL;
	if (sample->spec == SPEC_MADVISE && regs->rdx != MADV_POPULATE_WRITE &&
	    regs->rdx != MADV_POPULATE_READ)
		return NULL;
	if (sample->spec == SPEC_MREMAP && (from == to || !size))
		return NULL;
	error = sample_stacks_add(recording->stacks, sample, &stack);
	if (error)
		return error;
	size = (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	if (sample->spec == SPEC_MREMAP) {
		uint64_t wanted = (regs->rdx + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);

		return fault_pages_moved(&recording->pages, from, to, size < wanted ? size : wanted,
					 stack);
	}
	if (sample->spec == SPEC_MMAP)
		from = to;
	return fault_pages_populated(&recording->pages, from, from + size, stack);
}

static struct error *visit(void *data, const struct perf_sample *sample)
{
	struct faults_recording *recording = data;
	struct error *error;
	uint32_t stack;

	if (recording->until && sample->time > recording->until)
		return NULL;
	if (sample->pid != recording->target->pid) {
		recording->child_events += sample->spec == SPEC_FAULT;
		return NULL;
	}
	if (sample->spec != SPEC_FAULT)
		return recording->all ? NULL : visit_call(recording, sample);
	recording->events++;
	error = sample_stacks_add(recording->stacks, sample, &stack);
	if (error)
		return error;
	return recording->all ? count_stack(recording, stack, 1)
			      : fault_pages_set(&recording->pages, sample->address, stack);
}

/* ---- begin ---- */

/* How many of @specs there are. */
static unsigned fill_specs(struct faults_recording *recording, struct perf_spec specs[SPEC_COUNT])
{
	static const char *const calls[] = { [SPEC_MREMAP] = "sys_exit_mremap",
					     [SPEC_MMAP] = "sys_exit_mmap",
					     [SPEC_MADVISE] = "sys_exit_madvise" };

	specs[SPEC_FAULT] = (struct perf_spec){ .type = PERF_TYPE_SOFTWARE,
						.config = PERF_COUNT_SW_PAGE_FAULTS };
	if (recording->all)
		return 1;
	/* System calls of 32-bit processes have no tracepoints on x86
	 * (arch_trace_is_compat_syscall()). */
	recording->calls_unknown = recording->target->arch->bits == 32;
	for (unsigned i = SPEC_MREMAP; i < SPEC_COUNT && !recording->calls_unknown; i++) {
		struct error *error;

		specs[i] = (struct perf_spec){ .type = PERF_TYPE_TRACEPOINT };
		error = perf_tracepoint("syscalls", calls[i], &specs[i].config);
		if (error) {
			log_debug("%s", error->message);
			error_destroy(error);
			recording->calls_unknown = true;
		}
	}
	return recording->calls_unknown ? 1 : SPEC_COUNT;
}

static struct error *open_events(struct faults_recording *recording,
				 const struct faults_options *options)
{
	struct perf_spec specs[SPEC_COUNT];
	struct perf_options perf = {
		.specs = specs,
		.spec_count = fill_specs(recording, specs),
		.stack_bytes = options->stack_bytes ? options->stack_bytes : STACK_BYTES,
		.stack_flexible = !options->stack_bytes,
		.ring_bytes = options->ring_bytes,
	};
	struct error *error = perf_open(recording->target, &perf, &recording->perf);

	/* Without the right to see into the kernel: its faults and the calls are not seen. */
	if (error_is(error, ERROR_PERMISSION)) {
		error_destroy(error);
		recording->calls_unknown |= perf.spec_count > 1;
		perf.spec_count = 1;
		perf.user_only_allowed = true;
		error = perf_open(recording->target, &perf, &recording->perf);
	}
	return error;
}

static struct error *read_pages(struct target *target, struct pages *pages)
{
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(target, MAPS_PLAIN, &maps);

	if (!error)
		error = pages_read(target, &maps, pages);
	mappings_deinit(&maps);
	return error;
}

struct error *faults_begin(struct target *target, const struct faults_options *options,
			   struct faults_recording **ret)
{
	cleanup(faults) struct faults_recording *recording = calloc(1, sizeof(*recording));
	struct error *error;

	if (!recording)
		return &error_no_memory;
	recording->target = target;
	recording->all = options->all;
	error = sample_stacks_create(target, &recording->stacks);
	if (!error)
		error = sample_stacks_keep_modules(recording->stacks);
	if (!error)
		error = open_events(recording, options);
	if (error)
		return error;
	/* A page that comes between is seen twice, as a fault and as one that was there: it is not
	 * new. The other way round it would be new and of nobody. */
	perf_enable(recording->perf);
	error = read_pages(target, &recording->before);
	memory_guard_begin(&recording->guard, target, options->memory_max);
	if (!error)
		*ret = take_pointer(recording);
	return error;
}

void faults_destroy(struct faults_recording *recording)
{
	if (!recording)
		return;
	perf_close(recording->perf);
	sample_stacks_destroy(recording->stacks);
	pages_deinit(&recording->before);
	fault_pages_deinit(&recording->pages);
	fault_count_vec_deinit(&recording->counts);
	free(recording);
}

struct error *faults_poll(struct faults_recording *recording, int timeout_ms, bool *alive_ret)
{
	struct error *error = sample_stacks_poll(recording->stacks, recording->perf, timeout_ms,
						 visit, recording, alive_ret);

	if (!error)
		memory_guard_poll(&recording->guard, alive_ret);
	return error;
}

uint64_t faults_events(const struct faults_recording *recording)
{
	return recording->events;
}

/* ---- end ---- */

struct accounting {
	struct faults_recording *recording;
	struct faults_result *result;
	const struct pages *after;
	size_t next; /* run of @after that the next piece that is gone may lie in */
	struct error *error;
};

static void charge(void *data, uint64_t start, uint64_t end, unsigned flags)
{
	struct accounting *accounting = data;

	accounting->result->new_bytes += end - start;
	for (uint64_t at = start; at < end && !accounting->error; at += PAGE_SIZE) {
		uint32_t stack = fault_pages_owner(&accounting->recording->pages, at, flags);

		if (stack == STACK_NONE)
			accounting->result->unattributed += PAGE_SIZE;
		else
			accounting->error = count_stack(accounting->recording, stack, 1);
	}
}

static void note_gone(void *data, uint64_t start, uint64_t end, unsigned flags)
{
	struct accounting *accounting = data;

	const struct page_run_vec *runs = &accounting->after->runs;

	accounting->result->gone_bytes += end - start;
	while (accounting->next < runs->size && runs->data[accounting->next].end <= start)
		accounting->next++;
	for (size_t i = accounting->next; i < runs->size && runs->data[i].start < end; i++) {
		const struct page_run *run = &runs->data[i];

		if (run->flags & PAGES_SWAPPED)
			accounting->result->swapped_out +=
				(run->end < end ? run->end : end) -
				(run->start > start ? run->start : start);
	}
}

/* The pages as they are at the end. A target that is gone has none: that is no error. */
static struct error *read_after(struct faults_recording *recording, struct pages *after,
				struct faults_result *result)
{
	struct error *error = NULL;

	if (!result->execed && !process_has_ended(recording->target->process)) {
		error = read_pages(recording->target, after);
		result->after_known = !error && after->resident;
	}
	recording->until = clock_ns();
	if (error && error->code != ERROR_NO_MEMORY) {
		log_debug("%s", error->message);
		error_destroy(error);
		error = NULL;
	}
	return error;
}

static struct error *fill_sites(struct faults_recording *recording, struct faults_result *result)
{
	for (size_t i = 0; i < recording->counts.size; i++) {
		const struct fault_site site = { (uint32_t)i, recording->counts.data[i],
						 recording->counts.data[i] * PAGE_SIZE };
		struct error *error =
			site.count ? fault_site_vec_append(&result->sites, &site) : NULL;

		if (error)
			return error;
	}
	return NULL;
}

struct error *faults_end(struct faults_recording *recording, struct faults_result *ret)
{
	struct accounting accounting = { .recording = recording, .result = ret };
	struct pages after = { 0 };
	struct error *error;

	ret->cut_short = recording->guard.has_ended;
	ret->execed = perf_target_execed(recording->perf);
	error = read_after(recording, &after, ret);
	perf_disable(recording->perf);
	if (!error)
		error = perf_poll(recording->perf, 0, visit, recording);
	ret->stacks = sample_stacks_set(recording->stacks);
	ret->modules = sample_stacks_modules(recording->stacks);
	ret->events = recording->events;
	ret->child_events = recording->child_events;
	ret->lost = perf_lost(recording->perf);
	ret->ring_limited = perf_ring_limited(recording->perf);
	ret->truncated = sample_stacks_truncated(recording->stacks);
	ret->cut = sample_stacks_cut(recording->stacks);
	ret->user_only = perf_user_only(recording->perf);
	ret->zero_unknown = recording->before.zero_unknown;
	ret->calls_unknown = recording->calls_unknown;
	ret->rss_before = recording->before.resident;
	ret->rss_after = after.resident;
	accounting.after = &after;
	if (!error && ret->after_known) {
		pages_difference(&after, &recording->before, note_gone, &accounting);
		if (recording->all)
			ret->new_bytes =
				after.resident + ret->gone_bytes - recording->before.resident;
		else
			pages_difference(&recording->before, &after, charge, &accounting);
		error = accounting.error;
	}
	pages_deinit(&after);
	return error ? error : fill_sites(recording, ret);
}

void faults_result_deinit(struct faults_result *result)
{
	fault_site_vec_deinit(&result->sites);
}
