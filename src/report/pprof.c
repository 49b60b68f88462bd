/*
 * pprof's format: a gzip'ed protocol buffer, as `go tool pprof` reads it. Source of the fields'
 * numbers and meanings: github.com/google/pprof, proto/profile.proto.
 *
 * Samples are written as they come; what they refer to by number is gathered and follows. A
 * location is an address with all functions inlined there, so several frames make one.
 */
#include <stdlib.h>
#include <string.h>

#include "gzip.h"
#include "memprobe/hash_index.h"
#include "memprobe/profile_format.h"
#include "memprobe/text.h"
#include "protobuf.h"
#include "string_pool.h"

enum {
	PROFILE_SAMPLE_TYPE = 1,
	PROFILE_SAMPLE = 2,
	PROFILE_MAPPING = 3,
	PROFILE_LOCATION = 4,
	PROFILE_FUNCTION = 5,
	PROFILE_STRING = 6,
	PROFILE_TIME_NANOS = 9,
	PROFILE_DURATION_NANOS = 10,
	PROFILE_PERIOD_TYPE = 11,
	PROFILE_PERIOD = 12,
	PROFILE_COMMENT = 13,
	PROFILE_DEFAULT_SAMPLE_TYPE = 14
};
enum { VALUE_TYPE = 1, VALUE_UNIT = 2 };
enum { SAMPLE_LOCATIONS = 1, SAMPLE_VALUES = 2 };
enum {
	MAPPING_ID = 1,
	MAPPING_START = 2,
	MAPPING_LIMIT = 3,
	MAPPING_OFFSET = 4,
	MAPPING_FILE = 5,
	MAPPING_BUILD_ID = 6,
	MAPPING_HAS_FUNCTIONS = 7,
	MAPPING_HAS_FILES = 8,
	MAPPING_HAS_LINES = 9,
	MAPPING_HAS_INLINED = 10
};
enum { LOCATION_ID = 1, LOCATION_MAPPING = 2, LOCATION_ADDRESS = 3, LOCATION_LINE = 4 };
enum { LINE_FUNCTION = 1, LINE_NUMBER = 2 };
enum { FUNCTION_ID = 1, FUNCTION_NAME = 2, FUNCTION_SYSTEM_NAME = 3, FUNCTION_FILE = 4 };

/* Frame ids, innermost first, in pprof.location_frames. */
struct location {
	size_t first;
	uint32_t count;
};

VEC_DEFINE(location_vec, struct location)

struct function {
	uint32_t name, file; /* in the pool */
};

VEC_DEFINE(function_vec, struct function)

/* Ids in the file are indices + 1. */
struct mapping {
	struct profile_mapping
		range; /* without start and end: a module of which no range is known */
	bool used, has_functions, has_files, has_lines, has_inlined;
};

VEC_DEFINE(mapping_vec, struct mapping)

struct pprof {
	struct gzip gzip;
	struct string_pool strings;
	struct location_vec locations;
	struct profile_id_vec location_frames;
	struct hash_index location_index;
	struct function_vec functions;
	struct hash_index function_index;
	struct mapping_vec mappings; /* ranges by address, then modules */
	size_t range_count;
	struct protobuf message, inner, line; /* scratch */
};

/* ---- the stream ---- */

/* @inner as a field of the outermost message. */
static struct error *put_field(struct pprof *pprof, unsigned field, const struct protobuf *inner)
{
	struct protobuf *message = &pprof->message;

	protobuf_clear(message);
	protobuf_message(message, field, inner);
	if (message->failed)
		return &error_no_memory;
	gzip_write(&pprof->gzip, message->bytes, message->size);
	return NULL;
}

static struct error *put_string(struct pprof *pprof, const struct pooled_string *string)
{
	struct protobuf *message = &pprof->message;

	protobuf_clear(message);
	protobuf_bytes(message, PROFILE_STRING, string->text, string->length);
	if (message->failed)
		return &error_no_memory;
	gzip_write(&pprof->gzip, message->bytes, message->size);
	return NULL;
}

static struct error *put_number(struct pprof *pprof, unsigned field, uint64_t number)
{
	struct protobuf *message = &pprof->message;

	protobuf_clear(message);
	protobuf_number(message, field, number);
	if (message->failed)
		return &error_no_memory;
	gzip_write(&pprof->gzip, message->bytes, message->size);
	return NULL;
}

static struct error *string_id(struct pprof *pprof, const char *text, uint32_t *id_ret)
{
	cleanup(free) char *valid = text_utf8(text ? text : "");

	if (!valid)
		return &error_no_memory;
	return string_pool_add(&pprof->strings, valid, strlen(valid), id_ret);
}

static struct error *put_value_type(struct pprof *pprof, unsigned field,
				    const struct profile_value *value)
{
	uint32_t name, unit;
	struct error *error = string_id(pprof, value->name, &name);

	if (!error)
		error = string_id(pprof, value->unit, &unit);
	if (error)
		return error;
	protobuf_clear(&pprof->inner);
	protobuf_number(&pprof->inner, VALUE_TYPE, name);
	protobuf_number(&pprof->inner, VALUE_UNIT, unit);
	return put_field(pprof, field, &pprof->inner);
}

/* As Go's heap profiles order them; pprof's -inuse_space and -alloc_space go by the names. */
static const enum profile_column columns[] = {
	PROFILE_ALL_COUNT,	   PROFILE_ALL_BYTES,	      PROFILE_COUNT,	 PROFILE_BYTES,
	PROFILE_UNREACHABLE_COUNT, PROFILE_UNREACHABLE_BYTES, PROFILE_NET_BYTES,
};

#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

static struct error *pprof_begin(struct profile_writer *writer)
{
	struct pprof *pprof = writer->state;
	uint32_t empty;
	struct error *error = gzip_init(&pprof->gzip, writer->out);

	/* String 0 is the empty one. */
	if (!error)
		error = string_id(pprof, "", &empty);
	for (size_t i = 0; !error && i < COLUMN_COUNT; i++)
		if (profile_has(writer->profile, columns[i]))
			error = put_value_type(pprof, PROFILE_SAMPLE_TYPE,
					       &writer->profile->columns[columns[i]]);
	return error;
}

/* ---- samples ---- */

struct location_key {
	const struct pprof *pprof;
	const uint32_t *leaf; /* of frames that lie before it, root first */
	uint32_t count;
};

static bool same_location(const void *context, uint32_t id)
{
	const struct location_key *key = context;
	const struct location *location = &key->pprof->locations.data[id];
	const uint32_t *frames = key->pprof->location_frames.data + location->first;

	if (location->count != key->count)
		return false;
	for (uint32_t i = 0; i < key->count; i++)
		if (frames[i] != *(key->leaf - i))
			return false;
	return true;
}

/* The number of the location made of @count frames, the innermost of which is @leaf. */
static struct error *find_location(struct pprof *pprof, const uint32_t *leaf, uint32_t count,
				   uint32_t *id_ret)
{
	struct location_key key = { pprof, leaf, count };
	struct location location = { pprof->location_frames.size, count };
	uint64_t hash = HASH_SEED;
	struct error *error = NULL;
	uint32_t id;

	for (uint32_t i = 0; i < count; i++)
		hash = hash_word(hash, *(leaf - i));
	id = hash_index_find(&pprof->location_index, hash_fold(hash), same_location, &key);
	if (id == HASH_INDEX_NONE) {
		id = pprof->locations.size;
		for (uint32_t i = 0; !error && i < count; i++)
			error = profile_id_vec_append(&pprof->location_frames, leaf - i);
		if (!error)
			error = location_vec_append(&pprof->locations, &location);
		if (!error)
			error = hash_index_add(&pprof->location_index, hash_fold(hash), id);
	}
	if (!error)
		*id_ret = id + 1;
	return error;
}

static struct error *pprof_site(struct profile_writer *writer, const struct profile_site *site)
{
	const struct profile *profile = writer->profile;
	struct pprof *pprof = writer->state;
	size_t depth;
	const uint32_t *frames = profile_stack_frames(profile, site->stack, &depth);

	protobuf_clear(&pprof->line);
	while (depth) {
		uint32_t count = 1, id;
		struct error *error;

		while (count < depth && profile->frames.data[frames[depth - count]].inlined)
			count++;
		error = find_location(pprof, &frames[depth - 1], count, &id);
		if (error)
			return error;
		protobuf_varint(&pprof->line, id);
		depth -= count;
	}
	protobuf_clear(&pprof->inner);
	protobuf_message(&pprof->inner, SAMPLE_LOCATIONS, &pprof->line);
	protobuf_clear(&pprof->line);
	for (size_t i = 0; i < COLUMN_COUNT; i++)
		if (profile_has(profile, columns[i]))
			protobuf_varint(&pprof->line, site->values[columns[i]]);
	protobuf_message(&pprof->inner, SAMPLE_VALUES, &pprof->line);
	return put_field(pprof, PROFILE_SAMPLE, &pprof->inner);
}

/* ---- what samples refer to ---- */

static int compare_mappings(const void *left, const void *right)
{
	const struct mapping *a = left, *b = right;

	return a->range.start < b->range.start ? -1 : a->range.start > b->range.start;
}

static struct error *add_ranges(struct pprof *pprof, const struct profile *profile)
{
	struct error *error = NULL;

	vec_for_each (range, &profile->mappings) {
		struct mapping mapping = { .range = *range };

		if (!error)
			error = mapping_vec_append(&pprof->mappings, &mapping);
	}
	pprof->range_count = pprof->mappings.size;
	if (pprof->range_count)
		qsort(pprof->mappings.data, pprof->range_count, sizeof(struct mapping),
		      compare_mappings);
	return error;
}

/* NULL: @address is in no known range. */
static struct mapping *find_range(struct pprof *pprof, uint64_t address)
{
	size_t low = 0, high = pprof->range_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct mapping *mapping = &pprof->mappings.data[middle];

		if (address < mapping->range.start)
			high = middle;
		else if (address >= mapping->range.end)
			low = middle + 1;
		else
			return mapping;
	}
	return NULL;
}

/* The mapping of a frame as an id, 0 if it has none; one is made for a module without ranges. */
static struct error *find_mapping(struct pprof *pprof, const struct profile_frame *frame,
				  uint32_t *id_ret)
{
	struct mapping module = {
		.range = { .path = frame->module, .build_id = frame->build_id },
	};
	const struct mapping *found = find_range(pprof, frame->address);
	struct error *error;

	for (size_t i = pprof->range_count; !found && i < pprof->mappings.size; i++)
		if (pprof->mappings.data[i].range.path == frame->module)
			found = &pprof->mappings.data[i];
	if (found || !frame->module) {
		*id_ret = found ? found - pprof->mappings.data + 1 : 0;
		return NULL;
	}
	error = mapping_vec_append(&pprof->mappings, &module);
	if (!error)
		*id_ret = pprof->mappings.size;
	return error;
}

struct function_key {
	const struct pprof *pprof;
	const struct function *function;
};

static bool same_function(const void *context, uint32_t id)
{
	const struct function_key *key = context;
	const struct function *function = &key->pprof->functions.data[id];

	return function->name == key->function->name && function->file == key->function->file;
}

static struct error *find_function(struct pprof *pprof, const struct profile_frame *frame,
				   uint32_t *id_ret)
{
	char buffer[PROFILE_NAME_MAX];
	struct function function;
	struct function_key key = { pprof, &function };
	struct error *error = string_id(pprof, profile_frame_name(frame, buffer), &function.name);
	uint64_t hash;
	uint32_t id;

	if (!error)
		error = string_id(pprof, frame->file, &function.file);
	if (error)
		return error;
	hash = hash_word(hash_word(HASH_SEED, function.name), function.file);
	id = hash_index_find(&pprof->function_index, hash_fold(hash), same_function, &key);
	if (id == HASH_INDEX_NONE) {
		id = pprof->functions.size;
		error = function_vec_append(&pprof->functions, &function);
		if (!error)
			error = hash_index_add(&pprof->function_index, hash_fold(hash), id);
	}
	if (!error)
		*id_ret = id + 1;
	return error;
}

/*
 * A frame without a function gets the name that it has elsewhere, `[libx.so+0x1234]`: without a
 * line pprof would make one of all of a module, and speedscope would leave it out. A module that
 * has no functions at all is not said to have any: pprof may look itself then. Without a module
 * there is but an address, which pprof shows.
 */
static struct error *add_line(struct pprof *pprof, const struct profile_frame *frame,
			      struct mapping *mapping)
{
	uint32_t function;
	struct error *error;

	if (!frame->function && !frame->module)
		return NULL;
	error = find_function(pprof, frame, &function);
	if (error)
		return error;
	protobuf_clear(&pprof->line);
	protobuf_number(&pprof->line, LINE_FUNCTION, function);
	protobuf_number(&pprof->line, LINE_NUMBER, frame->line);
	protobuf_message(&pprof->inner, LOCATION_LINE, &pprof->line);
	if (mapping) {
		mapping->has_functions |= frame->function != NULL;
		mapping->has_files |= frame->file != NULL;
		mapping->has_lines |= frame->line != 0;
		mapping->has_inlined |= frame->inlined;
	}
	return NULL;
}

static struct error *put_location(struct pprof *pprof, const struct profile *profile, size_t index)
{
	const struct location *location = &pprof->locations.data[index];
	const uint32_t *frames = pprof->location_frames.data + location->first;
	const struct profile_frame *outer = &profile->frames.data[frames[location->count - 1]];
	struct mapping *mapping;
	uint32_t mapping_id;
	struct error *error = find_mapping(pprof, outer, &mapping_id);

	if (error)
		return error;
	mapping = mapping_id ? &pprof->mappings.data[mapping_id - 1] : NULL;
	if (mapping)
		mapping->used = true;
	protobuf_clear(&pprof->inner);
	protobuf_number(&pprof->inner, LOCATION_ID, index + 1);
	protobuf_number(&pprof->inner, LOCATION_MAPPING, mapping_id);
	protobuf_number(&pprof->inner, LOCATION_ADDRESS, outer->address);
	for (uint32_t i = 0; !error && i < location->count; i++)
		error = add_line(pprof, &profile->frames.data[frames[i]], mapping);
	return error ? error : put_field(pprof, PROFILE_LOCATION, &pprof->inner);
}

static struct error *put_function(struct pprof *pprof, size_t index)
{
	const struct function *function = &pprof->functions.data[index];

	protobuf_clear(&pprof->inner);
	protobuf_number(&pprof->inner, FUNCTION_ID, index + 1);
	protobuf_number(&pprof->inner, FUNCTION_NAME, function->name);
	protobuf_number(&pprof->inner, FUNCTION_SYSTEM_NAME, function->name);
	protobuf_number(&pprof->inner, FUNCTION_FILE, function->file);
	return put_field(pprof, PROFILE_FUNCTION, &pprof->inner);
}

static struct error *put_mapping(struct pprof *pprof, size_t index)
{
	const struct mapping *mapping = &pprof->mappings.data[index];
	struct protobuf *message = &pprof->inner;
	uint32_t path, build_id;
	struct error *error = string_id(pprof, mapping->range.path, &path);

	if (!error)
		error = string_id(pprof, mapping->range.build_id, &build_id);
	if (error)
		return error;
	protobuf_clear(message);
	protobuf_number(message, MAPPING_ID, index + 1);
	protobuf_number(message, MAPPING_START, mapping->range.start);
	protobuf_number(message, MAPPING_LIMIT, mapping->range.end);
	protobuf_number(message, MAPPING_OFFSET, mapping->range.offset);
	protobuf_number(message, MAPPING_FILE, path);
	protobuf_number(message, MAPPING_BUILD_ID, build_id);
	protobuf_number(message, MAPPING_HAS_FUNCTIONS, mapping->has_functions);
	protobuf_number(message, MAPPING_HAS_FILES, mapping->has_files);
	protobuf_number(message, MAPPING_HAS_LINES, mapping->has_lines);
	protobuf_number(message, MAPPING_HAS_INLINED, mapping->has_inlined);
	return put_field(pprof, PROFILE_MAPPING, message);
}

/* Those that are used; pprof takes the first one for the program's own. */
static struct error *put_mappings(struct pprof *pprof, const struct profile *profile)
{
	struct error *error = NULL;

	for (unsigned pass = 0; pass < 2; pass++) {
		for (size_t i = 0; !error && i < pprof->mappings.size; i++) {
			const struct mapping *mapping = &pprof->mappings.data[i];
			bool is_exe = profile->exe && mapping->range.path &&
				      !strcmp(mapping->range.path, profile->exe);

			if (mapping->used && is_exe == (pass == 0))
				error = put_mapping(pprof, i);
		}
	}
	return error;
}

static struct error *put_header(struct pprof *pprof, const struct profile *profile)
{
	const struct profile_value *weight = &profile->columns[profile->weight];
	const struct profile_value period = { "space", weight->unit };
	uint32_t preferred;
	struct error *error = string_id(pprof, weight->name, &preferred);

	if (!error)
		error = put_number(pprof, PROFILE_DEFAULT_SAMPLE_TYPE, preferred);
	if (!error)
		error = put_number(pprof, PROFILE_TIME_NANOS, profile->time_us * 1000);
	if (!error)
		error = put_number(pprof, PROFILE_DURATION_NANOS, profile->duration_us * 1000);
	if (!error && profile->period)
		error = put_value_type(pprof, PROFILE_PERIOD_TYPE, &period);
	return error ? error : put_number(pprof, PROFILE_PERIOD, profile->period);
}

static struct error *pprof_end(struct profile_writer *writer)
{
	struct pprof *pprof = writer->state;
	struct error *error = add_ranges(pprof, writer->profile);

	for (size_t i = 0; !error && i < pprof->locations.size; i++)
		error = put_location(pprof, writer->profile, i);
	for (size_t i = 0; !error && i < pprof->functions.size; i++)
		error = put_function(pprof, i);
	if (!error)
		error = put_mappings(pprof, writer->profile);
	if (!error)
		error = put_header(pprof, writer->profile);
	for (size_t i = 0; !error && i < pprof->strings.strings.size; i++)
		error = put_string(pprof, &pprof->strings.strings.data[i]);
	if (!error)
		gzip_finish(&pprof->gzip);
	return error;
}

static void pprof_deinit(struct profile_writer *writer)
{
	struct pprof *pprof = writer->state;

	gzip_deinit(&pprof->gzip);
	string_pool_deinit(&pprof->strings);
	location_vec_deinit(&pprof->locations);
	profile_id_vec_deinit(&pprof->location_frames);
	hash_index_deinit(&pprof->location_index);
	function_vec_deinit(&pprof->functions);
	hash_index_deinit(&pprof->function_index);
	mapping_vec_deinit(&pprof->mappings);
	protobuf_deinit(&pprof->message);
	protobuf_deinit(&pprof->inner);
	protobuf_deinit(&pprof->line);
}

const struct profile_format profile_format_pprof = {
	.name = "pprof",
	.ending = ".pb.gz",
	.what = "for `go tool pprof`",
	.binary = true,
	.state_size = sizeof(struct pprof),
	.begin = pprof_begin,
	.site = pprof_site,
	.end = pprof_end,
	.deinit = pprof_deinit,
};
