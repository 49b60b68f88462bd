/*
 * Flame graphs: one SVG file that shows itself anywhere and, opened in a browser, is searched,
 * zoomed and walked through by flamegraph.js. It refers to nothing outside.
 *
 * A frame is `<g class="f" data-f="LEVEL,X,WIDTH" data-v="VALUE" data-s="SHORT NAME">` with X,
 * WIDTH and VALUE in units of the profile, VALUE where it is not the width; the script lays frames
 * out from these, with the same rules as here.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "flamegraph_color.h"
#include "flamegraph_tree.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/profile_format.h"
#include "memprobe/sites_table.h"
#include "xml.h"

/* Pixels; flamegraph.js gets them from the root element. */
#define WIDTH_DEFAULT 1200
#define WIDTH_LEAST   400
#define MARGIN	      12
#define ROW	      18 /* of which the last pixel is the gap to the next */
#define TOP	      78 /* of the first row; above are title and controls */
#define BOTTOM	      12
#define CHARACTER     7.25 /* the widest of the fonts, at 12 pixels */
#define TEXT_LEAST    3	   /* characters */

#define MIN_WIDTH_DEFAULT 0.1
/* As many as a browser zooms at once without a wait; only without a minimum width of the user. */
#define FRAMES_MOST 40000

/* flamegraph_files.S */
extern const char flamegraph_css[], flamegraph_css_end[];
extern const char flamegraph_js[], flamegraph_js_end[];

struct flamegraph {
	struct flame_tree tree;
	struct flame_scheme scheme;
	unsigned width, height;
	double scale; /* pixels of a unit */
	bool human;   /* values are bytes: human units, too */
	const char *count_name;
};

static struct error *svg_begin(struct profile_writer *writer)
{
	struct flamegraph *graph = writer->state;

	return flame_tree_init(&graph->tree, writer->profile, writer->options->reverse);
}

static struct error *svg_site(struct profile_writer *writer, const struct profile_site *site)
{
	struct flamegraph *graph = writer->state;

	return flame_tree_add(&graph->tree, site);
}

/* ---- numbers ---- */

#define GROUPED_MAX 32

/* `1,234,567`. */
static const char *grouped(int64_t value, char buffer[GROUPED_MAX])
{
	uint64_t left = value < 0 ? -(uint64_t)value : (uint64_t)value;
	char *at = buffer + GROUPED_MAX;
	unsigned digits = 0;

	*--at = '\0';
	do {
		if (digits && digits % 3 == 0)
			*--at = ',';
		*--at = '0' + left % 10;
		left /= 10;
		digits++;
	} while (left);
	if (value < 0)
		*--at = '-';
	return at;
}

/* `12.3M (12,345,678 bytes)`, or `1,234 samples`. */
static struct error *put_value(const struct flamegraph *graph, FILE *out, int64_t value)
{
	char text[SIZE_TEXT_MAX], number[GROUPED_MAX];
	bool human = graph->human && value >= 1024;
	struct error *error;

	if (human)
		fprintf(out, "%s (", format_size(value, text));
	fprintf(out, "%s ", grouped(value, number));
	error = xml_put(out, graph->count_name);
	if (human)
		fputc(')', out);
	return error;
}

static double percent(int64_t part, int64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

/* Growth against the old profile. */
static struct error *put_change(const struct flamegraph *graph, FILE *out,
				const struct flame_node *node)
{
	int64_t old = node->sums[FLAME_OLD], change = node->sums[FLAME_VALUE] - old;
	struct error *error;

	fputs(change < 0 ? "\xe2\x88\x92" : "+", out);
	error = put_value(graph, out, change < 0 ? -change : change);
	if (old)
		fprintf(out, ", %+.1f %%", percent(change, old));
	else
		fputs(", new", out);
	return error;
}

/* ---- a frame ---- */

/* Columns that a code point takes: two for those that may be wide. */
static unsigned columns_of(const unsigned char *at)
{
	return *at < 0xe1 ? 1 : 2;
}

/* How many bytes of @name fit into @columns; *whole_ret: all of it. Otherwise one column is left
 * for an ellipsis. */
static size_t fitting_length(const char *name, unsigned columns, bool *whole_ret)
{
	size_t length = 0, cut = 0;
	unsigned used = 0;

	while (name[length]) {
		used += columns_of((const unsigned char *)name + length);
		if (used > columns)
			break;
		do
			length++;
		while ((name[length] & 0xc0) == 0x80);
		if (used < columns)
			cut = length;
	}
	*whole_ret = !name[length];
	return *whole_ret ? length : cut;
}

/* The name if it fits; or else as much as fits of the one without arguments. */
static struct error *put_label(FILE *out, const char *name, const char *brief, unsigned columns)
{
	cleanup(free) char *part = NULL;
	struct error *error;
	bool whole;

	fitting_length(name, columns, &whole);
	if (whole)
		return xml_put(out, name);
	part = strndup(brief, fitting_length(brief, columns, &whole));
	if (!part)
		return &error_no_memory;
	error = xml_put(out, part);
	fputs(whole ? "" : "\xe2\x80\xa6", out);
	return error;
}

/* For the script, which has the name from the title. */
static struct error *put_brief(FILE *out, const char *name, const char *brief)
{
	struct error *error;

	if (!strcmp(name, brief))
		return NULL;
	fputs(" data-s=\"", out);
	error = xml_put(out, brief);
	fputc('"', out);
	return error;
}

static struct error *put_title(const struct flamegraph *graph, FILE *out,
			       const struct flame_node *node)
{
	const struct profile *profile = graph->tree.profile;
	const int64_t *sums = node->sums, *all = graph->tree.nodes.data[0].sums;
	char number[GROUPED_MAX];
	struct error *error;

	fputs("<title>", out);
	error = xml_put(out, string_pool_text(&graph->tree.names, node->name));
	fputc('\n', out);
	if (!error)
		error = put_value(graph, out, sums[FLAME_VALUE]);
	fprintf(out, ", %.2f %%", percent(sums[FLAME_VALUE], all[FLAME_VALUE]));
	if (profile_has(profile, PROFILE_COUNT))
		fprintf(out, ", count %s", grouped(sums[FLAME_COUNT], number));
	if (!error && graph->scheme.color == FLAME_COLOR_REACH) {
		fputs(", unreachable ", out);
		error = put_value(graph, out, sums[FLAME_UNREACHABLE]);
		fprintf(out, ", %.1f %% of it",
			percent(sums[FLAME_UNREACHABLE], sums[FLAME_VALUE]));
	}
	if (!error && profile_has(profile, PROFILE_OLD_BYTES)) {
		fputs("; ", out);
		error = put_change(graph, out, node);
	}
	fputs("</title>", out);
	return error;
}

static struct error *put_frame(const struct flamegraph *graph, FILE *out,
			       const struct flame_node *node, bool inverted)
{
	int64_t value = node->sums[FLAME_VALUE], unreachable = node->sums[FLAME_UNREACHABLE];
	int64_t wide = node->sums[FLAME_WIDE];
	double x = MARGIN + (double)node->x * graph->scale, width = (double)wide * graph->scale;
	unsigned row = inverted ? node->level : graph->tree.levels - 1 - node->level;
	unsigned y = TOP + row * ROW;
	double shown = width > 2 ? width - 0.5 : width;
	const char *name = string_pool_text(&graph->tree.names, node->name);
	cleanup(free) char *brief = function_name_fit(name, 0);
	struct error *error;

	if (!brief)
		return &error_no_memory;
	fprintf(out, "<g class=\"f\" data-f=\"%u,%" PRId64 ",%" PRId64 "\"", node->level, node->x,
		wide);
	if (value != wide)
		fprintf(out, " data-v=\"%" PRId64 "\"", value);
	error = put_brief(out, name, brief);
	fputc('>', out);
	if (!error)
		error = put_title(graph, out, node);
	fprintf(out,
		"<rect class=\"c%u%s\" x=\"%.1f\" y=\"%u\" width=\"%.1f\" height=\"%d\" "
		"rx=\"2\"/>",
		flame_scheme_shade(&graph->scheme, &graph->tree, node), value ? "" : " old", x, y,
		shown, ROW - 1);
	if (graph->scheme.color == FLAME_COLOR_REACH && unreachable > 0) {
		double share = unreachable < value ? (double)unreachable / (double)value : 1;

		fprintf(out,
			"<rect class=\"u\" data-u=\"%.4f\" x=\"%.1f\" y=\"%u\" width=\"%.1f\" "
			"height=\"%d\" rx=\"2\"/>",
			share, x, y, shown * share, ROW - 1);
	}
	if (!error && width >= TEXT_LEAST * CHARACTER + 6) {
		fprintf(out, "<text x=\"%.1f\" y=\"%u\">", x + 3, y + 13);
		error = put_label(out, name, brief, (unsigned)((width - 6) / CHARACTER));
		fputs("</text>", out);
	}
	fputs("</g>\n", out);
	return error;
}

/* ---- the document ---- */

static struct error *put_heading(const struct profile_writer *writer,
				 const struct flamegraph *graph)
{
	const struct profile_options *options = writer->options;
	const struct profile *profile = writer->profile;
	const struct flame_node *root = &graph->tree.nodes.data[0];
	FILE *out = writer->out;
	struct error *error;

	fprintf(out, "<text class=\"title\" x=\"%u\" y=\"26\" text-anchor=\"middle\">",
		graph->width / 2);
	error = xml_put(out, options->title  ? options->title
			     : profile->name ? profile->name
					     : "Flame graph");
	if (!options->title && profile->name && profile->pid)
		fprintf(out, " (%d)", profile->pid);
	fprintf(out, "</text>\n<text class=\"subtitle\" x=\"%u\" y=\"45\" text-anchor=\"middle\">",
		graph->width / 2);
	if (!error && options->subtitle) {
		error = xml_put(out, options->subtitle);
		fputs(" \xc2\xb7 ", out);
	}
	if (!error)
		error = put_value(graph, out, root->sums[FLAME_VALUE]);
	if (!error && profile_has(profile, PROFILE_OLD_BYTES)) {
		fputs(" \xc2\xb7 ", out);
		error = put_change(graph, out, root);
	}
	if (options->reverse)
		fputs(" \xc2\xb7 merged from the leaf", out);
	fputs("</text>\n", out);
	return error;
}

/* Says what the two colours are. */
static void put_legend(const struct flamegraph *graph, FILE *out)
{
	if (graph->scheme.color == FLAME_COLOR_REACH)
		fprintf(out,
			"<g class=\"legend\"><rect class=\"u\" x=\"%d\" y=\"54\" width=\"12\" "
			"height=\"12\" rx=\"2\"/><text x=\"%d\" y=\"64\">nothing points to it"
			"</text><rect class=\"c6\" x=\"%d\" y=\"54\" width=\"12\" height=\"12\" "
			"rx=\"2\"/><text x=\"%d\" y=\"64\">still owned</text></g>\n",
			MARGIN, MARGIN + 17, MARGIN + 180, MARGIN + 197);
	if (graph->scheme.color == FLAME_COLOR_DIFF)
		fprintf(out,
			"<g class=\"legend\"><rect class=\"c18\" x=\"%d\" y=\"54\" width=\"12\" "
			"height=\"12\" rx=\"2\"/><text x=\"%d\" y=\"64\">grew</text>"
			"<rect class=\"c2\" x=\"%d\" y=\"54\" width=\"12\" height=\"12\" rx=\"2\"/>"
			"<text x=\"%d\" y=\"64\">shrank</text><rect class=\"c2 old\" x=\"%d\" "
			"y=\"54\" width=\"12\" height=\"12\" rx=\"2\"/><text x=\"%d\" "
			"y=\"64\">gone</text></g>\n",
			MARGIN, MARGIN + 17, MARGIN + 70, MARGIN + 87, MARGIN + 150, MARGIN + 167);
}

static void put_file(FILE *out, const char *begin, const char *end)
{
	fwrite(begin, 1, end - begin, out);
}

static struct error *put_document(const struct profile_writer *writer,
				  const struct flamegraph *graph)
{
	bool inverted = writer->options->inverted;
	FILE *out = writer->out;
	struct error *error = NULL;

	fprintf(out,
		"<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" class=\"flamegraph\" "
		"width=\"%u\" height=\"%u\" viewBox=\"0 0 %u %u\" data-layout=\"%s,%s,%d,%d,%d,%u\">\n",
		graph->width, graph->height, graph->width, graph->height,
		writer->options->width ? "fixed" : "fluid", inverted ? "icicle" : "flame", MARGIN,
		ROW, TOP, graph->tree.levels);
	fputs("<style>\n", out);
	put_file(out, flamegraph_css, flamegraph_css_end);
	flame_scheme_write_css(&graph->scheme, out);
	fputs("</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n"
	      "<g class=\"frames\">\n",
	      out);
	vec_for_each (id, &graph->tree.drawn)
		if (!error)
			error = put_frame(graph, out, &graph->tree.nodes.data[*id], inverted);
	fprintf(out,
		"</g>\n<g class=\"head\">\n<rect class=\"page\" width=\"100%%\" height=\"%d\"/>\n",
		TOP - 4);
	if (!error)
		error = put_heading(writer, graph);
	put_legend(graph, out);
	fprintf(out,
		"<text class=\"button reset\" x=\"%d\" y=\"26\" visibility=\"hidden\">Reset zoom</text>\n"
		"<text class=\"button find\" x=\"%u\" y=\"26\" text-anchor=\"end\" "
		"visibility=\"hidden\">Search</text>\n"
		"<text class=\"details\" x=\"%d\" y=\"65\"></text>\n"
		"<text class=\"matched\" x=\"%u\" y=\"65\" text-anchor=\"end\"></text>\n</g>\n",
		MARGIN, graph->width - MARGIN, MARGIN, graph->width - MARGIN);
	fputs("<script><![CDATA[\n", out);
	put_file(out, flamegraph_js, flamegraph_js_end);
	fputs("]]></script>\n</svg>\n", out);
	return error;
}

static void measure(struct profile_writer *writer, struct flamegraph *graph)
{
	const struct profile_options *options = writer->options;
	const char *unit = writer->profile->columns[writer->profile->weight].unit;

	graph->count_name = options->count_name ? options->count_name : unit ? unit : "samples";
	graph->human = !strcmp(graph->count_name, "bytes");
	graph->width = options->width ? options->width : WIDTH_DEFAULT;
	if (graph->width < WIDTH_LEAST)
		graph->width = WIDTH_LEAST;
}

static struct error *svg_end(struct profile_writer *writer)
{
	const struct profile_options *options = writer->options;
	struct flamegraph *graph = writer->state;
	struct flame_tree *tree = &graph->tree;
	int64_t total = tree->nodes.data[0].sums[FLAME_WIDE];
	bool chosen = options->min_width >= 0;
	double min_width = chosen ? options->min_width : MIN_WIDTH_DEFAULT;
	struct error *error;

	measure(writer, graph);
	graph->scale = total ? (graph->width - 2.0 * MARGIN) / (double)total : 0;
	error = flame_tree_finish(tree, graph->scale > 0 ? min_width / graph->scale : 1,
				  chosen ? 0 : FRAMES_MOST);
	if (error)
		return error;
	if (tree->negative)
		log_warn("%zu stacks below zero are left out: a flame graph cannot hold them",
			 tree->negative);
	log_debug("flame graph: %zu frames drawn, %zu too narrow", tree->drawn.size, tree->hidden);
	graph->scheme = flame_scheme_choose(tree, options->color);
	graph->height = TOP + tree->levels * ROW + BOTTOM;
	return put_document(writer, graph);
}

static void svg_deinit(struct profile_writer *writer)
{
	struct flamegraph *graph = writer->state;

	flame_tree_deinit(&graph->tree);
}

const struct profile_format profile_format_svg = {
	.name = "svg",
	.ending = ".svg",
	.what = "an interactive flame graph",
	.state_size = sizeof(struct flamegraph),
	.begin = svg_begin,
	.site = svg_site,
	.end = svg_end,
	.deinit = svg_deinit,
};
