/*
 * Reads what pprof.c writes. Source of the fields' numbers and meanings: github.com/google/pprof,
 * proto/profile.proto. The bytes are hostile: every length is held against what is there, and what
 * is made of them is at most a small multiple of their size.
 */
#include "memprobe/pprof_read.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "memprobe/map64.h"
#include "memprobe/num.h"

#define INFLATED_MOST ((size_t)1 << 30)
#define TYPES_MOST    64
/* Frames for each byte of the file: locations have some functions, numbers of them some bytes. */
#define FRAMES_PER_BYTE 16

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum {
	PROFILE_SAMPLE_TYPE = 1,
	PROFILE_SAMPLE = 2,
	PROFILE_MAPPING = 3,
	PROFILE_LOCATION = 4,
	PROFILE_FUNCTION = 5,
	PROFILE_STRING = 6,
	PROFILE_PERIOD_TYPE = 11,
	PROFILE_COMMENT = 13,
	PROFILE_DEFAULT_SAMPLE_TYPE = 14,
	PROFILE_FIELDS_END = 16
};

/* ---- the wire ---- */

struct wire {
	const uint8_t *at, *end;
	bool bad;
};

/* One field: a number, or bytes. */
struct field {
	uint64_t number; /* of the field */
	unsigned type;
	uint64_t value;
	struct wire bytes;
};

static uint64_t take_varint(struct wire *wire)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64 && wire->at < wire->end; shift += 7) {
		uint8_t byte = *wire->at++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return value;
	}
	wire->bad = true;
	return 0;
}

static void skip(struct wire *wire, uint64_t size)
{
	if (size > (uint64_t)(wire->end - wire->at))
		wire->bad = true;
	else
		wire->at += size;
}

/* False at the end, and where it is broken. */
static bool take_field(struct wire *wire, struct field *ret)
{
	uint64_t tag;

	if (wire->bad || wire->at == wire->end)
		return false;
	tag = take_varint(wire);
	*ret = (struct field){ .number = tag >> 3, .type = tag & 7 };
	switch (ret->type) {
	case WIRE_VARINT:
		ret->value = take_varint(wire);
		break;
	case WIRE_64:
		skip(wire, 8);
		break;
	case WIRE_32:
		skip(wire, 4);
		break;
	case WIRE_BYTES:
		ret->value = take_varint(wire);
		ret->bytes.at = wire->at;
		skip(wire, ret->value);
		ret->bytes.end = wire->at;
		break;
	default:
		wire->bad = true;
	}
	return !wire->bad;
}

/* The next of a repeated number, which may be packed; @wire is of its field. */
static bool take_number(struct field *field, uint64_t *ret)
{
	if (field->type == WIRE_VARINT) {
		*ret = field->value;
		field->type = WIRE_BYTES;
		field->bytes = (struct wire){ 0 };
		return true;
	}
	if (field->type != WIRE_BYTES || field->bytes.bad || field->bytes.at == field->bytes.end)
		return false;
	*ret = take_varint(&field->bytes);
	return !field->bytes.bad;
}

/* ---- gzip ---- */

static bool is_gzip(const uint8_t *bytes, size_t size)
{
	return size > 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
}

/* At most @most bytes of what comes out; *whole_ret: that is all. The caller frees *ret. */
static struct error *inflate_bytes(const uint8_t *bytes, size_t size, size_t most, uint8_t **ret,
				   size_t *size_ret, bool *whole_ret)
{
	z_stream stream = { .next_in = (uint8_t *)bytes };
	size_t capacity = min_u64(most, 4 * (uint64_t)size + 4096), left = size;
	uint8_t *out = malloc(capacity), *more;
	int status = Z_OK;

	*whole_ret = false;
	*size_ret = 0;
	if (!out || inflateInit2(&stream, 15 + 32) != Z_OK) {
		free(out);
		return &error_no_memory;
	}
	while (status == Z_OK || (status == Z_STREAM_END && (left || stream.avail_in))) {
		uInt part = (uInt)min_u64(capacity - *size_ret, 1u << 30), room = part;

		if (!room && (capacity == most ||
			      !(more = realloc(out, min_u64(most, 2 * (uint64_t)capacity)))))
			break;
		if (!room) {
			out = more;
			capacity = min_u64(most, 2 * (uint64_t)capacity);
			continue;
		}
		if (!stream.avail_in) {
			stream.avail_in = (uInt)min_u64(left, 1u << 30);
			left -= stream.avail_in;
		}
		/* Several may follow each other. */
		if (status == Z_STREAM_END && inflateReset(&stream) != Z_OK)
			break;
		stream.next_out = out + *size_ret;
		stream.avail_out = room;
		status = inflate(&stream, Z_NO_FLUSH);
		*size_ret += room - stream.avail_out;
	}
	*whole_ret = status == Z_STREAM_END;
	inflateEnd(&stream);
	*ret = out;
	return NULL;
}

/* ---- what it is ---- */

static bool is_expected(const struct field *field)
{
	bool has_bytes = field->number <= PROFILE_STRING || field->number == PROFILE_PERIOD_TYPE;

	if (!field->number || field->number >= PROFILE_FIELDS_END)
		return false;
	if (field->number == PROFILE_COMMENT)
		return field->type == WIRE_BYTES || field->type == WIRE_VARINT;
	return field->type == (has_bytes ? WIRE_BYTES : WIRE_VARINT);
}

/* Fields that a profile has, and no others; what is cut off does not matter. */
static bool looks_like_profile(const uint8_t *bytes, size_t size, bool whole)
{
	struct wire wire = { bytes, bytes + size, false };
	struct field field;
	bool any = false;

	while (take_field(&wire, &field)) {
		if (!is_expected(&field))
			return false;
		any |= field.number == PROFILE_SAMPLE_TYPE || field.number == PROFILE_SAMPLE ||
		       field.number == PROFILE_STRING;
	}
	return any && !(whole && wire.bad);
}

#define LOOK 65536u

bool pprof_is(const void *bytes, size_t size)
{
	cleanup(free) uint8_t *inflated = NULL;
	size_t inflated_size;
	struct error *error;
	bool whole;

	if (!is_gzip(bytes, size))
		return looks_like_profile(bytes, size, true);
	error = inflate_bytes(bytes, size, LOOK, &inflated, &inflated_size, &whole);
	if (error) {
		error_destroy(error);
		return false;
	}
	return looks_like_profile(inflated, inflated_size, whole);
}

/* ---- what samples refer to ---- */

struct text {
	const char *text;
	size_t length;
};

VEC_DEFINE(text_vec, struct text)

struct function {
	uint64_t name, file; /* strings */
};

VEC_DEFINE(function_vec, struct function)

struct location {
	size_t first; /* in reader.ids, root first */
	uint32_t count;
};

VEC_DEFINE(location_vec, struct location)

struct value_type {
	uint64_t name, unit; /* strings */
	int column;	     /* -1: none */
};

struct reader {
	struct profile *profile;
	struct text_vec strings;
	struct function_vec functions;
	struct profile_mapping_vec mappings;
	struct location_vec locations;
	struct map64 function_ids, mapping_ids, location_ids; /* to indices */
	struct profile_id_vec ids;			      /* of frames of locations */
	struct profile_id_vec stack;
	struct value_type types[TYPES_MOST];
	size_t type_count;
	uint64_t default_type;
	uint64_t frames_left;
	size_t left_out;
};

static void reader_deinit(struct reader *reader)
{
	text_vec_deinit(&reader->strings);
	function_vec_deinit(&reader->functions);
	profile_mapping_vec_deinit(&reader->mappings);
	location_vec_deinit(&reader->locations);
	map64_deinit(&reader->function_ids);
	map64_deinit(&reader->mapping_ids);
	map64_deinit(&reader->location_ids);
	profile_id_vec_deinit(&reader->ids);
	profile_id_vec_deinit(&reader->stack);
}

/* NULL for string 0, and for one that is not there. */
static struct error *text_of(const struct reader *reader, uint64_t index, const char **ret)
{
	*ret = NULL;
	if (!index || index >= reader->strings.size || !reader->strings.data[index].length)
		return NULL;
	return profile_intern_bytes(reader->profile, reader->strings.data[index].text,
				    reader->strings.data[index].length, ret);
}

/* The numbers of a message's fields below @count, by field; false: it is broken. */
static bool take_numbers(struct wire wire, uint64_t *numbers, size_t count)
{
	struct field field;

	memset(numbers, 0, count * sizeof(*numbers));
	while (take_field(&wire, &field))
		if (field.number < count && field.type == WIRE_VARINT)
			numbers[field.number] = field.value;
	return !wire.bad;
}

static struct error *broken(void)
{
	return error_create(ERROR_FAILED, "the pprof profile is broken");
}

/* Id 0 stands for none. */
static struct error *note_id(struct map64 *ids, uint64_t id, uint64_t index)
{
	return id && id != MAP64_NONE ? map64_put(ids, id, index) : NULL;
}

static struct error *add_function(struct reader *reader, struct wire wire)
{
	uint64_t numbers[5];
	struct function function;
	struct error *error;

	if (!take_numbers(wire, numbers, 5))
		return broken();
	function = (struct function){ numbers[2] ? numbers[2] : numbers[3], numbers[4] };
	error = function_vec_append(&reader->functions, &function);
	return error ? error
		     : note_id(&reader->function_ids, numbers[1], reader->functions.size - 1);
}

static struct error *add_mapping(struct reader *reader, struct wire wire)
{
	uint64_t numbers[7];
	struct profile_mapping mapping;
	struct error *error;

	if (!take_numbers(wire, numbers, 7))
		return broken();
	mapping = (struct profile_mapping){
		.start = numbers[2],
		.end = numbers[3],
		.offset = numbers[4],
	};
	error = text_of(reader, numbers[5], &mapping.path);
	if (!error)
		error = text_of(reader, numbers[6], &mapping.build_id);
	if (!error)
		error = profile_mapping_vec_append(&reader->mappings, &mapping);
	if (!error && mapping.path && mapping.start < mapping.end)
		error = profile_add_mapping(reader->profile, &mapping);
	return error ? error : note_id(&reader->mapping_ids, numbers[1], reader->mappings.size - 1);
}

static struct error *add_frame(struct reader *reader, struct profile_frame frame,
			       uint64_t function_id, uint64_t line)
{
	uint64_t index = map64_get(&reader->function_ids, function_id);
	struct error *error = NULL;
	uint32_t id;

	frame.line = line <= INT32_MAX ? (unsigned)line : 0;
	if (index != MAP64_NONE) {
		error = text_of(reader, reader->functions.data[index].name, &frame.function);
		if (!error)
			error = text_of(reader, reader->functions.data[index].file, &frame.file);
	}
	if (!error)
		error = profile_add_frame(reader->profile, &frame, &id);
	return error ? error : profile_id_vec_append(&reader->ids, &id);
}

static size_t count_fields(struct wire wire, unsigned number)
{
	struct field field;
	size_t count = 0;

	while (take_field(&wire, &field))
		count += field.number == number && field.type == WIRE_BYTES;
	return count;
}

/* Lines have the innermost function first; the profile wants the root first. */
static struct error *add_lines(struct reader *reader, struct wire wire, struct profile_frame *frame,
			       struct location *location)
{
	size_t first = reader->ids.size, count = 0, lines = count_fields(wire, 4);
	struct error *error = NULL;
	struct field field;

	while (!error && take_field(&wire, &field)) {
		uint64_t numbers[3];

		if (field.number != 4 || field.type != WIRE_BYTES)
			continue;
		if (!take_numbers(field.bytes, numbers, 3))
			return broken();
		frame->inlined = ++count < lines;
		error = add_frame(reader, *frame, numbers[1], numbers[2]);
	}
	if (!error && !count) {
		error = add_frame(reader, *frame, MAP64_NONE, 0);
		count = 1;
	}
	if (error)
		return error;
	for (size_t i = 0; i < count / 2; i++) {
		uint32_t id = reader->ids.data[first + i];

		reader->ids.data[first + i] = reader->ids.data[first + count - 1 - i];
		reader->ids.data[first + count - 1 - i] = id;
	}
	*location = (struct location){ first, (uint32_t)count };
	return NULL;
}

static struct error *add_location(struct reader *reader, struct wire wire)
{
	uint64_t numbers[4], index;
	struct profile_frame frame = { 0 };
	struct location location;
	struct error *error;

	if (!take_numbers(wire, numbers, 4))
		return broken();
	frame.address = numbers[3];
	index = map64_get(&reader->mapping_ids, numbers[2]);
	if (index != MAP64_NONE) {
		const struct profile_mapping *mapping = &reader->mappings.data[index];

		frame.module = mapping->path;
		frame.build_id = mapping->build_id;
		frame.offset = frame.address - mapping->start + mapping->offset;
	}
	error = add_lines(reader, wire, &frame, &location);
	if (!error)
		error = location_vec_append(&reader->locations, &location);
	return error ? error
		     : note_id(&reader->location_ids, numbers[1], reader->locations.size - 1);
}

/* ---- columns ---- */

static const struct {
	const char *name;
	enum profile_column column;
} known_types[] = {
	{ "inuse_objects", PROFILE_COUNT },
	{ "inuse_space", PROFILE_BYTES },
	{ "alloc_objects", PROFILE_ALL_COUNT },
	{ "alloc_space", PROFILE_ALL_BYTES },
	{ "unreachable_objects", PROFILE_UNREACHABLE_COUNT },
	{ "unreachable_space", PROFILE_UNREACHABLE_BYTES },
	{ "mapped_space", PROFILE_NET_BYTES },
};

static bool is_text(const struct reader *reader, uint64_t index, const char *text)
{
	return index < reader->strings.size && reader->strings.data[index].length == strlen(text) &&
	       !memcmp(reader->strings.data[index].text, text, strlen(text));
}

static struct value_type *type_of(struct reader *reader, enum profile_column column)
{
	for (size_t i = 0; i < reader->type_count; i++)
		if (reader->types[i].column == (int)column)
			return &reader->types[i];
	return NULL;
}

/* What nothing is known of: the one that the file says is shown first, and its count. */
static void choose_unknown(struct reader *reader)
{
	struct value_type *weight = &reader->types[reader->type_count - 1];

	for (size_t i = 0; i < reader->type_count; i++)
		if (reader->default_type && reader->types[i].name == reader->default_type)
			weight = &reader->types[i];
	weight->column = PROFILE_BYTES;
	for (size_t i = 0; i < reader->type_count && !type_of(reader, PROFILE_COUNT); i++)
		if (&reader->types[i] != weight && is_text(reader, reader->types[i].unit, "count"))
			reader->types[i].column = PROFILE_COUNT;
}

static struct error *set_columns(struct reader *reader)
{
	struct error *error = NULL;

	if (!reader->type_count)
		return broken();
	for (size_t i = 0; i < reader->type_count; i++)
		for (size_t k = 0; k < sizeof(known_types) / sizeof(known_types[0]); k++)
			if (is_text(reader, reader->types[i].name, known_types[k].name) &&
			    !type_of(reader, known_types[k].column))
				reader->types[i].column = (int)known_types[k].column;
	if (!type_of(reader, PROFILE_BYTES))
		choose_unknown(reader);
	for (unsigned column = 0; !error && column < PROFILE_COLUMNS; column++) {
		const struct value_type *type = type_of(reader, column);
		const char *name = NULL, *unit = NULL;

		if (type)
			error = text_of(reader, type->name, &name);
		if (!error && type)
			error = text_of(reader, type->unit, &unit);
		if (!error)
			error = profile_set_column(reader->profile, column,
						   type ? (name ? name : "value") : NULL,
						   type ? (unit ? unit : "count") : NULL);
	}
	return error;
}

/* ---- samples ---- */

/* Locations come leaf first; false: one is not there. */
static bool take_stack(struct reader *reader, struct field field, struct error **error)
{
	uint64_t id;

	while (!*error && take_number(&field, &id)) {
		uint64_t index = map64_get(&reader->location_ids, id);
		const struct location *location;

		if (index == MAP64_NONE)
			return false;
		location = &reader->locations.data[index];
		if (location->count > reader->frames_left)
			*error = error_create(ERROR_FAILED, "the pprof profile is too large");
		else
			reader->frames_left -= location->count;
		for (uint32_t i = location->count; !*error && i-- > 0;)
			*error = profile_id_vec_append(&reader->stack,
						       &reader->ids.data[location->first + i]);
	}
	return !field.bytes.bad;
}

static void turn_around(struct profile_id_vec *ids)
{
	for (size_t i = 0; i < ids->size / 2; i++) {
		uint32_t id = ids->data[i];

		ids->data[i] = ids->data[ids->size - 1 - i];
		ids->data[ids->size - 1 - i] = id;
	}
}

static struct error *add_sample(struct reader *reader, struct wire wire)
{
	int64_t values[PROFILE_COLUMNS] = { 0 };
	struct error *error = NULL;
	bool good = true;
	struct field field;
	size_t at = 0;
	uint64_t number;
	uint32_t stack;

	reader->stack.size = 0;
	while (!error && good && take_field(&wire, &field)) {
		if (field.number == 1)
			good = take_stack(reader, field, &error);
		if (field.number != 2)
			continue;
		while (take_number(&field, &number)) {
			if (at < reader->type_count && reader->types[at].column >= 0)
				values[reader->types[at].column] = (int64_t)number;
			at++;
		}
		good &= !field.bytes.bad;
	}
	if (error)
		return error;
	if (!good || wire.bad) {
		reader->left_out++;
		return NULL;
	}
	turn_around(&reader->stack);
	error = profile_add_stack(reader->profile, reader->stack.data, reader->stack.size, &stack);
	return error ? error : profile_add_site(reader->profile, stack, values);
}

/* ---- the file ---- */

typedef struct error *adder(struct reader *reader, struct wire wire);

static struct error *add_string(struct reader *reader, struct wire wire)
{
	const struct text text = { (const char *)wire.at, (size_t)(wire.end - wire.at) };

	return text_vec_append(&reader->strings, &text);
}

static struct error *add_type(struct reader *reader, struct wire wire)
{
	uint64_t numbers[3];

	if (!take_numbers(wire, numbers, 3) || reader->type_count == TYPES_MOST)
		return broken();
	reader->types[reader->type_count++] = (struct value_type){ numbers[1], numbers[2], -1 };
	return NULL;
}

/* All fields of that number: what they refer to may stand anywhere, and has been read before. */
static struct error *read_fields(struct reader *reader, struct wire wire, unsigned number,
				 adder *add)
{
	struct error *error = NULL;
	struct field field;

	while (!error && take_field(&wire, &field)) {
		if (field.number == PROFILE_DEFAULT_SAMPLE_TYPE && field.type == WIRE_VARINT)
			reader->default_type = field.value;
		if (field.number == number && field.type == WIRE_BYTES)
			error = add(reader, field.bytes);
	}
	return !error && wire.bad ? broken() : error;
}

static struct error *read_plain(const uint8_t *bytes, size_t size, struct reader *reader)
{
	const struct wire wire = { bytes, bytes + size, false };
	struct error *error = read_fields(reader, wire, PROFILE_STRING, add_string);

	reader->frames_left = FRAMES_PER_BYTE * (uint64_t)size;
	if (!error)
		error = read_fields(reader, wire, PROFILE_SAMPLE_TYPE, add_type);
	if (!error)
		error = set_columns(reader);
	if (!error)
		error = read_fields(reader, wire, PROFILE_MAPPING, add_mapping);
	if (!error)
		error = read_fields(reader, wire, PROFILE_FUNCTION, add_function);
	if (!error)
		error = read_fields(reader, wire, PROFILE_LOCATION, add_location);
	return error ? error : read_fields(reader, wire, PROFILE_SAMPLE, add_sample);
}

struct error *pprof_read(const void *bytes, size_t size, struct profile *profile,
			 size_t *left_out_ret)
{
	struct reader reader = { .profile = profile };
	cleanup(free) uint8_t *inflated = NULL;
	struct error *error = NULL;
	bool whole = true;

	if (is_gzip(bytes, size)) {
		error = inflate_bytes(bytes, size, INFLATED_MOST, &inflated, &size, &whole);
		bytes = inflated;
	}
	if (!error && !whole)
		error = error_create(ERROR_FAILED, "the compressed pprof profile is %s",
				     size == INFLATED_MOST ? "larger than 1G" : "broken or cut");
	if (!error)
		error = read_plain(bytes, size, &reader);
	reader_deinit(&reader);
	if (!error)
		*left_out_ret = reader.left_out;
	return error;
}
