/* A small profile, compressed and not, for fuzz_pprof, into the directory that is given. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "memprobe/profile_format.h"

static struct error *fill(struct profile *profile)
{
	const struct profile_frame frames[] = {
		{ .function = "main", .module = "/a", .file = "a.c", .line = 3, .address = 0x40 },
		{ .function = "f", .module = "/a", .address = 0x44, .inlined = true },
		{ .module = "/l.so", .address = 0x7f0010, .offset = 0x10 },
	};
	const int64_t values[PROFILE_COLUMNS] = { 1, 300 };
	uint32_t ids[3], stack;
	struct error *error =
		profile_set_column(profile, PROFILE_ALL_BYTES, "alloc_space", "bytes");

	for (size_t i = 0; !error && i < 3; i++)
		error = profile_add_frame(profile, &frames[i], &ids[i]);
	if (!error)
		error = profile_add_stack(profile, ids, 3, &stack);
	return error ? error : profile_add_site(profile, stack, values);
}

static int write_file(const char *folder, const char *name, const void *bytes, size_t size)
{
	char path[4096];
	FILE *out;

	snprintf(path, sizeof(path), "%s/seed-%s", folder, name);
	out = fopen(path, "w");
	return !out || fwrite(bytes, 1, size, out) != size || fclose(out);
}

int main(int argc, char **argv)
{
	static const struct profile_options options = { .min_width = -1 };
	struct profile *profile = NULL;
	unsigned char plain[4096];
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int failed;
	z_stream stream = { .next_out = plain, .avail_out = sizeof(plain) };

	if (argc != 2 || profile_create(&profile) || fill(profile) ||
	    profile_write(profile, profile_format_by_name("pprof"), &options, out) || fclose(out))
		return 1;
	stream.next_in = (Bytef *)text;
	stream.avail_in = (uInt)size;
	if (inflateInit2(&stream, 15 + 16) != Z_OK || inflate(&stream, Z_FINISH) != Z_STREAM_END)
		return 1;
	failed = write_file(argv[1], "gzip", text, size) ||
		 write_file(argv[1], "plain", plain, sizeof(plain) - stream.avail_out);
	inflateEnd(&stream);
	profile_destroy(profile);
	free(text);
	return failed;
}
