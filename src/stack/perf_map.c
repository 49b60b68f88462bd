#include "memprobe/perf_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/lower_bound.h"
#include "memprobe/vec.h"

#define NAME_MAX_LENGTH 1024u
#define PIECES_MAX	(2u << 20)

/* A line of the file. */
struct piece {
	uint64_t start, end;
	uint32_t name; /* offset into the names */
	uint32_t line; /* later ones hold */
};

VEC_DEFINE(piece_vec, struct piece)

/* [start, the next span's start) is that piece's code, or nobody's. */
struct span {
	uint64_t start;
	uint32_t piece; /* NO_PIECE */
};

#define NO_PIECE UINT32_MAX

VEC_DEFINE(span_vec, struct span)
VEC_DEFINE(text_vec, char)

struct perf_map {
	struct piece_vec pieces; /* by start */
	struct span_vec spans;	 /* by start */
	struct text_vec names;
};

/* ---- lines ---- */

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *skip_blanks(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t'))
		at++;
	return at;
}

/* A hexadecimal number and a blank behind it; NULL: there is none, or it does not fit. */
static const char *take_number(const char *at, const char *end, uint64_t *ret)
{
	unsigned digits = 0;
	uint64_t value = 0;

	if (end - at > 2 && at[0] == '0' && (at[1] | 0x20) == 'x')
		at += 2;
	for (; at < end && digit_of(*at) >= 0; at++, digits++) {
		if (value >> 60)
			return NULL;
		value = value << 4 | (unsigned)digit_of(*at);
	}
	if (!digits || at == end || (*at != ' ' && *at != '\t'))
		return NULL;
	*ret = value;
	return skip_blanks(at, end);
}

/* Without bytes that would steer a terminal. */
static struct error *add_name(struct perf_map *map, const char *name, size_t length)
{
	struct text_vec *names = &map->names;
	struct error *error = NULL;

	if (names->size + length + 1 > names->capacity)
		error = text_vec_reserve(names, 2 * names->capacity + length + 1);
	if (error)
		return error;
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)name[i];

		names->data[names->size++] = (char)(byte < 0x20 || byte == 0x7f ? '?' : byte);
	}
	names->data[names->size++] = '\0';
	return NULL;
}

static struct error *add_line(struct perf_map *map, const char *at, const char *end, uint32_t line)
{
	struct piece piece = { .name = (uint32_t)map->names.size, .line = line };
	uint64_t size;
	struct error *error;

	at = skip_blanks(at, end);
	at = take_number(at, end, &piece.start);
	at = at ? take_number(at, end, &size) : NULL;
	if (!at || !size || __builtin_add_overflow(piece.start, size, &piece.end))
		return NULL;
	while (end > at && (end[-1] == ' ' || end[-1] == '\r' || end[-1] == '\t'))
		end--;
	if (end - at > (ptrdiff_t)NAME_MAX_LENGTH)
		end = at + NAME_MAX_LENGTH;
	if (end == at || map->pieces.size >= PIECES_MAX)
		return NULL;
	error = add_name(map, at, (size_t)(end - at));
	return error ? error : piece_vec_append(&map->pieces, &piece);
}

/* From the last line backwards, so that the later ones are there if there are too many. */
static struct error *add_lines(struct perf_map *map, const char *text, size_t size)
{
	const char *end = memrchr(text, '\n', size);
	uint32_t line = UINT32_MAX;
	struct error *error = NULL;

	while (!error && end) {
		const char *before = memrchr(text, '\n', (size_t)(end - text));

		error = add_line(map, before ? before + 1 : text, end, line--);
		end = before;
	}
	return error;
}

/* ---- who holds where ---- */

static int compare_pieces(const void *left, const void *right)
{
	const struct piece *a = left, *b = right;

	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	return a->line < b->line ? -1 : a->line > b->line;
}

/* The pieces that reach over an address, the latest first: a binary heap. */
struct pile {
	const struct piece *pieces;
	uint32_t *items;
	size_t size;
};

static bool is_later(const struct pile *pile, size_t a, size_t b)
{
	return pile->pieces[pile->items[a]].line > pile->pieces[pile->items[b]].line;
}

static void swap_items(struct pile *pile, size_t a, size_t b)
{
	uint32_t item = pile->items[a];

	pile->items[a] = pile->items[b];
	pile->items[b] = item;
}

static void pile_put(struct pile *pile, uint32_t piece)
{
	size_t at = pile->size++;

	pile->items[at] = piece;
	for (; at && is_later(pile, at, (at - 1) / 2); at = (at - 1) / 2)
		swap_items(pile, at, (at - 1) / 2);
}

static void pile_take(struct pile *pile)
{
	size_t at = 0;

	pile->items[0] = pile->items[--pile->size];
	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < pile->size && is_later(pile, child + 1, child))
			child++;
		if (child >= pile->size || !is_later(pile, child, at))
			return;
		swap_items(pile, at, child);
		at = child;
	}
}

static struct error *begin_span(struct perf_map *map, uint64_t start, uint32_t piece)
{
	struct span_vec *spans = &map->spans;
	struct span span = { start, piece };

	if (spans->size && spans->data[spans->size - 1].start == start)
		spans->size--;
	if (spans->size && spans->data[spans->size - 1].piece == piece)
		return NULL;
	return span_vec_append(spans, &span);
}

/* Those that end at or before @until make way for what they covered. */
static struct error *end_pieces(struct perf_map *map, struct pile *pile, uint64_t until)
{
	struct error *error = NULL;

	while (!error && pile->size && pile->pieces[pile->items[0]].end <= until) {
		uint64_t end = pile->pieces[pile->items[0]].end;

		while (pile->size && pile->pieces[pile->items[0]].end <= end)
			pile_take(pile);
		error = begin_span(map, end, pile->size ? pile->items[0] : NO_PIECE);
	}
	return error;
}

static struct error *lay_out(struct perf_map *map)
{
	const struct piece_vec *pieces = &map->pieces;
	cleanup(free) uint32_t *items = calloc(pieces->size + 1, sizeof(*items));
	struct pile pile = { .items = items };
	struct error *error = NULL;

	if (!items)
		return &error_no_memory;
	if (pieces->size)
		qsort(pieces->data, pieces->size, sizeof(*pieces->data), compare_pieces);
	pile.pieces = pieces->data;
	for (size_t i = 0; !error && i < pieces->size; i++) {
		error = end_pieces(map, &pile, pieces->data[i].start);
		pile_put(&pile, (uint32_t)i);
		if (!error)
			error = begin_span(map, pieces->data[i].start, pile.items[0]);
	}
	return error ? error : end_pieces(map, &pile, UINT64_MAX);
}

struct error *perf_map_parse(const char *text, size_t size, struct perf_map **ret)
{
	cleanup(perf_map) struct perf_map *map = calloc(1, sizeof(*map));
	struct error *error;

	if (!map)
		return &error_no_memory;
	error = add_lines(map, text, size);
	if (!error)
		error = lay_out(map);
	if (!error)
		*ret = take_pointer(map);
	return error;
}

void perf_map_destroy(struct perf_map *map)
{
	if (!map)
		return;
	piece_vec_deinit(&map->pieces);
	span_vec_deinit(&map->spans);
	text_vec_deinit(&map->names);
	free(map);
}

const char *perf_map_find(const struct perf_map *map, uint64_t address, uint64_t *offset_ret)
{
	const struct span *spans = map->spans.data;
	size_t low = lower_bound(spans, map->spans.size, span, span->start <= address);
	const struct piece *piece;

	if (!low || spans[low - 1].piece == NO_PIECE)
		return NULL;
	piece = &map->pieces.data[spans[low - 1].piece];
	*offset_ret = address - piece->start;
	return map->names.data + piece->name;
}

/* ---- the file ---- */

/* The last PERF_MAP_MAX bytes; of a first line that is cut nothing is left but garbage, which the
 * parser leaves out or not: it is left out here. */
static struct error *read_end(int fd, char **text_ret, size_t *size_ret)
{
	cleanup(free) char *text = NULL;
	size_t size = 0, capacity;
	struct stat status;
	off_t start = 0;

	if (fstat(fd, &status) < 0)
		return error_errno(ERROR_FAILED, errno, "cannot read the perf map");
	if (status.st_size > (off_t)PERF_MAP_MAX)
		start = status.st_size - (off_t)PERF_MAP_MAX;
	/* It may still grow: what comes now is read another time. */
	capacity = (size_t)(status.st_size - start);
	text = malloc(capacity + 1);
	if (!text)
		return &error_no_memory;
	while (size < capacity) {
		ssize_t got = pread(fd, text + size, capacity - size, start + (off_t)size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		size += (size_t)got;
	}
	if (start) {
		const char *line = memchr(text, '\n', size);
		size_t cut = line ? (size_t)(line + 1 - text) : size;

		memmove(text, text + cut, size - cut);
		size -= cut;
	}
	*text_ret = take_pointer(text);
	*size_ret = size;
	return NULL;
}

struct error *perf_map_open(struct target *target, struct perf_map **ret)
{
	cleanup(close) int fd = -1;
	cleanup(free) char *text = NULL;
	size_t size = 0;
	struct error *error = target_open_perf_map(target, &fd);

	if (!error)
		error = read_end(fd, &text, &size);
	return error ? error : perf_map_parse(text, size, ret);
}
