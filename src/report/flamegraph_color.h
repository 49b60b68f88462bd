/*
 * flamegraph_color.h - what colour a frame has.
 *
 * A frame has a shade, which is a CSS class of the SVG; a scheme says what colours they are. The
 * same name has the same shade in every graph.
 */
#ifndef REPORT_FLAMEGRAPH_COLOR_H
#define REPORT_FLAMEGRAPH_COLOR_H

#include <stdio.h>

#include "flamegraph_tree.h"
#include "memprobe/profile_format.h"

struct flame_scheme {
	enum flame_color color;
	int64_t largest_change; /* for FLAME_COLOR_DIFF */
};

/* Resolves FLAME_COLOR_AUTO; the tree is finished. */
struct flame_scheme flame_scheme_choose(const struct flame_tree *tree, enum flame_color color);

/* A class for each shade, as CSS rules. */
void flame_scheme_write_css(const struct flame_scheme *scheme, FILE *out);

/* The number of the frame's class `c%u`. */
unsigned flame_scheme_shade(const struct flame_scheme *scheme, const struct flame_tree *tree,
			    const struct flame_node *node);

#endif
