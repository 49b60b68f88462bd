#include "memprobe/cmd.h"

#include <string.h>

#include "memprobe/classify.h"
#include "memprobe/num.h"

static struct error *unknown_range(const char *text)
{
	char types[160] = "";
	size_t length = 0;

	for (enum mapping_type type = 0; type < MAPPING_TYPES; type++)
		length += snprintf(types + length, sizeof(types) - length, " %s",
				   mapping_type_name(type));
	return error_hint(
		error_create(ERROR_USAGE, "'%s' is neither an address nor a type of mapping", text),
		"write START END, START-END, START+SIZE, or one of:%s", types);
}

static struct error *no_such_mapping(const struct target *target, enum mapping_type type,
				     const bool has[MAPPING_TYPES])
{
	char types[160] = "";
	size_t length = 0;

	for (enum mapping_type other = 0; other < MAPPING_TYPES; other++)
		if (has[other])
			length += snprintf(types + length, sizeof(types) - length, " %s",
					   mapping_type_name(other));
	return error_hint(error_create(ERROR_FAILED, "%s has no mapping of type %s", target->name,
				       mapping_type_name(type)),
			  "it has:%s", types);
}

/* Neighbours become one range. */
static struct error *ranges_of_type(struct target *target, enum mapping_type type,
				    struct range_vec *ret)
{
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_classified(target, MAPS_PLAIN, &maps);
	bool has[MAPPING_TYPES] = { false };

	vec_for_each (mapping, &maps) {
		struct range range = { mapping->start, mapping->end };

		has[mapping->type] = true;
		if (error || mapping->type != type)
			continue;
		if (ret->size && ret->data[ret->size - 1].end == range.start)
			ret->data[ret->size - 1].end = range.end;
		else
			error = range_vec_append(ret, &range);
	}
	mappings_deinit(&maps);
	if (!error && !ret->size)
		error = no_such_mapping(target, type, has);
	return error;
}

static struct error *start_and_size(const char *text, const char *plus, struct range *ret)
{
	cleanup(free) char *start = strndup(text, plus - text);
	struct error *error;
	uint64_t size;

	if (!start)
		return &error_no_memory;
	error = parse_address(start, &ret->start);
	if (!error)
		error = parse_size(plus + 1, &size);
	if (error)
		return error;
	if (__builtin_add_overflow(ret->start, size, &ret->end))
		return error_create(ERROR_USAGE, "range '%s' goes beyond the address space", text);
	return NULL;
}

/* `START END` or `START-END`: cuts @text in two; NULL: it is neither. */
static char *cut_in_two(char *text)
{
	size_t start = strspn(text, "0123456789abcdefABCDEFxX");

	if (!start || !text[start] || !strchr("- ", text[start]))
		return NULL;
	text[start] = '\0';
	text += start + 1;
	return text + strspn(text, " ");
}

static struct error *readable_ranges(const struct mapping_vec *maps, struct range_vec *ret)
{
	struct error *error = NULL;

	vec_for_each (mapping, maps) {
		bool of_kernel =
			!strncmp(mapping->path, "[vvar", 5) || !strcmp(mapping->path, "[vsyscall]");

		if (!error && (mapping->perms & PERM_READ) && !of_kernel)
			error = ranges_add(ret, mapping->start, mapping->end);
	}
	return error;
}

struct error *command_parse_where(struct command_context *context, const char *text,
				  const struct mapping_vec *maps, struct range_vec *ret)
{
	cleanup(free) char *copy = text ? strdup(text) : NULL;
	struct error *error = NULL;

	if (!text)
		return readable_ranges(maps, ret);
	if (!copy)
		return &error_no_memory;
	for (char *rest = copy, *part; !error && (part = strsep(&rest, ","));) {
		char *words[2] = { part, cut_in_two(part) };
		struct command_context one = *context;
		int used;

		one.arguments = words;
		one.argument_count = words[1] ? 2 : 1;
		error = command_parse_ranges(&one, 0, &used, ret);
	}
	if (!error)
		ranges_normalise(ret);
	return error;
}

struct error *command_parse_ranges(struct command_context *context, int first, int *used_ret,
				   struct range_vec *ret)
{
	int left = context->argument_count - first;
	const char *text = context->arguments[first];
	const char *plus = left > 0 ? strchr(text, '+') : NULL, *end;
	cleanup(free) char *copy = NULL;
	struct range range;
	enum mapping_type type;
	struct error *error;

	if (left <= 0)
		return error_create(ERROR_USAGE, "no range");
	if (mapping_type_parse(text, &type)) {
		*used_ret = 1;
		return ranges_of_type(context->target, type, ret);
	}
	copy = strdup(text);
	if (!copy)
		return &error_no_memory;
	end = plus ? NULL : cut_in_two(copy);
	*used_ret = plus || end ? 1 : 2;
	if (!end && left > 1)
		end = context->arguments[first + 1];
	if (plus) {
		error = start_and_size(text, plus, &range);
	} else {
		error = parse_address(copy, &range.start);
		if (error) {
			error_destroy(error);
			return unknown_range(text);
		}
		if (!end)
			return error_hint(error_create(ERROR_USAGE, "range '%s' has no end", text),
					  "write START END, START-END, or START+SIZE");
		error = parse_address(end, &range.end);
	}
	if (error)
		return error;
	if (range.end <= range.start)
		return error_create(ERROR_USAGE, "range 0x%llx 0x%llx is %s",
				    (unsigned long long)range.start, (unsigned long long)range.end,
				    range.end == range.start ? "empty" : "reversed");
	return range_vec_append(ret, &range);
}
