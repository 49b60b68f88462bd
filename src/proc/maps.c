#include "memprobe/lower_bound.h"
#include "memprobe/maps.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <sys/sysmacros.h>

/* A cursor in the text; every read is bounded by @end. */
struct cursor {
	const char *at;
	const char *end;
};

static bool take_hex(struct cursor *cursor, uint64_t *ret)
{
	const char *at = cursor->at;
	uint64_t value = 0;

	for (; at < cursor->end; at++) {
		unsigned digit = (unsigned char)*at;

		if (digit - '0' <= 9)
			digit -= '0';
		else if (digit - 'a' <= 5)
			digit -= 'a' - 10;
		else
			break;
		if (at - cursor->at == 16)
			return false;
		value = value << 4 | digit;
	}
	if (at == cursor->at)
		return false;
	cursor->at = at;
	*ret = value;
	return true;
}

static bool take_decimal(struct cursor *cursor, uint64_t *ret)
{
	const char *at = cursor->at;
	uint64_t value = 0;

	for (; at < cursor->end && (unsigned)*at - '0' <= 9; at++) {
		unsigned digit = *at - '0';

		if (value > (UINT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	if (at == cursor->at)
		return false;
	cursor->at = at;
	*ret = value;
	return true;
}

static bool take_char(struct cursor *cursor, char wanted)
{
	if (cursor->at == cursor->end || *cursor->at != wanted)
		return false;
	cursor->at++;
	return true;
}

static void skip_spaces(struct cursor *cursor)
{
	while (cursor->at < cursor->end && *cursor->at == ' ')
		cursor->at++;
}

static bool take_perms(struct cursor *cursor, unsigned *ret)
{
	static const char letters[] = "rwx";
	unsigned perms = 0;

	if (cursor->end - cursor->at < 4)
		return false;
	for (unsigned i = 0; i < 3; i++) {
		if (cursor->at[i] == letters[i])
			perms |= 1u << i;
		else if (cursor->at[i] != '-')
			return false;
	}
	if (cursor->at[3] == 's')
		perms |= PERM_SHARED;
	else if (cursor->at[3] != 'p')
		return false;
	cursor->at += 4;
	*ret = perms;
	return true;
}

/*
 * seq_path() writes a newline as \012 and leaves every other byte alone, the backslash included:
 * a name that really has these four characters cannot be told from one with a newline.
 */
static struct error *take_path(struct cursor *cursor, struct mapping *mapping)
{
	static const char suffix[] = " (deleted)";
	const size_t suffix_size = sizeof(suffix) - 1;
	size_t size = cursor->at < cursor->end ? cursor->end - cursor->at : 0;
	char *to = malloc(size + 1);

	if (!to)
		return &error_no_memory;
	mapping->path = to;
	/* A file really called so looks the same: who can open files puts it right. */
	if (size > suffix_size && !memcmp(cursor->end - suffix_size, suffix, suffix_size)) {
		mapping->deleted = true;
		size -= suffix_size;
	}
	if (!size || !memchr(cursor->at, '\\', size)) {
		memcpy(to, cursor->at, size);
		to[size] = '\0';
		return NULL;
	}
	for (size_t i = 0; i < size; i++) {
		if (size - i >= 4 && !memcmp(cursor->at + i, "\\012", 4)) {
			*to++ = '\n';
			i += 3;
		} else {
			*to++ = cursor->at[i];
		}
	}
	*to = '\0';
	return NULL;
}

static bool take_fields(struct cursor *cursor, struct mapping *mapping)
{
	uint64_t major, minor;

	if (!take_hex(cursor, &mapping->start) || !take_char(cursor, '-') ||
	    !take_hex(cursor, &mapping->end) || !take_char(cursor, ' ') ||
	    !take_perms(cursor, &mapping->perms) || !take_char(cursor, ' ') ||
	    !take_hex(cursor, &mapping->offset) || !take_char(cursor, ' ') ||
	    !take_hex(cursor, &major) || !take_char(cursor, ':') || !take_hex(cursor, &minor) ||
	    !take_char(cursor, ' ') || !take_decimal(cursor, &mapping->inode))
		return false;
	if (major > UINT32_MAX || minor > UINT32_MAX || mapping->start >= mapping->end)
		return false;
	mapping->device = makedev(major, minor);
	/* A path is set off by at least one blank. */
	return cursor->at == cursor->end || *cursor->at == ' ';
}

static struct error *bad_line(const char *line, size_t size)
{
	return error_create(ERROR_FAILED, "cannot understand this line of maps: '%.*s'",
			    (int)(size < 120 ? size : 120), line);
}

static struct error *parse_header(const char *line, size_t size, struct mapping_vec *maps)
{
	struct cursor cursor = { line, line + size };
	struct mapping mapping = { 0 };
	struct error *error;

	if (!take_fields(&cursor, &mapping))
		return bad_line(line, size);
	skip_spaces(&cursor);
	error = take_path(&cursor, &mapping);
	if (error)
		return error;
	error = mapping_vec_append(maps, &mapping);
	if (error)
		free(mapping.path);
	return error;
}

/* ---- smaps ---- */

/* Where the value of @key belongs, or NULL: not of interest. @key ends with its colon. */
static uint64_t *usage_field(struct mapping_usage *usage, const char *key, size_t size)
{
#define IS(text) (size == sizeof(text) - 1 && !memcmp(key, text, sizeof(text) - 1))
	switch (key[0]) {
	case 'R':
		return IS("Rss:") ? &usage->rss : NULL;
	case 'P':
		if (IS("Pss:"))
			return &usage->pss;
		if (IS("Private_Clean:"))
			return &usage->private_clean;
		if (IS("Private_Dirty:"))
			return &usage->private_dirty;
		return IS("Private_Hugetlb:") ? &usage->huge : NULL;
	case 'S':
		if (IS("Swap:"))
			return &usage->swap;
		if (IS("Shared_Clean:"))
			return &usage->shared_clean;
		if (IS("Shared_Dirty:"))
			return &usage->shared_dirty;
		return IS("ShmemPmdMapped:") || IS("Shared_Hugetlb:") ? &usage->huge : NULL;
	case 'A':
		if (IS("Anonymous:"))
			return &usage->anonymous;
		return IS("AnonHugePages:") ? &usage->huge : NULL;
	case 'F':
		return IS("FilePmdMapped:") ? &usage->huge : NULL;
	default:
		return NULL;
	}
#undef IS
}

static bool has_flag(const char *flags, size_t size, const char *flag)
{
	for (size_t i = 0; i + 2 <= size; i += 3)
		if (flags[i] == flag[0] && flags[i + 1] == flag[1])
			return true;
	return false;
}

/* `Key:   123 kB`, `VmFlags: rd wr`, or a key of a future kernel. */
static struct error *parse_key(const char *line, size_t size, struct mapping *mapping)
{
	const char *colon = memchr(line, ':', size);
	struct cursor cursor = { .end = line + size };
	uint64_t *field, value;

	if (!colon)
		return bad_line(line, size);
	cursor.at = colon + 1;
	mapping->usage_known = true;
	skip_spaces(&cursor);
	if (line[0] == 'V' && size >= 8 && !memcmp(line, "VmFlags:", 8)) {
		mapping->no_fork = has_flag(cursor.at, cursor.end - cursor.at, "dc");
		mapping->no_dump = has_flag(cursor.at, cursor.end - cursor.at, "dd") ||
				   has_flag(cursor.at, cursor.end - cursor.at, "io");
		mapping->is_huge = has_flag(cursor.at, cursor.end - cursor.at, "ht");
		return NULL;
	}
	field = usage_field(&mapping->usage, line, colon + 1 - line);
	if (!field)
		return NULL;
	if (!take_decimal(&cursor, &value) || value > UINT64_MAX / 1024 ||
	    cursor.end - cursor.at != 3 || memcmp(cursor.at, " kB", 3))
		return bad_line(line, size);
	/* Several keys add up to `huge`; the others come once. */
	*field += value * 1024;
	return NULL;
}

/* The kernel's column: `Key:` padded to 16, eight digits, ` kB`. */
#define KEY_LINE 28

/* Most lines of smaps say 0 and have the same length: such a line adds nothing. */
static bool is_zero_line(const char *line, const char *end)
{
	return end - line >= KEY_LINE && !memcmp(line + KEY_LINE - 12, "       0 kB\n", 12);
}

/* ---- the whole ---- */

/*
 * The kernel goes by address, but lets go of the address space between two reads. A mapping that
 * grew downwards or was merged meanwhile shows up again: what was shown before is cut off it.
 */
static void cut_overlap(struct mapping_vec *maps, size_t first)
{
	struct mapping *last, *previous;

	if (maps->size < first + 2)
		return;
	last = &maps->data[maps->size - 1];
	previous = last - 1;
	if (last->start >= previous->end)
		return;
	if (last->end > previous->end) {
		if (last->inode)
			last->offset += previous->end - last->start;
		last->start = previous->end;
		return;
	}
	free(last->path);
	maps->size--;
}

/* A parse under way: mappings before @first belong to the caller. */
struct parser {
	struct mapping_vec *maps;
	size_t first;
};

/* @line has no newline. */
static struct error *parse_line(struct parser *parser, const char *line, size_t size)
{
	struct mapping_vec *maps = parser->maps;

	if (size && *line >= 'A' && *line <= 'Z') {
		if (maps->size == parser->first)
			return bad_line(line, size);
		return parse_key(line, size, &maps->data[maps->size - 1]);
	}
	cut_overlap(maps, parser->first);
	return parse_header(line, size, maps);
}

/* Whole lines only; @rest_ret is where an unfinished one begins. */
static struct error *parse_lines(struct parser *parser, const char *text, size_t size,
				 const char **rest_ret)
{
	const char *at = text, *end = text + size;

	while (at < end) {
		struct error *error;
		const char *newline;

		if (*at >= 'A' && *at <= 'Z' && parser->maps->size > parser->first &&
		    is_zero_line(at, end)) {
			at += KEY_LINE;
			continue;
		}
		newline = memchr(at, '\n', end - at);
		if (!newline)
			break;
		error = parse_line(parser, at, newline - at);
		if (error)
			return error;
		at = newline + 1;
	}
	*rest_ret = at;
	return NULL;
}

static struct error *parse_rest(struct parser *parser, const char *rest, size_t size)
{
	struct error *error = size ? parse_line(parser, rest, size) : NULL;

	if (!error)
		cut_overlap(parser->maps, parser->first);
	return error;
}

struct error *maps_parse(const char *text, size_t size, struct mapping_vec *maps)
{
	struct parser parser = { maps, maps->size };
	const char *rest;
	struct error *error = parse_lines(&parser, text, size, &rest);

	return error ? error : parse_rest(&parser, rest, text + size - rest);
}

struct error *maps_read(int fd, const char *name, struct mapping_vec *maps)
{
	/* smaps of 22,000 mappings is 16 MiB: what fits the cache is parsed at once. A path has at
	 * most 4096 bytes, each of which may be escaped. */
	enum { CAPACITY = 256 << 10 };
	struct parser parser = { maps, maps->size };
	cleanup(free) char *text = malloc(CAPACITY);
	size_t size = 0;

	if (!text)
		return &error_no_memory;
	for (;;) {
		ssize_t got = read(fd, text + size, CAPACITY - size);
		struct error *error;
		const char *rest;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(ERROR_FAILED, errno, "cannot read %s", name);
		if (got == 0)
			return parse_rest(&parser, text, size);
		size += got;
		error = parse_lines(&parser, text, size, &rest);
		if (error)
			return error;
		size -= rest - text;
		if (size == CAPACITY)
			return bad_line(text, size);
		memmove(text, rest, size);
	}
}

void mappings_deinit(struct mapping_vec *maps)
{
	vec_for_each (mapping, maps) {
		free(mapping->path);
		free(mapping->label);
		free(mapping->thread);
	}
	mapping_vec_deinit(maps);
}

struct mapping *mappings_find(const struct mapping_vec *maps, uint64_t address)
{
	size_t low = lower_bound(maps->data, maps->size, mapping, mapping->end <= address);

	if (low < maps->size && maps->data[low].start <= address)
		return &maps->data[low];
	return NULL;
}

static const char *const type_names[MAPPING_TYPES] = {
	[MAPPING_EXE] = "exe",	   [MAPPING_LIB] = "lib",
	[MAPPING_FILE] = "file",   [MAPPING_HEAP] = "heap",
	[MAPPING_ARENA] = "arena", [MAPPING_MMAP_CHUNK] = "mmap-chunk",
	[MAPPING_STACK] = "stack", [MAPPING_THREAD_STACK] = "thread-stack",
	[MAPPING_ANON] = "anon",   [MAPPING_SHM] = "shm",
	[MAPPING_GUARD] = "guard", [MAPPING_KERNEL] = "kernel",
};

const char *mapping_type_name(enum mapping_type type)
{
	return type < MAPPING_TYPES ? type_names[type] : "unknown";
}

bool mapping_type_parse(const char *name, enum mapping_type *ret)
{
	for (unsigned i = 0; i < MAPPING_TYPES; i++) {
		if (!strcmp(name, type_names[i])) {
			*ret = i;
			return true;
		}
	}
	return false;
}

void mapping_perms_text(unsigned perms, char text[5])
{
	text[0] = perms & PERM_READ ? 'r' : '-';
	text[1] = perms & PERM_WRITE ? 'w' : '-';
	text[2] = perms & PERM_EXEC ? 'x' : '-';
	text[3] = perms & PERM_SHARED ? 's' : 'p';
	text[4] = '\0';
}
