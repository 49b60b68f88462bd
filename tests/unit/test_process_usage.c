/* What /proc tells of a process, from folders that look like its, and from broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/process_usage.h"

static char folder[] = "/tmp/memprobe-usage-XXXXXX";

static void put(const char *name, const char *text)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static struct error *read_it(unsigned parts, struct usage *ret)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct error *error = usage_read(fd, parts, ret);

	close(fd);
	return error;
}

static void assert_refused(int code, struct error *error)
{
	assert_non_null(error);
	assert_int_equal(error->code, code);
	error_destroy(error);
}

#define STAT_REST \
	" 1 2 3 0 -1 4194560 500 0 7 0 11 22 0 0 20 0 9 0 4242 1048576 256 18446744073709551615\n"

static void figures_of_stat(void **state)
{
	uint64_t tick = 1000000u / (uint64_t)sysconf(_SC_CLK_TCK);
	struct usage usage;

	/* A name may hold what ends it. */
	put("stat", "17 (a) S (b) R" STAT_REST);
	assert_null(read_it(USAGE_STAT, &usage));
	assert_string_equal(usage.name, "a) S (b");
	assert_int_equal(usage.minor_faults, 500);
	assert_int_equal(usage.major_faults, 7);
	assert_int_equal(usage.cpu_us, 33 * tick);
	assert_int_equal(usage.threads, 9);
	assert_int_equal(usage.start, 4242);
	assert_int_equal(usage.size, 1048576);
	assert_int_equal(usage.rss, 256 * (uint64_t)sysconf(_SC_PAGESIZE));
	assert_true(usage.anon == USAGE_UNKNOWN && usage.pss == USAGE_UNKNOWN);
}

static void who_has_ended(void **state)
{
	struct usage usage;

	/* A first thread that has ended is a zombie while others run. */
	put("stat", "17 (x) Z" STAT_REST);
	assert_null(read_it(USAGE_STAT, &usage));
	put("stat", "17 (x) Z 1 2 3 0 -1 0 500 0 7 0 11 22 0 0 20 0 1 0 4242 0 0 0\n");
	assert_refused(ERROR_NO_TARGET, read_it(USAGE_STAT, &usage));
}

static void figures_of_status(void **state)
{
	struct usage usage;

	put("status", "Name:\tVmRSS: 7 kB\nVmHWM:\t   30 kB\nVmRSS:\t   20 kB\nRssAnon:\t  12 kB\n"
		      "RssFile:\t8 kB\nRssShmem:\t0 kB\nVmPTE:\t 4 kB\nVmSwap:\t 2 kB\n");
	assert_null(read_it(USAGE_STATUS, &usage));
	assert_int_equal(usage.rss, 20 * 1024);
	assert_int_equal(usage.peak_rss, 30 * 1024);
	assert_int_equal(usage.anon, 12 * 1024);
	assert_int_equal(usage.file, 8 * 1024);
	assert_int_equal(usage.shmem, 0);
	assert_int_equal(usage.swap, 2 * 1024);
	assert_int_equal(usage.page_tables, 4 * 1024);
	/* An old kernel, and one that lies. */
	put("status", "VmRSS:\t99999999999999999999 kB\nRssAnon:");
	assert_null(read_it(USAGE_STATUS, &usage));
	assert_true(usage.rss == USAGE_UNKNOWN);
	assert_true(usage.anon == USAGE_UNKNOWN && usage.file == USAGE_UNKNOWN);
}

static void limits(void **state)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct usage_limits limits;

	put("limits",
	    "Limit                     Soft Limit           Hard Limit           Units\n"
	    "Max data size             unlimited            unlimited            bytes\n"
	    "Max address space         4294967296           unlimited            bytes\n");
	put("status", "VmSize:\t   40 kB\nVmData:\t   30 kB\n");
	usage_read_limits(fd, &limits);
	assert_int_equal(limits.space, 40 * 1024);
	assert_int_equal(limits.space_limit, 4294967296);
	assert_int_equal(limits.data, 30 * 1024);
	assert_true(limits.data_limit == USAGE_UNKNOWN);
	put("limits", "Max address space");
	usage_read_limits(fd, &limits);
	assert_true(limits.space_limit == USAGE_UNKNOWN);
	close(fd);
}

static void the_rest(void **state)
{
	char path[128];
	struct usage usage;

	/* Nobody may read these of another user's process. */
	assert_null(read_it(USAGE_IO | USAGE_FDS | USAGE_PSS, &usage));
	assert_true(usage.read_chars == USAGE_UNKNOWN && usage.fds == USAGE_UNKNOWN &&
		    usage.pss == USAGE_UNKNOWN);
	put("io", "rchar: 5\nwchar: 6\nsyscr: 1\n");
	put("smaps_rollup", "00400000-7fff0000 ---p 00000000 00:00 0 [rollup]\nRss: 9 kB\n"
			    "Pss:       7 kB\nPss_Dirty: 1 kB\n");
	snprintf(path, sizeof(path), "%s/fd", folder);
	assert_int_equal(mkdir(path, 0700), 0);
	put("fd/0", "");
	put("fd/17", "");
	assert_null(read_it(USAGE_IO | USAGE_FDS | USAGE_PSS, &usage));
	assert_int_equal(usage.read_chars, 5);
	assert_int_equal(usage.written_chars, 6);
	assert_int_equal(usage.fds, 2);
	assert_int_equal(usage.pss, 7 * 1024);
}

static void garbage(void **state)
{
	static const char whole[] = "17 (name) S" STAT_REST;
	char cut[sizeof(whole)];
	struct usage usage;

	for (size_t length = 0; length + 1 < sizeof(whole); length++) {
		struct error *error;

		memcpy(cut, whole, length);
		cut[length] = '\0';
		put("stat", cut);
		error = read_it(USAGE_STAT, &usage);
		/* The 24th figure is the last that is read. */
		assert_true(error || length > 70);
		error_destroy(error);
	}
	put("stat", ")(");
	assert_refused(ERROR_FAILED, read_it(USAGE_STAT, &usage));
	put("stat", "1 ()\n");
	assert_refused(ERROR_FAILED, read_it(USAGE_STAT, &usage));
}

static int begin(void **state)
{
	return mkdtemp(folder) ? 0 : -1;
}

static int end(void **state)
{
	static const char *const names[] = { "stat",   "status", "io",	 "smaps_rollup",
					     "limits", "fd/0",	 "fd/17" };
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/fd", folder);
	rmdir(path);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(figures_of_stat),
		cmocka_unit_test(who_has_ended),
		cmocka_unit_test(figures_of_status),
		cmocka_unit_test(the_rest),
		cmocka_unit_test(limits),
		cmocka_unit_test(garbage),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
