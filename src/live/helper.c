#include "session.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "memprobe/clock.h"
#include "memprobe/elf_file.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

/*
 * A thread of our own in the target, for when every thread of its own is always in malloc: the
 * caller only makes raw system calls (mmap, clone), which are legal at any program counter, and
 * goes on at once. The helper runs the script and unmaps itself.
 *
 * It has a copy of the caller's thread control block and static TLS, so that libc works; it must
 * not allocate, since the copy shares the caller's thread cache. Mutexes make sense only if libc
 * knows of more than one thread.
 *
 * Its memory, one mapping:	stack | parameter block | TLS copy | control block copy
 */

#define HELPER_STACK   (192u << 10)
#define TCB_MAX	       4096u
#define STATIC_TLS_MAX (1u << 20)

static bool says_single_threaded(struct call_session *session)
{
	struct elf_symbol symbol;
	uint8_t single = 0;
	struct error *error;

	/* Exported by glibc since 2.32; before, the control block told, which we copy. */
	if (!target_symbol(session->target, "__libc_single_threaded", &symbol, NULL))
		return false;
	error = target_read(session->target, symbol.address, &single, 1);
	if (error) {
		error_destroy(error);
		return true;
	}
	return single != 0;
}

bool helper_possible(struct call_session *session)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(session->target->process, &tids);
	bool several = !error && tids.size > 1;
	struct libc libc;

	error_destroy(error);
	pid_vec_deinit(&tids);
	if (!several || says_single_threaded(session) || session->static_tls > STATIC_TLS_MAX)
		return false;
	error = target_libc(session->target, &libc);
	if (error) {
		error_destroy(error);
		return false;
	}
	return libc.kind == LIBC_GLIBC && session->target->arch == &arch_x86_64;
}

struct helper_memory {
	uint64_t start, size;
	uint64_t frame;	   /* address of the block, also the top of the stack */
	uint64_t tls, tcb; /* where the copies go */
	uint64_t tls_from, copy_size;
};

static struct error *lay_out(struct call_session *session, const struct user_regs_struct *regs,
			     size_t block_size, struct helper_memory *ret)
{
	uint64_t tp = session->target->arch->thread_pointer(regs);
	const struct mapping *mapping = mappings_find(&session->maps, tp);
	uint64_t below, above;
	struct error *error;

	if (!mapping)
		return error_create(ERROR_BUSY, "the caller's thread control block is not mapped");
	below = min_u64(session->static_tls, tp - mapping->start);
	above = min_u64(TCB_MAX, mapping->end - tp);
	ret->size = round_up(HELPER_STACK + round_up(block_size, 64) + below + TCB_MAX + PAGE_SIZE,
			     PAGE_SIZE);
	/* Far from the places that scripts choose for themselves, and another one each time. */
	error = call_find_gap(session->target, ret->size, 1024 + (unsigned)(clock_us() % 64),
			      &ret->start);
	if (error)
		return error;
	ret->frame = ret->start + HELPER_STACK;
	/* Same place within a page, so that all alignments hold. */
	ret->tcb =
		round_up(ret->frame + round_up(block_size, 64) + below, PAGE_SIZE) + tp % PAGE_SIZE;
	ret->size = round_up(ret->tcb + above - ret->start, PAGE_SIZE);
	ret->tls = ret->tcb - below;
	ret->tls_from = tp - below;
	ret->copy_size = below + above;
	return NULL;
}

/* What the helper runs: the script, and its own end instead of a return. */
static struct error *encode_inner(struct call_session *session, const struct call_script *script,
				  const struct helper_memory *memory, struct block *ret)
{
	struct block_header header = { .stack = memory->frame };
	struct call_script inner = *script;
	struct call_step leave = {
		.op = CALL_OP_EXIT,
		.args = { CALL_ARG(memory->start), CALL_ARG(memory->size) },
	};
	int last = call_add_step(&inner, &leave);

	/* The stack pointer must stay clear of the block whatever fails first. */
	for (unsigned i = 0; i < inner.step_count; i++)
		if (inner.steps[i].fail == CALL_FAIL_END)
			inner.steps[i].fail = last;
	return script_encode(&inner, &header, ret);
}

static void add_operation(struct call_script *script, enum call_op op, struct call_arg first,
			  struct call_arg second, struct call_arg third)
{
	struct call_step step = { .op = op, .args = { first, second, third } };

	call_add_step(script, &step);
}

/* What the caller runs. */
static void write_outer(struct call_script *outer, const struct arch *arch,
			const struct helper_memory *memory, const struct block *inner,
			bool private_files)
{
	const struct call_arg map[] = {
		CALL_ARG(memory->start),
		CALL_ARG(memory->size),
		CALL_ARG(PROT_READ | PROT_WRITE),
		CALL_ARG(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE),
		CALL_ARG(-1),
		CALL_ARG(0),
	};
	const struct call_arg advise[] = { CALL_ARG(memory->start), CALL_ARG(memory->size),
					   CALL_ARG(MADV_DONTFORK) };
	uint64_t flags = CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
			 CLONE_SETTLS | (private_files ? 0 : CLONE_FILES);
	struct call_step clone = {
		.op = CALL_OP_CLONE,
		.function = (uint64_t)arch->syscalls.clone,
		.args = { CALL_ARG(flags), CALL_ARG(memory->frame - 64), CALL_ARG(0), CALL_ARG(0),
			  CALL_ARG(memory->tcb), CALL_ARG(memory->frame) },
		.check = CALL_NO_ERRNO,
		.fail = CALL_FAIL_CLEANUP,
	};
	struct call_step end = { .op = CALL_OP_END };
	struct call_arg unmap[] = { CALL_ARG(0), CALL_ARG(memory->size) };
	size_t block = call_add_data(outer, inner->bytes, inner->size);

	/* A kernel before 4.17 takes the address for a wish: what it gave instead is given back. */
	unmap[0] = CALL_WORD(
		call_add_syscall(outer, arch->syscalls.mmap, 6, map, CALL_EXPECT, memory->start));
	call_add_syscall(outer, arch->syscalls.madvise, 3, advise, CALL_ANY, 0);
	add_operation(outer, CALL_OP_COPY, CALL_ARG(memory->tls), CALL_ARG(memory->tls_from),
		      CALL_ARG(memory->copy_size));
	add_operation(outer, CALL_OP_STORE, CALL_ARG(memory->tcb), CALL_ARG(memory->tcb),
		      CALL_ARG(0));
	add_operation(outer, CALL_OP_STORE, CALL_ARG(memory->tcb + arch->pthread.self),
		      CALL_ARG(memory->tcb), CALL_ARG(0));
	add_operation(outer, CALL_OP_COPY, CALL_ARG(memory->frame), CALL_ADDR(block),
		      CALL_ARG(inner->size));
	call_add_step(outer, &clone);
	call_add_marker(outer);
	call_add_step(outer, &end);
	/* Only what failed before the helper began comes here: the memory belongs to it. */
	call_add_syscall(outer, arch->syscalls.munmap, 2, unmap, CALL_ANY, 0);
	outer->steps[0].fail = outer->steps[outer->marker - 1].fail = outer->marker + 2;
}

void helper_outline(struct call_session *session, const struct call_options *options,
		    struct call_script *ret)
{
	const uint64_t start = 1u << 20;
	const struct helper_memory memory = {
		.start = start,
		.size = HELPER_STACK + TCB_MAX + PAGE_SIZE,
		.frame = start + HELPER_STACK,
		.tls = start + HELPER_STACK + PAGE_SIZE,
		.tcb = start + HELPER_STACK + PAGE_SIZE,
	};
	const struct block nothing = { 0 };
	struct call_step leave = {
		.op = CALL_OP_EXIT,
		.args = { CALL_ARG(memory.start), CALL_ARG(memory.size) },
	};

	call_begin(ret, session->target->arch);
	write_outer(ret, session->target->arch, &memory, &nothing, options->helper_private_files);
	call_add_step(ret, &leave);
}

static struct error *start_helper(struct call_session *session, pid_t tid,
				  const struct user_regs_struct *regs,
				  const struct call_script *outer, uint64_t deadline,
				  pid_t *helper_ret)
{
	struct call_options options = { 0 };
	struct call_result result = { 0 };
	struct block block;
	struct engine_run run = {
		.tid = tid,
		.regs = *regs,
		.script = outer,
		.block = &block,
		.options = &options,
		.deadline = deadline,
		.result = &result,
	};
	struct error *error = engine_run(session, &run);

	*helper_ret = run.child;
	if (!error && !run.child)
		error = error_create(ERROR_BUSY, "thread %d could not start a helper thread",
				     (int)tid);
	return error;
}

struct error *helper_run(struct call_session *session, pid_t tid,
			 const struct user_regs_struct *regs, const struct call_script *script,
			 const struct call_options *options, uint64_t deadline,
			 struct call_result *ret)
{
	struct helper_memory memory;
	struct call_script outer;
	struct block inner;
	struct ptrace_stop stop;
	struct engine_run run = {
		.script = script,
		.block = &inner,
		.options = options,
		.deadline = deadline,
		.result = ret,
	};
	struct error *error;

	/* Twice: where things lie depends on the size, and the size not on where they lie. */
	error = encode_inner(session, script, &(struct helper_memory){ 0 }, &inner);
	if (!error)
		error = lay_out(session, regs, inner.size, &memory);
	if (!error)
		error = encode_inner(session, script, &memory, &inner);
	if (!error) {
		call_begin(&outer, session->target->arch);
		write_outer(&outer, session->target->arch, &memory, &inner,
			    options->helper_private_files);
	}
	if (error) {
		ptrace_detach(tid, 0);
		return error;
	}
	error = start_helper(session, tid, regs, &outer, deadline, &run.tid);
	if (!run.tid)
		return error;
	/* A caller that failed us on its way out takes nothing from the helper. */
	error_destroy(error);
	error = ptrace_wait(run.tid, 1000000, &stop);
	if (!error && stop.kind != PTRACE_STOP_TRAP && stop.kind != PTRACE_STOP_GROUP)
		error = error_create(ERROR_BUSY, "the helper thread %d did not start",
				     (int)run.tid);
	if (error) {
		/* It will, and runs in the stub. */
		session->place.in_use = true;
		return error;
	}
	run.helper_frame = memory.frame;
	ret->by_helper = true;
	log_debug("thread %d started helper thread %d for the call", (int)tid, (int)run.tid);
	return engine_watch(session, &run);
}
