/*
 * x86-64 by the compiled tables; 32-bit processes, for which there are none, by libdwfl, 100 times
 * slower.
 */
#include "sample_stacks.h"

#include <stdlib.h>
#include <string.h>

#include "agent/unwind_abi.h"
#include "agent/unwind_walk.h"
#include "record/history.h"
#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/unwind.h"
#include "memprobe/unwind_table.h"

#define DEPTH_MAX 256u
/* Stacks of libdwfl's that are known again. */
#define KNOWN_MAX   2048u
#define KNOWN_DEPTH 48u
#define MODULES_NS  500000000ull /* between two looks for new ones */

_Static_assert(STACK_PC_EXACT == UNWIND_PC_EXACT, "one mark for both");

/* With the same registers and return addresses in the same places it is the same stack. */
struct known_stack {
	uint64_t ip, sp, bp; /* of its sample; ip 0: none */
	size_t depth;
	uint64_t cfas[KNOWN_DEPTH], pcs[KNOWN_DEPTH];
};

struct sample_stacks {
	struct target *target;
	struct stack_set *set;
	uint64_t truncated, cut, looked_ns, reach;
	struct history *history;    /* NULL: no modules are kept */
	struct unwind_table *table; /* NULL: libdwfl */
	uint64_t *cache;
	struct symbolizer *symbolizer;
	struct unwinder *unwinder;
	struct known_stack *known; /* KNOWN_MAX, by hash of the registers */
};

struct error *sample_stacks_create(struct target *target, struct sample_stacks **ret)
{
	cleanup(sample_stacks) struct sample_stacks *stacks = calloc(1, sizeof(*stacks));
	struct error *error;

	if (!stacks)
		return &error_no_memory;
	stacks->target = target;
	stacks->looked_ns = clock_ns();
	error = stack_set_create(&stacks->set);
	if (!error)
		error = unwind_table_create(target, &stacks->table);
	if (error_is(error, ERROR_UNSUPPORTED)) {
		error_destroy(error);
		error = symbolizer_create(target, &stacks->symbolizer);
		if (!error)
			error = unwinder_create(stacks->symbolizer, &stacks->unwinder);
		stacks->known = calloc(KNOWN_MAX, sizeof(*stacks->known));
		if (!error && !stacks->known)
			error = &error_no_memory;
	} else if (!error) {
		stacks->cache = calloc(UNWIND_CACHE_SIZE, sizeof(*stacks->cache));
		if (!stacks->cache)
			error = &error_no_memory;
	}
	if (!error)
		*ret = take_pointer(stacks);
	return error;
}

void sample_stacks_destroy(struct sample_stacks *stacks)
{
	if (!stacks)
		return;
	unwinder_destroy(stacks->unwinder);
	symbolizer_destroy(stacks->symbolizer);
	unwind_table_destroy(stacks->table);
	stack_set_destroy(stacks->set);
	history_destroy(stacks->history);
	free(stacks->cache);
	free(stacks->known);
	free(stacks);
}

struct error *sample_stacks_keep_modules(struct sample_stacks *stacks)
{
	return history_create(stacks->target, &stacks->history);
}

struct target *sample_stacks_modules(const struct sample_stacks *stacks)
{
	return history_target(stacks->history);
}

/*
 * Whether it is for want of bytes that no caller was found. Behind code without call frame
 * information it is more likely that rbp was no frame pointer.
 */
static bool is_cut(const struct sample_stacks *stacks, enum unwind_result result,
		   const struct unwind_frames *frames)
{
	struct unwind_view view;
	size_t size;

	if (result != UNWIND_UNREADABLE)
		return false;
	view = unwind_view(unwind_table_image(stacks->table, &size));
	for (unsigned i = 0; i < frames->count; i++) {
		uint64_t pc = frames->pcs[i];

		pc = (pc & ~UNWIND_PC_EXACT) - !(pc & UNWIND_PC_EXACT);
		if (unwind_lookup(&view, pc) == UNWIND_RULE_NO_CFI)
			return false;
	}
	return true;
}

/* By the tables; returns whether the stack's end was reached. */
static bool walk(struct sample_stacks *stacks, const struct perf_sample *sample, uint64_t *pcs,
		 size_t *depth_ret)
{
	const struct user_regs_struct *regs = &sample->regs;
	const uint64_t registers[16] = { regs->rax, regs->rdx, regs->rcx, regs->rbx,
					 regs->rsi, regs->rdi, regs->rbp, regs->rsp,
					 regs->r8,  regs->r9,  regs->r10, regs->r11,
					 regs->r12, regs->r13, regs->r14, regs->r15 };
	const struct unwind_start start = { .pc = regs->rip,
					    .sp = regs->rsp,
					    .bp = regs->rbp,
					    .bx = regs->rbx,
					    .has_bx = true,
					    .registers = registers };
	struct unwind_memory memory = { .low = 8, .high = 8 };
	uint64_t sps[DEPTH_MAX];
	struct unwind_frames frames = { .pcs = pcs, .sps = sps, .max = DEPTH_MAX };
	enum unwind_result result;
	size_t size;

	if (sample->stack_size >= 8) {
		memory.low = regs->rsp;
		memory.high = regs->rsp + sample->stack_size;
		memory.shift = (uintptr_t)sample->stack - regs->rsp;
	}
	result = unwind_walk(unwind_table_image(stacks->table, &size), stacks->cache, &start,
			     &memory, &frames);
	*depth_ret = frames.count;
	stacks->reach = frames.count ? sps[frames.count - 1] - regs->rsp : 0;
	if (result == UNWIND_UNREADABLE)
		stacks->reach = UINT64_MAX;
	stacks->cut += is_cut(stacks, result, &frames);
	return result == UNWIND_COMPLETE;
}

static struct known_stack *known_place(struct sample_stacks *stacks,
				       const struct user_regs_struct *regs)
{
	uint64_t hash = (regs->rip ^ regs->rsp << 20 ^ regs->rbp << 40) * 0x9e3779b97f4a7c15ull;

	return &stacks->known[hash >> 40 & (KNOWN_MAX - 1)];
}

/* What stands below each frame's CFA is where it returns to. */
static bool is_known(const struct sample_stacks *stacks, const struct known_stack *known,
		     const struct perf_sample *sample)
{
	unsigned word = stacks->target->arch->word_size;

	if (known->ip != sample->regs.rip || known->sp != sample->regs.rsp ||
	    known->bp != sample->regs.rbp)
		return false;
	for (size_t i = 0; i + 1 < known->depth; i++) {
		uint64_t offset = known->cfas[i] - word - sample->regs.rsp, pc = 0;

		if (offset > sample->stack_size || sample->stack_size - offset < word)
			return false;
		memcpy(&pc, sample->stack + offset, word);
		if (pc != known->pcs[i + 1])
			return false;
	}
	return true;
}

/* A signal's frame returns to no address that stands there: then it is not kept. */
static void keep_known(struct sample_stacks *stacks, const struct perf_sample *sample,
		       const struct frame_vec *frames, bool complete)
{
	struct known_stack *known = known_place(stacks, &sample->regs);

	known->ip = 0;
	if (!complete || frames->size > KNOWN_DEPTH)
		return;
	*known = (struct known_stack){ .ip = sample->regs.rip,
				       .sp = sample->regs.rsp,
				       .bp = sample->regs.rbp,
				       .depth = frames->size };
	for (size_t i = 0; i < frames->size; i++) {
		known->pcs[i] = frames->data[i].pc;
		known->cfas[i] = frames->data[i].cfa;
		if (i && frames->data[i].is_activation)
			known->ip = 0;
	}
	if (!is_known(stacks, known, sample))
		known->ip = 0;
}

static uint64_t reach_of(const struct frame_vec *frames, const struct perf_sample *sample)
{
	uint64_t reach = 0;

	vec_for_each (frame, frames)
		if (frame->cfa > sample->regs.rsp)
			reach = frame->cfa - sample->regs.rsp;
	return reach;
}

static struct error *unwind(struct sample_stacks *stacks, const struct perf_sample *sample,
			    uint64_t *pcs, size_t *depth_ret, bool *complete_ret)
{
	const struct thread_state state = {
		.tid = sample->tid,
		.regs = sample->regs,
		.stack_start = stacks->target->arch->sp(&sample->regs),
		.stack_size = sample->stack_size,
		/* It is only read. */
		.stack = (uint8_t *)sample->stack,
	};
	const struct known_stack *known = known_place(stacks, &sample->regs);
	struct frame_vec frames = { 0 };
	struct error *error;
	size_t depth;

	if (known->ip && is_known(stacks, known, sample)) {
		memcpy(pcs, known->pcs, known->depth * sizeof(*pcs));
		pcs[0] |= STACK_PC_EXACT;
		*depth_ret = known->depth;
		*complete_ret = true;
		return NULL;
	}
	error = unwind_thread(stacks->unwinder, &state, &frames);
	depth = frames.size < DEPTH_MAX ? frames.size : DEPTH_MAX;
	for (size_t i = 0; i < depth; i++)
		pcs[i] = frames.data[i].pc | (frames.data[i].is_activation ? STACK_PC_EXACT : 0);
	*complete_ret = depth && depth == frames.size && !frames.data[depth - 1].is_cut;
	*depth_ret = depth;
	stacks->cut += !*complete_ret;
	stacks->reach = *complete_ret ? reach_of(&frames, sample) : UINT64_MAX;
	if (!error)
		keep_known(stacks, sample, &frames, *complete_ret);
	frame_vec_deinit(&frames);
	return error;
}

struct error *sample_stacks_add(struct sample_stacks *stacks, const struct perf_sample *sample,
				uint32_t *id_ret)
{
	uint64_t pcs[DEPTH_MAX];
	struct error *error = NULL;
	bool complete = false;
	size_t depth = 0;

	if (sample->has_regs && stacks->table)
		complete = walk(stacks, sample, pcs, &depth);
	else if (sample->has_regs)
		error = unwind(stacks, sample, pcs, &depth, &complete);
	if (error)
		return error;
	stacks->truncated += !complete;
	return stack_set_add(stacks->set, pcs, depth, !complete, id_ret);
}

static struct error *learn_modules(struct sample_stacks *stacks)
{
	cleanup(target) struct target *fresh = NULL;
	bool changed = false, removed = false;
	struct error *error = target_open_live(stacks->target->pid, &fresh);

	if (!error && stacks->history)
		error = history_add(stacks->history, fresh);
	if (!error && stacks->table)
		error = unwind_table_update(stacks->table, fresh, &changed, &removed);
	if (removed)
		for (size_t i = 0; i < UNWIND_CACHE_SIZE; i++)
			stacks->cache[i] = 0;
	return error;
}

struct error *sample_stacks_tick(struct sample_stacks *stacks)
{
	struct error *error;

	if ((!stacks->table && !stacks->history) || clock_ns() - stacks->looked_ns < MODULES_NS ||
	    process_has_ended(stacks->target->process))
		return NULL;
	error = learn_modules(stacks);
	stacks->looked_ns = clock_ns();
	if (error && error->code != ERROR_NO_MEMORY) {
		/* It ends, or starts another program: what is known serves. */
		log_debug("modules: %s", error->message);
		error_destroy(error);
		return NULL;
	}
	return error;
}

struct error *sample_stacks_poll(struct sample_stacks *stacks, struct perf_session *perf,
				 int timeout_ms, perf_visit *visit, void *data, bool *alive_ret)
{
	struct error *error = perf_poll(perf, timeout_ms, visit, data);

	if (!error)
		error = sample_stacks_tick(stacks);
	if (!error)
		*alive_ret = !perf_target_exited(perf) && !perf_target_execed(perf) &&
			     !process_has_ended(stacks->target->process);
	return error;
}

const struct stack_set *sample_stacks_set(const struct sample_stacks *stacks)
{
	return stacks->set;
}

uint64_t sample_stacks_reach(const struct sample_stacks *stacks)
{
	return stacks->reach;
}

uint64_t sample_stacks_truncated(const struct sample_stacks *stacks)
{
	return stacks->truncated;
}

uint64_t sample_stacks_cut(const struct sample_stacks *stacks)
{
	return stacks->cut;
}
