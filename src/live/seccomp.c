#include "memprobe/seccomp.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>

#include "memprobe/ptrace.h"

/* The most that the kernel lets one thread carry: MAX_INSNS_PER_PATH of kernel/seccomp.c is 32768,
 * and each filter counts for its length and 4. */
#define FILTERS_MAX	  6554
#define MODE_STRICT	  1
#define MODE_FILTER	  2
#define PROGRAM_MEM_WORDS 16

void seccomp_deinit(struct seccomp_filters *filters)
{
	vec_for_each (program, &filters->programs)
		free(program->code);
	seccomp_program_vec_deinit(&filters->programs);
}

/* ---- fetching ---- */

static struct error *explain_fetch(struct error *error, pid_t tid)
{
	int errnum = error->errnum;

	switch (errnum) {
	case EACCES:
	case EPERM:
		error_destroy(error);
		return error_hint(error_create(ERROR_PERMISSION,
					       "cannot read the seccomp filters of %d: that takes "
					       "CAP_SYS_ADMIN, and that memprobe runs under none "
					       "itself",
					       (int)tid),
				  "run memprobe as root of the machine, outside of a container");
	case EINVAL:
	case EIO:
	case EMEDIUMTYPE:
		error_destroy(error);
		return error_create(ERROR_UNSUPPORTED,
				    "cannot read the seccomp filters of %d: the kernel does not "
				    "show %s",
				    (int)tid, errnum == EMEDIUMTYPE ? "this kind" : "any");
	}
	return error;
}

/* The filter @index into @code, which has room for BPF_MAXINSNS; *length_ret 0: there is none. */
static struct error *fetch(pid_t tid, unsigned index, struct sock_filter *code,
			   unsigned *length_ret)
{
	long length;
	struct error *error;

	error = ptrace_call_result(PTRACE_SECCOMP_GET_FILTER, tid, index, code,
				   "read the seccomp filters of", &length);
	if (error && error->errnum == ENOENT) {
		error_destroy(error);
		*length_ret = 0;
		return NULL;
	}
	if (error)
		return explain_fetch(error, tid);
	if (length <= 0 || length > BPF_MAXINSNS)
		return error_create(
			ERROR_UNSUPPORTED,
			"cannot read the seccomp filters of %d: one has %ld instructions", (int)tid,
			length);
	*length_ret = (unsigned)length;
	return NULL;
}

static struct error *append(struct seccomp_program_vec *programs, const struct sock_filter *code,
			    unsigned length)
{
	struct seccomp_program program = {
		.code = malloc(length * sizeof(*code)),
		.length = length,
	};
	struct error *error;

	if (!program.code)
		return &error_no_memory;
	memcpy(program.code, code, length * sizeof(*code));
	error = seccomp_program_vec_append(programs, &program);
	if (error)
		free(program.code);
	return error;
}

struct error *seccomp_load(pid_t tid, int mode, struct seccomp_filters *ret)
{
	struct seccomp_filters filters = { .strict = mode == MODE_STRICT };
	struct sock_filter code[BPF_MAXINSNS];
	struct error *error = NULL;

	if (mode != 0 && mode != MODE_STRICT && mode != MODE_FILTER)
		return error_create(ERROR_UNSUPPORTED,
				    "cannot tell whether %d runs under a seccomp filter", (int)tid);
	for (unsigned i = 0; mode == MODE_FILTER && !error && i < FILTERS_MAX; i++) {
		unsigned length = 0;

		error = fetch(tid, i, code, &length);
		if (!error && length == 0)
			break;
		if (!error)
			error = append(&filters.programs, code, length);
	}
	if (error) {
		seccomp_deinit(&filters);
		return error;
	}
	*ret = filters;
	return NULL;
}

/* ---- the machine ---- */

static struct error *malformed(unsigned index)
{
	return error_create(ERROR_UNSUPPORTED, "seccomp filter: instruction %u is malformed",
			    index);
}

/* The instructions that the kernel allows in a filter; their operand is checked elsewhere. */
static bool is_known(const struct sock_filter *instruction)
{
	unsigned k = instruction->k;

	switch (instruction->code) {
	case BPF_LD | BPF_W | BPF_ABS:
		return k % 4 == 0 && k < sizeof(struct seccomp_data);
	case BPF_LD | BPF_MEM:
	case BPF_LDX | BPF_MEM:
	case BPF_ST:
	case BPF_STX:
		return k < PROGRAM_MEM_WORDS;
	case BPF_ALU | BPF_DIV | BPF_K:
		return k != 0;
	case BPF_ALU | BPF_LSH | BPF_K:
	case BPF_ALU | BPF_RSH | BPF_K:
		return k < 32;
	case BPF_LD | BPF_W | BPF_LEN:
	case BPF_LDX | BPF_W | BPF_LEN:
	case BPF_LD | BPF_IMM:
	case BPF_LDX | BPF_IMM:
	case BPF_MISC | BPF_TAX:
	case BPF_MISC | BPF_TXA:
	case BPF_RET | BPF_K:
	case BPF_RET | BPF_A:
	case BPF_ALU | BPF_ADD | BPF_K:
	case BPF_ALU | BPF_ADD | BPF_X:
	case BPF_ALU | BPF_SUB | BPF_K:
	case BPF_ALU | BPF_SUB | BPF_X:
	case BPF_ALU | BPF_MUL | BPF_K:
	case BPF_ALU | BPF_MUL | BPF_X:
	case BPF_ALU | BPF_DIV | BPF_X:
	case BPF_ALU | BPF_AND | BPF_K:
	case BPF_ALU | BPF_AND | BPF_X:
	case BPF_ALU | BPF_OR | BPF_K:
	case BPF_ALU | BPF_OR | BPF_X:
	case BPF_ALU | BPF_XOR | BPF_K:
	case BPF_ALU | BPF_XOR | BPF_X:
	case BPF_ALU | BPF_LSH | BPF_X:
	case BPF_ALU | BPF_RSH | BPF_X:
	case BPF_ALU | BPF_NEG:
	case BPF_JMP | BPF_JA:
	case BPF_JMP | BPF_JEQ | BPF_K:
	case BPF_JMP | BPF_JEQ | BPF_X:
	case BPF_JMP | BPF_JGE | BPF_K:
	case BPF_JMP | BPF_JGE | BPF_X:
	case BPF_JMP | BPF_JGT | BPF_K:
	case BPF_JMP | BPF_JGT | BPF_X:
	case BPF_JMP | BPF_JSET | BPF_K:
	case BPF_JMP | BPF_JSET | BPF_X:
		return true;
	}
	return false;
}

/* Where a jump leads, relative to the next instruction, is inside the program. */
static bool jumps_inside(const struct sock_filter *instruction, unsigned left)
{
	if (BPF_CLASS(instruction->code) != BPF_JMP)
		return true;
	if (BPF_OP(instruction->code) == BPF_JA)
		return instruction->k < left;
	return instruction->jt < left && instruction->jf < left;
}

struct error *seccomp_program_check(const struct seccomp_program *program)
{
	if (program->length == 0 || program->length > BPF_MAXINSNS)
		return error_create(ERROR_UNSUPPORTED, "seccomp filter: %u instructions",
				    program->length);
	for (unsigned i = 0; i < program->length; i++)
		if (!is_known(&program->code[i]) ||
		    !jumps_inside(&program->code[i], program->length - i - 1))
			return malformed(i);
	if (BPF_CLASS(program->code[program->length - 1].code) != BPF_RET)
		return malformed(program->length - 1);
	return NULL;
}

struct machine {
	uint32_t a, x, mem[PROGRAM_MEM_WORDS];
	const struct seccomp_data *data;
};

static void load(struct machine *machine, const struct sock_filter *instruction)
{
	uint32_t value = instruction->k;

	switch (BPF_MODE(instruction->code)) {
	case BPF_ABS:
		memcpy(&value, (const uint8_t *)machine->data + instruction->k, sizeof(value));
		break;
	case BPF_LEN:
		value = sizeof(*machine->data);
		break;
	case BPF_MEM:
		value = machine->mem[instruction->k];
		break;
	}
	if (BPF_CLASS(instruction->code) == BPF_LD)
		machine->a = value;
	else
		machine->x = value;
}

/* False: the program ends with 0, as the kernel makes it on a division by zero. */
static bool compute(struct machine *machine, const struct sock_filter *instruction)
{
	uint32_t operand = BPF_SRC(instruction->code) == BPF_X ? machine->x : instruction->k;

	switch (BPF_OP(instruction->code)) {
	case BPF_ADD:
		machine->a += operand;
		break;
	case BPF_SUB:
		machine->a -= operand;
		break;
	case BPF_MUL:
		machine->a *= operand;
		break;
	case BPF_DIV:
		if (operand == 0)
			return false;
		machine->a /= operand;
		break;
	case BPF_AND:
		machine->a &= operand;
		break;
	case BPF_OR:
		machine->a |= operand;
		break;
	case BPF_XOR:
		machine->a ^= operand;
		break;
	case BPF_LSH:
		machine->a <<= operand & 31;
		break;
	case BPF_RSH:
		machine->a >>= operand & 31;
		break;
	case BPF_NEG:
		machine->a = -machine->a;
		break;
	}
	return true;
}

/* Instructions to skip. */
static unsigned jump(const struct machine *machine, const struct sock_filter *instruction)
{
	uint32_t operand = BPF_SRC(instruction->code) == BPF_X ? machine->x : instruction->k;
	bool taken = false;

	switch (BPF_OP(instruction->code)) {
	case BPF_JA:
		return instruction->k;
	case BPF_JEQ:
		taken = machine->a == operand;
		break;
	case BPF_JGT:
		taken = machine->a > operand;
		break;
	case BPF_JGE:
		taken = machine->a >= operand;
		break;
	case BPF_JSET:
		taken = machine->a & operand;
		break;
	}
	return taken ? instruction->jt : instruction->jf;
}

uint32_t seccomp_program_run(const struct seccomp_program *program, const struct seccomp_data *data)
{
	struct machine machine = { .data = data };
	struct error *error = seccomp_program_check(program);

	if (error) {
		error_destroy(error);
		return SECCOMP_RET_KILL_PROCESS;
	}
	for (unsigned pc = 0; pc < program->length; pc++) {
		const struct sock_filter *instruction = &program->code[pc];

		switch (BPF_CLASS(instruction->code)) {
		case BPF_LD:
		case BPF_LDX:
			load(&machine, instruction);
			break;
		case BPF_ST:
			machine.mem[instruction->k] = machine.a;
			break;
		case BPF_STX:
			machine.mem[instruction->k] = machine.x;
			break;
		case BPF_ALU:
			if (!compute(&machine, instruction))
				return SECCOMP_RET_KILL_THREAD;
			break;
		case BPF_JMP:
			pc += jump(&machine, instruction);
			break;
		case BPF_RET:
			return BPF_RVAL(instruction->code) == BPF_A ? machine.a : instruction->k;
		case BPF_MISC:
			if (BPF_MISCOP(instruction->code) == BPF_TAX)
				machine.x = machine.a;
			else
				machine.a = machine.x;
			break;
		}
	}
	return SECCOMP_RET_KILL_PROCESS;
}

/* ---- for whatever arguments ---- */

/* What is known before an instruction, on whatever way it is come to. Memory never is. */
struct known {
	bool reached, a, x; /* a, x: the machine's are known */
	struct machine machine;
};

static void flow(struct known *to, const struct known *from)
{
	if (!to->reached) {
		*to = *from;
		return;
	}
	to->a = to->a && from->a && to->machine.a == from->machine.a;
	to->x = to->x && from->x && to->machine.x == from->machine.x;
}

static bool harms(uint32_t action)
{
	switch (action & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW:
	case SECCOMP_RET_LOG:
	case SECCOMP_RET_ERRNO:
	case SECCOMP_RET_USER_NOTIF:
	case SECCOMP_RET_TRACE:
		return false;
	}
	return true;
}

static void load_known(struct known *known, const struct sock_filter *instruction)
{
	bool is_known = BPF_MODE(instruction->code) != BPF_MEM;

	if (BPF_MODE(instruction->code) == BPF_ABS)
		is_known = instruction->k == offsetof(struct seccomp_data, arch) ||
			   (instruction->k == offsetof(struct seccomp_data, nr) &&
			    known->machine.data->nr != SECCOMP_ANY_CALL);
	load(&known->machine, instruction);
	if (BPF_CLASS(instruction->code) == BPF_LD)
		known->a = is_known;
	else
		known->x = is_known;
}

/* False: it may divide by zero. */
static bool compute_known(struct known *known, const struct sock_filter *instruction)
{
	bool by_x = BPF_SRC(instruction->code) == BPF_X && BPF_OP(instruction->code) != BPF_NEG;

	if (BPF_OP(instruction->code) == BPF_DIV && by_x && !known->x)
		return false;
	known->a = known->a && (!by_x || known->x);
	return compute(&known->machine, instruction);
}

static void jump_known(struct known *next, const struct known *known,
		       const struct sock_filter *instruction)
{
	bool by_x = BPF_SRC(instruction->code) == BPF_X;

	if (BPF_OP(instruction->code) == BPF_JA || (known->a && (!by_x || known->x))) {
		flow(next + jump(&known->machine, instruction), known);
		return;
	}
	flow(next + instruction->jt, known);
	flow(next + instruction->jf, known);
}

/* One instruction; true: the program may end there with what harms. */
static bool step_known(struct known *next, struct known *known,
		       const struct sock_filter *instruction)
{
	switch (BPF_CLASS(instruction->code)) {
	case BPF_RET:
		return BPF_RVAL(instruction->code) == BPF_A ? !known->a || harms(known->machine.a)
							    : harms(instruction->k);
	case BPF_JMP:
		jump_known(next, known, instruction);
		return false;
	case BPF_LD:
	case BPF_LDX:
		load_known(known, instruction);
		break;
	case BPF_ALU:
		if (!compute_known(known, instruction))
			return true;
		break;
	case BPF_MISC:
		if (BPF_MISCOP(instruction->code) == BPF_TAX) {
			known->machine.x = known->machine.a;
			known->x = known->a;
		} else {
			known->machine.a = known->machine.x;
			known->a = known->x;
		}
		break;
	}
	flow(next, known);
	return false;
}

bool seccomp_program_may_harm(const struct seccomp_program *program, uint32_t audit_arch, int nr)
{
	const struct seccomp_data data = { .nr = nr, .arch = audit_arch };
	struct error *error = seccomp_program_check(program);
	cleanup(free) struct known *states =
		error ? NULL : calloc(program->length, sizeof(*states));
	bool harm = !states;

	error_destroy(error);
	if (states)
		states[0] = (struct known){ .reached = true, .machine.data = &data };
	/* Jumps only lead forward: when an instruction's turn comes, all ways to it are known. */
	for (unsigned i = 0; !harm && i < program->length; i++)
		if (states[i].reached)
			harm = step_known(&states[i + 1], &states[i], &program->code[i]);
	return harm;
}

/* ---- the judgement ---- */

/* Lower is more restrictive; KILL_PROCESS is the lowest (kernel/seccomp.c ACTION_ONLY). */
static int32_t rank(uint32_t action)
{
	return (int32_t)(action & SECCOMP_RET_ACTION_FULL);
}

uint32_t seccomp_action(const struct seccomp_filters *filters, uint32_t audit_arch, int nr,
			const uint64_t args[6], uint64_t ip)
{
	struct seccomp_data data = { .nr = nr, .arch = audit_arch, .instruction_pointer = ip };
	uint32_t action = SECCOMP_RET_ALLOW;

	if (filters->strict)
		return SECCOMP_RET_KILL_THREAD;
	for (size_t i = 0; i < 6; i++)
		data.args[i] = args[i];
	/* The kernel begins with the filter that was installed last. */
	for (size_t i = filters->programs.size; i-- > 0;) {
		uint32_t answer = seccomp_program_run(&filters->programs.data[i], &data);

		if (rank(answer) < rank(action))
			action = answer;
	}
	return action;
}

const char *seccomp_action_text(uint32_t action, char buffer[SECCOMP_TEXT_MAX])
{
	const char *text = "kills the process";

	switch (action & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW:
		text = "allows it";
		break;
	case SECCOMP_RET_LOG:
		text = "allows and logs it";
		break;
	case SECCOMP_RET_KILL_THREAD:
		text = "kills the thread";
		break;
	case SECCOMP_RET_TRAP:
		text = "raises SIGSYS";
		break;
	case SECCOMP_RET_ERRNO:
		snprintf(buffer, SECCOMP_TEXT_MAX, "answers errno %u", action & SECCOMP_RET_DATA);
		return buffer;
	case SECCOMP_RET_USER_NOTIF:
		text = "asks a supervisor";
		break;
	case SECCOMP_RET_TRACE:
		text = "asks a tracer";
		break;
	}
	snprintf(buffer, SECCOMP_TEXT_MAX, "%s", text);
	return buffer;
}

static bool is_acceptable(const struct seccomp_call *call, uint32_t action)
{
	switch (action & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW:
	case SECCOMP_RET_LOG:
		return true;
	}
	return call->may_fail && !harms(action);
}

static struct error *refusal(const struct seccomp_filters *filters, pid_t tid,
			     const struct seccomp_call *call, uint32_t action)
{
	char text[SECCOMP_TEXT_MAX], number[32];
	const char *what = filters->strict ? "mode is strict, which kills the thread"
					   : seccomp_action_text(action, text);

	snprintf(number, sizeof(number), "system call %d", call->nr);
	return error_hint(error_create(ERROR_PERMISSION,
				       "cannot run code in %d: its seccomp %s on %s", (int)tid,
				       what, call->name ? call->name : number),
			  "what only reads works: maps, threads, dump, stack");
}

struct error *seccomp_allows(const struct seccomp_filters *filters, pid_t tid, uint32_t audit_arch,
			     uint64_t ip, const struct seccomp_call *calls, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint32_t action;

		if (calls[i].nr < 0)
			continue;
		action = seccomp_action(filters, audit_arch, calls[i].nr, calls[i].args, ip);
		if (!is_acceptable(&calls[i], action))
			return refusal(filters, tid, &calls[i], action);
	}
	return NULL;
}

/* Beyond the highest system call number of any kernel so far. */
#define SYSCALL_NUMBERS 512

struct error *seccomp_allows_anything(const struct seccomp_filters *filters, pid_t tid,
				      uint32_t audit_arch)
{
	vec_for_each (program, &filters->programs) {
		int nr = 0;

		if (!seccomp_program_may_harm(program, audit_arch, SECCOMP_ANY_CALL))
			continue;
		while (nr < SYSCALL_NUMBERS && !seccomp_program_may_harm(program, audit_arch, nr))
			nr++;
		if (nr < SYSCALL_NUMBERS)
			return error_hint(error_create(ERROR_PERMISSION,
						       "cannot run code in %d: its seccomp filter "
						       "may kill it or raise SIGSYS on system "
						       "call %d",
						       (int)tid, nr),
					  "what only reads works: maps, threads, dump, stack");
	}
	return NULL;
}
