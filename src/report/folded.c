/*
 * Folded stacks: a line for each site, `root;caller;leaf BYTES`, as flamegraph.pl and speedscope
 * read them. Kernel frames end with `_[k]`, which flamegraph.pl colours.
 */
#include <inttypes.h>
#include <string.h>

#include "memprobe/log.h"
#include "memprobe/profile_format.h"

struct folded {
	size_t left_out;
};

/* Without what would end the frame or the line. */
static void put_name(FILE *out, const char *name)
{
	for (; *name; name++) {
		unsigned char byte = *name;

		if (byte == ';' || byte < 0x20 || byte == 0x7f)
			fprintf(out, "\\x%02x", byte);
		else
			putc_unlocked(byte, out);
	}
}

static struct error *folded_site(struct profile_writer *writer, const struct profile_site *site)
{
	const struct profile *profile = writer->profile;
	struct folded *folded = writer->state;
	char buffer[PROFILE_NAME_MAX];
	size_t depth;
	const uint32_t *frames = profile_stack_frames(profile, site->stack, &depth);

	if (site->values[profile->weight] <= 0) {
		folded->left_out += site->values[profile->weight] < 0;
		return NULL;
	}
	if (!depth)
		fputs("[no stack]", writer->out);
	for (size_t i = 0; i < depth; i++) {
		const struct profile_frame *frame = &profile->frames.data[frames[i]];

		if (i)
			putc_unlocked(';', writer->out);
		put_name(writer->out, profile_frame_name(frame, buffer));
		if (frame->kernel)
			fputs("_[k]", writer->out);
	}
	fprintf(writer->out, " %" PRId64 "\n", site->values[profile->weight]);
	return NULL;
}

static struct error *folded_end(struct profile_writer *writer)
{
	const struct folded *folded = writer->state;

	if (folded->left_out)
		log_warn("%zu stacks below zero are left out: folded stacks cannot hold them",
			 folded->left_out);
	return NULL;
}

const struct profile_format profile_format_folded = {
	.name = "folded",
	.ending = ".folded",
	.what = "folded stacks",
	.state_size = sizeof(struct folded),
	.site = folded_site,
	.end = folded_end,
};
