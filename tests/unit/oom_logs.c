#include "oom_logs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

char *oom_read_log(const char *name, size_t *size_ret)
{
	char path[256];
	char *text = malloc(1 << 20);
	FILE *file;

	snprintf(path, sizeof(path), "%.*s/oom/%s.log", (int)(strrchr(__FILE__, '/') - __FILE__),
		 __FILE__, name);
	file = fopen(path, "r");
	if (!file)
		fail_msg("no %s: run it in the folder of the sources", path);
	*size_ret = fread(text, 1, 1 << 20, file);
	fclose(file);
	return text;
}

struct oom_log oom_parse(const char *text, size_t size, size_t step)
{
	struct oom_parser *parser;
	struct oom_log log;

	assert_null(oom_parser_create(&parser));
	for (size_t at = 0; at < size; at += step)
		assert_null(
			oom_parser_feed(parser, text + at, size - at < step ? size - at : step));
	assert_null(oom_parser_finish(parser, &log));
	oom_parser_destroy(parser);
	return log;
}
