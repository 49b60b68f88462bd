/* Stacks out of other tools' texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/stack_text.h"
#include "profiles.h"

/* The text as folded stacks, in the order of their coming. */
static struct stack_text_result assert_reads_bytes(const char *text, size_t size,
						   const char *expected)
{
	cleanup(profile) struct profile *profile = profiles_new();
	cleanup(free) char *copy = malloc(size ? size : 1);
	cleanup(free) char *folded = NULL;
	struct stack_text_result result;

	/* Not terminated, so that sanitizers see a step too far. */
	memcpy(copy, text, size);
	assert_null(stack_text_read(copy, size, profile, &result));
	folded = profiles_written(profile, "folded", NULL, NULL);
	assert_string_equal(folded, expected);
	return result;
}

static struct stack_text_result assert_reads(const char *text, const char *expected)
{
	return assert_reads_bytes(text, strlen(text), expected);
}

static void folded(void **state)
{
	struct stack_text_result result;

	result = assert_reads("a;b;c 10\na;b 5\na;b;c 1", "a;b;c 11\na;b 5\n");
	assert_int_equal(result.format, STACK_TEXT_FOLDED);
	assert_int_equal(result.lines, 3);
	assert_int_equal(result.left_out, 0);
	assert_reads("std::vector<int, A>::f(int, char const*) 3\r\n\n  x;y\t7  \n",
		     "std::vector<int, A>::f(int, char const*) 3\nx;y 7\n");
	assert_reads("a;;b; 2\n", "a;b 2\n");
	assert_reads("a;k_[k] 2\n_[k] 1\n", "a;k_[k] 2\n_[k] 1\n");
	assert_reads("a 2.5\nb 2.49\nc 7.\n", "a 3\nb 2\nc 7\n");
	assert_reads("", "");
}

static void folded_with_garbage(void **state)
{
	struct stack_text_result result;

	result = assert_reads("good 1\nno number\n17\na -5\nb 1e3\nc 0x10\nd 99999999999999999999\n"
			      "e 9223372036854775807\ne 1\n\n",
			      "good 1\ne 9223372036854775807\n");
	assert_int_equal(result.left_out, 6);
	assert_int_equal(result.first_left, 2);
	assert_int_equal(result.lines, 9);
	result = assert_reads_bytes("a\0b 5\nc 6\n\0", 11, "c 6\n");
	assert_int_equal(result.left_out, 2);
	assert_int_equal(result.first_left, 1);
	result = assert_reads("#!/bin/sh\necho hello\n", "");
	assert_int_equal(result.left_out, 2);
}

static void long_lines(void **state)
{
	enum { NAME = 1 << 20, DEPTH = 1 << 18 };
	char *text = malloc(2 * DEPTH + NAME + 8);
	cleanup(profile) struct profile *profile = profiles_new();
	struct stack_text_result result;
	size_t depth;

	for (size_t i = 0; i < DEPTH; i++)
		memcpy(text + 2 * i, "f;", 2);
	memset(text + 2 * DEPTH, 'x', NAME);
	memcpy(text + 2 * DEPTH + NAME, " 3", 2);
	assert_null(stack_text_read(text, 2 * DEPTH + NAME + 2, profile, &result));
	assert_int_equal(profile->sites.size, 1);
	profile_stack_frames(profile, profile->sites.data[0].stack, &depth);
	assert_int_equal(depth, DEPTH + 1);
	free(text);
}

static void perf(void **state)
{
	struct stack_text_result result;

	result = assert_reads(
		"# captured on: Sat\n"
		"Web Content  1234/1240 [001] 708365.1234:          1 page-faults:u: \n"
		"\tffffffff81054e7 native_safe_halt+0x5 ([kernel.kallsyms])\n"
		"\t    7f12aa001234 std::vector<int, std::allocator<int> >::f(int)+0x12 (/lib/a (deleted))\n"
		"\t    7f12aa001230 inner (inlined)\n"
		"\t    7f12aa001111 [unknown] (/usr/lib/libz.so.1)\n"
		"\t          401000 [unknown] ([unknown])\n"
		"\t          401136 main+0x1a (/tmp/a.out)\n"
		"\n"
		"idle     0 [000]  1.0: 1 page-faults: \n"
		"\n"
		"Web Content  1234 [001] 708365.2: 1 page-faults:u: \n"
		"\t          401136 main+0x30 (/tmp/a.out)\n",
		"Web Content;main;[unknown];[libz.so.1];inner;"
		"std::vector<int, std::allocator<int> >::f(int);native_safe_halt_[k] 1\n"
		"idle 1\n"
		"Web Content;main 1\n");
	assert_int_equal(result.format, STACK_TEXT_PERF);
	assert_int_equal(result.left_out, 0);
	assert_int_equal(result.other_events, 0);
	result = assert_reads("\t 401136 early+0x30 (/tmp/a.out)\nnonsense\n\na 1 2.0: x:\n"
			      "\t 12 f (/b)\n\t 13 g (/b)\n",
			      "a;g;f 1\n");
	assert_int_equal(result.left_out, 2);
}

static void perf_weighs(void **state)
{
	struct stack_text_result result;

	/* A sample stands for as many events as its period says, where it is printed. */
	assert_reads("a 1 [000] 7.5:         16 page-faults: \n\t 12 f (/b)\n\n"
		     "a 1/2 [001] d.h1. 7.6: 5 page-faults:u: \n\t 13 f (/b)\n\n"
		     "a 1 7.7: page-faults:\n\t 12 g (/b)\n",
		     "a;f 21\na;g 1\n");
	assert_reads("a 1 [000] 7.5: 333 kmem:mm_page_alloc: page=0x12 pfn=7: 9\n\t 12 f (/b)\n\n",
		     "a;f 333\n");
	assert_reads(
		"a 1 [000] 7.5: 0 x: \n\t 12 f (/b)\n\na 1 99999999999999999999 x:\n\t 12 f (/b)\n",
		"a;f 2\n");
	/* Of several events, the first. */
	result = assert_reads("a 1 7.5: 3 cycles:u: \n\t 12 f (/b)\n\n"
			      "a 1 7.5: 100 instructions:u: \n\t 12 f (/b)\n\n"
			      "a 1 7.6: 4 cycles:ppp: \n\t 12 f (/b)\n",
			      "a;f 7\n");
	assert_int_equal(result.other_events, 1);
	assert_int_equal(result.left_out, 0);
}

static void perf_tells_the_kernel(void **state)
{
	assert_reads("a 1 cycles:\n"
		     "ffffffff8103d0ca msr ([kernel.kallsyms])\n"
		     "ffffffff8103d0cb fs (/lib/modules/6.1.0/kernel/fs/ext4.ko.xz)\n"
		     "ffffffff8103d0cc a (/lib/modules/4.1.0/build/vmlinux)\n"
		     "ffffffff8103d0cd b (/boot/vmlinux-6.1)\n"
		     "7f7241239aec writeBytes (/opt/vmlinuxes/libjava.so)\n\n",
		     "a;writeBytes;b_[k];a_[k];fs_[k];msr_[k] 1\n");
	/* A command whose name is hexadecimal. */
	assert_reads("dd 1 [001] 5.5: 2 probe:x: (5581)\n\t 12 f (/b)\n", "dd;f 2\n");
}

static void perf_without_modules(void **state)
{
	assert_reads("a 1 2.0: x:\n\t 12 f+0x1\n\t 13 main\n\n", "a;main;f 1\n");
}

static void stap(void **state)
{
	struct stack_text_result result;

	result = assert_reads(
		" 0x7ff01234 : malloc+0x0/0x1c0 [/usr/lib/libc.so.6]\n"
		" 0x401136 : Server::run(int)+0x16/0x40 [/tmp/a.out] (inexact)\n"
		" 0x401200 [/tmp/a.out+0x1200/0x4000]\n"
		" 0x5 : 0x5\n"
		"\t42\n"
		"0xffffffff8100 : do_fork+0x1/0x2 [kernel]\n"
		"0x401136 : main+0x1 [/tmp/a.out]\n"
		"\n"
		"0x401136 : main+0x1 [/tmp/a.out]\n",
		"[0x5];[a.out];Server::run(int);malloc 42\nmain;do_fork_[k] 1\nmain 1\n");
	assert_int_equal(result.format, STACK_TEXT_STAP);
	assert_int_equal(result.left_out, 0);
	/* sprint_usyms() */
	result = assert_reads("palloc+0x3b [postgres]\nServer::run(int)+0x16 [a.out]\n"
			      "0x7f3ac81e1d0a [libc.so.6+0x26d0a]\n17\n",
			      "[libc.so.6];Server::run(int);palloc 17\n");
	assert_int_equal(result.format, STACK_TEXT_STAP);
	assert_int_equal(result.left_out, 0);
	result =
		assert_reads("Pass 5: run\n 0x1 : f [/a]\n 0x2 : g [/a]\n 0x3 : h [/a]\n-4\n\n17\n",
			     "h;g;f 1\n");
	assert_int_equal(result.left_out, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(folded),
		cmocka_unit_test(folded_with_garbage),
		cmocka_unit_test(long_lines),
		cmocka_unit_test(perf),
		cmocka_unit_test(perf_weighs),
		cmocka_unit_test(perf_tells_the_kernel),
		cmocka_unit_test(perf_without_modules),
		cmocka_unit_test(stap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
