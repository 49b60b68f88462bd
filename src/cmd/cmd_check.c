#include "memprobe/cmd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "check_agent.h"
#include "memprobe/io.h"
#include "memprobe/permit.h"
#include "memprobe/ptrace.h"
#include "memprobe/records.h"

#define ROOT_HINT      "run memprobe as root"
#define SECCOMP_STRICT 1
#define SECCOMP_FILTER 2

/* How long the kernel may take for an answer: on a busy machine, too. */
#define ATTACH_SECONDS 10

enum check_state { CHECK_OK, CHECK_DEGRADED, CHECK_NO };

static const char *const state_names[] = { "ok", "degraded", "no" };

struct check {
	const char *name;
	enum check_state state;
	char *detail, *hint; /* owned; hint may be NULL */
};

VEC_DEFINE(check_vec, struct check)

struct checks {
	struct check_vec rows;
	bool no_memory;
	const struct process *process; /* memprobe's own without TARGET */
	struct target *target;	       /* NULL without */
	struct permit_facts facts;
	pid_t tid;  /* a living thread of the target: the main one may have exited */
	int status; /* exit status by what was found */
};

static void checks_deinit(struct checks *checks)
{
	vec_for_each (row, &checks->rows) {
		free(row->detail);
		free(row->hint);
	}
	check_vec_deinit(&checks->rows);
}

__attribute__((format(printf, 5, 6))) static void add(struct checks *checks, const char *name,
						      enum check_state state, const char *hint,
						      const char *format, ...)
{
	struct check row = { .name = name, .state = state };
	va_list args;

	va_start(args, format);
	if (vasprintf(&row.detail, format, args) < 0)
		row.detail = NULL;
	va_end(args);
	if (hint && state != CHECK_OK)
		row.hint = strdup(hint);
	if (!row.detail || (hint && state != CHECK_OK && !row.hint) ||
	    check_vec_append(&checks->rows, &row)) {
		checks->no_memory = true;
		free(row.detail);
		free(row.hint);
	}
}

/* A row of what the kernel answered: @error is taken over, NULL is success. */
static void add_outcome(struct checks *checks, const char *name, enum check_state failure,
			struct error *error, const char *success)
{
	if (!error) {
		add(checks, name, CHECK_OK, NULL, "%s", success);
		return;
	}
	add(checks, name, failure, error->hint, "%s", error->message);
	/* Not supported beats not permitted: nobody could grant it. */
	if (failure == CHECK_NO && error_exit_status(error) > checks->status)
		checks->status = error_exit_status(error);
	error_destroy(error);
}

static bool holds(const struct checks *checks, unsigned capability)
{
	return capability_in(checks->facts.self.cap_effective, capability);
}

static void read_first_line(const char *path, char line[32])
{
	cleanup(free) char *text = NULL;
	size_t size;

	error_destroy(read_file_at(AT_FDCWD, path, &text, &size));
	snprintf(line, 32, "%.*s", text ? (int)strcspn(text, "\n") : 0, text ? text : "");
}

/* ---- this kernel and this user ---- */

static void check_kernel(struct checks *checks)
{
	struct utsname name;

	if (!uname(&name))
		add(checks, "kernel", CHECK_OK, NULL, "%s %s %s", name.sysname, name.release,
		    name.machine);
}

static void check_user(struct checks *checks)
{
	static const struct {
		unsigned number;
		const char *name;
	} known[] = {
		{ CAP_SYS_PTRACE, "SYS_PTRACE" },
		{ CAP_SYS_ADMIN, "SYS_ADMIN" },
		{ CAP_DAC_READ_SEARCH, "DAC_READ_SEARCH" },
		{ CAP_PERFMON, "PERFMON" },
		{ CAP_CHECKPOINT_RESTORE, "CHECKPOINT_RESTORE" },
		{ CAP_SYS_NICE, "SYS_NICE" },
	};
	char text[128] = "";
	size_t length = 0;
	bool all = holds(checks, CAP_SYS_PTRACE);

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (holds(checks, known[i].number))
			length += (size_t)snprintf(text + length, sizeof(text) - length, " %s",
						   known[i].name);
	add(checks, "user", all ? CHECK_OK : CHECK_DEGRADED,
	    ROOT_HINT " for other users' processes, or give it the capability: `setcap "
		      "cap_sys_ptrace,cap_dac_read_search+ep $(which memprobe)`",
	    "uid %u, capabilities that matter:%s", checks->facts.self.uid, length ? text : " none");
	add(checks, "user-namespace",
	    checks->facts.userns_initial || !all ? CHECK_OK : CHECK_DEGRADED,
	    "run memprobe outside of this container to see processes of others",
	    checks->facts.userns_initial ? "the machine's own"
					 : "not the machine's own: capabilities count inside only");
}

static void check_yama(struct checks *checks)
{
	bool capable = holds(checks, CAP_SYS_PTRACE);
	int scope = checks->facts.yama;

	if (scope == YAMA_ABSENT)
		add(checks, "yama", CHECK_OK, NULL, "not active");
	else if (scope == YAMA_NO_ATTACH)
		add(checks, "yama", CHECK_NO,
		    "set kernel.yama.ptrace_scope to 0, 1 or 2 in /etc/sysctl.d and reboot",
		    "ptrace_scope is 3: nobody may attach or read memory");
	else if (scope == YAMA_OFF || capable)
		add(checks, "yama", CHECK_OK, NULL, "ptrace_scope is %d%s", scope,
		    scope ? ", which CAP_SYS_PTRACE overrides" : "");
	else
		add(checks, "yama", scope == YAMA_RESTRICTED ? CHECK_DEGRADED : CHECK_NO,
		    ROOT_HINT ", or `sudo sysctl kernel.yama.ptrace_scope=0`",
		    "ptrace_scope is %d: %s", scope,
		    scope == YAMA_RESTRICTED ? "only processes that memprobe started itself"
					     : "nothing without CAP_SYS_PTRACE");
}

static void check_own_seccomp(struct checks *checks)
{
	const struct permit_facts *facts = &checks->facts;
	const char *hint = "run memprobe outside of the sandbox; a container allows it with "
			   "`--cap-add=SYS_PTRACE` or `--security-opt seccomp=unconfined`";

	if (facts->self.seccomp <= 0)
		add(checks, "sandbox", CHECK_OK, NULL, "memprobe runs under no seccomp filter");
	else if (facts->ptrace_filtered)
		add(checks, "sandbox", CHECK_NO, hint,
		    "a seccomp filter denies ptrace%s to memprobe",
		    facts->readv_filtered ? " and process_vm_readv" : "");
	else
		add(checks, "sandbox", CHECK_DEGRADED, hint,
		    "a seccomp filter on memprobe: %s, and filters of targets cannot be read",
		    facts->readv_filtered ? "it denies process_vm_readv" : "ptrace is let through");
}

static void check_perf(struct checks *checks)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.disabled = 1,
		.exclude_kernel = 1,
	};
	cleanup(close) int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	bool capable = holds(checks, CAP_SYS_ADMIN);
	char paranoid[32], type[32];
	int errnum = errno;

	read_first_line("/proc/sys/kernel/perf_event_paranoid", paranoid);
	if (fd >= 0)
		add(checks, "perf-events", CHECK_OK, NULL,
		    "page faults can be recorded "
		    "(perf_event_paranoid is %s)",
		    paranoid);
	else
		add(checks, "perf-events", CHECK_NO,
		    ROOT_HINT ", or `sudo sysctl kernel.perf_event_paranoid=1`",
		    "page faults cannot be recorded: %s (perf_event_paranoid is %s)",
		    strerror(errnum), *paranoid ? paranoid : "unknown");
	read_first_line("/sys/bus/event_source/devices/uprobe/type", type);
	if (!*type)
		add(checks, "uprobes", CHECK_NO, "use a kernel with CONFIG_UPROBE_EVENTS",
		    "the kernel has none");
	else
		add(checks, "uprobes", capable ? CHECK_OK : CHECK_NO,
		    ROOT_HINT ", or give it CAP_SYS_ADMIN",
		    capable ? "allowed" : "they take CAP_SYS_ADMIN");
}

static void check_tracefs(struct checks *checks)
{
	static const char *const paths[] = { "/sys/kernel/tracing/events",
					     "/sys/kernel/debug/tracing/events" };
	bool mounted = false;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		if (!access(paths[i], R_OK)) {
			add(checks, "tracefs", CHECK_OK, NULL, "%.*s",
			    (int)(strlen(paths[i]) - strlen("/events")), paths[i]);
			return;
		}
		/* Below debugfs anything may be, which its root alone may look into. */
		mounted |= errno == EACCES && !i;
	}
	if (mounted)
		add(checks, "tracefs", CHECK_DEGRADED, ROOT_HINT, "not readable for this user");
	else
		add(checks, "tracefs", CHECK_DEGRADED, "mount -t tracefs nodev /sys/kernel/tracing",
		    "not mounted");
}

static void check_machine(struct checks *checks)
{
	check_kernel(checks);
	check_user(checks);
	check_yama(checks);
	check_own_seccomp(checks);
	check_perf(checks);
	check_tracefs(checks);
}

/* ---- the target ---- */

/* 1: another than ours, 0: the same, -1: not to be seen. */
static int other_namespace(const struct checks *checks, const char *name)
{
	struct stat own, its;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
	if (stat(path, &own) ||
	    fstatat(checks->process->dirfd, path + strlen("/proc/self/"), &its, 0))
		return -1;
	return own.st_ino != its.st_ino || own.st_dev != its.st_dev;
}

static void check_namespaces(struct checks *checks)
{
	static const char *const names[] = { "user", "pid", "mnt" };
	static const char *const words[] = { "user", "PID", "mount" };
	char text[64] = "";
	size_t length = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int other = other_namespace(checks, names[i]);

		if (other < 0) {
			add(checks, "namespaces", CHECK_DEGRADED, ROOT_HINT, "not visible");
			return;
		}
		if (other)
			length += (size_t)snprintf(text + length, sizeof(text) - length, "%s %s",
						   length ? "," : "", words[i]);
	}
	if (length)
		add(checks, "namespaces", CHECK_OK, NULL, "of its own:%s", text);
	else
		add(checks, "namespaces", CHECK_OK, NULL, "the same as memprobe's");
}

/* What it is; false: nothing more can be asked of it. */
static bool check_process(struct checks *checks)
{
	const struct process_status *status = &checks->facts.target;
	enum permit_reason reason = permit_judge(&checks->facts, PERMIT_ATTACH, 0);

	if (reason >= PERMIT_VANISHED && reason <= PERMIT_SELF) {
		add_outcome(checks, "process", CHECK_NO,
			    permit_error(&checks->facts, PERMIT_ATTACH, 0), "");
		return false;
	}
	add(checks, "process", CHECK_OK, NULL, "%d (%s), %s, state %c, %u thread%s, uid %u",
	    (int)checks->facts.pid, status->name,
	    *checks->target->exe ? checks->target->exe : "executable not visible", status->state,
	    status->threads, status->threads == 1 ? "" : "s", status->euid);
	return true;
}

static void check_dumpable(struct checks *checks)
{
	if (checks->facts.dumpable == 0)
		add(checks, "dumpable", permit_is_capable(&checks->facts) ? CHECK_OK : CHECK_NO,
		    ROOT_HINT,
		    "no: it changed its user, is setuid, or called prctl(PR_SET_DUMPABLE, 0)%s",
		    permit_is_capable(&checks->facts) ? "; CAP_SYS_PTRACE overrides it" : "");
	else
		add(checks, "dumpable", CHECK_OK, NULL, "%s",
		    checks->facts.dumpable > 0 ? "yes" : "cannot be told of a process of root");
}

static void check_software(struct checks *checks)
{
	json_t *libc = command_libc_text(checks->target);
	json_t *allocator = command_allocator_text(checks->target);
	const char *text = json_string_value(libc);

	if (*checks->target->exe)
		add(checks, "architecture", CHECK_OK, NULL, "%s, %u bits",
		    checks->target->arch->name, checks->target->arch->bits);
	else
		add(checks, "architecture", CHECK_DEGRADED, ROOT_HINT, "executable not visible");
	add(checks, "libc", text ? CHECK_OK : CHECK_DEGRADED, "figures of malloc need a known libc",
	    "%s", text ? text : "not recognised");
	text = json_string_value(allocator);
	add(checks, "allocator", text ? CHECK_OK : CHECK_DEGRADED,
	    "what needs no allocator works: maps, threads, dump, stack", "%s",
	    text ? text : "not recognised");
	json_decref(libc);
	json_decref(allocator);
}

static int open_file(const struct checks *checks, const char *name, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "task/%d/%s", (int)checks->tid, name);
	return openat(checks->process->dirfd, path, flags | O_RDONLY | O_CLOEXEC);
}

/* Opens and reads a byte of a file below /proc/PID/task/TID: 0 or errno. */
static int try_file(const struct checks *checks, const char *name, bool read_it)
{
	cleanup(close) int fd = open_file(checks, name, 0);
	char byte;

	if (fd < 0 || (read_it && read(fd, &byte, 1) < 0))
		return errno;
	return 0;
}

static struct error *explained(const struct checks *checks, enum permit_power power, int errnum)
{
	return errnum ? permit_error(&checks->facts, power, errnum) : NULL;
}

/* Following a link of map_files takes CAP_CHECKPOINT_RESTORE in the first user namespace. */
static void check_map_files(struct checks *checks)
{
	int fd = openat(checks->process->dirfd, "map_files", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry = NULL;
	int errnum = errno, link = -1;

	if (!dir && fd >= 0)
		close(fd);
	while (dir && (entry = readdir(dir)) && entry->d_name[0] == '.')
		continue;
	if (entry) {
		link = openat(dirfd(dir), entry->d_name, O_PATH | O_CLOEXEC);
		errnum = errno;
	}
	if (link >= 0)
		add(checks, "map-files", CHECK_OK, NULL, "deleted and replaced files can be read");
	else
		add(checks, "map-files", CHECK_DEGRADED,
		    ROOT_HINT ", or give it CAP_CHECKPOINT_RESTORE",
		    "deleted and replaced files cannot be read: %s", strerror(errnum));
	if (link >= 0)
		close(link);
	if (dir)
		closedir(dir);
}

/* Permission is checked before the address: EFAULT is a yes. */
static int try_readv(pid_t pid)
{
	char byte;
	struct iovec local = { &byte, 1 }, remote = { NULL, 1 };

	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) >= 0 || errno == EFAULT)
		return 0;
	return errno;
}

/* /proc/PID/mem is what is read; process_vm_readv moves large blocks faster. */
static void check_memory(struct checks *checks)
{
	int readv = try_readv(checks->tid), mem = try_file(checks, "mem", false);

	add_outcome(checks, "memory", mem ? CHECK_NO : CHECK_DEGRADED,
		    explained(checks, PERMIT_READ, mem ? mem : readv),
		    "can be read, by process_vm_readv and /proc/PID/mem");
}

/* Seizing stops nothing, and the end of the child lets go: 0 or errno. While a process is in an
 * execve() the kernel lets whoever seizes it wait: for ever, if that does not get on. */
static int try_attach(pid_t pid)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct error *error;
		sigset_t none;

		sigemptyset(&none);
		signal(SIGALRM, SIG_DFL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(ATTACH_SECONDS);
		error = ptrace_seize(pid, 0);

		_exit(error ? error->errnum ? error->errnum : EPERM : 0);
	}
	if (child < 0)
		return errno;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		return ETIMEDOUT;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
}

static struct error *stuck(const struct checks *checks)
{
	return error_hint(error_create(ERROR_BUSY,
				       "no answer within %d s: it may be stuck in an execve()",
				       ATTACH_SECONDS),
			  "try again; `cat /proc/%d/task/*/stack` shows where its threads wait",
			  (int)checks->facts.pid);
}

static void check_access(struct checks *checks)
{
	int attach;

	add_outcome(checks, "maps", CHECK_NO,
		    explained(checks, PERMIT_MAPS, try_file(checks, "smaps", true)), "can be read");
	check_map_files(checks);
	check_memory(checks);
	attach = try_attach(checks->tid);
	add_outcome(checks, "attach", CHECK_NO,
		    attach == ETIMEDOUT ? stuck(checks) : explained(checks, PERMIT_ATTACH, attach),
		    "PTRACE_SEIZE works");
}

/* What stands against running code in it. */
static void check_call(struct checks *checks)
{
	const struct permit_facts *facts = &checks->facts;
	int filters = facts->target.seccomp_filters;
	bool readable =
		holds(checks, CAP_SYS_ADMIN) && facts->userns_initial && facts->self.seccomp <= 0;
	bool callable = !facts->target.shadow_stack;

	if (facts->target.seccomp == SECCOMP_STRICT) {
		callable = false;
		add(checks, "seccomp", CHECK_NO,
		    "what only reads works: maps, threads, dump, stack",
		    "strict mode: no code can be run in it");
	} else if (facts->target.seccomp == SECCOMP_FILTER && !readable) {
		callable = false;
		add(checks, "seccomp", CHECK_NO, ROOT_HINT " of the machine, outside of containers",
		    "%d filter%s that memprobe cannot read: no code can safely be run in it",
		    filters, filters == 1 ? "" : "s");
	} else if (facts->target.seccomp == SECCOMP_FILTER) {
		add(checks, "seccomp", CHECK_OK, NULL,
		    "%d filter%s, asked before code is run in it", filters,
		    filters == 1 ? "" : "s");
	} else {
		add(checks, "seccomp", CHECK_OK, NULL, "none");
	}
	add(checks, "shadow-stack", facts->target.shadow_stack ? CHECK_NO : CHECK_OK,
	    "to allow calls, start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off", "%s",
	    facts->target.shadow_stack ? "active: no code can be run in it" : "none");
	if (!callable && checks->status < ERROR_PERMISSION)
		checks->status = ERROR_PERMISSION;
}

/* What a recording has left in it. */
static void check_leftovers(struct checks *checks)
{
	char text[CHECK_AGENT_TEXT];
	enum check_agent_state state = CHECK_AGENT_NONE;
	const char *hint;
	struct error *error = check_agent(checks->target, &state, text, &hint);

	/* That its memory cannot be read has been told. */
	if (!error)
		add(checks, "agent", state == CHECK_AGENT_NONE ? CHECK_OK : CHECK_DEGRADED, hint,
		    "%s", text);
	error_destroy(error);
}

static pid_t living_thread(const struct checks *checks)
{
	struct pid_vec tids = { 0 };
	struct process_status status;
	pid_t living = checks->facts.pid;

	if (checks->facts.target.state != 'Z')
		return living;
	error_destroy(process_list_threads(checks->process, &tids));
	vec_for_each (tid, &tids) {
		struct error *error = process_read_status(checks->process, *tid, &status);

		if (!error && status.state != 'Z' && status.state != 'X')
			living = *tid;
		error_destroy(error);
	}
	pid_vec_deinit(&tids);
	return living;
}

static void check_target(struct checks *checks)
{
	const struct process_status *status = &checks->facts.target;

	if (!check_process(checks))
		return;
	checks->tid = living_thread(checks);
	check_namespaces(checks);
	check_dumpable(checks);
	check_access(checks);
	check_software(checks);
	if (status->tracer_pid)
		add(checks, "tracer", CHECK_NO, "let it detach, or end it", "traced by %d (%s)",
		    (int)status->tracer_pid, checks->facts.tracer_name);
	else
		add(checks, "tracer", CHECK_OK, NULL, "none");
	check_call(checks);
	check_leftovers(checks);
}

/* ---- output ---- */

static json_t *json_ok(const void *data)
{
	return json_boolean(((const struct check *)data)->state == CHECK_OK);
}

static json_t *json_state(const void *data)
{
	return json_string(state_names[((const struct check *)data)->state]);
}

static void state_cell(struct table *table, const void *data)
{
	table_cell_text(table, state_names[((const struct check *)data)->state]);
}

static void detail_cell(struct table *table, const void *data)
{
	const struct check *row = data;

	table_cell(table, "%s%s%s", row->detail, row->hint ? "; hint: " : "",
		   row->hint ? row->hint : "");
}

static const struct record_column columns[] = {
	RECORD(check, name, "name", "CHECK", RECORD_TEXT),
	{ .key = "ok", .kind = RECORD_OTHER, .json = json_ok },
	{ .key = "state",
	  .heading = "STATE",
	  .kind = RECORD_OTHER,
	  .cell = state_cell,
	  .json = json_state },
	RECORD(check, detail, "detail", "DETAIL", RECORD_TEXT, .cell = detail_cell,
	       .fit = TABLE_WRAP),
	RECORD(check, hint, "hint", NULL, RECORD_TEXT, .optional = true),
	{ 0 },
};

static struct records records_of(const struct checks *checks)
{
	return (struct records){
		.columns = columns,
		.rows = checks->rows.data,
		.count = checks->rows.size,
		.size = sizeof(*checks->rows.data),
	};
}

struct output_data {
	const struct checks *checks;
	const struct command_context *context;
};

static struct error *print_rows(FILE *out, void *data)
{
	const struct output_data *output = data;
	const struct records records = records_of(output->checks);
	cleanup(table) struct table *table =
		records_table(&records, command_style(output->context));
	size_t counts[3] = { 0 };

	vec_for_each (row, &output->checks->rows)
		counts[row->state]++;
	if (counts[CHECK_OK] == output->checks->rows.size)
		fprintf(out, "check: all %zu checks passed\n\n", counts[CHECK_OK]);
	else
		fprintf(out, "check: %zu ok, %zu degraded, %zu not possible\n\n", counts[CHECK_OK],
			counts[CHECK_DEGRADED], counts[CHECK_NO]);
	return table_print(table, out);
}

static struct error *write_checks(struct command_context *context, const struct checks *checks)
{
	struct output_data data = { checks, context };
	const struct records records = records_of(checks);
	json_t *document;

	if (checks->no_memory)
		return &error_no_memory;
	if (!context->json)
		return command_print(context, print_rows, &data);
	document = command_json(context);
	json_object_set_new(document, "checks", records_array(&records));
	return command_write_json(context, document);
}

static struct error *run(struct command_context *context)
{
	cleanup(process) struct process *self = NULL;
	struct checks checks = { .target = context->target };
	struct error *error = NULL;

	if (context->target && !context->target->process)
		return error_create(ERROR_UNSUPPORTED, "%s is not a live process",
				    context->target_text);
	if (!context->target)
		error = process_open(getpid(), &self);
	if (error)
		return error;
	checks.process = self ? self : context->target->process;
	error = permit_collect(checks.process, &checks.facts);
	if (!error) {
		check_machine(&checks);
		if (context->target)
			check_target(&checks);
		error = write_checks(context, &checks);
	}
	context->status = checks.status;
	checks_deinit(&checks);
	return error;
}

static const struct command_option options[] = {
	{ NULL, 0, NULL, NULL },
};

extern const struct command cmd_check;
const struct command cmd_check = {
	.name = "check",
	.arguments = "",
	.summary = "what this kernel, this user and this target allow, and how to allow the rest",
	.target = TARGET_OPTIONAL,
	.options = options,
	.run = run,
};
