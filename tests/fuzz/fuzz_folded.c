/*
 * libFuzzer: any bytes as what `memprobe flame` reads; what comes out of it in every format, and
 * out of its comparison with a part of it.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "memprobe/profile_format.h"
#include "memprobe/sites_json.h"
#include "memprobe/sites_table.h"
#include "memprobe/stack_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static struct error *read_input(const uint8_t *bytes, size_t size, struct profile *profile)
{
	struct stack_text_result result;
	struct error *error;
	json_t *document;
	size_t left_out;

	if (!size || bytes[0] != '{')
		return stack_text_read((const char *)bytes, size, profile, &result);
	document = json_loadb((const char *)bytes, size, 0, NULL);
	error = document ? sites_json_read(document, profile, &left_out) : NULL;
	json_decref(document);
	return error;
}

static void write_all_formats(const struct profile *profile, const struct profile_options *options)
{
	static const struct sites_table_options table = { .style.width = 80 };

	for (const struct profile_format *const *format = profile_formats; *format; format++) {
		char *text = NULL;
		size_t size;
		FILE *out = open_memstream(&text, &size);

		error_destroy(profile_write(profile, *format, options, out));
		if (options->reverse)
			error_destroy(sites_table_print(profile, &table, out));
		fclose(out);
		free(text);
	}
}

/* As if its first half had been recorded before. */
static struct error *compare(struct profile *profile, const uint8_t *bytes, size_t size)
{
	struct profile *old;
	struct error *error = profile_create(&old);

	if (error)
		abort();
	error = read_input(bytes, size / 2, old);
	if (!error)
		error = profile_compare(profile, old);
	profile_destroy(old);
	return error;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const struct profile_options options[] = {
		{ .min_width = -1, .title = "fuzz" },
		{ .min_width = 0.5, .reverse = true, .inverted = true },
	};
	struct profile *profile;
	struct error *error = profile_create(&profile);

	if (error)
		abort();
	error = read_input(bytes, size, profile);
	if (!error) {
		profile_sort(profile);
		write_all_formats(profile, &options[0]);
		error = compare(profile, bytes, size);
		write_all_formats(profile, &options[1]);
	}
	error_destroy(error);
	profile_destroy(profile);
	return 0;
}
