/* Perf maps: what their lines say, and which files are taken for one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "memprobe/perf_map.h"
#include "memprobe/symbols.h"

static struct perf_map *parse(const char *text)
{
	struct perf_map *map = NULL;

	assert_null(perf_map_parse(text, strlen(text), &map));
	return map;
}

static void is_named(const struct perf_map *map, uint64_t address, const char *name,
		     uint64_t offset)
{
	uint64_t found;
	const char *text = perf_map_find(map, address, &found);

	if (!name) {
		assert_null(text);
		return;
	}
	assert_non_null(text);
	assert_string_equal(text, name);
	assert_int_equal(found, offset);
}

static void test_lines(void **state)
{
	struct perf_map *map = parse("1000 10 first\n"
				     "0x2000 0x10 with prefix\n"
				     "3000\t10\tJS:*lose /path/n.js:1:5\r\n"
				     "FFFFFFFFFFFFFFF0 8 high\n"
				     "1010 10 next to it");

	is_named(map, 0xfff, NULL, 0);
	is_named(map, 0x1000, "first", 0);
	is_named(map, 0x100f, "first", 15);
	/* Who writes may not have come to its end. */
	is_named(map, 0x1010, NULL, 0);
	is_named(map, 0x2004, "with prefix", 4);
	is_named(map, 0x3001, "JS:*lose /path/n.js:1:5", 1);
	is_named(map, 0xfffffffffffffff7, "high", 7);
	is_named(map, 0xfffffffffffffff8, NULL, 0);
	is_named(map, UINT64_MAX, NULL, 0);
	perf_map_destroy(map);
}

static void test_bad_lines(void **state)
{
	struct perf_map *map =
		parse("\n \n\t\n1000\n1000 10\n1000 10 \n1000 0 nothing\nxyz 10 name\n"
		      "1000 g name\n-1000 10 name\n10000000000000000 10 long\n"
		      "FFFFFFFFFFFFFFF0 11 around\n0x 10 name\n1000  \n"
		      "2000 10 good\x1b[31m\n");

	is_named(map, 0x1000, NULL, 0);
	is_named(map, 0, NULL, 0);
	is_named(map, 0xfffffffffffffff0, NULL, 0);
	is_named(map, 0x2000, "good?[31m", 0);
	perf_map_destroy(map);
	map = parse("");
	is_named(map, 0, NULL, 0);
	perf_map_destroy(map);
}

static void test_long_name(void **state)
{
	char *text = malloc(100000);
	struct perf_map *map;
	uint64_t offset;

	memset(text, 'x', 100000);
	memcpy(text, "1000 10 ", 8);
	memcpy(text + 99999 - 9, "\n2000 1 y\n", 10);
	assert_null(perf_map_parse(text, 100000, &map));
	assert_int_equal(strlen(perf_map_find(map, 0x1000, &offset)), 1024);
	is_named(map, 0x2000, "y", 0);
	perf_map_destroy(map);
	free(text);
}

/* Code is given up, and other code comes there: against a table of bytes. */
static void test_overlaps(void **state)
{
	enum { SPACE = 200, LINES = 40 };
	uint64_t seed = 1;

	for (unsigned round = 0; round < 500; round++) {
		unsigned owner[SPACE + 64] = { 0 };
		char text[LINES * 32];
		unsigned starts[LINES + 1];
		size_t size = 0;
		struct perf_map *map;

		for (unsigned i = 1; i <= LINES; i++) {
			unsigned length;

			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			starts[i] = (seed >> 33) % SPACE;
			length = (seed >> 45) % (round % 2 ? 10 : 64);
			size += snprintf(text + size, sizeof(text) - size, "%x %x n%u\n", starts[i],
					 length, i);
			for (unsigned k = 0; k < length; k++)
				owner[starts[i] + k] = i;
		}
		assert_null(perf_map_parse(text, size, &map));
		for (unsigned at = 0; at < SPACE + 64; at++) {
			char name[16];

			snprintf(name, sizeof(name), "n%u", owner[at]);
			is_named(map, at, owner[at] ? name : NULL, at - starts[owner[at]]);
		}
		perf_map_destroy(map);
	}
}

/* ---- files ---- */

static char path[64];

static void start_target(pid_t *pid_ret, struct target **ret)
{
	*pid_ret = child_start((void (*)(void *))child_ready, NULL);
	assert_null(target_open_live(*pid_ret, ret));
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)*pid_ret);
	unlink(path);
}

static void write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static bool has_map(struct target *target)
{
	struct perf_map *map = NULL;
	struct error *error = perf_map_open(target, &map);

	assert_true(!error || error_is(error, ERROR_UNSUPPORTED));
	error_destroy(error);
	perf_map_destroy(map);
	return map != NULL;
}

static void test_files(void **state)
{
	struct target *target;
	char other[80];
	pid_t pid;

	start_target(&pid, &target);
	assert_false(has_map(target));
	write_file(path, "1000 10 name\n");
	assert_true(has_map(target));
	if (!geteuid()) {
		assert_int_equal(chown(path, 12345, 12345), 0);
		assert_false(has_map(target));
	}
	/* Nothing that could block, lead elsewhere, or has effects. */
	unlink(path);
	assert_int_equal(mkfifo(path, 0644), 0);
	assert_false(has_map(target));
	unlink(path);
	snprintf(other, sizeof(other), "%s.other", path);
	write_file(other, "1000 10 name\n");
	assert_int_equal(symlink(other, path), 0);
	assert_false(has_map(target));
	unlink(path);
	unlink(other);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_false(has_map(target));
	rmdir(path);
	target_destroy(target);
	child_stop(pid);
}

/* Of a file that is too large, what was written last; nothing waits for what a hole would have. */
static void test_large_file(void **state)
{
	static const char end[] = "1000 10 late\n";
	struct target *target;
	struct perf_map *map;
	pid_t pid;
	int fd;

	start_target(&pid, &target);
	write_file(path, "1000 10 early\n2000 10 early\n");
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "\n", 1, (off_t)PERF_MAP_MAX * 20), 1);
	assert_int_equal(pwrite(fd, end, strlen(end), (off_t)PERF_MAP_MAX * 20 + 1), strlen(end));
	close(fd);
	assert_null(perf_map_open(target, &map));
	is_named(map, 0x1000, "late", 0);
	is_named(map, 0x2000, NULL, 0);
	perf_map_destroy(map);
	unlink(path);
	target_destroy(target);
	child_stop(pid);
}

/* After the end of the process, too: recordings are written then. */
static void test_symbols(void **state)
{
	struct symbol_vec symbols = { 0 };
	struct symbolizer *symbolizer;
	struct target *target;
	pid_t pid;

	start_target(&pid, &target);
	write_file(path, "1000 100 JS:*work a.js:1\n10f0 40 _ZN3foo3barEv\n");
	assert_null(symbolizer_create(target, &symbolizer));
	child_stop(pid);
	assert_null(symbolize(symbolizer, 0x1010, false, &symbols));
	assert_null(symbolize(symbolizer, 0x10f0, true, &symbols));
	assert_null(symbolize(symbolizer, 0x10f0, false, &symbols));
	assert_null(symbolize(symbolizer, 0x2000, false, &symbols));
	assert_int_equal(symbols.size, 4);
	assert_string_equal(symbols.data[0].function, "JS:*work a.js:1");
	assert_int_equal(symbols.data[0].offset, 0x10);
	assert_string_equal(symbols.data[1].function, "JS:*work a.js:1");
	assert_int_equal(symbols.data[1].offset, 0xf0);
	assert_string_equal(symbols.data[2].function, "foo::bar()");
	assert_null(symbols.data[3].function);
	symbols_deinit(&symbols);
	symbolizer_destroy(symbolizer);
	unlink(path);
	target_destroy(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),	  cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_long_name), cmocka_unit_test(test_overlaps),
		cmocka_unit_test(test_files),	  cmocka_unit_test(test_large_file),
		cmocka_unit_test(test_symbols),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
