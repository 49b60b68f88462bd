#include "leaks_output.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#include "memprobe/num.h"

#define LINE_MAX_BYTES 4096

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_hex(const char *text, struct suppression *ret)
{
	size_t size = 0;

	ret->bytes = malloc(strlen(text) / 2 + 1);
	while (ret->bytes && *text) {
		int high, low;

		if (*text == ' ') {
			text++;
			continue;
		}
		high = hex_digit(text[0]);
		low = high < 0 ? -1 : hex_digit(text[1]);
		if (low < 0)
			return false;
		ret->bytes[size++] = high << 4 | low;
		text += 2;
	}
	ret->size = size;
	return size > 0;
}

static struct error *parse_line(const char *line, struct suppression *ret)
{
	static const char *const names[] = { "type:", "text:", "hex:", "size:" };
	uint64_t size;

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *rest = line + strlen(names[i]);

		if (strncmp(line, names[i], strlen(names[i])) || !*rest)
			continue;
		ret->kind = i;
		ret->pattern = strdup(rest);
		if (!ret->pattern)
			return &error_no_memory;
		if (ret->kind == SUPPRESS_HEX)
			return parse_hex(rest, ret)
				       ? NULL
				       : error_create(ERROR_USAGE, "'%s' is not hexadecimal", rest);
		if (ret->kind == SUPPRESS_SIZE) {
			struct error *error = parse_size(rest, &size);

			ret->size = error ? 0 : size;
			return error;
		}
		return NULL;
	}
	return error_create(ERROR_USAGE, "neither type:, text:, hex: nor size: begins '%s'", line);
}

static void suppression_deinit(struct suppression *one)
{
	free(one->pattern);
	free(one->bytes);
}

static struct error *read_lines(FILE *file, const char *path, struct suppression_vec *ret)
{
	char line[LINE_MAX_BYTES];

	for (unsigned number = 1; fgets(line, sizeof(line), file); number++) {
		struct suppression one = { 0 };
		size_t length = strcspn(line, "\r\n");
		struct error *error;

		while (length && (line[length - 1] == ' ' || line[length - 1] == '\t'))
			length--;
		line[length] = '\0';
		if (!length || line[0] == '#')
			continue;
		error = parse_line(line, &one);
		if (!error)
			error = suppression_vec_append(ret, &one);
		if (error) {
			suppression_deinit(&one);
			return error == &error_no_memory
				       ? error
				       : error_prefix(error, "%s:%u", path, number);
		}
	}
	return ferror(file) ? error_errno(ERROR_FAILED, errno, "cannot read %s", path) : NULL;
}

struct error *suppressions_read(const char *path, struct suppression_vec *ret)
{
	cleanup(fclose) FILE *file = fopen(path, "re");

	if (!file)
		return error_errno(ERROR_USAGE, errno, "cannot open %s", path);
	return read_lines(file, path, ret);
}

void suppressions_deinit(struct suppression_vec *list)
{
	vec_for_each (one, list)
		suppression_deinit(one);
	suppression_vec_deinit(list);
}

bool suppressions_match(struct suppression_vec *list, const char *type, const uint8_t *bytes,
			size_t bytes_size, uint64_t size)
{
	vec_for_each (one, list) {
		bool matches = false;

		switch (one->kind) {
		case SUPPRESS_TYPE:
			matches = type && fnmatch(one->pattern, type, 0) == 0;
			break;
		case SUPPRESS_TEXT:
			matches = bytes_size &&
				  memmem(bytes, bytes_size, one->pattern, strlen(one->pattern));
			break;
		case SUPPRESS_HEX:
			matches = bytes_size >= one->size && !memcmp(bytes, one->bytes, one->size);
			break;
		case SUPPRESS_SIZE:
			matches = size == one->size;
			break;
		}
		if (matches) {
			one->used++;
			return true;
		}
	}
	return false;
}
