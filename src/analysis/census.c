#include "memprobe/census.h"

#include <inttypes.h>
#include <string.h>

#include "census_tally.h"
#include "memprobe/map64.h"
#include "memprobe/num.h"

/* Has the types, then the sizes of what has none. */
struct row {
	struct tally tally;
	const struct object_type *type;
};

VEC_DEFINE(row_vec, struct row)
VEC_DEFINE(tally_vec, struct tally)

struct counting {
	struct object_types *types; /* NULL: by size only */
	struct tally_vec by_type;   /* by the number of the type */
	struct tally_vec by_size;
	struct map64 sizes; /* indices into by_size */
	struct tally read;
	struct error *error;
};

void census_deinit(struct census *census)
{
	vec_for_each (group, &census->groups)
		free(group->key);
	census_group_vec_deinit(&census->groups);
	object_types_destroy(census->types);
	census->types = NULL;
}

struct error *census_add_group(struct census *census, const struct tally *tally, char *key,
			       const struct object_type *type)
{
	struct census_group group = {
		.key = key,
		.type = type,
		.size = tally->size,
		.count = tally->count,
		.bytes = tally->bytes,
		.example = tally->example,
	};
	struct error *error =
		key ? census_group_vec_append(&census->groups, &group) : &error_no_memory;

	if (error)
		free(key);
	return error;
}

/* ---- counting ---- */

static struct error *add_size(struct counting *counting, const struct heap_chunk *chunk)
{
	static const struct tally none;
	uint64_t index = map64_get(&counting->sizes, chunk->size);
	struct error *error = NULL;

	if (index == MAP64_NONE) {
		index = counting->by_size.size;
		error = tally_vec_append(&counting->by_size, &none);
		if (!error)
			error = map64_put(&counting->sizes, chunk->size, index);
	}
	if (!error)
		tally_add(&counting->by_size.data[index], chunk);
	return error;
}

static struct error *add_typed(struct counting *counting, const struct object_type *type,
			       const struct heap_chunk *chunk)
{
	static const struct tally none;

	while (counting->by_type.size <= type->index) {
		struct error *error = tally_vec_append(&counting->by_type, &none);

		if (error)
			return error;
	}
	tally_add(&counting->by_type.data[type->index], chunk);
	return NULL;
}

static bool see_chunk(void *data, const struct heap_chunk *chunk)
{
	struct counting *counting = data;

	if (chunk->state != HEAP_IN_USE)
		return true;
	tally_add(&counting->read, chunk);
	counting->error = add_size(counting, chunk);
	return !counting->error;
}

static struct error *see_bytes(void *data, const struct heap_chunk *chunk, const void *bytes,
			       size_t size)
{
	struct counting *counting = data;
	const struct object_type *type;
	struct error *error = object_types_of_block(counting->types, chunk->address, chunk->size,
						    bytes, size, &type);

	tally_add(&counting->read, chunk);
	if (error)
		return error;
	return type ? add_typed(counting, type, chunk) : add_size(counting, chunk);
}

/* ---- rows ---- */

/* Types first. */
static int compare_rows(const void *left, const void *right)
{
	const struct row *a = left, *b = right;

	if (!a->type != !b->type)
		return a->type ? -1 : 1;
	return tally_compare(&a->tally, &b->tally);
}

static char *key_of(const struct row *row, bool by_type)
{
	char text[48];

	if (row->type)
		return strdup(row->type->name);
	snprintf(text, sizeof(text), by_type ? "(untyped) %" PRIu64 : "%" PRIu64, row->tally.size);
	return strdup(text);
}

static struct error *add_rows(const struct counting *counting, struct row_vec *rows)
{
	struct error *error = NULL;

	for (size_t i = 0; !error && i < counting->by_type.size; i++) {
		struct row row = { counting->by_type.data[i],
				   object_types_get(counting->types, i) };

		if (row.tally.count)
			error = row_vec_append(rows, &row);
	}
	for (size_t i = 0; !error && i < counting->by_size.size; i++) {
		struct row row = { counting->by_size.data[i], NULL };

		error = row_vec_append(rows, &row);
	}
	return error;
}

static struct error *make_groups(const struct counting *counting, uint64_t top,
				 struct census *census)
{
	struct row_vec rows = { 0 };
	struct error *error = add_rows(counting, &rows);
	uint64_t shown[2] = { 0 }; /* without a type, with one */

	if (!error && rows.size)
		qsort(rows.data, rows.size, sizeof(*rows.data), compare_rows);
	census->group_count = rows.size;
	for (size_t i = 0; !error && i < rows.size; i++) {
		const struct row *row = &rows.data[i];

		if (top && shown[row->type != NULL]++ >= top)
			continue;
		error = census_add_group(census, &row->tally, key_of(row, counting->types != NULL),
					 row->type);
	}
	row_vec_deinit(&rows);
	return error;
}

static struct error *count_sizes_or_types(const struct heap *heap,
					  const struct census_options *options,
					  struct census *census, struct tally *read_ret)
{
	struct counting counting = { .types = census->types };
	struct error *error;

	if (counting.types) {
		error = heap_read_blocks(heap, 2 * heap->target->arch->word_size, see_bytes,
					 &counting);
	} else {
		heap_walk(heap, see_chunk, &counting);
		error = counting.error;
	}
	if (!error)
		error = make_groups(&counting, options->top, census);
	*read_ret = counting.read;
	tally_vec_deinit(&counting.by_type);
	tally_vec_deinit(&counting.by_size);
	map64_deinit(&counting.sizes);
	return error;
}

/* ---- totals ---- */

static bool see_total(void *data, const struct heap_chunk *chunk)
{
	if (chunk->state == HEAP_IN_USE)
		tally_add(data, chunk);
	return true;
}

/* What was read is most often all there is. */
static void set_totals(const struct heap *heap, const struct tally *read, struct census *census)
{
	uint64_t count = 0;
	struct tally all = *read;

	for (uint64_t i = 0; i < heap->bits / 64; i++)
		count += __builtin_popcountll(heap->in_use[i]);
	if (count != read->count) {
		all = (struct tally){ 0 };
		heap_walk(heap, see_total, &all);
	}
	census->count = all.count;
	census->bytes = all.bytes;
	census->unread_count = all.count - read->count;
	census->unread_bytes = all.bytes - read->bytes;
}

struct error *census_take(const struct heap *heap, const struct census_options *options,
			  struct census *ret)
{
	struct tally read = { 0 };
	struct error *error = NULL;

	if (options->by != CENSUS_BY_SIZE)
		error = object_types_create(heap->target, &ret->types);
	if (!error && options->by == CENSUS_BY_CONTENT)
		error = census_by_content(heap, options, ret, &read);
	else if (!error)
		error = count_sizes_or_types(heap, options, ret, &read);
	if (!error)
		set_totals(heap, &read, ret);
	return error;
}
