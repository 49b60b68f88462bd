/*
 * child.h - a process of the test's own, for tests that need a live one.
 *
 *	pid_t pid = child_start(body, argument);   returns when body() has called child_ready()
 *	...
 *	child_stop(pid);
 */
#ifndef MEMPROBE_TESTS_CHILD_H
#define MEMPROBE_TESTS_CHILD_H

#include <stddef.h>
#include <sys/types.h>

/* Forks; the child runs @body and then waits for its end. Dies with the test. */
pid_t child_start(void (*body)(void *argument), void *argument);

/* In the child: what it tells the test, before child_start() returns. */
void child_tell(const void *bytes, size_t size);
void child_ready(void);

/* In the test: what the child of the last child_start() told, all of @size. */
void child_hear(void *bytes, size_t size);

/* Kills and reaps it. */
void child_stop(pid_t pid);

#endif
