/*
 * What the kernel does at a probe: it writes a record into the ring, with the registers that count
 * and, at a return, as much of the stack as is wanted just then. Some 0.3 us beside the trap.
 *
 * The context is the struct pt_regs of user mode, laid out as struct user_regs_struct begins.
 */
#include <sys/stat.h>
#include <sys/user.h>

#include "bpf.h"
#include "memprobe/arch.h"
#include "perf_session.h"
#include "bpf_probes.h"

/* Younger than the headers of some systems: BPF_FUNC_get_attach_cookie, BPF_ATOMIC. */
#define FUNC_GET_ATTACH_COOKIE 174
#define ATOMIC		       0xc0

#define PAGE 4096

/* Registers of the program; those from CONTEXT on are left alone by helpers. */
enum { RESULT = 0, ARG1, ARG2, ARG3, ARG4, SCRATCH, CONTEXT, RECORD, DONE, WANTED, FRAME };

struct builder {
	struct bpf_program program;
	const struct bpf_record_options *options;
	unsigned registers; /* how many a record has */
};

static uint32_t record_size(const struct builder *builder, uint32_t stack_bytes)
{
	return (uint32_t)sizeof(struct bpf_record) + builder->registers * 8 + stack_bytes;
}

static void emit_end(struct bpf_program *to)
{
	/* 0: perf itself makes no sample of it. */
	bpf_set(to, RESULT, 0);
	bpf_emit(to, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* On the program's stack. */
#define NUMBER_AT (-8)

static void emit_number(struct builder *builder)
{
	struct bpf_program *to = &builder->program;

	if (builder->options->number < 0)
		bpf_call(to, FUNC_GET_ATTACH_COOKIE);
	else
		bpf_set(to, RESULT, builder->options->number);
	bpf_put(to, FRAME, NUMBER_AT, RESULT);
}

static void emit_lost(struct builder *builder)
{
	struct bpf_program *to = &builder->program;
	unsigned wrong;

	bpf_set_value(to, ARG1, builder->options->shared, offsetof(struct bpf_shared, lost));
	bpf_get(to, ARG2, FRAME, NUMBER_AT);
	wrong = bpf_jump(to, BPF_JGT, ARG2, PERF_SPECS_MAX - 1);
	bpf_emit(to, BPF_ALU64 | BPF_LSH | BPF_K, ARG2, 0, 0, 3);
	bpf_emit(to, BPF_ALU64 | BPF_ADD | BPF_X, ARG1, ARG2, 0, 0);
	bpf_set(to, ARG2, 1);
	bpf_emit(to, BPF_STX | ATOMIC | BPF_DW, ARG1, ARG2, 0, BPF_ADD);
	bpf_land(to, wrong);
	emit_end(to);
}

static void emit_get_sp(struct bpf_program *to)
{
	bpf_get(to, ARG3, CONTEXT, offsetof(struct user_regs_struct, rsp));
}

/* From the stack pointer to its page's end, if that is not more than @bytes. Jumps that it appends
 * lead past all that follows. */
static void emit_first_page(struct builder *builder, uint32_t bytes, unsigned *out, unsigned *count)
{
	struct bpf_program *to = &builder->program;

	emit_get_sp(to);
	bpf_move(to, SCRATCH, ARG3);
	bpf_emit(to, BPF_ALU64 | BPF_AND | BPF_K, SCRATCH, 0, 0, PAGE - 1);
	bpf_set(to, ARG2, PAGE);
	bpf_emit(to, BPF_ALU64 | BPF_SUB | BPF_X, ARG2, SCRATCH, 0, 0);
	/* All of it on one page: it is not there. */
	out[(*count)++] = bpf_jump(to, BPF_JGT, ARG2, (int32_t)bytes);
	bpf_move(to, WANTED, ARG2);
	bpf_move(to, ARG1, RECORD);
	bpf_emit(to, BPF_ALU64 | BPF_ADD | BPF_K, ARG1, 0, 0, (int32_t)record_size(builder, 0));
	bpf_call(to, BPF_FUNC_probe_read_user);
	out[(*count)++] = bpf_jump(to, BPF_JNE, RESULT, 0);
	bpf_move(to, DONE, WANTED);
}

/* A page behind DONE bytes. */
static void emit_page(struct builder *builder, uint32_t bytes, unsigned *out, unsigned *count)
{
	struct bpf_program *to = &builder->program;

	out[(*count)++] = bpf_jump(to, BPF_JGT, DONE, (int32_t)(bytes - PAGE));
	emit_get_sp(to);
	bpf_emit(to, BPF_ALU64 | BPF_ADD | BPF_X, ARG3, DONE, 0, 0);
	bpf_move(to, ARG1, RECORD);
	bpf_emit(to, BPF_ALU64 | BPF_ADD | BPF_X, ARG1, DONE, 0, 0);
	bpf_emit(to, BPF_ALU64 | BPF_ADD | BPF_K, ARG1, 0, 0, (int32_t)record_size(builder, 0));
	bpf_set(to, ARG2, PAGE);
	bpf_call(to, BPF_FUNC_probe_read_user);
	out[(*count)++] = bpf_jump(to, BPF_JNE, RESULT, 0);
	bpf_emit(to, BPF_ALU64 | BPF_ADD | BPF_K, DONE, 0, 0, PAGE);
}

/*
 * All at once, which fails as a whole where one page is not to be read (it ends the stack, or is
 * swapped out); then page by page up to there. DONE becomes how many bytes there are.
 */
static void emit_stack(struct builder *builder, uint32_t bytes)
{
	struct bpf_program *to = &builder->program;
	unsigned whole, out[2 * (PERF_STACK_MAX / PAGE + 2)], count = 0;

	bpf_move(to, ARG1, RECORD);
	bpf_emit(to, BPF_ALU64 | BPF_ADD | BPF_K, ARG1, 0, 0, (int32_t)record_size(builder, 0));
	bpf_set(to, ARG2, (int32_t)bytes);
	emit_get_sp(to);
	bpf_set(to, DONE, (int32_t)bytes);
	bpf_call(to, BPF_FUNC_probe_read_user);
	whole = bpf_jump(to, BPF_JEQ, RESULT, 0);
	bpf_set(to, DONE, 0);
	emit_first_page(builder, bytes, out, &count);
	for (uint32_t page = 1; page < bytes / PAGE; page++)
		emit_page(builder, bytes, out, &count);
	while (count)
		bpf_land(to, out[--count]);
	bpf_land(to, whole);
}

/* To its end; the program goes on behind if the ring is full. */
static void emit_record(struct builder *builder, uint32_t stack_bytes)
{
	struct bpf_program *to = &builder->program;
	int16_t at = offsetof(struct bpf_record, registers);
	unsigned full;

	bpf_set_map(to, ARG1, builder->options->ring);
	bpf_set(to, ARG2, (int32_t)record_size(builder, stack_bytes));
	bpf_set(to, ARG3, 0);
	bpf_call(to, BPF_FUNC_ringbuf_reserve);
	full = bpf_jump(to, BPF_JEQ, RESULT, 0);
	bpf_move(to, RECORD, RESULT);
	bpf_get(to, ARG1, FRAME, NUMBER_AT);
	bpf_put(to, RECORD, offsetof(struct bpf_record, spec), ARG1);
	bpf_call(to, BPF_FUNC_get_current_pid_tgid);
	bpf_put(to, RECORD, offsetof(struct bpf_record, thread), RESULT);
	bpf_call(to, BPF_FUNC_ktime_get_ns);
	bpf_put(to, RECORD, offsetof(struct bpf_record, time), RESULT);
	for (unsigned i = 0; i < PERF_PLACES; i++) {
		if (!(builder->options->registers >> perf_places[i].bit & 1))
			continue;
		bpf_get(to, ARG1, CONTEXT, (int16_t)perf_places[i].offset);
		bpf_put(to, RECORD, at, ARG1);
		at += 8;
	}
	bpf_set(to, DONE, 0);
	if (stack_bytes)
		emit_stack(builder, stack_bytes);
	bpf_put(to, RECORD, offsetof(struct bpf_record, stack_size), DONE);
	bpf_move(to, ARG1, RECORD);
	bpf_set(to, ARG2, BPF_RB_NO_WAKEUP);
	bpf_call(to, BPF_FUNC_ringbuf_submit);
	emit_end(to);
	bpf_land(to, full);
}

/* As much of the stack as the shared value says, by one branch for each size. */
static void emit_sizes(struct builder *builder)
{
	const struct bpf_record_options *options = builder->options;
	struct bpf_program *to = &builder->program;

	bpf_set_value(to, ARG1, options->shared, offsetof(struct bpf_shared, stack_bytes));
	bpf_get(to, WANTED, ARG1, 0);
	for (unsigned i = 0; i < options->size_count; i++) {
		bool is_last = i + 1 == options->size_count;
		unsigned next = 0;

		if (!is_last)
			next = bpf_jump(to, BPF_JGT, WANTED, (int32_t)options->sizes[i]);
		emit_record(builder, options->sizes[i]);
		emit_lost(builder);
		if (!is_last)
			bpf_land(to, next);
	}
}

static void count_registers(struct builder *builder)
{
	for (unsigned i = 0; i < PERF_PLACES; i++)
		builder->registers += builder->options->registers >> perf_places[i].bit & 1;
}

struct error *bpf_record_program(const struct bpf_record_options *options, int *fd_ret)
{
	struct builder builder = { .options = options };

	count_registers(&builder);
	bpf_move(&builder.program, CONTEXT, ARG1);
	emit_number(&builder);
	if (options->size_count) {
		emit_sizes(&builder);
	} else {
		emit_record(&builder, 0);
		emit_lost(&builder);
	}
	return bpf_load(&builder.program, options->number < 0, fd_ret);
}

/* ---- system calls ---- */

/* On the program's stack: what there is of the registers in the kernel, struct pt_regs. */
#define REGISTERS_SIZE ((int)offsetof(struct user_regs_struct, fs_base))
#define REGISTERS_AT   (NUMBER_AT - REGISTERS_SIZE)

/* The first namespace of process ids (include/linux/proc_ns.h, PROC_PID_INIT_INO). */
#define FIRST_NAMESPACE 0xeffffffcu
/* __USER32_CS (arch/x86/include/asm/segment.h). */
#define SEGMENT_32 0x23

/* Of the thread's process, in the first namespace: goes to RESULT. */
static void emit_first_id(struct bpf_program *to)
{
	bpf_call(to, BPF_FUNC_get_current_pid_tgid);
	bpf_emit(to, BPF_ALU64 | BPF_RSH | BPF_K, RESULT, 0, 0, 32);
}

/* Of the thread's process, in the namespace that is its own, if that is @namespace; else 0. */
static void emit_own_id(struct bpf_program *to, const struct stat *namespace)
{
	/* struct bpf_pidns_info: the thread's, then the process's. */
	bpf_set(to, ARG1, 0);
	bpf_put(to, FRAME, -8, ARG1);
	bpf_set(to, ARG1, (int32_t) namespace->st_dev);
	bpf_emit(to, BPF_ALU | BPF_MOV | BPF_K, ARG2, 0, 0, (int32_t) namespace->st_ino);
	bpf_move(to, ARG3, FRAME);
	bpf_emit(to, BPF_ALU64 | BPF_ADD | BPF_K, ARG3, 0, 0, -8);
	bpf_set(to, ARG4, 8);
	bpf_call(to, BPF_FUNC_get_ns_current_pid_tgid);
	bpf_emit(to, BPF_LDX | BPF_MEM | BPF_W, RESULT, FRAME, -4, 0);
}

/*
 * Leaves at RESULT what is *id_ret for the target only. Programs can ask for ids in the first
 * namespace and in the thread's own; the latter need not be memprobe's.
 */
static struct error *emit_process(struct bpf_program *to, const struct target *target,
				  pid_t *id_ret)
{
	struct process_status status;
	struct stat namespace;
	struct error *error;

	*id_ret = target->pid;
	if (stat("/proc/self/ns/pid", &namespace) || namespace.st_ino == FIRST_NAMESPACE) {
		emit_first_id(to);
		return NULL;
	}
	error = process_read_status(target->process, 0, &status);
	if (error)
		return error;
	*id_ret = status.ns_tid;
	if (!status.ns_tid || fstatat(target->process->dirfd, "ns/pid", &namespace, 0) ||
	    namespace.st_dev > INT32_MAX || namespace.st_ino > UINT32_MAX)
		return error_create(ERROR_UNSUPPORTED, "the namespace of %d has no usual number",
				    (int)target->pid);
	emit_own_id(to, &namespace);
	return NULL;
}

/* Leaves CONTEXT at the registers; what is not wanted ends here. */
static void emit_choice(struct bpf_program *to, const struct target *target, pid_t id,
			const int *numbers, unsigned count)
{
	unsigned unwanted[3], found[PERF_SPECS_MAX], others = 0;

	unwanted[others++] = bpf_jump(to, BPF_JNE, RESULT, id);
	bpf_move(to, ARG1, FRAME);
	bpf_emit(to, BPF_ALU64 | BPF_ADD | BPF_K, ARG1, 0, 0, REGISTERS_AT);
	bpf_set(to, ARG2, REGISTERS_SIZE);
	/* The first argument of sys_exit. */
	bpf_get(to, ARG3, CONTEXT, 0);
	bpf_move(to, CONTEXT, ARG1);
	bpf_call(to, BPF_FUNC_probe_read_kernel);
	unwanted[others++] = bpf_jump(to, BPF_JNE, RESULT, 0);
	if (target->arch->bits == 64) {
		bpf_get(to, ARG1, CONTEXT, offsetof(struct user_regs_struct, cs));
		unwanted[others++] = bpf_jump(to, BPF_JEQ, ARG1, SEGMENT_32);
	}
	bpf_get(to, ARG1, CONTEXT, offsetof(struct user_regs_struct, orig_rax));
	for (unsigned i = 0; i < count; i++) {
		bpf_set(to, ARG2, (int32_t)i);
		found[i] = numbers[i] < 0 ? 0 : bpf_jump(to, BPF_JEQ, ARG1, numbers[i]);
	}
	while (others)
		bpf_land(to, unwanted[--others]);
	emit_end(to);
	for (unsigned i = 0; i < count; i++)
		if (found[i])
			bpf_land(to, found[i]);
	bpf_put(to, FRAME, NUMBER_AT, ARG2);
}

struct error *bpf_record_program_for_calls(const struct bpf_record_options *options,
					   const struct target *target, const int *numbers,
					   unsigned count, int *fd_ret)
{
	struct builder builder = { .options = options };
	struct bpf_program *to = &builder.program;
	struct error *error;
	pid_t id;

	count_registers(&builder);
	bpf_move(to, CONTEXT, ARG1);
	error = emit_process(to, target, &id);
	if (error)
		return error;
	emit_choice(to, target, id, numbers, count);
	emit_sizes(&builder);
	return bpf_load_for(to, "sys_exit", fd_ret);
}
