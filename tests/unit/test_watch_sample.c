/* Lines of a recording of `watch`: written and read again, cut, changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/watch_sample.h"

static char *line_of(const struct watch_sample *sample)
{
	json_t *object = watch_sample_json(sample);
	char *line = json_dumps(object, JSON_COMPACT);

	json_decref(object);
	assert_non_null(line);
	return line;
}

static struct watch_sample usual(void)
{
	struct watch_sample sample = { .series = 3,
				       .time = 1700000000.25,
				       .seconds = 12.5,
				       .pid = 4711,
				       .has_group = true,
				       .group_path = "/a/\"b\"\n",
				       .group_usage = 1 << 20,
				       .group_limit = UINT64_MAX,
				       .group_oom_kills = 2 };

	memset(&sample.usage, 0xff, sizeof(sample.usage));
	strcpy(sample.usage.name, "na\"me\\");
	sample.usage.rss = 40960;
	sample.usage.anon = 8192;
	sample.usage.fds = 0;
	return sample;
}

static void there_and_back(void **state)
{
	struct watch_sample sample = usual(), read;
	char *line = line_of(&sample);

	assert_true(watch_sample_parse(line, &read));
	free(line);
	assert_int_equal(read.series, 3);
	assert_true(read.time == sample.time && read.seconds == sample.seconds);
	assert_int_equal(read.pid, 4711);
	assert_string_equal(read.usage.name, sample.usage.name);
	assert_int_equal(read.usage.rss, 40960);
	assert_int_equal(read.usage.anon, 8192);
	assert_int_equal(read.usage.fds, 0);
	/* What was not known is not known again, not 0. */
	assert_true(read.usage.file == USAGE_UNKNOWN && read.usage.pss == USAGE_UNKNOWN);
	assert_true(read.has_group && !strcmp(read.group_path, sample.group_path));
	assert_int_equal(read.group_usage, 1 << 20);
	assert_true(read.group_limit == CGROUP_UNKNOWN);
	assert_int_equal(read.group_oom_kills, 2);
}

static void others_are_no_samples(void **state)
{
	static const char *const wrong[] = {
		"",
		"null",
		"[]",
		"{}",
		"17",
		"{\"time\": 1}",
		"{\"time\": 1, \"seconds\": 1, \"series\": 0, \"pid\": 1}",
		"{\"time\": \"1\", \"seconds\": 1, \"series\": 0, \"pid\": 1, \"rss\": 1}",
		"{\"time\": 1, \"seconds\": 1, \"series\": -1, \"pid\": 1, \"rss\": 1}",
		"{\"time\": 1, \"seconds\": 1, \"series\": 99999, \"pid\": 1, \"rss\": 1}",
		"{\"time\": 1, \"seconds\": 1, \"series\": 0, \"pid\": 4294967297, \"rss\": 1}",
		"{\"time\": 1, \"seconds\": 1, \"series\": 0, \"pid\": 1, \"rss\": 1.5}",
		"{\"time\": 1, \"seconds\": 1, \"series\": 0, \"pid\": 1, \"rss\": 1} x",
	};
	struct watch_sample sample;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(watch_sample_parse(wrong[i], &sample));
}

/* Whatever is cut off or changed: no line is read beyond its end (the sanitizers see to it). */
static void damaged(void **state)
{
	struct watch_sample sample = usual(), read;
	char *line = line_of(&sample);
	size_t length = strlen(line);

	for (size_t i = 0; i < length; i++) {
		char *copy = strndup(line, i);

		assert_false(watch_sample_parse(copy, &read));
		free(copy);
	}
	for (size_t i = 0; i < length; i++)
		for (const char *c = "\"{[9-\\\xff"; *c; c++) {
			char before = line[i];

			line[i] = *c;
			if (watch_sample_parse(line, &read))
				assert_true(memchr(read.usage.name, 0, sizeof(read.usage.name)));
			line[i] = before;
		}
	free(line);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(others_are_no_samples),
		cmocka_unit_test(damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
