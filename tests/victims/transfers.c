/*
 * Transfers that are half done, each in a thread of its own, and so wait until `finish`: a stop by
 * ptrace makes each of them return short. Then all must have been done in full.
 *
 * variants: 32
 */
#include "victim.h"

#include <pthread.h>
#include <sys/socket.h>

enum { PIPE_SIZE = 300000, WAITED = 65536, SENT = 4 << 20 };

static int pipe_ends[2], whole[2], stream[2], messages[2];

static void *write_pipe(void *data)
{
	char *bytes = calloc(1, PIPE_SIZE);

	check_that(write(pipe_ends[1], bytes, PIPE_SIZE) == PIPE_SIZE, "write to a pipe");
	free(bytes);
	return data;
}

static void *receive_whole(void *data)
{
	char *bytes = calloc(1, WAITED);

	check_that(recv(whole[0], bytes, WAITED, MSG_WAITALL) == WAITED, "recv MSG_WAITALL");
	free(bytes);
	return data;
}

static void *send_stream(void *data)
{
	char *bytes = calloc(1, SENT);

	check_that(send(stream[1], bytes, SENT, 0) == SENT, "send");
	free(bytes);
	return data;
}

static int receive_two(void)
{
	char bytes[2][16];
	struct iovec parts[2] = { { bytes[0], 16 }, { bytes[1], 16 } };
	struct mmsghdr headers[2] = {
		{ .msg_hdr = { .msg_iov = &parts[0], .msg_iovlen = 1 } },
		{ .msg_hdr = { .msg_iov = &parts[1], .msg_iovlen = 1 } },
	};

	return recvmmsg(messages[0], headers, 2, 0, NULL);
}

/* A call that was cut short leaves an error for the next one. */
static void *receive_messages(void *data)
{
	check_that(receive_two() == 2, "recvmmsg");
	check_that(receive_two() == 2, "recvmmsg, the second time");
	return data;
}

static void *(*const transfers[])(void *) = { write_pipe, receive_whole, send_stream,
					      receive_messages };

#define COUNT (sizeof(transfers) / sizeof(transfers[0]))

static pthread_t threads[COUNT];

static void drain(int fd, size_t size)
{
	static char bytes[65536];

	while (size) {
		ssize_t got = read(fd, bytes, size < sizeof(bytes) ? size : sizeof(bytes));

		if (got <= 0) {
			check_that(false, "read");
			return;
		}
		size -= (size_t)got;
	}
}

static void send_messages(void)
{
	for (unsigned i = 0; i < 3; i++)
		check_that(send(messages[1], "two", 3, 0) == 3, "send of a message");
}

static void finish(void)
{
	static const char bytes[WAITED];

	drain(pipe_ends[0], PIPE_SIZE);
	check_that(write(whole[1], bytes, WAITED - 1000) == WAITED - 1000, "write");
	drain(stream[0], SENT);
	send_messages();
	for (size_t i = 0; i < COUNT; i++)
		pthread_join(threads[i], NULL);
	say("finished");
}

static bool command(const char *line)
{
	if (!strcmp(line, "finish")) {
		finish();
		return true;
	}
	/* All else may have been cut short, and be waited for without end. */
	if (!strcmp(line, "messages")) {
		send_messages();
		pthread_join(threads[COUNT - 1], NULL);
		say("received");
		return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	static const char bytes[1000];

	victim_init();
	if (pipe(pipe_ends) || socketpair(AF_UNIX, SOCK_STREAM, 0, whole) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, stream) ||
	    socketpair(AF_UNIX, SOCK_DGRAM, 0, messages))
		return 1;
	check_that(write(whole[1], bytes, sizeof(bytes)) == sizeof(bytes), "write");
	check_that(send(messages[1], "one", 3, 0) == 3, "send of a message");
	for (size_t i = 0; i < COUNT; i++)
		if (pthread_create(&threads[i], NULL, transfers[i], NULL))
			return 1;
	victim_ready();
	victim_serve(command);
	return 0;
}
