/*
 * What the kernel alone takes, for memprobe to be held against:
 *
 *	floor read FILE			read(2) to the end, with a buffer of 1 MiB
 *	floor copy PID START SIZE FILE	process_vm_readv(2) and write(2), 1 MiB at a time
 *	floor find PID START SIZE TEXT	process_vm_readv(2) and memmem(3), 1 MiB at a time
 *
 * and, since a large parent would count as the child's peak memory,
 *
 *	floor run COMMAND...		writes `MICROSECONDS PEAK_KIB STATUS` to descriptor 3
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_SIZE (1u << 20)

static int read_file(const char *path, char *buffer)
{
	int fd = open(path, O_RDONLY);
	ssize_t got;

	if (fd < 0)
		return 1;
	do
		got = read(fd, buffer, BUFFER_SIZE);
	while (got > 0);
	close(fd);
	return got < 0;
}

static int copy_range(pid_t pid, uintptr_t start, size_t size, const char *path, char *buffer)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0)
		return 1;
	while (size) {
		size_t part = size < BUFFER_SIZE ? size : BUFFER_SIZE;
		struct iovec here = { buffer, part }, there = { (void *)start, part };

		if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)part ||
		    write(fd, buffer, part) != (ssize_t)part)
			return 1;
		start += part;
		size -= part;
	}
	return close(fd) != 0;
}

/* Prints how often the text is there; one that lies across two reads is found in the second. */
static int find_text(pid_t pid, uintptr_t start, size_t size, const char *text, char *buffer)
{
	size_t length = strlen(text), kept = 0, count = 0;

	while (size) {
		size_t part = size < BUFFER_SIZE - kept ? size : BUFFER_SIZE - kept;
		struct iovec here = { buffer + kept, part }, there = { (void *)start, part };
		char *at = buffer, *end = buffer + kept + part;

		if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)part)
			return 1;
		while ((at = memmem(at, end - at, text, length))) {
			count++;
			at += length;
		}
		kept = length - 1;
		memmove(buffer, end - kept, kept);
		start += part;
		size -= part;
	}
	return printf("%zu\n", count) < 0;
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int run(char **command)
{
	uint64_t since = now_us();
	struct rusage usage;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		close(3);
		execvp(command[0], command);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
		return 1;
	return dprintf(3, "%llu %ld %d\n", (unsigned long long)(now_us() - since), usage.ru_maxrss,
		       WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status)) < 0;
}

int main(int argc, char **argv)
{
	char *buffer;
	int failed = 2;

	if (argc > 2 && !strcmp(argv[1], "run"))
		return run(argv + 2);
	buffer = malloc(BUFFER_SIZE);
	if (buffer && argc == 3 && !strcmp(argv[1], "read"))
		failed = read_file(argv[2], buffer);
	else if (buffer && argc == 6 && !strcmp(argv[1], "copy"))
		failed = copy_range((pid_t)strtol(argv[2], NULL, 10), strtoull(argv[3], NULL, 0),
				    strtoull(argv[4], NULL, 0), argv[5], buffer);
	else if (buffer && argc == 6 && !strcmp(argv[1], "find"))
		failed = find_text((pid_t)strtol(argv[2], NULL, 10), strtoull(argv[3], NULL, 0),
				   strtoull(argv[4], NULL, 0), argv[5], buffer);
	else
		fprintf(stderr, "usage: floor read FILE | floor copy PID START SIZE FILE | "
				"floor find PID START SIZE TEXT | floor run COMMAND...\n");
	free(buffer);
	return failed;
}
