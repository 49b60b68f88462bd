#include "fork_script.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/ptrace.h"

/* The helper's mapping: its block, the fork's block, and a stack that is hardly used. */
#define AREA_SIZE  (32u << 10)
#define AREA_CHILD (8u << 10)
#define AREA_FRAME (16u << 10)

/* Linux include/uapi/linux/close_range.h */
#define UNSHARE_TABLE (1u << 1)

static struct call_step exit_step(uint64_t area)
{
	return (struct call_step){
		.op = CALL_OP_EXIT,
		.args = { CALL_ARG(area), CALL_ARG(AREA_SIZE) },
	};
}

/* The fork, should it ever run: its end. */
static struct error *encode_child(struct fork_script *fork, const struct arch *arch)
{
	struct block_header header = { .stack = fork->area + AREA_CHILD };
	struct call_step leave = exit_step(fork->area);
	struct call_script script;

	call_begin(&script, arch);
	call_add_step(&script, &leave);
	return script_encode(&script, &header, &fork->child);
}

/* One that works in its root directory keeps no other file system busy. */
static bool works_in_root(const struct process *process)
{
	struct stat work, root;

	return !fstatat(process->dirfd, "cwd", &work, 0) &&
	       !fstatat(process->dirfd, "root", &root, 0) && work.st_dev == root.st_dev &&
	       work.st_ino == root.st_ino;
}

/* What the target may do while the helper is there must not depend on it. */
static void add_parting(struct call_script *script, const struct target *target)
{
	const struct arch_syscalls *nr = &target->arch->syscalls;
	const struct call_arg range[] = { CALL_ARG(0), CALL_ARG(UINT32_MAX),
					  CALL_ARG(UNSHARE_TABLE) };
	struct call_arg root[1];

	call_add_syscall(script, nr->close_range, 3, range, CALL_NO_ERRNO, 0);
	if (works_in_root(target->process))
		return;
	root[0] = CALL_ADDR(call_add_data(script, "/", 2));
	call_add_syscall(script, nr->chdir, 1, root, CALL_ANY, 0);
}

static struct error *encode_inner(struct fork_script *fork, const struct target *target)
{
	const struct arch *arch = target->arch;
	struct call_script *script = &fork->inner_script;
	struct block_header header = { .stack = fork->area + AREA_CHILD };
	struct call_step leave = exit_step(fork->area);
	struct call_step clone = {
		.op = CALL_OP_CLONE,
		.function = (uint64_t)arch->syscalls.clone,
		/* No exit signal, the same stack, and its own block. */
		.args = { CALL_ARG(0), CALL_ARG(0), CALL_ARG(0), CALL_ARG(0), CALL_ARG(0),
			  CALL_ARG(fork->area + AREA_CHILD) },
		.check = CALL_NO_ERRNO,
		.has_result = true,
	};
	struct call_arg wait[] = { CALL_ARG(0), CALL_ARG(0), CALL_ARG(__WALL), CALL_ARG(0) };

	call_begin(script, arch);
	add_parting(script, target);
	clone.result = fork->fork_id = call_add_data(script, NULL, arch->word_size);
	wait[0] = CALL_WORD(clone.result);
	call_add_step(script, &clone);
	call_add_marker(script);
	call_add_syscall(script, arch->syscalls.wait4, 4, wait, CALL_ANY, 0);
	call_add_step(script, &leave);
	/* Where there is no fork, there is nothing to wait for. */
	for (int i = 0; i < script->marker; i++)
		script->steps[i].fail = (int)script->step_count - 1;
	return script_encode(script, &header, &fork->inner);
}

static void add_copy(struct call_script *script, uint64_t to, const struct block *block)
{
	size_t data = call_add_data(script, block->bytes, block->size);
	struct call_step copy = {
		.op = CALL_OP_COPY,
		.args = { CALL_ARG(to), CALL_ADDR(data), CALL_ARG(block->size) },
	};

	call_add_step(script, &copy);
}

/* The thread of the target: maps, and starts the helper. */
static void write_outer(struct fork_script *fork, const struct arch *arch)
{
	struct call_script *script = &fork->outer_script;
	const struct call_arg map[] = {
		CALL_ARG(fork->area),
		CALL_ARG(AREA_SIZE),
		CALL_ARG(PROT_READ | PROT_WRITE),
		CALL_ARG(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE),
		CALL_ARG(-1),
		CALL_ARG(0),
	};
	struct call_arg unmap[] = { CALL_ARG(0), CALL_ARG(AREA_SIZE) };
	struct call_step clone = {
		.op = CALL_OP_CLONE,
		.function = (uint64_t)arch->syscalls.clone,
		/* Not CLONE_FS: setns() refuses who shares that. */
		.args = { CALL_ARG(CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
				   CLONE_SYSVSEM),
			  CALL_ARG(fork->area + AREA_CHILD - 64), CALL_ARG(0), CALL_ARG(0),
			  CALL_ARG(0), CALL_ARG(fork->area + AREA_FRAME) },
		.check = CALL_NO_ERRNO,
	};
	struct call_step end = { .op = CALL_OP_END };

	call_begin(script, arch);
	/* A kernel before 4.17 takes the address for a wish: what it gave instead is given back. */
	unmap[0] = CALL_WORD(
		call_add_syscall(script, arch->syscalls.mmap, 6, map, CALL_EXPECT, fork->area));
	add_copy(script, fork->area + AREA_CHILD, &fork->child);
	add_copy(script, fork->area + AREA_FRAME, &fork->inner);
	clone.fail = call_add_step(script, &clone) + 3;
	script->steps[script->step_count - 1].fail = clone.fail;
	call_add_marker(script);
	call_add_step(script, &end);
	call_add_syscall(script, arch->syscalls.munmap, 2, unmap, CALL_ANY, 0);
	script->steps[0].fail = clone.fail;
}

/* It ends nothing: there is no such descriptor. */
static bool kernel_has_close_range(void)
{
	return !syscall(arch_native()->syscalls.close_range, UINT32_MAX, UINT32_MAX, 0) ||
	       errno != ENOSYS;
}

struct error *fork_script_write(struct target *target, struct fork_script *ret)
{
	struct error *error;

	if (!kernel_has_close_range())
		return error_create(ERROR_UNSUPPORTED,
				    "a copy that shares no files takes close_range() of Linux 5.9");
	ret->area_size = AREA_SIZE;
	error = call_find_gap(target, AREA_SIZE, 2048 + (unsigned)(clock_us() % 64), &ret->area);
	if (error)
		return error;
	ret->helper_frame = ret->area + AREA_FRAME;
	error = encode_child(ret, target->arch);
	if (!error)
		error = encode_inner(ret, target);
	if (!error)
		write_outer(ret, target->arch);
	return error;
}
