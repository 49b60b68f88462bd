#include "session.h"

#include <string.h>
#include <sys/mman.h>

#include "memprobe/seccomp.h"

/*
 * A seccomp filter that does not expect a system call of ours may kill the target. So every call
 * that a run can be foreseen to make is put to the thread's filters before the thread is moved.
 */

VEC_DEFINE(seccomp_call_vec, struct seccomp_call)

static struct error *add(struct seccomp_call_vec *calls, const char *name, int nr,
			 const uint64_t args[6], bool may_fail)
{
	struct seccomp_call call = { .name = name, .nr = nr, .may_fail = may_fail };

	memcpy(call.args, args, sizeof(call.args));
	return seccomp_call_vec_append(calls, &call);
}

static struct error *add_all(struct seccomp_call_vec *calls, const struct seccomp_call *all,
			     size_t count)
{
	struct error *error = NULL;

	for (size_t i = 0; !error && i < count; i++)
		error = seccomp_call_vec_append(calls, &all[i]);
	return error;
}

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static struct error *add_stub(struct seccomp_call_vec *calls, const struct arch *arch)
{
	const struct arch_syscalls *nr = &arch->syscalls;
	/* i386's stub has no need of the latter two. */
	const struct seccomp_call all[] = {
		{ "rt_sigprocmask", nr->rt_sigprocmask, { 0, 0, 0, 8, 0, DETOUR_MAGIC }, false },
		{ "rt_sigpending", arch->bits == 64 ? nr->rt_sigpending : -1, { 0, 8 }, true },
		{ "rt_sigreturn", arch->bits == 64 ? nr->rt_sigreturn : -1, { 0 }, false },
	};

	return add_all(calls, all, ARRAY_SIZE(all));
}

/* Functions of malloc live with an error, not with a kill. */
static struct error *add_malloc(struct seccomp_call_vec *calls, const struct arch_syscalls *nr)
{
	const uint64_t private = MAP_PRIVATE | MAP_ANONYMOUS, data = PROT_READ | PROT_WRITE;
	const struct seccomp_call all[] = {
		{ "futex", nr->futex, { 0 }, true },
		{ "brk", nr->brk, { 0 }, true },
		{ "mmap", nr->mmap, { 0, 1 << 20, data, private, UINT64_MAX, 0 }, true },
		{ "mmap",
		  nr->mmap,
		  { 0, 128 << 20, PROT_NONE, private | MAP_NORESERVE, UINT64_MAX, 0 },
		  true },
		{ "munmap", nr->munmap, { 0, PAGE_SIZE }, true },
		{ "mremap", nr->mremap, { 0, PAGE_SIZE, PAGE_SIZE, 1 }, true },
		{ "mprotect", nr->mprotect, { 0, PAGE_SIZE, data }, true },
		{ "madvise", nr->madvise, { 0, PAGE_SIZE, MADV_DONTNEED }, true },
		{ "write", nr->write, { 2, 0, 1 }, true },
	};

	return add_all(calls, all, ARRAY_SIZE(all));
}

/* What the last steps of a helper or a fork are made of; see CALL_OP_EXIT. */
static struct error *add_exit(struct seccomp_call_vec *calls, const struct arch_syscalls *nr,
			      const uint64_t args[6])
{
	const uint64_t status[6] = { 0, args[1], args[2], args[3], args[4], args[5] };
	struct error *error = add(calls, "munmap", nr->munmap, args, false);

	return error ? error : add(calls, "exit", nr->exit, status, false);
}

/* Those that a reader of a refusal should not have to look up. */
static const char *name_of(const struct arch_syscalls *nr, int call)
{
	const struct {
		const char *name;
		int nr;
	} all[] = {
		{ "mmap", nr->mmap },
		{ "munmap", nr->munmap },
		{ "clone", nr->clone },
		{ "wait4", nr->wait4 },
		{ "memfd_create", nr->memfd_create },
		{ "ftruncate", nr->ftruncate },
		{ "madvise", nr->madvise },
		{ "close_range", nr->close_range },
		{ "chdir", nr->chdir },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i].nr == call)
			return all[i].name;
	return NULL;
}

static struct error *add_step(struct seccomp_call_vec *calls, const struct arch_syscalls *nr,
			      const struct call_step *step)
{
	int call = (int)step->function;
	uint64_t args[6];

	for (unsigned i = 0; i < 6; i++)
		args[i] = step->args[i].value;
	switch (step->op) {
	case CALL_OP_SYSCALL:
	case CALL_OP_CLONE:
		/* Nobody relies on advice, nor on where a fork works. */
		return add(calls, name_of(nr, call), call, args,
			   call == nr->madvise || call == nr->chdir);
	case CALL_OP_EXIT:
		return add_exit(calls, nr, args);
	default:
		return NULL;
	}
}

static struct error *add_script(struct seccomp_call_vec *calls, const struct call_script *script)
{
	struct error *error = NULL;

	for (unsigned i = 0; !error && i < script->step_count; i++)
		error = add_step(calls, &script->arch->syscalls, &script->steps[i]);
	return error;
}

struct error *foreseen_check(struct call_session *session, pid_t tid, int mode,
			     const struct call_script *const *scripts, size_t script_count,
			     const struct call_options *options)
{
	const struct arch *arch = session->target->arch;
	struct seccomp_call_vec calls = { 0 };
	struct seccomp_filters filters = { 0 };
	struct error *error = seccomp_load(tid, mode, &filters);

	if (!error)
		error = add_stub(&calls, arch);
	for (size_t i = 0; !error && i < script_count; i++)
		error = add_script(&calls, scripts[i]);
	if (!error && options->uses_malloc)
		error = add_malloc(&calls, &arch->syscalls);
	if (!error)
		error = seccomp_allows(&filters, tid, arch->audit_arch, session->place.code,
				       calls.data, calls.size);
	if (!error && options->unforeseen_syscalls)
		error = seccomp_allows_anything(&filters, tid, arch->audit_arch);
	seccomp_call_vec_deinit(&calls);
	seccomp_deinit(&filters);
	return error;
}
