/* What a sample means: calls begin, blocks come and go. In the order of time, over all threads. */
#include <math.h>
#include <string.h>
#include <sys/user.h>

#include "memprobe/num.h"
#include "uprobe.h"

/* i386: behind the return address. */
static uint64_t stacked_argument(const struct perf_sample *sample, unsigned number)
{
	size_t offset = (1 + (size_t)number) * sizeof(uint32_t);
	uint32_t value = 0;

	if (offset + sizeof(value) <= sample->stack_size)
		memcpy(&value, sample->stack + offset, sizeof(value));
	return value;
}

static uint64_t argument(const struct uprobe_engine *engine, unsigned function,
			 const struct perf_sample *sample, unsigned number)
{
	const struct user_regs_struct *regs = &sample->regs;
	const uint64_t values[] = { regs->rax, regs->rcx, regs->rdx, regs->rbx,
				    regs->rsp, regs->rbp, regs->rsi, regs->rdi,
				    regs->r8,  regs->r9,  regs->r10, regs->r11,
				    regs->r12, regs->r13, regs->r14, regs->r15 };

	if (number >= UPROBE_ARGUMENTS)
		return 0;
	return engine->word == sizeof(uint32_t) ? stacked_argument(sample, number)
						: values[engine->arguments[function][number] & 15];
}

/* What cannot be is not multiplied: the function fails then. */
static uint64_t size_of(const struct uprobe_engine *engine, unsigned function,
			const struct perf_sample *sample)
{
	const struct function_spec *spec = engine->functions.data[function].spec;
	uint64_t size = argument(engine, function, sample, spec->size), product;

	if (spec->count == AGENT_NO_ARG)
		return size;
	return __builtin_mul_overflow(size, argument(engine, function, sample, spec->count),
				      &product)
		       ? 0
		       : product;
}

/* ---- blocks ---- */

static bool take_out(struct uprobe_engine *engine, uint64_t address, uint64_t time,
		     struct uprobe_block *ret)
{
	if (!address || !uprobe_table_take(&engine->table, address, time, ret))
		return false;
	engine->counts.freed++;
	return true;
}

static double next_random(struct uprobe_engine *engine)
{
	engine->random ^= engine->random << 13;
	engine->random ^= engine->random >> 7;
	engine->random ^= engine->random << 17;
	return (double)(engine->random >> 11) * 0x1p-53;
}

/* Whether a sample point falls into a block; they are as far apart as in a Poisson process. */
static bool is_sampled(struct uprobe_engine *engine, uint64_t size)
{
	if (engine->rate <= 1)
		return true;
	engine->countdown -= (double)max_u64(size, 1);
	if (engine->countdown > 0)
		return false;
	engine->countdown = -log1p(-next_random(engine)) * (double)engine->rate;
	return true;
}

static struct error *add_total(struct uprobe_engine *engine, uint32_t stack, uint64_t size)
{
	const struct uprobe_total none = { 0 };
	double weight = uprobe_weight(engine->rate, size);

	while (engine->totals.size <= stack) {
		struct error *error = uprobe_total_vec_append(&engine->totals, &none);

		if (error)
			return error;
	}
	engine->totals.data[stack].count += weight;
	engine->totals.data[stack].bytes += weight * (double)size;
	return NULL;
}

static struct error *add_stack(struct uprobe_engine *engine, const struct perf_sample *sample,
			       uint32_t *ret)
{
	struct error *error = sample_stacks_add(engine->stacks, sample, ret);

	stack_size_note(&engine->stack, sample_stacks_reach(engine->stacks), sample->stack_size);
	return error;
}

/* Of a block that is not recorded. */
static struct error *learn_stack(struct uprobe_engine *engine, const struct perf_sample *sample)
{
	uint32_t stack;

	return stack_size_wants(&engine->stack) ? add_stack(engine, sample, &stack) : NULL;
}

static struct error *enter_block(struct uprobe_engine *engine, const struct perf_sample *sample,
				 uint64_t address, uint64_t size)
{
	struct uprobe_block block = { .address = address, .size = size, .time = sample->time };
	struct error *error;
	bool replaced;

	engine->counts.bytes += size;
	if (size < engine->options->min_size ||
	    (engine->options->max_size && size > engine->options->max_size)) {
		engine->counts.filtered++;
		return learn_stack(engine, sample);
	}
	if (!is_sampled(engine, size))
		return learn_stack(engine, sample);
	error = add_stack(engine, sample, &block.stack);
	if (!error && engine->options->all)
		error = add_total(engine, block.stack, size);
	if (!error)
		error = uprobe_table_put(&engine->table, &block, &replaced);
	if (error)
		return error;
	engine->counts.recorded++;
	engine->counts.replaced += replaced;
	return NULL;
}

/* ---- calls ---- */

static struct error *visit_entry(struct uprobe_engine *engine, unsigned number,
				 const struct perf_sample *sample)
{
	const struct function_spec *spec = engine->functions.data[number].spec;
	struct uprobe_call call = {
		.sp = sample->regs.rsp,
		.pointer = argument(engine, number, sample, spec->pointer),
		.size = size_of(engine, number, sample),
		.function = number,
	};

	engine->counts.calls++;
	switch (spec->kind) {
	case AGENT_KIND_FREE:
		take_out(engine, call.pointer, sample->time, NULL);
		return NULL;
	case AGENT_KIND_NEW:
		if (engine->exits[number] == UPROBE_NO_EXIT) {
			engine->counts.unreturned++;
			return NULL;
		}
		call.at_ret = true;
		call.may_throw = engine->exits[number] == UPROBE_ALL_EXITS;
		break;
	case AGENT_KIND_REALLOC:
		/* Somebody else may get the old place before it returns. */
		if (!take_out(engine, call.pointer, sample->time, &call.old))
			call.old.address = 0;
		break;
	default:
		break;
	}
	return uprobe_calls_enter(engine->calls, sample->tid, &call);
}

/* posix_memalign(3) writes it where the caller says, mostly on its stack. */
static uint64_t read_out(struct uprobe_engine *engine, const struct perf_sample *sample,
			 uint64_t address)
{
	uint64_t offset = address - sample->regs.rsp, block = 0;

	/* Little endian: of less than 8 bytes the lower ones. */
	if (offset < sample->stack_size && sample->stack_size - offset >= engine->word)
		memcpy(&block, sample->stack + offset, engine->word);
	else
		error_destroy(target_read(engine->target, address, &block, engine->word));
	return block;
}

static struct error *put_back(struct uprobe_engine *engine, const struct uprobe_block *block)
{
	bool replaced;

	if (!block->address)
		return NULL;
	engine->counts.freed--;
	return uprobe_table_put(&engine->table, block, &replaced);
}

static struct error *visit_outcome(struct uprobe_engine *engine, const struct function_spec *spec,
				   const struct uprobe_call *call, const struct perf_sample *sample)
{
	uint64_t result = sample->regs.rax;
	struct uprobe_block *block;

	switch (spec->kind) {
	case AGENT_KIND_RESIZE:
		block = uprobe_table_find(&engine->table, call->pointer);
		if (block)
			block->size = result;
		return NULL;
	case AGENT_KIND_ALLOC_AT:
		result = (uint32_t)result ? 0 : read_out(engine, sample, call->pointer);
		break;
	case AGENT_KIND_REALLOC:
		if (!result && call->size)
			return put_back(engine, &call->old);
		break;
	default:
		break;
	}
	return result ? enter_block(engine, sample, result, call->size) : NULL;
}

static struct error *visit_return(struct uprobe_engine *engine, unsigned number,
				  const struct perf_sample *sample)
{
	bool own = sample->regs.rip >= engine->text_start && sample->regs.rip < engine->text_end;
	struct uprobe_call call;
	enum uprobe_return kind;
	struct error *error =
		uprobe_calls_return(engine->calls, sample->tid, number,
				    sample->regs.rsp - engine->word, own, &call, &kind);

	if (error)
		return error;
	engine->counts.unpaired += kind == UPROBE_UNKNOWN && number != UPROBE_AT_RET;
	if (kind != UPROBE_OUTER)
		return NULL;
	return visit_outcome(engine, engine->functions.data[call.function].spec, &call, sample);
}

/* Before it is carried out: as if it had been. */
static struct error *visit_ret(struct uprobe_engine *engine, const struct perf_sample *sample)
{
	struct perf_sample after = *sample;
	uint64_t caller;

	if (sample->stack_size < sizeof(caller))
		return NULL;
	memcpy(&caller, sample->stack, sizeof(caller));
	after.regs.rip = caller;
	after.regs.rsp += sizeof(caller);
	after.stack += sizeof(caller);
	after.stack_size -= sizeof(caller);
	return visit_return(engine, UPROBE_AT_RET, &after);
}

struct error *uprobe_visit(void *data, const struct perf_sample *sample)
{
	struct uprobe_engine *engine = data;
	const struct uprobe_event *event = &engine->events[sample->spec];

	if (sample->pid != engine->target->pid || !sample->has_regs ||
	    sample->time < engine->since || (engine->until && sample->time > engine->until))
		return NULL;
	switch (event->kind) {
	case UPROBE_RETURN:
		return visit_return(engine, event->function, sample);
	case UPROBE_RET:
		return visit_ret(engine, sample);
	default:
		return visit_entry(engine, event->function, sample);
	}
}
