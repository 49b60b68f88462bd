#include "fork_reap.h"

#include <sys/wait.h>

#include "memprobe/call.h"
#include "memprobe/log.h"

#define TIMEOUT_US 2000000

static bool is_zombie_of(pid_t parent, pid_t fork)
{
	cleanup(process) struct process *process = NULL;
	struct process_status status;
	struct error *error = process_open(fork, &process);

	if (!error)
		error = process_read_status(process, 0, &status);
	if (!error)
		return status.state == 'Z' && status.ppid == parent;
	error_destroy(error);
	return false;
}

static struct error *wait_in(struct target *target, pid_t fork_id)
{
	cleanup(call) struct call_session *session = NULL;
	const struct call_options options = { 0 };
	const struct call_arg wait[] = { CALL_ARG(fork_id), CALL_ARG(0), CALL_ARG(__WALL | WNOHANG),
					 CALL_ARG(0) };
	struct call_script script;
	struct call_result result;
	struct error *error = call_open(target, TIMEOUT_US, &session);

	if (error)
		return error;
	call_begin(&script, target->arch);
	call_add_syscall(&script, target->arch->syscalls.wait4, 4, wait, CALL_ANY, 0);
	call_add_marker(&script);
	return call_run(session, &script, &options, &result);
}

void fork_reap(const struct target *target, pid_t fork, pid_t fork_id)
{
	cleanup(target) struct target *program = NULL;
	struct error *error;

	if (fork_id <= 0 || !is_zombie_of(target->pid, fork))
		return;
	error = target_open_live(target->pid, &program);
	if (!error && program->process->start_time == target->process->start_time)
		error = wait_in(program, fork_id);
	if (error)
		log_warn("%d now runs another program and keeps the copy's process %d until it "
			 "ends: %s",
			 (int)target->pid, (int)fork, error->message);
	error_destroy(error);
}
