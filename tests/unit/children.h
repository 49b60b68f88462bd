/*
 * children.h - children that a test stops, and what they tell it through shared memory.
 */
#ifndef TESTS_UNIT_CHILDREN_H
#define TESTS_UNIT_CHILDREN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "memprobe/stop.h"

struct shared {
	volatile unsigned long waits[8], eintr, early, wrong;
	volatile unsigned long ready, sent, received, disordered, alarms, births;
	volatile bool end;
};

extern struct shared *shared;
/* Ended and reaped by end_children(); 0: none. */
extern pid_t child, helper;

/* A test's setup and teardown. */
int make_shared(void **state);
int end_children(void **state);

#define CHILD_TEST(name) cmocka_unit_test_setup_teardown(name, make_shared, end_children)

/* Forks @child. */
void start_child(void (*life)(void));
/* In a child. */
void start_threads(unsigned count, void *(*life)(void *));

/* A minute at most. */
void wait_for(volatile unsigned long *counter, unsigned long value);
/* Of the child, as in /proc/PID/stat; fails if it is traced. */
char child_state(void);
void wait_for_state(char wanted);

void assert_no_error(struct error *error);
struct target *open_target(void);

/* Each round finds at least @threads. With @pause_us between them, and a longer pause every 50. */
void stop_rounds(unsigned rounds, size_t threads, unsigned pause_us);

#endif
