#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "profiles.h"

#define DEPTH_MOST 32

struct profile *profiles_new(void)
{
	struct profile *profile;

	assert_null(profile_create(&profile));
	return profile;
}

void profiles_add(struct profile *profile, const char *stack, int64_t count, int64_t bytes)
{
	const int64_t values[PROFILE_COLUMNS] = {
		[PROFILE_COUNT] = count,
		[PROFILE_BYTES] = bytes,
	};
	uint32_t frames[DEPTH_MOST], id;
	size_t depth = 0;

	while (*stack) {
		size_t length = strcspn(stack, ";");

		assert_true(depth < DEPTH_MOST);
		assert_null(profile_add_label(profile, stack, length, &frames[depth++]));
		stack += length + (stack[length] == ';');
	}
	assert_null(profile_add_stack(profile, frames, depth, &id));
	assert_null(profile_add_site(profile, id, values));
}

char *profiles_written(const struct profile *profile, const char *format,
		       const struct profile_options *options, size_t *size_ret)
{
	static const struct profile_options none = { .min_width = -1 };
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_null(profile_write(profile, profile_format_by_name(format),
				  options ? options : &none, out));
	fclose(out);
	if (size_ret)
		*size_ret = size;
	return text;
}
