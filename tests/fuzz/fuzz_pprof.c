/* libFuzzer: any bytes as a profile of pprof; what comes out of it as one and folded. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "memprobe/pprof_read.h"
#include "memprobe/profile_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const struct profile_options options = { .min_width = -1 };
	struct profile *profile;
	struct error *error = profile_create(&profile);
	size_t left_out;

	if (error)
		abort();
	pprof_is(bytes, size);
	error = pprof_read(bytes, size, profile, &left_out);
	for (const struct profile_format *const *format = profile_formats; !error && *format;
	     format++) {
		char *text = NULL;
		size_t length;
		FILE *out = open_memstream(&text, &length);

		error_destroy(profile_write(profile, *format, &options, out));
		fclose(out);
		free(text);
	}
	error_destroy(error);
	profile_destroy(profile);
	return 0;
}
