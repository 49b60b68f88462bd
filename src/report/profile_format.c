#include "memprobe/profile_format.h"

#include <stdlib.h>
#include <string.h>

extern const struct profile_format profile_format_folded;
extern const struct profile_format profile_format_svg;
extern const struct profile_format profile_format_pprof;

const struct profile_format *const profile_formats[] = {
	&profile_format_folded,
	&profile_format_svg,
	&profile_format_pprof,
	NULL,
};

const struct profile_format *profile_format_by_name(const char *name)
{
	for (const struct profile_format *const *format = profile_formats; *format; format++)
		if (!strcmp((*format)->name, name))
			return *format;
	return NULL;
}

const struct profile_format *profile_format_by_ending(const char *path)
{
	size_t length = strlen(path);

	for (const struct profile_format *const *format = profile_formats; *format; format++) {
		size_t ending = strlen((*format)->ending);

		if (length > ending && !strcmp(path + length - ending, (*format)->ending))
			return *format;
	}
	return NULL;
}

struct error *profile_write(const struct profile *profile, const struct profile_format *format,
			    const struct profile_options *options, FILE *out)
{
	struct profile_writer writer = { profile, options, out, NULL };
	struct error *error = NULL;

	if (format->state_size) {
		writer.state = calloc(1, format->state_size);
		if (!writer.state)
			return &error_no_memory;
	}
	if (format->begin)
		error = format->begin(&writer);
	for (size_t i = 0; !error && format->site && i < profile->sites.size; i++)
		error = format->site(&writer, &profile->sites.data[i]);
	if (!error && format->end)
		error = format->end(&writer);
	if (format->deinit)
		format->deinit(&writer);
	free(writer.state);
	return error;
}
