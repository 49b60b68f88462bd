#include "memprobe/memory_calls.h"

#include <asm/perf_regs.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "record/memory_guard.h"
#include "memory_ledger.h"
#include "memprobe/log.h"
#include "memprobe/maps.h"
#include "perf_events.h"
#include "memprobe/syscall_tracer.h"
#include "bpf_probes.h"
#include "stack_size.h"

#define STACK_BYTES 8192u

/* The ring of the programs tells nobody that there is something in it. */
#define LOOK_MS 5

struct memory_calls_recording {
	struct target *target;
	struct memory_ledger ledger;
	struct sample_stacks *stacks;
	/* One of the three records. */
	struct bpf_probes *programs;
	struct stack_size stack; /* with programs */
	struct perf_session *perf;
	struct syscall_tracer *tracer;
	struct error *refusal; /* why it is not the tracepoints */
	uint64_t child_events;
	struct memory_guard guard;
};

/* ---- by tracepoints ---- */

/*
 * The arguments, the result, and what unwinding may begin with: a 64-bit call leaves nothing in rcx
 * and r11, and its caller finds nothing in r8 and r9.
 */
#define REG(name) (1ull << PERF_REG_X86_##name)
#define REGS                                                                             \
	(REG(AX) | REG(BX) | REG(DX) | REG(SI) | REG(DI) | REG(BP) | REG(SP) | REG(IP) | \
	 REG(R10) | REG(R12) | REG(R13) | REG(R14) | REG(R15))
#define REGS_32 \
	(REG(AX) | REG(BX) | REG(CX) | REG(DX) | REG(SI) | REG(DI) | REG(BP) | REG(SP) | REG(IP))

/* The number of calls[MEMORY_CALLS] is that of another mmap. */
static void numbers_of_calls(const struct target *target, int calls[MEMORY_CALLS + 1])
{
	const struct arch_syscalls *nr = &target->arch->syscalls;

	calls[MEMORY_CALL_MMAP] = nr->mmap;
	calls[MEMORY_CALL_MUNMAP] = nr->munmap;
	calls[MEMORY_CALL_MREMAP] = nr->mremap;
	calls[MEMORY_CALL_BRK] = nr->brk;
	calls[MEMORY_CALL_MADVISE] = nr->madvise;
	calls[MEMORY_CALL_MPROTECT] = nr->mprotect;
	calls[MEMORY_CALLS] = nr->old_mmap;
}

static enum memory_call call_of_spec(unsigned spec)
{
	return spec == MEMORY_CALLS ? MEMORY_CALL_MMAP : spec;
}

static struct memory_call_event event_of_64(const struct perf_sample *sample)
{
	const struct user_regs_struct *regs = &sample->regs;

	return (struct memory_call_event){
		.call = call_of_spec(sample->spec),
		.args = { regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9 },
		.result = regs->rax,
		.failed = regs->rax > -4096ull,
		.sample = sample,
	};
}

static struct memory_call_event event_of_32(const struct perf_sample *sample)
{
	const struct user_regs_struct *regs = &sample->regs;
	const uint32_t args[6] = { (uint32_t)regs->rbx, (uint32_t)regs->rcx, (uint32_t)regs->rdx,
				   (uint32_t)regs->rsi, (uint32_t)regs->rdi, (uint32_t)regs->rbp };
	struct memory_call_event event = {
		.call = call_of_spec(sample->spec),
		.result = (uint32_t)regs->rax,
		.failed = (uint32_t)regs->rax > -4096u,
		.sample = sample,
	};
	uint32_t indirect[6] = { 0 };
	uint64_t offset = args[0] - (uint32_t)regs->rsp;

	/* The arguments of the old mmap are where the only one points to, on the stack. */
	if (sample->spec == MEMORY_CALLS && offset <= sample->stack_size &&
	    sample->stack_size - offset >= sizeof(indirect))
		memcpy(indirect, sample->stack + offset, sizeof(indirect));
	for (unsigned i = 0; i < 6; i++)
		event.args[i] = sample->spec == MEMORY_CALLS ? indirect[i] : args[i];
	return event;
}

static struct error *visit_sample(void *data, const struct perf_sample *sample)
{
	struct memory_calls_recording *recording = data;
	struct memory_call_event event;
	struct error *error;

	if (sample->pid != recording->target->pid) {
		recording->child_events++;
		return NULL;
	}
	if (!sample->has_regs)
		return NULL;
	event = recording->target->arch->bits == 32 ? event_of_32(sample) : event_of_64(sample);
	error = memory_ledger_note(&recording->ledger, &event);
	if (recording->programs)
		stack_size_note(&recording->stack, sample_stacks_reach(recording->stacks),
				sample->stack_size);
	return error;
}

/* By programs of the kernel's, where it allows them: half the cost, and they see 32-bit calls. */
static struct error *open_programs(struct memory_calls_recording *recording,
				   const struct memory_calls_options *options)
{
	struct target *target = recording->target;
	struct perf_spec specs[MEMORY_CALLS + 1] = { 0 };
	int numbers[MEMORY_CALLS + 1];
	struct error *error;

	specs[0].registers = target->arch->bits == 32 ? REGS_32 : REGS;
	for (unsigned i = 1; i <= MEMORY_CALLS; i++)
		specs[i] = specs[0];
	numbers_of_calls(target, numbers);
	stack_size_init(&recording->stack, options->stack_bytes);
	error = bpf_probes_open_calls(target, specs, numbers, MEMORY_CALLS + 1,
				      options->stack_bytes, &recording->programs);
	if (!error)
		bpf_probes_want_stack(recording->programs, recording->stack.bytes);
	return error;
}

static struct error *open_samples(struct memory_calls_recording *recording,
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

static struct error *open_tracepoints(struct memory_calls_recording *recording,
				      const struct memory_calls_options *options)
{
	cleanup(error) struct error *refusal = open_programs(recording, options);
	struct error *error;

	if (!error_is(refusal, ERROR_PERMISSION) && !error_is(refusal, ERROR_UNSUPPORTED))
		return take_pointer(refusal);
	log_debug("no programs: %s", refusal->message);
	error = open_samples(recording, options);
	if (error && refusal->code == ERROR_PERMISSION)
		error = error_hint(error, "run as root, or setcap cap_bpf,cap_perfmon,"
					  "cap_sys_ptrace+ep memprobe");
	return error;
}

/* Waits as long as nothing comes, at most @timeout_ms. */
static struct error *poll_programs(struct memory_calls_recording *recording, int timeout_ms)
{
	struct error *error;

	if (timeout_ms)
		usleep(1000u * (unsigned)(timeout_ms < LOOK_MS ? timeout_ms : LOOK_MS));
	error = bpf_probes_poll(recording->programs, visit_sample, recording);
	bpf_probes_want_stack(recording->programs, recording->stack.bytes);
	return error;
}

/* ---- by ptrace ---- */

static struct error *visit_traced(void *data, const struct traced_call *call)
{
	struct memory_calls_recording *recording = data;
	const struct perf_sample sample = {
		.pid = recording->target->pid,
		.tid = call->tid,
		.time = call->time,
		.has_regs = true,
		.regs = call->regs,
		.stack = call->stack,
		.stack_size = call->stack_size,
	};
	struct memory_call_event event = {
		.call = call_of_spec(call->call),
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
	struct traced_syscall calls[MEMORY_CALLS + 1];
	int numbers[MEMORY_CALLS + 1];
	const struct syscall_tracer_options tracer = {
		.calls = calls,
		.call_count = MEMORY_CALLS + 1,
		.stack_bytes = options->stack_bytes ? options->stack_bytes : STACK_BYTES,
		.max_pause_us = options->max_pause_us,
	};

	numbers_of_calls(recording->target, numbers);
	for (unsigned i = 0; i <= MEMORY_CALLS; i++)
		calls[i] = (struct traced_syscall){ numbers[i], i == MEMORY_CALLS };
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
		error = sample_stacks_keep_modules(recording->stacks);
	if (!error)
		error = start_engine(recording, options);
	if (!error)
		error = find_brk(recording);
	memory_guard_begin(&recording->guard, target, options->memory_max);
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
	if (recording->programs)
		return poll_programs(recording, timeout_ms);
	return perf_poll(recording->perf, timeout_ms, visit_sample, recording);
}

static bool is_execed(const struct memory_calls_recording *recording)
{
	if (recording->tracer)
		return syscall_tracer_execed(recording->tracer);
	return recording->programs ? bpf_probes_ended(recording->programs)
				   : perf_target_execed(recording->perf);
}

static bool is_ended(const struct memory_calls_recording *recording)
{
	return recording->tracer && syscall_tracer_ended(recording->tracer);
}

static uint64_t lost(const struct memory_calls_recording *recording)
{
	uint64_t by_call[MEMORY_CALLS + 1], sum = 0;

	if (recording->tracer)
		return syscall_tracer_lost(recording->tracer);
	if (!recording->programs)
		return perf_lost(recording->perf);
	bpf_probes_lost(recording->programs, by_call);
	for (unsigned i = 0; i <= MEMORY_CALLS; i++)
		sum += by_call[i];
	return sum;
}

static struct error *poll(struct memory_calls_recording *recording, int timeout_ms, bool *alive_ret)
{
	struct error *error;

	if (recording->perf)
		return sample_stacks_poll(recording->stacks, recording->perf, timeout_ms,
					  visit_sample, recording, alive_ret);
	error = drain(recording, timeout_ms);
	if (!error)
		error = sample_stacks_tick(recording->stacks);
	if (!error)
		*alive_ret = !is_ended(recording) && !is_execed(recording) &&
			     !process_has_ended(recording->target->process);
	return error;
}

struct error *memory_calls_poll(struct memory_calls_recording *recording, int timeout_ms,
				bool *alive_ret)
{
	struct error *error = poll(recording, timeout_ms, alive_ret);

	if (!error)
		memory_guard_poll(&recording->guard, alive_ret);
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
	else if (recording->perf)
		perf_disable(recording->perf);
	if (recording->programs)
		error = bpf_probes_finish(recording->programs, visit_sample, recording);
	else
		error = drain(recording, 0);
	ret->engine = memory_calls_engine(recording);
	ret->stacks = sample_stacks_set(recording->stacks);
	ret->modules = sample_stacks_modules(recording->stacks);
	ret->sites = ledger->sites;
	ledger->sites = (struct memory_call_site_vec){ 0 };
	ret->events = ledger->events;
	ret->child_events = recording->child_events;
	ret->truncated = sample_stacks_truncated(recording->stacks);
	ret->cut = sample_stacks_cut(recording->stacks);
	ret->mapped = ledger->mapped_bytes;
	ret->unmapped = ledger->unmapped_bytes;
	ret->cut_short = recording->guard.has_ended;
	ret->execed = is_execed(recording);
	ret->ended = !ret->execed && process_has_ended(recording->target->process);
	ret->lost = lost(recording);
	ret->children_known = recording->perf != NULL;
	if (recording->perf)
		ret->ring_limited = perf_ring_limited(recording->perf);
	if (recording->tracer)
		ret->stopped_us = syscall_tracer_stopped_us(recording->tracer);
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
	bpf_probes_close(recording->programs);
	syscall_tracer_destroy(recording->tracer);
	sample_stacks_destroy(recording->stacks);
	memory_ledger_deinit(&recording->ledger);
	error_destroy(recording->refusal);
	free(recording);
}
