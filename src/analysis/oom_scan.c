#include "oom_scan.h"

#include <limits.h>

#include "memprobe/oom.h"

bool scan_is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == SCAN_WRAP;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

void scan_blanks(struct scan *scan)
{
	while (scan->at < scan->end && scan_is_blank(*scan->at))
		scan->at++;
}

bool scan_word(struct scan *scan, const char *word)
{
	struct scan try = *scan;

	for (; *word; word++) {
		if (*word == ' ')
			continue;
		scan_blanks(&try);
		if (try.at == try.end || *try.at != *word)
			return false;
		try.at++;
	}
	*scan = try;
	return true;
}

bool scan_char(struct scan *scan, char c)
{
	const char word[] = { c, '\0' };

	return scan_word(scan, word);
}

bool scan_find(struct scan *scan, const char *word, const char *stop, size_t reach,
	       const char **found)
{
	struct scan try = *scan;

	if ((size_t)(try.end - try.at) > reach)
		try.end = try.at + reach;
	for (; try.at < try.end; try.at++) {
		struct scan here = { try.at, scan->end };

		if (*try.at == *word && scan_word(&here, word)) {
			*found = try.at;
			*scan = here;
			return true;
		}
		if (stop && *try.at == *stop && scan_word(&here, stop))
			return false;
	}
	return false;
}

bool scan_number(struct scan *scan, uint64_t *ret)
{
	struct scan try = *scan;
	const char *last = NULL;
	uint64_t value = 0;

	scan_blanks(&try);
	for (; try.at < try.end && (is_digit(*try.at) || (last && *try.at == SCAN_WRAP));
	     try.at++) {
		if (!is_digit(*try.at))
			continue;
		last = try.at;
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*try.at - '0'), &value) ||
		    value > OOM_LARGEST)
			value = OOM_LARGEST;
	}
	if (!last)
		return false;
	scan->at = last + 1;
	*ret = value;
	return true;
}

bool scan_signed(struct scan *scan, int *ret)
{
	struct scan try = *scan;
	uint64_t value;
	bool minus;

	minus = scan_char(&try, '-');
	if ((minus && (try.at == try.end || !is_digit(*try.at))) || !scan_number(&try, &value) ||
	    value > INT_MAX)
		return false;
	*scan = try;
	*ret = minus ? -(int)value : (int)value;
	return true;
}

bool scan_kib(struct scan *scan, uint64_t *ret)
{
	struct scan try = *scan;
	uint64_t value;

	if (!scan_number(&try, &value) || !(scan_word(&try, "kB") || scan_word(&try, "KB")))
		return false;
	*scan = try;
	*ret = value > OOM_LARGEST / 1024 ? OOM_LARGEST : value * 1024;
	return true;
}

bool scan_pid(struct scan *scan, int *ret)
{
	struct scan try = *scan;
	uint64_t value;

	if (!scan_number(&try, &value) || !value || value > INT_MAX)
		return false;
	*scan = try;
	*ret = (int)value;
	return true;
}

bool scan_level(struct scan *scan)
{
	struct scan try = *scan;
	uint64_t level;

	if (try.end - try.at < 3 || *try.at != '<' || !is_digit(try.at[1]))
		return false;
	try.at++;
	if (!scan_number(&try, &level) || level > 191 || try.at == try.end || *try.at != '>')
		return false;
	scan->at = try.at + 1;
	return true;
}

bool scan_uptime(struct scan *scan, const char **start, const char **end)
{
	struct scan try = *scan;
	uint64_t whole, part;

	scan_blanks(&try);
	scan_level(&try);
	if (!scan_char(&try, '['))
		return false;
	scan_blanks(&try);
	*start = try.at;
	if (!scan_number(&try, &whole) || try.at == try.end || *try.at != '.')
		return false;
	try.at++;
	if (try.at == try.end || !is_digit(*try.at) || !scan_number(&try, &part))
		return false;
	*end = try.at;
	if (!scan_char(&try, ']'))
		return false;
	*scan = try;
	return true;
}

void scan_copy(const char *start, const char *end, char *to, size_t size)
{
	size_t length = 0;

	while (start < end && scan_is_blank(*start))
		start++;
	for (; start < end && length + 1 < size; start++)
		if (*start != SCAN_WRAP)
			to[length++] = *start;
	while (length && scan_is_blank(to[length - 1]))
		length--;
	to[length] = '\0';
}
