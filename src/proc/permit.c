#include "memprobe/permit.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>

#define PTRACE_HINT                                                 \
	"run memprobe as root, or give it the capability: `setcap " \
	"cap_sys_ptrace,cap_dac_read_search+ep $(which memprobe)`"

static bool holds(const struct permit_facts *facts, unsigned capability)
{
	return capability_in(facts->self.cap_effective, capability);
}

/* security/commoncap.c cap_capable(). */
bool permit_is_capable(const struct permit_facts *facts)
{
	switch (facts->userns) {
	case PERMIT_NS_OWNED:
		return true;
	case PERMIT_NS_SAME:
	case PERMIT_NS_BELOW:
		return holds(facts, CAP_SYS_PTRACE);
	case PERMIT_NS_UNKNOWN:
		return holds(facts, CAP_SYS_PTRACE) && facts->userns_initial;
	case PERMIT_NS_OUTSIDE:
		break;
	}
	return false;
}

/* CAP_SYS_PTRACE, held where it does not count. */
static bool capable_elsewhere(const struct permit_facts *facts)
{
	return holds(facts, CAP_SYS_PTRACE) && !permit_is_capable(facts);
}

static bool same_user(const struct permit_facts *facts, enum permit_power power)
{
	const struct process_status *target = &facts->target, *self = &facts->self;
	/* ptrace(2) goes by the real ids, files of /proc by the file system ids. */
	uid_t uid = power == PERMIT_ATTACH ? self->uid : self->fsuid;
	gid_t gid = power == PERMIT_ATTACH ? self->gid : self->fsgid;

	return uid == target->uid && uid == target->euid && uid == target->suid &&
	       gid == target->gid && gid == target->egid && gid == target->sgid;
}

/* The target's capabilities that memprobe has not. */
static uint64_t capabilities_lacking(const struct permit_facts *facts, enum permit_power power)
{
	return facts->target.cap_permitted &
	       ~(power == PERMIT_ATTACH ? facts->self.cap_permitted : facts->self.cap_effective);
}

static bool yama_forbids(const struct permit_facts *facts)
{
	switch (facts->yama) {
	case YAMA_RESTRICTED:
		return !facts->descendant && !permit_is_capable(facts);
	case YAMA_ADMIN_ONLY:
		return !permit_is_capable(facts);
	case YAMA_NO_ATTACH:
		return true;
	}
	return false;
}

/* What nobody may, whoever asks. */
static enum permit_reason judge_kind(const struct permit_facts *facts, enum permit_power power)
{
	if (!facts->alive || facts->target.state == 'X')
		return PERMIT_VANISHED;
	if (facts->target.kernel_thread)
		return PERMIT_KERNEL_THREAD;
	if (facts->target.state == 'Z' && facts->target.threads <= 1)
		return PERMIT_ZOMBIE;
	if (facts->is_self && power == PERMIT_ATTACH)
		return PERMIT_SELF;
	return PERMIT_GRANTED;
}

/* The checks that are the same for every power, in the kernel's order. */
static enum permit_reason judge_access(const struct permit_facts *facts, enum permit_power power)
{
	bool capable = permit_is_capable(facts), elsewhere = capable_elsewhere(facts);

	if (!capable && !same_user(facts, power))
		return elsewhere ? PERMIT_USER_NAMESPACE : PERMIT_OTHER_USER;
	if (!capable && facts->dumpable == 0)
		return elsewhere ? PERMIT_USER_NAMESPACE : PERMIT_NOT_DUMPABLE;
	if (!capable && facts->userns > PERMIT_NS_SAME)
		return PERMIT_USER_NAMESPACE;
	if (!capable && capabilities_lacking(facts, power))
		return elsewhere ? PERMIT_USER_NAMESPACE : PERMIT_CAPABILITIES;
	/* Yama looks at attaching only, and reading memory counts as such. */
	if (power != PERMIT_MAPS && yama_forbids(facts))
		return PERMIT_YAMA;
	return PERMIT_GRANTED;
}

/* The file's mode in /proc, which is checked before anything of ptrace's. */
static bool file_mode_forbids(const struct permit_facts *facts)
{
	bool owner = facts->dumpable == 0 ? facts->self.fsuid == 0
					  : facts->self.fsuid == facts->target.euid;

	return !owner && !holds(facts, CAP_DAC_READ_SEARCH) && !holds(facts, CAP_DAC_OVERRIDE);
}

/* The refusal was real, but no rule explains it so far. */
static enum permit_reason judge_rest(const struct permit_facts *facts, enum permit_power power,
				     int errnum)
{
	/* The kernel itself says EACCES for /proc/PID/mem only. */
	if (power == PERMIT_READ && facts->readv_filtered && errnum != EACCES)
		return PERMIT_FILTERED;
	if (power != PERMIT_ATTACH && errnum == EACCES && file_mode_forbids(facts))
		return PERMIT_FILE_MODE;
	/* What cannot be seen from outside: whether a process of root is dumpable. One that
	 * unshared its user namespace and did not exec is not, even for its owner. */
	if (facts->dumpable < 1 && !holds(facts, CAP_SYS_PTRACE))
		return PERMIT_NOT_DUMPABLE;
	if (capable_elsewhere(facts))
		return PERMIT_USER_NAMESPACE;
	return PERMIT_SECURITY_MODULE;
}

enum permit_reason permit_judge(const struct permit_facts *facts, enum permit_power power,
				int errnum)
{
	enum permit_reason reason = judge_kind(facts, power);

	if (reason)
		return reason;
	/* The memory of a process whose main thread has ended is asked for in vain, too. */
	if (errnum == ESRCH && facts->target.state != 'Z')
		return PERMIT_VANISHED;
	if (facts->is_self)
		return errnum ? judge_rest(facts, power, errnum) : PERMIT_GRANTED;
	/* A filter stands before all of the kernel's own checks. */
	if (power == PERMIT_ATTACH && facts->ptrace_filtered)
		return PERMIT_FILTERED;
	reason = judge_access(facts, power);
	if (reason)
		return reason;
	/* The other threads can still be attached to, and asked for the memory. */
	if (errnum && facts->target.state == 'Z')
		return PERMIT_LEADER_EXITED;
	if (power == PERMIT_ATTACH && facts->target.tracer_pid)
		return PERMIT_TRACED;
	return errnum ? judge_rest(facts, power, errnum) : PERMIT_GRANTED;
}

/* ---- the words ---- */

static const char *what_failed(enum permit_power power)
{
	static const char *const texts[] = {
		[PERMIT_MAPS] = "cannot read the memory map of",
		[PERMIT_READ] = "cannot read the memory of",
		[PERMIT_ATTACH] = "cannot attach to",
	};

	return texts[power];
}

static const char *name_or_unknown(const char *name)
{
	return name[0] ? name : "?";
}

static struct error *other_user_error(const struct permit_facts *facts, const char *what)
{
	const struct process_status *target = &facts->target, *self = &facts->self;
	int pid = (int)facts->pid;

	if (self->uid != target->euid)
		return error_create(ERROR_PERMISSION,
				    "%s %d: it belongs to uid %u, and memprobe runs as uid %u "
				    "without CAP_SYS_PTRACE",
				    what, pid, target->euid, self->uid);
	if (self->uid != target->uid || self->uid != target->suid || self->uid != self->fsuid)
		return error_create(ERROR_PERMISSION,
				    "%s %d: it runs with uids %u (real), %u (effective) and %u "
				    "(saved), and memprobe as uid %u without CAP_SYS_PTRACE",
				    what, pid, target->uid, target->euid, target->suid, self->uid);
	return error_create(
		ERROR_PERMISSION,
		"%s %d: it runs with gids %u (real), %u (effective) and %u (saved), and "
		"memprobe as gid %u without CAP_SYS_PTRACE",
		what, pid, target->gid, target->egid, target->sgid, self->gid);
}

static struct error *explain_other_user(const struct permit_facts *facts, const char *what)
{
	const struct process_status *target = &facts->target;
	bool one_user = target->uid == target->euid && target->uid == target->suid;
	struct error *error = other_user_error(facts, what);

	if (facts->self.uid == target->euid || facts->self.uid == 0)
		return error_hint(error, PTRACE_HINT);
	if (target->euid == 0 || !one_user)
		return error_hint(error, "run memprobe as root: `sudo memprobe ...`");
	return error_hint(error,
			  "run memprobe as root (`sudo memprobe ...`) or as that user "
			  "(`sudo -u '#%u' memprobe ...`)",
			  target->euid);
}

static struct error *explain_not_dumpable(const struct permit_facts *facts, const char *what)
{
	struct error *error = error_create(
		ERROR_PERMISSION,
		"%s %d: it is %s (it changed its user, has a setuid or unreadable program file, or "
		"called prctl(PR_SET_DUMPABLE, 0)), and memprobe lacks CAP_SYS_PTRACE",
		what, (int)facts->pid,
		facts->dumpable < 0 ? "perhaps not dumpable" : "not dumpable");

	return error_hint(error, PTRACE_HINT);
}

static struct error *explain_capabilities(const struct permit_facts *facts, const char *what,
					  enum permit_power power)
{
	struct error *error = error_create(
		ERROR_PERMISSION,
		"%s %d: it has capabilities that memprobe lacks (0x%llx), and memprobe "
		"is without CAP_SYS_PTRACE",
		what, (int)facts->pid, (unsigned long long)capabilities_lacking(facts, power));

	return error_hint(error, PTRACE_HINT "; in a container: `--cap-add=SYS_PTRACE`");
}

static struct error *explain_user_namespace(const struct permit_facts *facts, const char *what)
{
	struct error *error;

	if (facts->userns == PERMIT_NS_BELOW)
		return error_hint(error_create(ERROR_PERMISSION,
					       "%s %d: it lives in another user namespace, and "
					       "memprobe is without CAP_SYS_PTRACE",
					       what, (int)facts->pid),
				  PTRACE_HINT);
	error = error_create(ERROR_PERMISSION,
			     "%s %d: it lives in another user namespace, in which memprobe's "
			     "capabilities do not count",
			     what, (int)facts->pid);
	return error_hint(error, "run memprobe outside of this container, as root of the machine");
}

static struct error *explain_yama(const struct permit_facts *facts, const char *what)
{
	static const char *const scopes[] = {
		"",
		"only ancestors, PR_SET_PTRACER's choice and CAP_SYS_PTRACE may",
		"only who has CAP_SYS_PTRACE may",
		"nobody may, until the next boot",
	};
	struct error *error = error_create(
		ERROR_PERMISSION, "%s %d: Yama forbids it, kernel.yama.ptrace_scope is %d: %s",
		what, (int)facts->pid, facts->yama, scopes[facts->yama]);

	if (facts->yama == YAMA_NO_ATTACH)
		return error_hint(error, "set kernel.yama.ptrace_scope to 0, 1 or 2 in "
					 "/etc/sysctl.d and reboot");
	if (facts->yama == YAMA_ADMIN_ONLY)
		return error_hint(error, PTRACE_HINT);
	return error_hint(error, "run memprobe as root, or allow it to everybody until the next "
				 "boot: `sudo sysctl kernel.yama.ptrace_scope=0`");
}

static struct error *explain_security_module(const struct permit_facts *facts, const char *what,
					     int errnum)
{
	struct error *error;

	if (!facts->label[0] && !facts->self_label[0])
		return error_hint(error_errno(ERROR_PERMISSION, errnum,
					      "%s %d: nothing that /proc shows forbids it (a "
					      "guess: a security module, a sandbox, or a tracer "
					      "outside of this container)",
					      what, (int)facts->pid),
				  "`dmesg` and the audit log may tell more");
	error = error_errno(ERROR_PERMISSION, errnum,
			    "%s %d: a guess: the security module forbids it (memprobe is '%s', the "
			    "target '%s')",
			    what, (int)facts->pid, facts->self_label, facts->label);
	if (strchr(facts->self_label, ':'))
		return error_hint(error, "`ausearch -m avc -ts recent` shows what SELinux denied; "
					 "`setsebool deny_ptrace off` allows tracing");
	return error_hint(error, "`dmesg | grep DENIED` shows what AppArmor denied; the profile "
				 "needs a `ptrace` rule");
}

static struct error *explain_filtered(const struct permit_facts *facts, const char *what,
				      enum permit_power power)
{
	struct error *error = error_create(
		ERROR_PERMISSION, "%s %d: a seccomp filter denies %s to memprobe", what,
		(int)facts->pid, power == PERMIT_ATTACH ? "ptrace" : "process_vm_readv");

	return error_hint(error, "run memprobe outside of the sandbox; a container allows it with "
				 "`--cap-add=SYS_PTRACE` or `--security-opt seccomp=unconfined`");
}

static struct error *explain_traced(const struct permit_facts *facts, const char *what)
{
	int tracer = (int)facts->target.tracer_pid;

	return error_hint(error_create(ERROR_PERMISSION,
				       "%s %d: it is already traced by %d (%s), and a process has "
				       "one tracer at a time",
				       what, (int)facts->pid, tracer,
				       name_or_unknown(facts->tracer_name)),
			  "let %d detach, or end it, then try again", tracer);
}

static struct error *explain_file_mode(const struct permit_facts *facts, const char *what)
{
	return error_hint(error_create(ERROR_PERMISSION,
				       "%s %d: its file in /proc is for uid %u alone, and memprobe "
				       "lacks CAP_DAC_READ_SEARCH",
				       what, (int)facts->pid,
				       facts->dumpable ? facts->target.euid : 0),
			  PTRACE_HINT);
}

/* What is nobody's to grant. */
static struct error *explain_kind(const struct permit_facts *facts, enum permit_reason reason)
{
	const char *name = name_or_unknown(facts->target.name);
	int pid = (int)facts->pid;

	switch (reason) {
	case PERMIT_VANISHED:
		return error_create(ERROR_NO_TARGET, "no process %d: it has exited", pid);
	case PERMIT_KERNEL_THREAD:
		return error_create(ERROR_UNSUPPORTED,
				    "%d (%s) is a kernel thread: it has no memory of its own", pid,
				    name);
	case PERMIT_ZOMBIE:
		return error_hint(error_create(ERROR_UNSUPPORTED,
					       "%d (%s) is a zombie: it has exited, its memory is "
					       "gone",
					       pid, name),
				  "its parent %d (%s) has not collected its exit status",
				  (int)facts->target.ppid, name_or_unknown(facts->parent_name));
	default:
		return error_create(ERROR_UNSUPPORTED,
				    "%d is memprobe itself, which cannot attach to itself", pid);
	}
}

static struct error *explain_reason(const struct permit_facts *facts, enum permit_reason reason,
				    enum permit_power power, int errnum)
{
	const char *what = what_failed(power);

	switch (reason) {
	case PERMIT_FILTERED:
		return explain_filtered(facts, what, power);
	case PERMIT_OTHER_USER:
		return explain_other_user(facts, what);
	case PERMIT_USER_NAMESPACE:
		return explain_user_namespace(facts, what);
	case PERMIT_NOT_DUMPABLE:
		return explain_not_dumpable(facts, what);
	case PERMIT_CAPABILITIES:
		return explain_capabilities(facts, what, power);
	case PERMIT_YAMA:
		return explain_yama(facts, what);
	case PERMIT_TRACED:
		return explain_traced(facts, what);
	case PERMIT_FILE_MODE:
		return explain_file_mode(facts, what);
	case PERMIT_LEADER_EXITED:
		return error_create(ERROR_UNSUPPORTED,
				    "%s %d: its main thread has exited while others live", what,
				    (int)facts->pid);
	case PERMIT_SECURITY_MODULE:
		return explain_security_module(facts, what, errnum);
	default:
		return explain_kind(facts, reason);
	}
}

struct error *permit_error(const struct permit_facts *facts, enum permit_power power, int errnum)
{
	enum permit_reason reason = permit_judge(facts, power, errnum);
	struct error *error;

	if (reason == PERMIT_GRANTED)
		return NULL;
	error = explain_reason(facts, reason, power, errnum);
	if (error != &error_no_memory)
		error->errnum = errnum;
	return error;
}

struct error *permit_explain(const struct process *process, enum permit_power power, int errnum)
{
	struct permit_facts facts;
	struct error *error = permit_collect(process, &facts);

	if (error)
		return error;
	return permit_error(&facts, power, errnum ? errnum : EPERM);
}
