#include "flamegraph_color.h"

#include <math.h>
#include <string.h>

/* Shades by name, then those with a meaning. */
enum { SHADES = 14, SHADE_UNKNOWN = SHADES, SHADE_KERNEL, SHADE_ROOT, SHADE_COUNT };

/* Shades of growth: the middle one is no change. */
#define CHANGES 21

/* Hue in degrees, saturation and lightness in percent, from the first shade to the last. */
static const struct palette {
	double hue[2], saturation[2], lightness[2];
} palettes[] = {
	[FLAME_COLOR_MEM] = { { 128, 178 }, { 46, 40 }, { 70, 62 } },
	[FLAME_COLOR_HOT] = { { 8, 50 }, { 88, 90 }, { 67, 62 } },
	[FLAME_COLOR_BLUE] = { { 196, 232 }, { 62, 66 }, { 70, 72 } },
	[FLAME_COLOR_IO] = { { 206, 248 }, { 48, 58 }, { 74, 68 } },
	[FLAME_COLOR_RED] = { { 350, 372 }, { 76, 84 }, { 70, 64 } },
	[FLAME_COLOR_GREEN] = { { 98, 142 }, { 48, 54 }, { 68, 60 } },
	[FLAME_COLOR_AQUA] = { { 166, 196 }, { 48, 54 }, { 68, 60 } },
	[FLAME_COLOR_YELLOW] = { { 46, 62 }, { 72, 80 }, { 66, 58 } },
	[FLAME_COLOR_PURPLE] = { { 268, 304 }, { 50, 58 }, { 74, 68 } },
	[FLAME_COLOR_ORANGE] = { { 22, 42 }, { 82, 90 }, { 66, 60 } },
	[FLAME_COLOR_REACH] = { { 128, 178 }, { 46, 40 }, { 74, 66 } },
};

static int64_t change_of(const struct flame_node *node)
{
	return node->sums[FLAME_VALUE] - node->sums[FLAME_OLD]; /* neither is negative */
}

struct flame_scheme flame_scheme_choose(const struct flame_tree *tree, enum flame_color color)
{
	const struct profile *profile = tree->profile;
	const char *unit = profile->columns[profile->weight].unit;
	struct flame_scheme scheme = { .color = color };

	if (color == FLAME_COLOR_AUTO) {
		if (profile_has(profile, PROFILE_OLD_BYTES))
			scheme.color = FLAME_COLOR_DIFF;
		else if (profile_has(profile, PROFILE_UNREACHABLE_BYTES))
			scheme.color = FLAME_COLOR_REACH;
		else if (unit && !strcmp(unit, "bytes"))
			scheme.color = FLAME_COLOR_MEM;
		else
			scheme.color = FLAME_COLOR_HOT;
	}
	vec_for_each (id, &tree->drawn) {
		int64_t change = change_of(&tree->nodes.data[*id]);

		change = change < 0 ? -change : change;
		if (change > scheme.largest_change)
			scheme.largest_change = change;
	}
	return scheme;
}

/* One of red, green, blue (@channel 0, 8, 4) of a colour, 0...255. Source: CSS Color 4, 7.1. */
static unsigned channel(double hue, double saturation, double lightness, double channel)
{
	double k = fmod(channel + hue / 30, 12);
	double a = saturation * fmin(lightness, 1 - lightness);

	return (unsigned)lround(255 * (lightness - a * fmax(-1, fmin(fmin(k - 3, 9 - k), 1))));
}

static void put_rule(FILE *out, unsigned shade, double hue, double saturation, double lightness)
{
	fprintf(out, ".c%u{fill:#%02x%02x%02x}\n", shade,
		channel(hue, saturation / 100, lightness / 100, 0),
		channel(hue, saturation / 100, lightness / 100, 8),
		channel(hue, saturation / 100, lightness / 100, 4));
}

static double between(const double ends[2], double part)
{
	return ends[0] + (ends[1] - ends[0]) * part;
}

void flame_scheme_write_css(const struct flame_scheme *scheme, FILE *out)
{
	const struct palette *palette = &palettes[scheme->color];

	if (scheme->color == FLAME_COLOR_DIFF) {
		for (unsigned i = 0; i < CHANGES; i++) {
			double change = (double)i / (CHANGES - 1) * 2 - 1;

			put_rule(out, i, change < 0 ? 212 : 4, change ? 78 : 0,
				 93 - 33 * fabs(change));
		}
		return;
	}
	for (unsigned i = 0; i < SHADES; i++) {
		double part = (double)i / (SHADES - 1);

		/* Saturation and lightness alternate, so that neighbours differ in more than hue.
		 */
		put_rule(out, i, between(palette->hue, part),
			 between(palette->saturation, i % 3 / 2.0),
			 between(palette->lightness, i % 4 / 3.0));
	}
	put_rule(out, SHADE_UNKNOWN, 220, 10, 80);
	put_rule(out, SHADE_KERNEL, scheme->color == FLAME_COLOR_HOT ? 262 : 32, 70, 78);
	put_rule(out, SHADE_ROOT, 220, 14, 86);
	if (scheme->color == FLAME_COLOR_REACH)
		fputs(".u{fill:#f0805f}\n", out);
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), end_length = strlen(end);

	return length >= end_length && !strcmp(text + length - end_length, end);
}

unsigned flame_scheme_shade(const struct flame_scheme *scheme, const struct flame_tree *tree,
			    const struct flame_node *node)
{
	const char *name = string_pool_text(&tree->names, node->name);

	if (scheme->color == FLAME_COLOR_DIFF) {
		double change = 0;

		if (scheme->largest_change)
			change = (double)change_of(node) / (double)scheme->largest_change;
		/* What has changed at all is never drawn as unchanged. */
		if (change > 0)
			return CHANGES / 2 + (unsigned)ceil(change * (CHANGES / 2));
		return CHANGES / 2 - (unsigned)ceil(-change * (CHANGES / 2));
	}
	if (node->parent == FLAME_NONE)
		return SHADE_ROOT;
	if (ends_with(name, "_[k]"))
		return SHADE_KERNEL;
	if (name[0] == '[')
		return SHADE_UNKNOWN;
	return hash_fold(hash_bytes(HASH_SEED, name, strlen(name))) % SHADES;
}
