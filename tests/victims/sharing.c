/*
 * Has what a process shares with whoever shares its descriptors or its working directory: a
 * listening socket, a locked file, a record lock, a pipe, and a heap that takes a while to read.
 *
 *	close	gives all but the record lock up, and says what is free then: `free 1 1 1`
 *	setns	enters its own mount namespace: `setns 0`, or the error
 *	exec	runs itself again, which says whether it still has the record lock: `lock 1`
 *	children	how many it can wait for, whatever their kind: `children 0`
 */
#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "victim.h"

#define HEAP (64u << 20)

static const char *program, *folder;
static int listener, locked, record, pipe_ends[2];
static struct sockaddr_in address = { .sin_family = AF_INET };
static void *heap;

static int open_in_folder(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return open(path, O_RDWR | O_CREAT, 0600);
}

static int listen_there(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 5) == 0)
		return fd;
	close(fd);
	return -1;
}

static void take(void)
{
	socklen_t size = sizeof(address);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = listen_there();
	check_that(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "listen");
	locked = open_in_folder("locked");
	check_that(flock(locked, LOCK_EX | LOCK_NB) == 0, "flock");
	check_that(pipe(pipe_ends) == 0, "pipe");
}

static void give_up(void)
{
	struct pollfd end = { .fd = pipe_ends[0], .events = POLLIN };
	bool is_free, is_unlocked, is_ended;
	int again;

	close(listener);
	close(locked);
	close(pipe_ends[1]);
	listener = listen_there();
	is_free = listener >= 0;
	again = open_in_folder("locked");
	is_unlocked = flock(again, LOCK_EX | LOCK_NB) == 0;
	is_ended = poll(&end, 1, 0) == 1 && (end.revents & POLLHUP);
	say("free %d %d %d", is_free, is_unlocked, is_ended);
}

/* As another process sees it. */
static bool has_record_lock(int fd)
{
	pid_t child = fork();
	int status = 0;

	if (child == 0) {
		struct flock lock = { .l_type = F_WRLCK, .l_len = 1 };

		fcntl(fd, F_GETLK, &lock);
		_exit(lock.l_type != F_UNLCK);
	}
	waitpid(child, &status, 0);
	return WEXITSTATUS(status) == 1;
}

static void enter_own_namespace(void)
{
	int fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

	say("setns %d", setns(fd, CLONE_NEWNS) == 0 ? 0 : errno);
	close(fd);
}

static void run_again(void)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", record);
	execl("/proc/self/exe", program, folder, number, NULL);
	say("WRONG exec: %s", strerror(errno));
}

static bool command(const char *line)
{
	if (!strcmp(line, "close"))
		give_up();
	else if (!strcmp(line, "setns"))
		enter_own_namespace();
	else if (!strcmp(line, "exec"))
		run_again();
	else if (!strcmp(line, "children"))
		say("children %d", waitpid(-1, NULL, __WALL | WNOHANG) == -1 ? 0 : 1);
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	struct flock lock = { .l_type = F_WRLCK, .l_len = 1 };

	victim_init();
	have_heap();
	program = argv[0];
	folder = argc > 1 ? argv[1] : "/tmp";
	if (argc > 2) {
		say("lock %d", has_record_lock(atoi(argv[2])));
		victim_serve(command);
		return 0;
	}
	take();
	record = open_in_folder("record");
	check_that(fcntl(record, F_SETLK, &lock) == 0, "F_SETLK");
	heap = malloc(HEAP);
	check_that(heap != NULL, "malloc");
	memset(heap, 'h', HEAP);
	victim_ready();
	victim_serve(command);
	return 0;
}
