#include "session.h"
#include "signal_frames.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/io.h"
#include "memprobe/num.h"
#include "memprobe/pthread_lists.h"
#include "memprobe/waits.h"

/* What the stub itself takes: registers, block, vector state. */
#define STUB_STACK (12u << 10)

/* The guard gap that the kernel keeps below a growing stack (Linux mm/mmap.c). */
#define STACK_GUARD_GAP (256 * PAGE_SIZE)

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif

struct rseq_configuration {
	uint64_t pointer;
	uint32_t size, signature, flags, pad;
};

static bool unfit(struct call_session *session, pid_t tid, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static bool unfit(struct call_session *session, pid_t tid, const char *format, ...)
{
	int length = snprintf(session->reason, sizeof(session->reason), "thread %d ", (int)tid);
	va_list args;

	va_start(args, format);
	vsnprintf(session->reason + length, sizeof(session->reason) - length, format, args);
	va_end(args);
	return false;
}

/* ---- who is worth a try ---- */

enum rank {
	RANK_BLOCKED,
	RANK_BLOCKED_LEADER,
	RANK_RUNNING,
	RANK_FAILS,
	RANK_UNKNOWN,
	RANK_NEVER, /* would be harmed, or cannot be stopped: session->reason */
};

static enum rank rank_of(struct call_session *session, pid_t tid)
{
	const struct target *target = session->target;
	struct process_syscall call;
	char text[WAIT_TEXT_MAX];

	switch (wait_kind_now(target->process, target->arch, tid, &call)) {
	case WAIT_RESTARTS:
		return tid == target->pid ? RANK_BLOCKED_LEADER : RANK_BLOCKED;
	case WAIT_RUNNING:
		return RANK_RUNNING;
	case WAIT_FAILS:
		return RANK_FAILS;
	case WAIT_UNKNOWN:
		return RANK_UNKNOWN;
	case WAIT_CUT:
		unfit(session, tid, "is%s, which a stop would cut short",
		      wait_describe(target->process, target->arch, tid, text));
		return RANK_NEVER;
	case WAIT_STAYS:
		unfit(session, tid, "%s",
		      wait_describe_stuck(target->process, target->arch, tid, text));
		return RANK_NEVER;
	}
	return RANK_NEVER;
}

struct error *victims_list(struct call_session *session, struct pid_vec *ret)
{
	struct pid_vec tids = { 0 };
	cleanup(free) enum rank *ranks = NULL;
	struct error *error = process_list_threads(session->target->process, &tids);

	if (!error && tids.size && !(ranks = calloc(tids.size, sizeof(*ranks))))
		error = &error_no_memory;
	if (!error && !tids.size)
		error = error_create(ERROR_FAILED, "process %d has exited",
				     (int)session->target->pid);
	if (!error)
		error = pid_vec_reserve(ret, tids.size);
	if (!error) {
		for (size_t i = 0; i < tids.size; i++)
			ranks[i] = rank_of(session, tids.data[i]);
		for (enum rank rank = RANK_BLOCKED; rank < RANK_NEVER; rank++)
			for (size_t i = 0; i < tids.size; i++)
				if (ranks[i] == rank)
					pid_vec_append(ret, &tids.data[i]);
	}
	pid_vec_deinit(&tids);
	return error;
}

/* ---- judging a stopped one ---- */

/* One word of a stack. */
typedef bool stack_test(struct call_session *session, uint64_t address, uint64_t word,
			const void *data);

/* Takes a look at the stack above the stack pointer, for scan_stack() to judge. */
static void read_stack(struct call_session *session, const struct user_regs_struct *regs)
{
	struct stack_view *view = &session->view;
	const struct arch *arch = session->target->arch;
	const struct mapping *mapping;
	struct error *error;

	/* Not the red zone: what calls nobody has no return address there, but stale ones do lie.
	 */
	view->start = round_up(arch->sp(regs), arch->word_size);
	view->size = sizeof(view->bytes);
	mapping = mappings_find(&session->maps, view->start);
	if (mapping)
		view->size = min_u64(view->size, mapping->end - view->start);
	error = target_read(session->target, view->start, view->bytes, view->size);
	view->readable = !error;
	error_destroy(error);
}

/*
 * Asks @test about the words of the stack until it returns true. Words are taken at every
 * pointer-aligned place: false alarms cost a retry, nothing else. What cannot be read cannot be
 * judged and counts as the worst.
 */
static bool scan_stack(struct call_session *session, stack_test *test, const void *data)
{
	const struct stack_view *view = &session->view;
	unsigned word = session->target->arch->word_size;

	if (!view->readable)
		return true;
	for (size_t i = 0; i + word <= view->size; i += word)
		if (test(session, view->start + i, load_word(view->bytes + i, word), data))
			return true;
	return false;
}

/* A call that is the last instruction of its function returns to the function's end. */
static bool word_in_ranges(struct call_session *session, uint64_t address, uint64_t word,
			   const void *data)
{
	return code_ranges_hold(data, word - 1);
}

/* By the stack as it was read last. */
static bool seen_inside(struct call_session *session, const struct user_regs_struct *regs,
			const struct code_range_vec *ranges)
{
	return code_ranges_hold(ranges, session->target->arch->pc(regs)) ||
	       (ranges->size && scan_stack(session, word_in_ranges, ranges));
}

bool thread_inside(struct call_session *session, const struct user_regs_struct *regs,
		   const struct code_range_vec *ranges)
{
	read_stack(session, regs);
	return seen_inside(session, regs, ranges);
}

bool thread_inside_below(struct call_session *session, const struct user_regs_struct *regs,
			 const struct code_range_vec *ranges, uint64_t end)
{
	struct stack_view *view = &session->view;

	read_stack(session, regs);
	view->size = end > view->start ? min_u64(view->size, end - view->start) : 0;
	return seen_inside(session, regs, ranges);
}

/* A whole stack is looked through as far as this. */
#define WHOLE_STACK_MAX (64u << 20)

/* Looks for words between @start and @end in [from, to) of the stack; true also if unreadable. */
static bool stack_has(struct call_session *session, uint64_t from, uint64_t to, uint64_t start,
		      uint64_t end)
{
	struct stack_view *view = &session->view;
	unsigned word = session->target->arch->word_size;

	for (uint64_t at = from; at < to; at += view->size) {
		struct error *error;

		view->start = at;
		view->size = min_u64(sizeof(view->bytes), to - at);
		error = target_read(session->target, at, view->bytes, view->size);
		view->readable = !error;
		if (error) {
			error_destroy(error);
			return true;
		}
		for (size_t i = 0; i + word <= view->size; i += word) {
			uint64_t value = load_word(view->bytes + i, word);

			if (value >= start && value < end)
				return true;
		}
	}
	return false;
}

enum stub_presence stub_presence(struct call_session *session, const struct user_regs_struct *regs)
{
	const struct arch *arch = session->target->arch;
	const struct placement *place = &session->place;
	uint64_t copied = place->code + place->detour.copied;
	uint64_t end = place->code + place->detour.size;
	uint64_t pc = arch->pc(regs), tp = arch->thread_pointer(regs);
	uint64_t sp = round_up(arch->sp(regs), arch->word_size);
	const struct mapping *mapping = mappings_find(&session->maps, sp);

	if (pc >= place->code && pc < end)
		return pc < copied ? STUB_BEFORE_COPY : STUB_INSIDE;
	/* On a signal's or a coroutine's stack: what lies on the thread's own is not seen. */
	if (!mapping || mapping->end - sp > WHOLE_STACK_MAX ||
	    (strcmp(mapping->path, "[stack]") && arch->bits == 64 &&
	     (tp < sp || tp >= mapping->end)))
		return STUB_INSIDE;
	if (!stack_has(session, sp, mapping->end, place->code, end))
		return STUB_OUTSIDE;
	return stack_has(session, sp, mapping->end, place->code, copied) ? STUB_BEFORE_COPY
									 : STUB_INSIDE;
}

/* What begins a ucontext. (Linux include/uapi/asm-generic/ucontext.h.) */
struct signal_context {
	uint64_t flags, link, stack, stack_flags, stack_size;
};

/* A frame of the kernel's is not larger, with all vector and tile registers. */
#define SIGNAL_FRAME_MAX (64u << 10)

static bool is_restorer(const struct call_session *session, uint64_t word)
{
	vec_for_each (restorer, &session->unsafe.restorers)
		if (word == *restorer)
			return true;
	return false;
}

/* What is as the kernel sets an alternate stack up, or says that there is none. */
static bool is_stack_sane(const struct arch *arch, const struct signal_context *context)
{
	/* SS_ONSTACK, SS_DISABLE, SS_AUTODISARM. */
	if (context->stack_flags & ~UINT64_C(0x80000003) & UINT32_MAX)
		return false;
	return context->stack <= arch->address_max &&
	       context->stack_size <= arch->address_max - context->stack;
}

/*
 * Whether the word at @address is where a signal handler returns to, with around it what the kernel
 * writes there; else it is stale. (Linux arch/x86/include/asm/sigframe.h.)
 */
static bool read_signal_frame(struct call_session *session, uint64_t address, uint64_t word,
			      struct signal_context *ret)
{
	const struct arch *arch = session->target->arch;
	unsigned size = arch->word_size;
	/* pretcode, then (i386: signal, two pointers, siginfo) ucontext. */
	uint64_t context = address + (size == 8 ? 8 : 16 + 128), sp;
	uint8_t bytes[5 * 8];
	struct error *error;

	if (!is_restorer(session, word))
		return false;
	error = target_read(session->target, context, bytes, (size_t)5 * size);
	if (error) {
		error_destroy(error);
		return false;
	}
	*ret = (struct signal_context){
		load_word(bytes, size),
		load_word(bytes + size, size),
		load_word(bytes + 2 * size, size),
		load_word(bytes + 3 * size, size),
		load_word(bytes + 4 * size, size),
	};
	/* UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS. */
	if (ret->flags > 7 || ret->link != 0 || !is_stack_sane(arch, ret) ||
	    !signal_frame_sp(session->target, address, &sp))
		return false;
	/* The handler's frame lies on the alternate stack, or below what was interrupted. */
	return address - ret->stack < ret->stack_size ||
	       (sp > address && sp - address < SIGNAL_FRAME_MAX);
}

static bool in_signal_handler(struct call_session *session, uint64_t address, uint64_t word,
			      const void *data)
{
	struct signal_context context;

	/* i386 has another, older frame, too: there the word alone has to do. */
	if (session->target->arch->bits == 32)
		return is_restorer(session, word);
	return read_signal_frame(session, address, word, &context);
}

/*
 * A handler on an alternate stack that holds the stack pointer @data: how much of such a stack is
 * free cannot be seen from its mapping.
 */
static bool on_signal_stack(struct call_session *session, uint64_t address, uint64_t word,
			    const void *data)
{
	uint64_t sp = *(const uint64_t *)data;
	struct signal_context context;

	return read_signal_frame(session, address, word, &context) &&
	       sp - context.stack < context.stack_size &&
	       address - context.stack < context.stack_size;
}

/* How far the main thread's stack may still grow below @sp. */
static uint64_t main_stack_room(struct call_session *session, const struct mapping *stack,
				uint64_t sp)
{
	uint64_t limit = process_limit(session->target->process, "Max stack size");
	uint64_t lowest = limit < stack->end ? stack->end - limit : 0;

	if (stack > session->maps.data)
		lowest = max_u64(lowest, stack[-1].end + STACK_GUARD_GAP);
	lowest = min_u64(lowest, stack->start);
	return sp > lowest ? sp - lowest : 0;
}

static bool is_no_access(const struct mapping *mapping)
{
	return !(mapping->perms & (PERM_READ | PERM_WRITE | PERM_EXEC));
}

/* The first page below @sp that MADV_GUARD_INSTALL made a guard, looking down to @lowest. */
static bool find_guard_page(struct call_session *session, uint64_t sp, uint64_t lowest,
			    uint64_t *end_ret)
{
	uint64_t entries[64];
	uint64_t first =
		max_u64(round_down(lowest, PAGE_SIZE) / PAGE_SIZE, sp / PAGE_SIZE + 1 - 64);
	size_t count = sp / PAGE_SIZE + 1 - first;
	cleanup(close) int fd = target_open_proc(session->target, "pagemap");

	if (fd < 0 || pread(fd, entries, count * 8, (off_t)(first * 8)) != (ssize_t)(count * 8))
		return false;
	while (count--) {
		if (!(entries[count] >> 58 & 1))
			continue;
		*end_ret = (first + count + 1) * PAGE_SIZE;
		return true;
	}
	return false;
}

/* Where the stack of the thread with this control block begins, behind its guard; 0: not known. */
static uint64_t noted_stack(struct call_session *session, uint64_t tp, uint64_t sp)
{
	uint8_t bytes[PTHREAD_BLOCK_SIZE];
	struct pthread_block block;
	size_t size = pthread_block_read(session->target, &session->maps, tp, bytes);

	if (!pthread_block_parse(session->target->arch, &session->maps, tp, bytes, size, &block) ||
	    !block.bounds || sp < block.start || sp >= block.end)
		return 0;
	return block.start;
}

/*
 * Bytes that are surely free below the stack pointer, as far as @needed. That a mapping goes on
 * below proves nothing: a signal stack, a goroutine's stack or one given by pthread_attr_setstack()
 * may be a small part of a heap. A stack counts if it is the main thread's, or if the thread
 * control block stands above it in the same mapping, and either a guard below it or in that block
 * where it begins: a guard may be no mapping of its own, and further down than a page map shows at
 * once.
 */
static uint64_t stack_room(struct call_session *session, const struct user_regs_struct *regs,
			   uint64_t needed)
{
	const struct arch *arch = session->target->arch;
	uint64_t sp = arch->sp(regs), bottom;
	const struct mapping *mapping = mappings_find(&session->maps, sp);
	uint64_t tp = arch->thread_pointer(regs);

	if (!mapping || (mapping->perms & (PERM_READ | PERM_WRITE)) != (PERM_READ | PERM_WRITE))
		return 0;
	if (!strcmp(mapping->path, "[stack]"))
		return main_stack_room(session, mapping, sp);
	if ((mapping->perms & PERM_SHARED) || (arch->bits == 64 && (tp < sp || tp >= mapping->end)))
		return 0;
	bottom = mapping->start;
	if (mapping > session->maps.data && mapping[-1].end == bottom && is_no_access(&mapping[-1]))
		return sp - bottom;
	bottom = max_u64(bottom, noted_stack(session, tp, sp));
	if (bottom > mapping->start)
		return sp - bottom;
	if (find_guard_page(session, sp, max_u64(bottom, sp - min_u64(sp, needed)), &bottom))
		return sp - bottom;
	return 0;
}

/* PC in a critical section of rseq(2): moving it would make the kernel forget to abort that. */
static bool in_restartable_sequence(struct call_session *session, pid_t tid, uint64_t pc)
{
	struct rseq_configuration configuration = { 0 };
	uint64_t section = 0;
	uint64_t description[4] = { 0 }; /* struct rseq_cs: flags, start, length, abort */
	struct error *error = ptrace_call(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof(configuration),
					  &configuration, "read the rseq registration of thread");

	/* A kernel that does not know the request: nor does its libc know rseq. */
	if (error || !configuration.pointer) {
		error_destroy(error);
		return false;
	}
	error = target_read(session->target, configuration.pointer + 8, &section, sizeof(section));
	if (!error && section)
		error = target_read(session->target, section, description, sizeof(description));
	if (error) {
		error_destroy(error);
		return true;
	}
	return section && pc - description[1] < description[2];
}

/*
 * Whether it runs code of the program or of a library that libc calls only by the program's wish:
 * then it may call anything, whatever return addresses lie on its stack, unless a signal handler
 * interrupted something. A busy thread never stands at the same place twice: the unwinder's word,
 * which comes later, is no help there.
 */
static bool runs_program(struct call_session *session, const struct user_regs_struct *regs)
{
	static const char *const system[] = { "/libc.", "/libc-",    "/libpthread", "/ld-",
					      "/ld.",	"/libgcc_s", "/libdl",	    "/librt" };
	const struct module *module;

	if (session->unsafe.foreign_allocator)
		return false;
	module = target_module_at(session->target, session->target->arch->pc(regs));
	if (!module || module->is_vdso)
		return false;
	for (size_t i = 0; i < sizeof(system) / sizeof(system[0]); i++)
		if (strstr(module->path, system[i]))
			return false;
	return !scan_stack(session, in_signal_handler, NULL);
}

/* Neither in the allocator nor in what holds its locks, by the scan or by the unwinder's word. */
static bool is_outside(struct call_session *session, pid_t tid, const struct user_regs_struct *regs,
		       enum fitness_power power)
{
	const struct unsafe_code *unsafe = &session->unsafe;
	uint64_t pc = session->target->arch->pc(regs);
	bool in_malloc = power == FIT_FOR_MALLOC && seen_inside(session, regs, &unsafe->malloc);
	bool in_other = seen_inside(session, regs, &unsafe->other);

	if ((!in_malloc && !in_other) || runs_program(session, regs) ||
	    opinion_clears(session, tid, regs))
		return true;
	if (!code_ranges_hold(&unsafe->malloc, pc) && !code_ranges_hold(&unsafe->other, pc))
		opinion_ask(session, tid, regs);
	return unfit(session, tid, "is in %s",
		     in_malloc ? "the allocator" : "fork, the dynamic linker, or on its way out");
}

/* Reads the stack that all that follows judges by. */
static bool seen_inside_stub(struct call_session *session, const struct user_regs_struct *regs)
{
	const struct placement *place = &session->place;
	struct code_range range = { place->code, place->code + place->detour.size };
	const struct code_range_vec stub = { .data = &range, .size = 1 };

	return thread_inside(session, regs, &stub);
}

bool victim_fits(struct call_session *session, pid_t tid, const struct user_regs_struct *regs,
		 enum fitness_power power, uint64_t stack_needed)
{
	const struct arch *arch = session->target->arch;
	bool is_compat = regs->cs == 0x23;
	uint64_t sp = arch->sp(regs), room;

	if (is_compat != (arch->bits == 32))
		return unfit(session, tid, "runs code of another word size");
	if (seen_inside_stub(session, regs))
		return unfit(session, tid, "is still in an earlier call");
	if (ptrace_has_dispatch(tid))
		return unfit(session, tid, "has its system calls dispatched to itself");
	stack_needed += STUB_STACK;
	room = stack_room(session, regs, stack_needed);
	if (room < stack_needed)
		return unfit(session, tid, "has only %llu KiB of stack left that is surely its own",
			     (unsigned long long)room >> 10);
	if (in_restartable_sequence(session, tid, arch->pc(regs)))
		return unfit(session, tid, "is in a restartable sequence");
	if (scan_stack(session, on_signal_stack, &sp))
		return unfit(session, tid, "handles a signal on an alternate stack");
	if (power == FIT_FOR_SYSCALLS)
		return true;
	return is_outside(session, tid, regs, power);
}
