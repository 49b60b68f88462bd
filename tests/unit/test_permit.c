/* Why memprobe may not: every reason, over faked facts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "memprobe/permit.h"

#define CAPABILITY(number) (UINT64_C(1) << (number))
#define ALL_CAPABILITIES   UINT64_C(0x1ffffffffff)

static void set_user(struct process_status *status, uid_t id)
{
	status->uid = status->euid = status->suid = status->fsuid = id;
	status->gid = status->egid = status->sgid = status->fsgid = id;
}

/* An ordinary user and a process of that user: everything is allowed. */
static struct permit_facts friendly(void)
{
	struct permit_facts facts = {
		.pid = 42,
		.alive = true,
		.dumpable = 1,
		.userns = PERMIT_NS_SAME,
		.userns_initial = true,
		.yama = YAMA_ABSENT,
		.target = { .name = "victim", .state = 'S', .tgid = 42, .ppid = 7, .threads = 1 },
		.self = { .name = "memprobe", .state = 'R', .tgid = 99, .threads = 1 },
	};

	set_user(&facts.target, 1000);
	set_user(&facts.self, 1000);
	return facts;
}

static void give_ptrace(struct permit_facts *facts)
{
	facts->self.cap_effective |= CAPABILITY(CAP_SYS_PTRACE);
	facts->self.cap_permitted |= CAPABILITY(CAP_SYS_PTRACE);
}

static void assert_all(const struct permit_facts *facts, int errnum, enum permit_reason reason)
{
	assert_int_equal(permit_judge(facts, PERMIT_MAPS, errnum), reason);
	assert_int_equal(permit_judge(facts, PERMIT_READ, errnum), reason);
	assert_int_equal(permit_judge(facts, PERMIT_ATTACH, errnum), reason);
}

/* The error for @power has this code and these words in its message and its hint. */
static void assert_error(const struct permit_facts *facts, enum permit_power power, int errnum,
			 enum error_code code, const char *message, const char *hint)
{
	struct error *error = permit_error(facts, power, errnum);

	assert_non_null(error);
	assert_int_equal(error->code, code);
	if (!strstr(error->message, message))
		fail_msg("'%s' is not in '%s'", message, error->message);
	if (hint && (!error->hint || !strstr(error->hint, hint)))
		fail_msg("'%s' is not in hint '%s'", hint, error->hint ? error->hint : "");
	assert_null(strstr(error->message, "(null)"));
	error_destroy(error);
}

static void own_process_is_granted(void **state)
{
	struct permit_facts facts = friendly();

	assert_all(&facts, 0, PERMIT_GRANTED);
	assert_null(permit_error(&facts, PERMIT_ATTACH, 0));
}

static void vanished(void **state)
{
	struct permit_facts facts = friendly();

	assert_all(&facts, ESRCH, PERMIT_VANISHED);
	facts.alive = false;
	assert_all(&facts, EPERM, PERMIT_VANISHED);
	assert_error(&facts, PERMIT_READ, EPERM, ERROR_NO_TARGET, "has exited", NULL);
}

static void kernel_thread(void **state)
{
	struct permit_facts facts = friendly();

	facts.target.kernel_thread = true;
	set_user(&facts.target, 0);
	assert_all(&facts, EPERM, PERMIT_KERNEL_THREAD);
	assert_all(&facts, 0, PERMIT_KERNEL_THREAD);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_UNSUPPORTED,
		     "is a kernel thread: it has no memory of its own", NULL);
}

static void zombie(void **state)
{
	struct permit_facts facts = friendly();

	facts.target.state = 'Z';
	snprintf(facts.parent_name, sizeof(facts.parent_name), "forgetful");
	assert_all(&facts, EPERM, PERMIT_ZOMBIE);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_UNSUPPORTED, "is a zombie",
		     "its parent 7 (forgetful)");
	/* Of a process whose main thread alone has exited, the others may be asked. */
	facts.target.threads = 3;
	assert_all(&facts, 0, PERMIT_GRANTED);
	assert_all(&facts, EPERM, PERMIT_LEADER_EXITED);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_UNSUPPORTED,
		     "cannot attach to 42: its main thread has exited", NULL);
}

static void itself(void **state)
{
	struct permit_facts facts = friendly();

	facts.is_self = true;
	assert_int_equal(permit_judge(&facts, PERMIT_ATTACH, 0), PERMIT_SELF);
	assert_int_equal(permit_judge(&facts, PERMIT_READ, 0), PERMIT_GRANTED);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_UNSUPPORTED, "memprobe itself", NULL);
}

static void another_user(void **state)
{
	struct permit_facts facts = friendly();

	set_user(&facts.target, 33);
	assert_all(&facts, EACCES, PERMIT_OTHER_USER);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION,
		     "belongs to uid 33, and memprobe runs as uid 1000", "sudo -u '#33'");
	set_user(&facts.target, 0);
	assert_error(&facts, PERMIT_READ, EACCES, ERROR_PERMISSION, "belongs to uid 0", "sudo");
	give_ptrace(&facts);
	assert_all(&facts, 0, PERMIT_GRANTED);
}

static void root_without_capability_is_another_user(void **state)
{
	struct permit_facts facts = friendly();

	set_user(&facts.self, 0);
	assert_all(&facts, EPERM, PERMIT_OTHER_USER);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "without CAP_SYS_PTRACE",
		     "cap_sys_ptrace");
}

static void every_id_of_the_target_counts(void **state)
{
	struct permit_facts facts = friendly();

	facts.target.suid = 0;
	assert_all(&facts, EPERM, PERMIT_OTHER_USER);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "and 0 (saved)", NULL);
	facts = friendly();
	facts.target.egid = 5;
	assert_all(&facts, EPERM, PERMIT_OTHER_USER);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "5 (effective)", NULL);
}

/* ptrace(2) takes the real ids, /proc the file system ids. */
static void powers_take_different_ids_of_ours(void **state)
{
	struct permit_facts facts = friendly();

	facts.self.euid = facts.self.fsuid = 0;
	assert_int_equal(permit_judge(&facts, PERMIT_ATTACH, 0), PERMIT_GRANTED);
	assert_int_equal(permit_judge(&facts, PERMIT_READ, 0), PERMIT_OTHER_USER);
	facts = friendly();
	facts.self.uid = 0;
	assert_int_equal(permit_judge(&facts, PERMIT_ATTACH, 0), PERMIT_OTHER_USER);
	assert_int_equal(permit_judge(&facts, PERMIT_READ, 0), PERMIT_GRANTED);
}

static void not_dumpable(void **state)
{
	struct permit_facts facts = friendly();

	facts.dumpable = 0;
	assert_all(&facts, EPERM, PERMIT_NOT_DUMPABLE);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "is not dumpable",
		     "cap_sys_ptrace");
	give_ptrace(&facts);
	assert_all(&facts, 0, PERMIT_GRANTED);
}

/* Root's process, root without capabilities (a container): dumpable cannot be seen. */
static void dumpable_unknown_is_said_so(void **state)
{
	struct permit_facts facts = friendly();

	set_user(&facts.target, 0);
	set_user(&facts.self, 0);
	facts.dumpable = -1;
	assert_all(&facts, 0, PERMIT_GRANTED);
	assert_all(&facts, EPERM, PERMIT_NOT_DUMPABLE);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "perhaps not dumpable", NULL);
}

static void more_capabilities(void **state)
{
	struct permit_facts facts = friendly();

	facts.target.cap_permitted = CAPABILITY(CAP_NET_BIND_SERVICE);
	assert_all(&facts, EPERM, PERMIT_CAPABILITIES);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "lacks (0x400)",
		     "--cap-add=SYS_PTRACE");
	/* Permitted is enough for ptrace(2), effective is needed for /proc. */
	facts.self.cap_permitted = CAPABILITY(CAP_NET_BIND_SERVICE);
	assert_int_equal(permit_judge(&facts, PERMIT_ATTACH, 0), PERMIT_GRANTED);
	assert_int_equal(permit_judge(&facts, PERMIT_READ, 0), PERMIT_CAPABILITIES);
	facts.self.cap_effective = CAPABILITY(CAP_NET_BIND_SERVICE);
	assert_all(&facts, 0, PERMIT_GRANTED);
}

static void capability_of_another_namespace(void **state)
{
	struct permit_facts facts = friendly();

	set_user(&facts.self, 0);
	facts.self.cap_effective = facts.self.cap_permitted = ALL_CAPABILITIES;
	facts.userns_initial = false;
	facts.userns = PERMIT_NS_OUTSIDE;
	assert_all(&facts, EPERM, PERMIT_USER_NAMESPACE);
	/* From below, the kernel does not even show the target's namespace. */
	facts.userns = PERMIT_NS_UNKNOWN;
	assert_all(&facts, EPERM, PERMIT_USER_NAMESPACE);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "another user namespace",
		     "outside of this container");
	facts.userns = PERMIT_NS_BELOW;
	assert_all(&facts, 0, PERMIT_GRANTED);
	facts.userns = PERMIT_NS_UNKNOWN;
	facts.userns_initial = true;
	assert_all(&facts, 0, PERMIT_GRANTED);
}

static void namespace_below(void **state)
{
	struct permit_facts facts = friendly();

	facts.userns = PERMIT_NS_BELOW;
	assert_all(&facts, EPERM, PERMIT_USER_NAMESPACE);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION,
		     "another user namespace, and memprobe is without CAP_SYS_PTRACE",
		     "cap_sys_ptrace");
	/* Its maker has every capability in it. */
	facts.userns = PERMIT_NS_OWNED;
	facts.target.cap_permitted = ALL_CAPABILITIES;
	assert_all(&facts, 0, PERMIT_GRANTED);
	/* But the memory may still belong to the namespace above. */
	facts.dumpable = 0;
	assert_all(&facts, EPERM, PERMIT_NOT_DUMPABLE);
}

static void assert_yama(const struct permit_facts *facts, enum permit_reason reason)
{
	assert_int_equal(permit_judge(facts, PERMIT_MAPS, 0), PERMIT_GRANTED);
	assert_int_equal(permit_judge(facts, PERMIT_READ, 0), reason);
	assert_int_equal(permit_judge(facts, PERMIT_ATTACH, 0), reason);
}

static void yama_scopes(void **state)
{
	struct permit_facts facts = friendly();

	facts.yama = YAMA_OFF;
	assert_yama(&facts, PERMIT_GRANTED);
	facts.yama = YAMA_RESTRICTED;
	assert_yama(&facts, PERMIT_YAMA);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION,
		     "kernel.yama.ptrace_scope is 1", "sysctl kernel.yama.ptrace_scope=0");
	facts.descendant = true;
	assert_yama(&facts, PERMIT_GRANTED);
	facts.yama = YAMA_ADMIN_ONLY;
	assert_yama(&facts, PERMIT_YAMA);
	assert_error(&facts, PERMIT_READ, EPERM, ERROR_PERMISSION, "ptrace_scope is 2",
		     "cap_sys_ptrace");
	give_ptrace(&facts);
	assert_yama(&facts, PERMIT_GRANTED);
	facts.yama = YAMA_RESTRICTED;
	facts.descendant = false;
	assert_yama(&facts, PERMIT_GRANTED);
	facts.yama = YAMA_NO_ATTACH;
	assert_yama(&facts, PERMIT_YAMA);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "nobody may", "reboot");
}

static void already_traced(void **state)
{
	struct permit_facts facts = friendly();

	facts.target.tracer_pid = 77;
	snprintf(facts.tracer_name, sizeof(facts.tracer_name), "gdb");
	assert_int_equal(permit_judge(&facts, PERMIT_READ, 0), PERMIT_GRANTED);
	assert_int_equal(permit_judge(&facts, PERMIT_ATTACH, 0), PERMIT_TRACED);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "already traced by 77 (gdb)",
		     "let 77 detach");
	/* Whose process it is comes first: with the tracer gone it would still be refused. */
	set_user(&facts.target, 33);
	assert_int_equal(permit_judge(&facts, PERMIT_ATTACH, EPERM), PERMIT_OTHER_USER);
}

static void own_seccomp_filter(void **state)
{
	struct permit_facts facts = friendly();

	facts.self.seccomp = 2;
	facts.ptrace_filtered = facts.readv_filtered = true;
	assert_int_equal(permit_judge(&facts, PERMIT_ATTACH, 0), PERMIT_FILTERED);
	assert_int_equal(permit_judge(&facts, PERMIT_READ, EPERM), PERMIT_FILTERED);
	/* /proc/PID/mem needs no process_vm_readv. */
	assert_int_not_equal(permit_judge(&facts, PERMIT_READ, EACCES), PERMIT_FILTERED);
	assert_int_equal(permit_judge(&facts, PERMIT_READ, 0), PERMIT_GRANTED);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION,
		     "a seccomp filter denies ptrace to memprobe", "--cap-add=SYS_PTRACE");
	facts.ptrace_filtered = facts.readv_filtered = false;
	assert_all(&facts, 0, PERMIT_GRANTED);
}

/* CAP_SYS_PTRACE alone does not open another user's 0600 file in /proc. */
static void file_modes(void **state)
{
	struct permit_facts facts = friendly();

	set_user(&facts.target, 33);
	give_ptrace(&facts);
	assert_int_equal(permit_judge(&facts, PERMIT_READ, EACCES), PERMIT_FILE_MODE);
	assert_error(&facts, PERMIT_READ, EACCES, ERROR_PERMISSION, "for uid 33 alone",
		     "cap_dac_read_search");
	facts.self.cap_effective |= CAPABILITY(CAP_DAC_READ_SEARCH);
	assert_int_equal(permit_judge(&facts, PERMIT_READ, EACCES), PERMIT_SECURITY_MODULE);
}

static void security_module_is_a_guess(void **state)
{
	struct permit_facts facts = friendly();

	assert_all(&facts, EPERM, PERMIT_SECURITY_MODULE);
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "a guess", "dmesg");
	snprintf(facts.self_label, sizeof(facts.self_label), "docker-default (enforce)");
	snprintf(facts.label, sizeof(facts.label), "unconfined");
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "docker-default", "AppArmor");
	snprintf(facts.self_label, sizeof(facts.self_label), "user_u:user_r:user_t:s0");
	assert_error(&facts, PERMIT_ATTACH, EPERM, ERROR_PERMISSION, "a guess", "SELinux");
}

/* ---- the collector ---- */

static int read_fake_yama(const char *text)
{
	char root[] = "/tmp/memprobe-yama-XXXXXX", path[128];
	const char *const parts[] = { "sys", "sys/kernel", "sys/kernel/yama",
				      "sys/kernel/yama/ptrace_scope" };
	int fd, scope;
	FILE *file;

	assert_non_null(mkdtemp(root));
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", root, parts[i]);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	snprintf(path, sizeof(path), "%s/%s", root, parts[3]);
	if (text) {
		file = fopen(path, "w");
		assert_non_null(file);
		fputs(text, file);
		fclose(file);
	}
	fd = open(root, O_RDONLY | O_DIRECTORY);
	scope = permit_read_yama(fd);
	close(fd);
	for (int i = 4; i-- > 0;) {
		snprintf(path, sizeof(path), "%s/%s", root, parts[i]);
		remove(path);
	}
	remove(root);
	return scope;
}

static void yama_is_read(void **state)
{
	assert_int_equal(read_fake_yama(NULL), YAMA_ABSENT);
	assert_int_equal(read_fake_yama(""), YAMA_ABSENT);
	assert_int_equal(read_fake_yama("x\n"), YAMA_ABSENT);
	assert_int_equal(read_fake_yama("0\n"), YAMA_OFF);
	assert_int_equal(read_fake_yama("1\n"), YAMA_RESTRICTED);
	assert_int_equal(read_fake_yama("2\n"), YAMA_ADMIN_ONLY);
	assert_int_equal(read_fake_yama("3\n"), YAMA_NO_ATTACH);
	/* What a later kernel may add is taken for the strictest. */
	assert_int_equal(read_fake_yama("4\n"), YAMA_NO_ATTACH);
}

static void child_is_described(void **state)
{
	cleanup(process) struct process *process = NULL;
	struct permit_facts facts;
	int status, hold[2];
	pid_t child;
	char byte;

	assert_int_equal(pipe(hold), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(hold[1]);
		_exit(read(hold[0], &byte, 1) ? 1 : 0);
	}
	assert_null(process_open(child, &process));
	assert_null(permit_collect(process, &facts));
	assert_true(facts.alive);
	assert_false(facts.is_self);
	assert_true(facts.descendant);
	assert_int_equal(facts.userns, PERMIT_NS_SAME);
	assert_int_equal(facts.pid, child);
	assert_int_equal(facts.target.ppid, getpid());
	assert_int_not_equal(facts.dumpable, 0);
	assert_string_equal(facts.parent_name, facts.self.name);
	close(hold[1]);
	assert_int_equal(waitpid(child, &status, 0), child);
	close(hold[0]);
	assert_null(permit_collect(process, &facts));
	assert_false(facts.alive);
}

static void explain_never_says_nothing(void **state)
{
	cleanup(process) struct process *process = NULL;
	struct error *error;

	assert_null(process_open(getpid(), &process));
	error = permit_explain(process, PERMIT_ATTACH, 0);
	assert_non_null(error);
	assert_int_equal(error->code, ERROR_UNSUPPORTED);
	error_destroy(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_process_is_granted),
		cmocka_unit_test(vanished),
		cmocka_unit_test(kernel_thread),
		cmocka_unit_test(zombie),
		cmocka_unit_test(itself),
		cmocka_unit_test(another_user),
		cmocka_unit_test(root_without_capability_is_another_user),
		cmocka_unit_test(every_id_of_the_target_counts),
		cmocka_unit_test(powers_take_different_ids_of_ours),
		cmocka_unit_test(not_dumpable),
		cmocka_unit_test(dumpable_unknown_is_said_so),
		cmocka_unit_test(more_capabilities),
		cmocka_unit_test(capability_of_another_namespace),
		cmocka_unit_test(namespace_below),
		cmocka_unit_test(yama_scopes),
		cmocka_unit_test(already_traced),
		cmocka_unit_test(own_seccomp_filter),
		cmocka_unit_test(file_modes),
		cmocka_unit_test(security_module_is_a_guess),
		cmocka_unit_test(yama_is_read),
		cmocka_unit_test(child_is_described),
		cmocka_unit_test(explain_never_says_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
