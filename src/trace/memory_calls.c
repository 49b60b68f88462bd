#include "memprobe/memory_calls.h"

#include <asm/perf_regs.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory_ledger.h"
#include "memprobe/maps.h"
#include "memprobe/perf_events.h"
#include "memprobe/syscall_tracer.h"

#define STACK_BYTES 8192u

struct memory_calls_recording {
	struct target *target;
	struct memory_ledger ledger;
	struct sample_stacks *stacks;
	/* One of the two records. */
	struct perf_session *perf;
	struct syscall_tracer *tracer;
	struct error *refusal; /* why it is not the tracepoints */
	uint64_t child_events;
};

/* ---- by tracepoints ---- */

static struct error *visit_sample(void *data, const struct perf_sample *sample)
{
	struct memory_calls_recording *recording = data;
	const struct user_regs_struct *regs = &sample->regs;
	const struct memory_call_event event = {
		.call = sample->spec,
		.args = { regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9 },
		.result = regs->rax,
		.failed = regs->rax > -4096ull,
		.sample = sample,
	};

	if (sample->pid != recording->target->pid) {
		recording->child_events++;
		return NULL;
	}
	return sample->has_regs ? memory_ledger_note(&recording->ledger, &event) : NULL;
}

/*
 * The arguments, the result, and what unwinding may begin with: a system call leaves nothing in rcx
 * and r11, and what called it finds nothing in r8 and r9.
 */
#define REG(name) (1ull << PERF_REG_X86_##name)
#define REGS                                                                             \
	(REG(AX) | REG(BX) | REG(DX) | REG(SI) | REG(DI) | REG(BP) | REG(SP) | REG(IP) | \
	 REG(R10) | REG(R12) | REG(R13) | REG(R14) | REG(R15))

static struct error *open_tracepoints(struct memory_calls_recording *recording,
				      const struct memory_calls_options *options)
{
	struct perf_spec specs[MEMORY_CALLS];
	const struct perf_options perf = {
		.specs = specs,
		.spec_count = MEMORY_CALLS,
		.stack_bytes = options->stack_bytes ? options->stack_bytes : STACK_BYTES,
		.stack_flexible = !options->stack_bytes,
		.ring_bytes = options->ring_bytes,
		.lean = true,
	};
	struct error *error;

	if (recording->target->arch->bits == 32)
		return error_create(ERROR_UNSUPPORTED,
				    "cannot use tracepoints: the kernel has none for the system "
				    "calls of 32-bit processes");
	for (unsigned i = 0; i < MEMORY_CALLS; i++) {
		char name[32];

		snprintf(name, sizeof(name), "sys_exit_%s", memory_call_name(i));
		specs[i] = (struct perf_spec){ .type = PERF_TYPE_TRACEPOINT, .registers = REGS };
		error = perf_tracepoint("syscalls", name, &specs[i].config);
		if (error)
			return error;
	}
	error = perf_open(recording->target, &perf, &recording->perf);
	if (!error)
		perf_enable(recording->perf);
	return error;
}

/* ---- by ptrace ---- */

static struct error *visit_traced(void *data, const struct traced_call *call)
{
	struct memory_calls_recording *recording = data;
	const struct perf_sample sample = {
		.pid = recording->target->pid,
		.tid = call->tid,
		.has_regs = true,
		.regs = call->regs,
		.stack = call->stack,
		.stack_size = call->stack_size,
	};
	struct memory_call_event event = {
		/* The last one is another mmap. */
		.call = call->call == MEMORY_CALLS ? MEMORY_CALL_MMAP : call->call,
		.result = call->result,
		.failed = call->failed,
		.sample = &sample,
	};

	memcpy(event.args, call->args, sizeof(event.args));
	return memory_ledger_note(&recording->ledger, &event);
}

static struct error *start_tracer(struct memory_calls_recording *recording,
				  const struct memory_calls_options *options)
{
	const struct arch_syscalls *nr = &recording->target->arch->syscalls;
	const struct traced_syscall calls[] = {
		[MEMORY_CALL_MMAP] = { nr->mmap, false },
		[MEMORY_CALL_MUNMAP] = { nr->munmap, false },
		[MEMORY_CALL_MREMAP] = { nr->mremap, false },
		[MEMORY_CALL_BRK] = { nr->brk, false },
		[MEMORY_CALL_MADVISE] = { nr->madvise, false },
		[MEMORY_CALL_MPROTECT] = { nr->mprotect, false },
		[MEMORY_CALLS] = { nr->old_mmap, true },
	};
	const struct syscall_tracer_options tracer = {
		.calls = calls,
		.call_count = MEMORY_CALLS + 1,
		.stack_bytes = options->stack_bytes ? options->stack_bytes : STACK_BYTES,
	};

	return syscall_tracer_start(recording->target, &tracer, &recording->tracer);
}

/* ---- recording ---- */

static struct error *start_engine(struct memory_calls_recording *recording,
				  const struct memory_calls_options *options)
{
	struct error *error = NULL;

	if (options->engine != MEMORY_CALLS_PTRACE)
		error = open_tracepoints(recording, options);
	if (options->engine == MEMORY_CALLS_AUTO &&
	    (error_is(error, ERROR_PERMISSION) || error_is(error, ERROR_UNSUPPORTED)))
		recording->refusal = take_pointer(error);
	if (options->engine == MEMORY_CALLS_PTRACE || recording->refusal)
		error = start_tracer(recording, options);
	return error;
}

/* The end of [heap], which is the break rounded up. */
static struct error *find_brk(struct memory_calls_recording *recording)
{
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(recording->target, MAPS_PLAIN, &maps);

	vec_for_each (mapping, &maps)
		if (!strcmp(mapping->path, "[heap]"))
			recording->ledger.brk = mapping->end;
	mappings_deinit(&maps);
	return error;
}

struct error *memory_calls_begin(struct target *target, const struct memory_calls_options *options,
				 struct memory_calls_recording **ret)
{
	cleanup(memory_calls) struct memory_calls_recording *recording =
		calloc(1, sizeof(*recording));
	struct error *error;

	if (!recording)
		return &error_no_memory;
	recording->target = target;
	recording->ledger.min_size = options->min_size;
	error = sample_stacks_create(target, &recording->stacks);
	recording->ledger.stacks = recording->stacks;
	if (!error)
		error = start_engine(recording, options);
	if (!error)
		error = find_brk(recording);
	if (!error)
		*ret = take_pointer(recording);
	return error;
}

enum memory_calls_engine memory_calls_engine(const struct memory_calls_recording *recording)
{
	return recording->tracer ? MEMORY_CALLS_PTRACE : MEMORY_CALLS_TRACEPOINTS;
}

const struct error *memory_calls_refusal(const struct memory_calls_recording *recording)
{
	return recording->refusal;
}

static struct error *drain(struct memory_calls_recording *recording, int timeout_ms)
{
	if (recording->tracer)
		return syscall_tracer_poll(recording->tracer, timeout_ms, visit_traced, recording);
	return perf_poll(recording->perf, timeout_ms, visit_sample, recording);
}

static bool is_execed(const struct memory_calls_recording *recording)
{
	return recording->tracer ? syscall_tracer_execed(recording->tracer)
				 : perf_target_execed(recording->perf);
}

static bool is_ended(const struct memory_calls_recording *recording)
{
	return recording->tracer ? syscall_tracer_ended(recording->tracer)
				 : perf_target_exited(recording->perf);
}

struct error *memory_calls_poll(struct memory_calls_recording *recording, int timeout_ms,
				bool *alive_ret)
{
	struct error *error = drain(recording, timeout_ms);

	if (!error)
		error = sample_stacks_tick(recording->stacks);
	if (!error)
		*alive_ret = !is_ended(recording) && !is_execed(recording) &&
			     process_is_alive(recording->target->process);
	return error;
}

uint64_t memory_calls_events(const struct memory_calls_recording *recording)
{
	return recording->ledger.events;
}

struct error *memory_calls_end(struct memory_calls_recording *recording,
			       struct memory_calls_result *ret)
{
	struct memory_ledger *ledger = &recording->ledger;
	struct error *error;

	if (recording->tracer)
		syscall_tracer_stop(recording->tracer);
	else
		perf_disable(recording->perf);
	error = drain(recording, 0);
	ret->engine = memory_calls_engine(recording);
	ret->stacks = sample_stacks_set(recording->stacks);
	ret->sites = ledger->sites;
	ledger->sites = (struct memory_call_site_vec){ 0 };
	ret->events = ledger->events;
	ret->child_events = recording->child_events;
	ret->truncated = sample_stacks_truncated(recording->stacks);
	ret->mapped = ledger->mapped_bytes;
	ret->unmapped = ledger->unmapped_bytes;
	ret->execed = is_execed(recording);
	if (recording->tracer) {
		ret->lost = syscall_tracer_lost(recording->tracer);
		ret->stopped_us = syscall_tracer_stopped_us(recording->tracer);
	} else {
		ret->lost = perf_lost(recording->perf);
	}
	return error;
}

void memory_calls_result_deinit(struct memory_calls_result *result)
{
	memory_call_site_vec_deinit(&result->sites);
}

void memory_calls_destroy(struct memory_calls_recording *recording)
{
	if (!recording)
		return;
	perf_close(recording->perf);
	syscall_tracer_destroy(recording->tracer);
	sample_stacks_destroy(recording->stacks);
	memory_ledger_deinit(&recording->ledger);
	error_destroy(recording->refusal);
	free(recording);
}
