/* The decoder of instructions against objdump, over all code of real programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/cleanup.h"
#include "record/x86_decode.h"

/* What stands first in a line where objdump itself has not found an instruction: data in code. */
static bool is_data(const char *text)
{
	return strstr(text, "(bad)") || !strncmp(text, "rex", 3) || !strncmp(text, "data16", 6);
}

/*
 * Refused on purpose: transactions, relative jumps of 16 bits, addresses by eip, AMD's XOP and
 * 3DNow!. Data that looks like code may be anything, so that a few others are allowed.
 */
static bool may_be_refused(const char *text)
{
	return !strncmp(text, "xbegin", 6) || !strncmp(text, "xabort", 6);
}

struct tally {
	unsigned seen, refused;
};

/* `  4f20:	48 89 e5             	mov    %rsp,%rbp` */
static void take_line(char *line, struct tally *tally)
{
	uint8_t code[X86_INSTRUCTION_MAX + 1];
	struct x86_instruction insn;
	char *at = strchr(line, ':'), *text;
	size_t size = 0;

	if (!at || at[1] != '\t')
		return;
	text = strchr(at + 2, '\t');
	if (!text || is_data(text + 1))
		return;
	for (at += 2; at < text && size < sizeof(code); size++) {
		char *end;

		code[size] = (uint8_t)strtoul(at, &end, 16);
		if (end == at)
			break;
		at = end;
		while (*at == ' ')
			at++;
	}
	/* objdump takes fwait for a prefix of the instruction behind it. */
	if (code[0] == 0x9b)
		return;
	tally->seen++;
	if (!x86_decode(code, size, &insn))
		tally->refused += !may_be_refused(text + 1);
	else if (insn.length != size)
		fail_msg("%u bytes of %s", insn.length, line);
}

static struct tally look_at(const char *path)
{
	cleanup(free) char *line = NULL;
	struct tally tally = { 0 };
	size_t capacity = 0;
	char command[512];
	FILE *pipe;

	snprintf(command, sizeof(command), "objdump -dw -j .text %s", path);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	while (getline(&line, &capacity, pipe) > 0)
		take_line(line, &tally);
	assert_int_equal(pclose(pipe), 0);
	return tally;
}

/* Of the first of them that there is; none: nothing is seen. */
static struct tally look_at_first(const char *const paths[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!access(paths[i], R_OK))
			return look_at(paths[i]);
	return (struct tally){ 0 };
}

/* Compilers' code is understood as a whole. */
static void code_of_compilers(void **state)
{
	static const char *const libc[] = { "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6",
					    "/usr/lib/libc.so.6" };
	static const char *const python[] = { "/usr/bin/python3" };
	struct tally tally = look_at_first(libc, sizeof(libc) / sizeof(libc[0]));

	assert_true(tally.seen > 100000 && !tally.refused);
	tally = look_at_first(python, 1);
	assert_int_equal(tally.refused, 0);
}

/* Assembly by hand for every processor, with tables between it. */
static void code_of_cryptographers(void **state)
{
	static const char *const libraries[] = {
		"/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
		"/usr/lib/x86_64-linux-gnu/libcrypto.so.1.1",
		"/usr/lib64/libcrypto.so.3",
		"/usr/lib/libcrypto.so.3",
	};
	struct tally tally = look_at_first(libraries, sizeof(libraries) / sizeof(libraries[0]));

	if (!tally.seen)
		skip();
	assert_true(tally.seen > 100000 && tally.refused < tally.seen / 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(code_of_compilers),
		cmocka_unit_test(code_of_cryptographers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
