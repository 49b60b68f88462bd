#include "oom_prefix.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "oom_scan.h"

/* Of a time in brackets, or of a host's name and a tag: what is longer is none. */
#define BRACKET_MAX 44U
#define TOKEN_MAX   80U

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static size_t left(const struct scan *scan)
{
	return (size_t)(scan->end - scan->at);
}

/* `9:99` stands for any digits. */
static bool looks_like(const char *text, size_t size, const char *shape)
{
	size_t length = strlen(shape);

	if (size < length)
		return false;
	for (size_t i = 0; i < length; i++)
		if (shape[i] == '9' ? !is_digit(text[i]) : text[i] != shape[i])
			return false;
	return true;
}

static void set_wall_time(struct log_prefix *prefix, const char *start, const char *end)
{
	scan_copy(start, end, prefix->time, sizeof(prefix->time));
	prefix->has_wall_time = true;
}

/* `4,1234,14808063890,-;`: priority, number, microseconds, flags. */
static bool pass_kmsg(struct scan *scan, struct log_prefix *prefix)
{
	struct scan try = *scan;
	uint64_t number[3];
	const char *semicolon;

	for (unsigned i = 0; i < 3; i++) {
		if (try.at == try.end || !is_digit(*try.at) || !scan_number(&try, &number[i]) ||
		    try.at == try.end || *try.at != ',')
			return false;
		try.at++;
	}
	semicolon = memchr(try.at, ';', left(&try) < TOKEN_MAX ? left(&try) : TOKEN_MAX);
	if (!semicolon)
		return false;
	if (!prefix->has_wall_time)
		snprintf(prefix->time, sizeof(prefix->time), "%" PRIu64 ".%06" PRIu64,
			 number[2] / 1000000, number[2] % 1000000);
	scan->at = semicolon + 1;
	return true;
}

/* `[Mon Jan  1 00:00:00 2024]`, in any language, of dmesg -T; `[T23028]` of CONFIG_PRINTK_CALLER.
 */
static bool pass_bracket(struct scan *scan, struct log_prefix *prefix)
{
	size_t most = left(scan) < BRACKET_MAX ? left(scan) : BRACKET_MAX;
	const char *start = scan->at + 1, *end = most ? memchr(scan->at, ']', most) : NULL;

	if (!end)
		return false;
	for (const char *at = start; at < end; at++) {
		if (looks_like(at, (size_t)(end - at), "99:99:99")) {
			set_wall_time(prefix, start, end);
			scan->at = end + 1;
			return true;
		}
	}
	while (start < end && *start == ' ')
		start++;
	if (start == end || (*start != 'T' && *start != 'C'))
		return false;
	for (start++; start < end; start++)
		if (!is_digit(*start))
			return false;
	scan->at = end + 1;
	return true;
}

/* `2024-01-01T00:00:00.123456+0000` */
static bool pass_iso(struct scan *scan, struct log_prefix *prefix)
{
	const char *start = scan->at, *at = start + 19;

	if (!looks_like(start, left(scan), "9999-99-99T99:99:99") &&
	    !looks_like(start, left(scan), "9999-99-99 99:99:99"))
		return false;
	while (at < scan->end && (is_digit(*at) || strchr(".,:+-Z", *at)))
		at++;
	set_wall_time(prefix, start, at);
	scan->at = at;
	return true;
}

/* `Jan  1 00:00:00`, and with the weekday before it. */
static bool pass_syslog(struct scan *scan, struct log_prefix *prefix)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	const char *start = scan->at, *end = scan->end, *at = start;

	for (unsigned words = 0; words < 2; words++, at += 4) {
		bool is_month = false;

		if (end - at < 16)
			return false;
		for (const char *month = months; *month; month += 3)
			is_month = is_month || !memcmp(at, month, 3);
		if (is_month)
			break;
		if (words || at[3] != ' ')
			return false;
	}
	at += 3;
	while (at < end && *at == ' ')
		at++;
	while (at < end && is_digit(*at))
		at++;
	while (at < end && *at == ' ')
		at++;
	if (!looks_like(at, (size_t)(end - at), "99:99:99"))
		return false;
	at += 8;
	while (at < end && (is_digit(*at) || *at == '.'))
		at++;
	set_wall_time(prefix, start, at);
	scan->at = at;
	return true;
}

/* What ends in a colon and is no tag, but part of a message. */
static bool is_no_tag(const char *word, const char *end)
{
	static const char *const words[] = { "memory:",	  "memory+swap:", "kmem:",
					     "swap:",	  "oom-killer:",  "Mem-Info:",
					     "Mem-info:", "oom_reaper:",  NULL };

	for (const char *const *other = words; *other; other++)
		if ((size_t)(end - word) == strlen(*other) &&
		    !memcmp(word, *other, (size_t)(end - word)))
			return true;
	return false;
}

/* The end of the word that begins at @at; NULL: it is too long for a tag. `NAME[PID]:` is one. */
static const char *word_end(const char *at, const char *end)
{
	const char *word = at;

	for (; at < end && *at != ' '; at++)
		if ((size_t)(at - word) > TOKEN_MAX || (*at == '[' && at == word))
			return NULL;
	return at;
}

/* `host kernel:` behind a time, or `host <kern.warning>`: up to three words. */
static bool pass_tag(struct scan *scan)
{
	const char *at = scan->at;

	for (unsigned words = 0; words < 3; words++) {
		struct scan word;

		while (at < scan->end && *at == ' ')
			at++;
		word = (struct scan){ at, scan->end };
		if (scan_word(&word, "kernel:")) {
			scan->at = word.at;
			return true;
		}
		word.at = at;
		at = word_end(at, scan->end);
		if (!at || at == word.at || is_no_tag(word.at, at))
			return false;
		if (at[-1] == ':' || (*word.at == '<' && at[-1] == '>')) {
			scan->at = at;
			return true;
		}
	}
	return false;
}

/* `kern  :warn  : [...`, of dmesg -x. */
static bool pass_decoded(struct scan *scan)
{
	const char *at = scan->at;

	for (unsigned words = 0; words < 2; words++) {
		const char *word = at;

		while (at < scan->end && ((*at >= 'a' && *at <= 'z') || is_digit(*at)))
			at++;
		if (at == word || at - word > 8)
			return false;
		while (at < scan->end && *at == ' ')
			at++;
		if (at == scan->end || *at != ':')
			return false;
		at++;
	}
	while (at < scan->end && *at == ' ')
		at++;
	if (at == scan->end || *at != '[')
		return false;
	scan->at = at;
	return true;
}

/* `1787068905.416344 host kernel:`, of journalctl -o short-unix. */
static bool pass_seconds(struct scan *scan, struct log_prefix *prefix)
{
	struct scan try = *scan;
	const char *start = try.at;
	uint64_t part;

	if (!is_digit(*try.at) || !scan_number(&try, &part) || try.at == try.end || *try.at != '.')
		return false;
	try.at++;
	if (try.at == try.end || !is_digit(*try.at) || !scan_number(&try, &part))
		return false;
	set_wall_time(prefix, start, try.at);
	prefix->has_wall_time = pass_tag(&try);
	if (prefix->has_wall_time)
		*scan = try;
	else
		prefix->time[0] = '\0';
	return prefix->has_wall_time;
}

/* One part; false: there is no more. */
static bool pass_part(struct scan *scan, struct log_prefix *prefix)
{
	const char *start, *end;

	switch (*scan->at) {
	case '<':
		return scan_level(scan);
	case '[':
		if (!scan_uptime(scan, &start, &end))
			return pass_bracket(scan, prefix);
		if (!prefix->has_wall_time)
			scan_copy(start, end, prefix->time, sizeof(prefix->time));
		return true;
	}
	if (is_digit(*scan->at) && pass_kmsg(scan, prefix))
		return true;
	if (scan_word(scan, "kernel:") || pass_decoded(scan))
		return true;
	if (prefix->has_wall_time || *prefix->time)
		return false;
	if (pass_seconds(scan, prefix))
		return true;
	if (!pass_iso(scan, prefix) && !pass_syslog(scan, prefix))
		return false;
	pass_tag(scan);
	return true;
}

void log_prefix_parse(const char *line, size_t size, struct log_prefix *ret)
{
	struct scan scan = { line, line + size };

	ret->is_found = ret->has_wall_time = false;
	ret->time[0] = '\0';
	for (;;) {
		while (scan.at < scan.end &&
		       (*scan.at == ' ' || *scan.at == '\t' || *scan.at == '>' || *scan.at == '|'))
			scan.at++;
		if (scan.at == scan.end || !pass_part(&scan, ret))
			break;
		ret->is_found = true;
	}
	ret->length = (size_t)(scan.at - line);
}
