#include "fork_limits.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fork_events.h"
#include "memprobe/memory_room.h"
#include "memprobe/num.h"

/*
 * What both write to is copied while the fork is there. The kernel kills the target if there is no
 * room for that: the fork has to go before.
 */
#define MEMORY_MIN (64ull << 20)

/* The helper, the fork, and what the target may start in the next moments. */
#define TASKS_BEFORE 8u
#define TASKS_MIN    4u

/*
 * Whether any mapping is private and of huge pages from the pool. After a fork the first write to
 * such a page takes another one from the pool, and the kernel ends the writer by SIGBUS if that is
 * empty (Linux mm/hugetlb.c, hugetlb_wp()). By the lines of smaps:
 *	7f0000000000-7f0000200000 rw-p 00000000 00:10 1234  /anon_hugepage (deleted)
 *	VmFlags: rd wr mr mw me ht
 */
static bool has_private_hugetlb(const struct process *process)
{
	int fd = openat(process->dirfd, "smaps", O_RDONLY | O_CLOEXEC);
	FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
	bool is_private = true, found = false;
	char *line = NULL;
	size_t room = 0;

	if (!file) {
		if (fd >= 0)
			close(fd);
		return true;
	}
	while (!found && getline(&line, &room, file) > 0) {
		char perms[5] = "";

		if (!strncmp(line, "VmFlags:", 8))
			found = is_private && strstr(line + 8, " ht");
		else if (sscanf(line, "%*x-%*x %4s", perms) == 1)
			is_private = perms[3] != 's';
	}
	free(line);
	fclose(file);
	return found;
}

static struct error *no_room(const char *what)
{
	return error_create(ERROR_UNSUPPORTED, "a limit leaves no room for a copy: %s", what);
}

static struct error *check_room(const struct process *process, const struct process_status *status)
{
	/* The fork's page tables, and time to see how fast its copies come. */
	if (memory_room(process) < 2 * MEMORY_MIN + status->vm_rss / 256)
		return error_create(ERROR_UNSUPPORTED, "there is no memory left for a copy");
	/* What is charged to the fork is missing for what the target allocates. */
	if (commit_room() < status->vm_data + 2 * MEMORY_MIN)
		return no_room("vm.overcommit_memory is 2, and CommitLimit is near");
	if (task_room(process) < TASKS_BEFORE)
		return no_room("pids.max of its cgroup, or the machine's number of threads");
	if (user_task_room(process, status) < TASKS_BEFORE)
		return no_room("its user's number of processes (ulimit -u)");
	return NULL;
}

struct error *fork_check(const struct process *process, const struct process_status *status)
{
	if (process_tells_of_forks(process))
		return error_create(ERROR_UNSUPPORTED,
				    "it has asked to be told of forks (userfaultfd)");
	if (status->hugetlb && has_private_hugetlb(process))
		return error_create(ERROR_UNSUPPORTED,
				    "it has private huge pages of the pool (hugetlbfs), and a copy "
				    "of them could end it by SIGBUS");
	return check_room(process, status);
}

bool fork_leaves_room(const struct process *process)
{
	return memory_room(process) >= MEMORY_MIN && commit_room() >= MEMORY_MIN &&
	       task_room(process) >= TASKS_MIN;
}
