#include "memprobe/num.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct error *parse_u64(const char *text, uint64_t *ret)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || errno)
		return error_create(ERROR_USAGE, "'%s' is not a number", text);
	*ret = value;
	return NULL;
}

static int unit_shift(const char *unit)
{
	static const char units[] = "KMGT";
	const char *found;

	if (!*unit || !strcasecmp(unit, "B"))
		return 0;
	found = strchr(units, toupper((unsigned char)unit[0]));
	if (!found || (unit[1] && strcasecmp(unit + 1, "B") && strcasecmp(unit + 1, "iB")))
		return -1;
	return 10 * (int)(found - units + 1);
}

struct error *parse_size(const char *text, uint64_t *bytes_ret)
{
	unsigned long long value;
	char *end;
	int shift;

	errno = 0;
	value = strtoull(text, &end, strncasecmp(text, "0x", 2) ? 10 : 16);
	shift = unit_shift(end);
	if (!isdigit((unsigned char)text[0]) || errno || shift < 0)
		return error_hint(error_create(ERROR_USAGE, "'%s' is not a size", text),
				  "write bytes, or a number with K, M, G or T");
	if (shift && value > UINT64_MAX >> shift)
		return error_create(ERROR_USAGE, "size '%s' is too large", text);
	*bytes_ret = (uint64_t)value << shift;
	return NULL;
}

struct error *parse_time(const char *text, uint64_t *us_ret)
{
	static const struct {
		const char *unit;
		double us;
	} units[] = { { "", 1e6 }, { "s", 1e6 },  { "ms", 1e3 },
		      { "us", 1 }, { "m", 60e6 }, { "h", 3600e6 } };
	double value;
	char *end;

	value = strtod(text, &end);
	if (isdigit((unsigned char)text[0]) || text[0] == '.') {
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
			if (strcmp(end, units[i].unit))
				continue;
			if (!(value * units[i].us < 1e18))
				return error_create(ERROR_USAGE, "time '%s' is too large", text);
			*us_ret = (uint64_t)(value * units[i].us + 0.5);
			return NULL;
		}
	}
	return error_hint(error_create(ERROR_USAGE, "'%s' is not a time", text),
			  "write seconds, or a number with ms, s, m or h");
}

struct error *parse_address(const char *text, uint64_t *ret)
{
	const char *digits = strncasecmp(text, "0x", 2) ? text : text + 2;
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(digits, &end, 16);
	if (!isxdigit((unsigned char)digits[0]) || *end || errno)
		return error_create(ERROR_USAGE, "'%s' is not an address", text);
	*ret = value;
	return NULL;
}

/* @bytes * @factor / 2^@shift, to the nearest, ties to even. */
static unsigned scaled(uint64_t bytes, unsigned factor, unsigned shift)
{
	unsigned __int128 value = (unsigned __int128)bytes * factor;
	unsigned __int128 half = (unsigned __int128)1 << shift >> 1;
	unsigned whole = (unsigned)(value >> shift);
	unsigned __int128 rest = value - ((unsigned __int128)whole << shift);

	return whole + (rest > half || (rest == half && half && (whole & 1)));
}

/* Without printf(): tables have 100,000 sizes. */
const char *format_size(uint64_t bytes, char buffer[SIZE_TEXT_MAX])
{
	static const char units[] = "KMGTPE";
	unsigned unit = 0; /* of 1024^unit */
	char *at = buffer + SIZE_TEXT_MAX;
	unsigned number;

	/* Up to what rounds to 1024.0. */
	while (unit < sizeof(units) - 1 &&
	       (unsigned __int128)bytes * 100 >= (unsigned __int128)102395 << 10 * unit)
		unit++;
	*--at = '\0';
	if (unit)
		*--at = units[unit - 1];
	if (unit && (unsigned __int128)bytes * 100 < (unsigned __int128)9995 << 10 * unit) {
		number = scaled(bytes, 10, 10 * unit);
		*--at = '0' + number % 10;
		*--at = '.';
		number /= 10;
	} else {
		number = scaled(bytes, 1, 10 * unit);
	}
	do {
		*--at = '0' + number % 10;
		number /= 10;
	} while (number);
	memmove(buffer, at, buffer + SIZE_TEXT_MAX - at);
	return buffer;
}

const char *format_count(uint64_t count, char buffer[COUNT_TEXT_MAX])
{
	char *at = buffer + COUNT_TEXT_MAX;
	unsigned digits = 0;

	*--at = '\0';
	do {
		if (digits && digits % 3 == 0)
			*--at = ',';
		*--at = '0' + count % 10;
		count /= 10;
		digits++;
	} while (count);
	memmove(buffer, at, buffer + COUNT_TEXT_MAX - at);
	return buffer;
}

const char *format_items(uint64_t count, const char *noun, char buffer[ITEMS_TEXT_MAX])
{
	char number[COUNT_TEXT_MAX];
	size_t length = strlen(noun);
	bool hisses = length > 1 && (noun[length - 1] == 's' || !strcmp(noun + length - 2, "ch"));

	snprintf(buffer, ITEMS_TEXT_MAX, "%s %s%s", format_count(count, number), noun,
		 count == 1 ? ""
		 : hisses   ? "es"
			    : "s");
	return buffer;
}

const char *format_time(uint64_t us, char buffer[TIME_TEXT_MAX])
{
	const char *unit = us < 999950 ? "ms" : "s";
	double value = us < 999950 ? (double)us / 1e3 : (double)us / 1e6;

	if (us < 1000)
		snprintf(buffer, TIME_TEXT_MAX, "%u us", (unsigned)us);
	else
		snprintf(buffer, TIME_TEXT_MAX, "%.*f %s", value < 99.95 ? 1 : 0, value, unit);
	return buffer;
}
