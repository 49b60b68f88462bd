#include "memprobe/watch_condition.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"

enum unit { UNIT_BYTES, UNIT_NUMBER, UNIT_RATE, UNIT_PERCENT };

static const struct {
	const char *name;
	enum watch_metric metric;
	enum unit unit;
} metrics[] = {
	{ "rss", WATCH_RSS, UNIT_BYTES },	   { "anon", WATCH_ANON, UNIT_BYTES },
	{ "swap", WATCH_SWAP, UNIT_BYTES },	   { "shmem", WATCH_SHMEM, UNIT_BYTES },
	{ "threads", WATCH_THREADS, UNIT_NUMBER }, { "fds", WATCH_FDS, UNIT_NUMBER },
	{ "growth", WATCH_GROWTH, UNIT_RATE },	   { "limit", WATCH_LIMIT, UNIT_PERCENT },
};

#define WORD_MAX 32u

static struct error *wrong(const char *text)
{
	return error_hint(
		error_create(ERROR_USAGE, "'%s' is no condition", text),
		"such are 'rss>2G', 'growth>10M/s for 60s', 'limit>90%%'; also anon, swap, "
		"shmem, threads, fds");
}

/* Blanks off both ends of [from, to), as a string; false: it is too long or empty. */
static bool take_word(const char *from, const char *to, char word[WORD_MAX])
{
	while (from < to && isspace((unsigned char)*from))
		from++;
	while (to > from && isspace((unsigned char)to[-1]))
		to--;
	if (to == from || (size_t)(to - from) >= WORD_MAX)
		return false;
	memcpy(word, from, to - from);
	word[to - from] = '\0';
	return true;
}

static bool drop_end(char *word, const char *end)
{
	size_t length = strlen(word), size = strlen(end);

	if (length <= size || strcmp(word + length - size, end))
		return false;
	word[length - size] = '\0';
	return true;
}

static bool parse_value(char *word, enum unit unit, double *ret)
{
	uint64_t number;
	struct error *error;

	if (unit == UNIT_PERCENT && !drop_end(word, "%"))
		return false;
	if (unit == UNIT_RATE && !drop_end(word, "/s"))
		return false;
	error = unit == UNIT_NUMBER || unit == UNIT_PERCENT ? parse_u64(word, &number)
							    : parse_size(word, &number);
	*ret = error ? 0 : (double)number;
	error_destroy(error);
	return !error;
}

static bool parse_for(const char *from, uint64_t *ret)
{
	char word[WORD_MAX];
	struct error *error;

	if (!take_word(from, from + strlen(from), word))
		return false;
	error = parse_time(word, ret);
	error_destroy(error);
	return !error;
}

struct error *watch_condition_parse(const char *text, struct watch_condition *ret)
{
	size_t length = strcspn(text, "<>");
	const char *sign = text + length, *behind = strstr(sign, " for ");
	const char *end = behind ? behind : sign + strlen(sign);
	char name[WORD_MAX], value[WORD_MAX];

	*ret = (struct watch_condition){ 0 };
	if (!*sign || !take_word(text, sign, name) || !take_word(sign + 1, end, value))
		return wrong(text);
	if (behind && !parse_for(behind + strlen(" for "), &ret->for_us))
		return wrong(text);
	for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++) {
		if (strcmp(metrics[i].name, name))
			continue;
		ret->metric = metrics[i].metric;
		ret->below = *sign == '<';
		return parse_value(value, metrics[i].unit, &ret->value) ? NULL : wrong(text);
	}
	return wrong(text);
}

bool watch_condition_holds(const struct watch_condition *condition, double value)
{
	return condition->below ? value < condition->value : value > condition->value;
}

/* ---- the command ---- */

/* In single quotes, as a shell reads them. */
static void put_quoted(FILE *out, const char *text)
{
	fputc('\'', out);
	for (; *text; text++)
		if (*text == '\'')
			fputs("'\\''", out);
		else
			fputc(*text, out);
	fputc('\'', out);
}

char *watch_command_fill(const char *command, int pid, const char *name, const char *time)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	while (*command) {
		if (!strncmp(command, "{pid}", 5)) {
			fprintf(out, "%d", pid);
			command += 5;
		} else if (!strncmp(command, "{name}", 6)) {
			put_quoted(out, name);
			command += 6;
		} else if (!strncmp(command, "{time}", 6)) {
			fputs(time, out);
			command += 6;
		} else {
			fputc(*command++, out);
		}
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
