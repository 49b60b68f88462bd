#include "heap_contexts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "frozen_heap.h"
#include "group_profile.h"
#include "memprobe/hash_index.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/runtime.h"
#include "memprobe/snapshot.h"
#include "memprobe/records.h"

#define TRIES	  6
#define SNAPSHOTS 3

/* ---- reading ---- */

static struct error *read_snapshot(struct command_context *context, const struct runtime *runtime,
				   struct runtime_objects *ret)
{
	struct snapshot_options options = command_snapshot_options(context);
	struct error *error = NULL;

	options.memory_only = true;
	/* A thread may have been caught in palloc: another one may be luckier. */
	for (unsigned i = 0; !error && i < SNAPSHOTS; i++) {
		cleanup(snapshot) struct snapshot *snapshot = NULL;

		error = snapshot_take(context->target, &options, &snapshot);
		if (!error)
			error = runtime_read(runtime, snapshot->target, 1, ret);
		if (snapshot)
			command_stopped(context, snapshot_stopped_us(snapshot));
		if (!error && !ret->state.is_inconsistent)
			break;
	}
	return error;
}

static struct error *read_contexts(struct command_context *context, struct runtime_objects *ret)
{
	bool is_live = context->target->process != NULL;
	struct runtime runtime;
	struct error *error = runtime_detect(context->target, runtime_has_owners, &runtime);

	if (error)
		return error;
	error = runtime_read(&runtime, context->target, is_live ? TRIES : 1, ret);
	if (is_live &&
	    (error_is(error, ERROR_UNSUPPORTED) || (!error && ret->state.is_inconsistent)) &&
	    !command_interrupted()) {
		error_destroy(error);
		error = read_snapshot(context, &runtime, ret);
	}
	if (!error && ret->state.is_inconsistent) {
		log_warn("%s: figures may be wrong, or contexts missing", ret->state.issue);
		context->status = 6;
	}
	return error;
}

/* ---- JSON ---- */

/* The last levels only, where a tree is absurdly deep. */
#define PATH_LEVELS 64

/* Itself first, then its parents. */
static uint32_t chain_of(const struct runtime_objects *contexts, uint32_t index,
			 uint32_t chain[PATH_LEVELS])
{
	uint32_t count = 0;

	for (; index != RUNTIME_NO_OWNER && count < PATH_LEVELS;
	     index = contexts->objects.data[index].owner)
		chain[count++] = index;
	return count;
}

static char *path_of(const struct runtime_objects *contexts, uint32_t index)
{
	uint32_t chain[PATH_LEVELS], count = chain_of(contexts, index, chain);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	while (count--)
		fprintf(out, "%s%s", contexts->objects.data[chain[count]].type, count ? "/" : "");
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}

/* A context, or their sum. */
struct context_row {
	const char *key, *ident, *path, *parent, *kind;
	int level;
	uint64_t count, bytes, blocks, free, free_chunks, used, address;
};

enum { PART_CONTEXT = 1 };

static const struct record_column context_columns[] = {
	RECORD(context_row, key, "key", NULL, RECORD_TEXT, .part = PART_CONTEXT),
	RECORD(context_row, ident, "ident", NULL, RECORD_TEXT, .part = PART_CONTEXT),
	RECORD(context_row, path, "path", NULL, RECORD_TEXT, .part = PART_CONTEXT),
	RECORD(context_row, level, "level", NULL, RECORD_INT, .part = PART_CONTEXT),
	RECORD(context_row, parent, "parent", NULL, RECORD_TEXT, .part = PART_CONTEXT),
	RECORD(context_row, kind, "kind", NULL, RECORD_TEXT, .part = PART_CONTEXT),
	RECORD(context_row, count, "count", NULL, RECORD_NUMBER),
	RECORD(context_row, bytes, "bytes", NULL, RECORD_SIZE),
	RECORD(context_row, bytes, "total", NULL, RECORD_SIZE),
	RECORD(context_row, blocks, "blocks", NULL, RECORD_NUMBER),
	RECORD(context_row, free, "free", NULL, RECORD_SIZE),
	RECORD(context_row, free_chunks, "free_chunks", NULL, RECORD_NUMBER, .part = PART_CONTEXT),
	RECORD(context_row, used, "used", NULL, RECORD_SIZE),
	RECORD(context_row, address, "example", NULL, RECORD_ADDRESS, .part = PART_CONTEXT),
	{ 0 },
};

static json_t *json_group(const struct runtime_objects *contexts, uint32_t index)
{
	const struct runtime_object *context = &contexts->objects.data[index];
	cleanup(free) char *path = path_of(contexts, index);
	bool known = context->free != RUNTIME_UNKNOWN, top = context->owner == RUNTIME_NO_OWNER;
	const struct context_row row = {
		.key = context->type,
		.ident = context->label,
		.path = path,
		.parent = top ? NULL : contexts->objects.data[context->owner].type,
		.kind = context->kind,
		.level = (int)context->level,
		.count = 1,
		.bytes = context->size,
		.blocks = context->blocks,
		.free = context->free,
		.free_chunks = context->free_chunks,
		.used = known ? context->size - context->free : JSON_UNKNOWN,
		.address = context->address,
	};

	return path ? records_json(context_columns, &row) : NULL;
}

static json_t *json_totals(const struct runtime_objects *contexts)
{
	struct context_row sum = {
		.count = contexts->objects.size,
		.bytes = contexts->size,
	};
	json_t *totals = json_object();
	bool unknown = false;

	vec_for_each (context, &contexts->objects) {
		unknown |= context->free == RUNTIME_UNKNOWN;
		sum.blocks += context->blocks;
		sum.free += context->free;
	}
	sum.used = contexts->size - sum.free;
	if (unknown)
		sum.blocks = sum.free = sum.used = JSON_UNKNOWN;
	records_set(totals, context_columns, PART_CONTEXT, &sum);
	return totals;
}

/* All of them, whatever --top says: a tree with holes is none. */
static json_t *json_report(struct command_context *context, const struct runtime_objects *contexts)
{
	json_t *document = command_json(context), *groups = json_array();

	for (uint32_t i = 0; i < contexts->objects.size; i++)
		json_array_append_new(groups, json_group(contexts, i));
	json_object_set_new(document, "by", json_string("context"));
	json_object_set_new(document, "groups", groups);
	json_object_set_new(document, "groups_left_out", json_integer(0));
	json_object_set_new(document, "totals", json_totals(contexts));
	return document;
}

/* ---- the table: brothers of one name are one row ---- */

#define NODE_NONE UINT32_MAX

struct node {
	uint32_t context; /* the first of them */
	uint32_t parent, child, next;
	uint64_t count, total, free;
	uint64_t tree; /* total of it and all below */
	bool free_known, is_shown;
};

VEC_DEFINE(node_vec, struct node)

struct output {
	const struct command_context *context;
	const struct runtime_objects *contexts;
	uint64_t top;
	struct node_vec nodes; /* parents before children */
	struct hash_index index;
};

struct search {
	const struct output *output;
	uint32_t parent;
	const char *name;
};

static const char *name_of(const struct output *output, const struct node *node)
{
	return output->contexts->objects.data[node->context].type;
}

static bool is_node(const void *context, uint32_t id)
{
	const struct search *search = context;
	const struct node *node = &search->output->nodes.data[id];

	return node->parent == search->parent &&
	       !strcmp(name_of(search->output, node), search->name);
}

static struct error *find_node(struct output *output, uint32_t parent, uint32_t context,
			       uint32_t *ret)
{
	const char *name = output->contexts->objects.data[context].type;
	const struct search search = { output, parent, name };
	uint64_t seed = hash_bytes(HASH_SEED, name, strlen(name));
	uint32_t hash = hash_fold(hash_word(seed, parent));
	struct node node = {
		.context = context,
		.parent = parent,
		.child = NODE_NONE,
		.next = NODE_NONE,
		.free_known = true,
	};
	struct error *error;

	*ret = hash_index_find(&output->index, hash, is_node, &search);
	if (*ret != HASH_INDEX_NONE)
		return NULL;
	*ret = (uint32_t)output->nodes.size;
	error = node_vec_append(&output->nodes, &node);
	return error ? error : hash_index_add(&output->index, hash, *ret);
}

static struct error *merge(struct output *output)
{
	const struct runtime_object_vec *contexts = &output->contexts->objects;
	cleanup(free) uint32_t *node_of = calloc(contexts->size + 1, sizeof(*node_of));

	if (!node_of)
		return &error_no_memory;
	for (uint32_t i = 0; i < contexts->size; i++) {
		const struct runtime_object *context = &contexts->data[i];
		uint32_t parent =
			context->owner == RUNTIME_NO_OWNER ? NODE_NONE : node_of[context->owner];
		struct error *error = find_node(output, parent, i, &node_of[i]);
		struct node *node;

		if (error)
			return error;
		node = &output->nodes.data[node_of[i]];
		node->count++;
		node->total += context->size;
		if (context->free == RUNTIME_UNKNOWN)
			node->free_known = false;
		else
			node->free += context->free;
	}
	for (size_t i = output->nodes.size; i--;) {
		struct node *node = &output->nodes.data[i];

		node->tree += node->total;
		if (node->parent != NODE_NONE)
			output->nodes.data[node->parent].tree += node->tree;
	}
	return NULL;
}

/* The most first; a parent before its children, whose tree is never larger. */
static int compare_nodes(const void *left, const void *right, void *data)
{
	const struct output *output = data;
	uint32_t i = *(const uint32_t *)left, j = *(const uint32_t *)right;
	const struct node *a = &output->nodes.data[i], *b = &output->nodes.data[j];

	if (a->tree != b->tree)
		return a->tree > b->tree ? -1 : 1;
	return i < j ? -1 : i > j;
}

/* Links what is to be shown, brothers in order. */
static struct error *choose(struct output *output)
{
	size_t count = output->nodes.size;
	cleanup(free) uint32_t *order = calloc(count + 1, sizeof(*order));

	if (!order)
		return &error_no_memory;
	for (uint32_t i = 0; i < count; i++)
		order[i] = i;
	qsort_r(order, count, sizeof(*order), compare_nodes, output);
	if (output->top && output->top < count)
		count = output->top;
	for (size_t i = count; i--;) {
		struct node *node = &output->nodes.data[order[i]];

		node->is_shown = true;
		if (node->parent == NODE_NONE)
			continue;
		node->next = output->nodes.data[node->parent].child;
		output->nodes.data[node->parent].child = order[i];
	}
	return NULL;
}

#define INDENT_WIDTH 64

/* What a row shows: a node, or all that are not shown. */
struct node_row {
	uint64_t tree, own, used, free, count;
	const struct output *output;
	const struct node *node;
	const char *rest; /* in place of a name */
};

/* SQL texts have lines. */
static void name_cell(struct table *table, const void *data)
{
	const struct node_row *row = data;
	const struct runtime_object *context;
	cleanup(free) char *ident = NULL;
	int indent;

	if (row->rest) {
		table_cell_text(table, row->rest);
		return;
	}
	context = &row->output->contexts->objects.data[row->node->context];
	indent = (int)min_u64(2 * (uint64_t)context->level, INDENT_WIDTH);
	ident = row->node->count > 1 || !context->label ? NULL : strdup(context->label);
	for (char *c = ident; c && *c; c++)
		if (*c == '\n' || *c == '\t' || *c == '\r')
			*c = ' ';
	table_cell(table, "%*s%s%s%s", indent, "", context->type, ident ? ": " : "",
		   ident ? ident : "");
}

static const struct record_column node_columns[] = {
	RECORD(node_row, tree, NULL, "TREE", RECORD_SIZE),
	RECORD(node_row, own, NULL, "OWN", RECORD_SIZE),
	RECORD(node_row, used, NULL, "USED", RECORD_SIZE, .rank = 1),
	RECORD(node_row, free, NULL, "FREE", RECORD_SIZE),
	RECORD(node_row, count, NULL, "COUNT", RECORD_NUMBER),
	{ .heading = "CONTEXT", .kind = RECORD_OTHER, .cell = name_cell },
	{ 0 },
};

static void add_row(struct table *table, const struct output *output, const struct node *node,
		    const char *rest)
{
	const struct node_row row = {
		.tree = rest ? JSON_UNKNOWN : node->tree,
		.own = node->total,
		.used = node->free_known ? node->total - node->free : JSON_UNKNOWN,
		.free = node->free_known ? node->free : JSON_UNKNOWN,
		.count = node->count,
		.output = output,
		.node = node,
		.rest = rest,
	};

	records_row(table, node_columns, 0, &row);
}

/* From node to node without recursion: depth is the target's. */
static void add_rows(struct table *table, const struct output *output)
{
	uint32_t at = output->nodes.size ? 0 : NODE_NONE;

	while (at != NODE_NONE) {
		const struct node *node = &output->nodes.data[at];

		add_row(table, output, node, NULL);
		if (node->child != NODE_NONE) {
			at = node->child;
			continue;
		}
		while (node->next == NODE_NONE && node->parent != NODE_NONE)
			node = &output->nodes.data[node->parent];
		at = node->next;
	}
}

static void add_rest(struct table *table, const struct output *output)
{
	struct node rest = { .free_known = true };
	char what[64];
	uint64_t rows = 0;

	vec_for_each (node, &output->nodes) {
		if (node->is_shown)
			continue;
		rows++;
		rest.count += node->count;
		rest.total += node->total;
		rest.free += node->free;
		rest.free_known &= node->free_known;
	}
	if (!rows)
		return;
	snprintf(what, sizeof(what), "(%" PRIu64 " more rows)", rows);
	add_row(table, output, &rest, what);
}

static struct error *print_report(FILE *out, void *data)
{
	struct output *output = data;
	const struct runtime_objects *contexts = output->contexts;
	struct table_style style = command_style(output->context);
	cleanup(table) struct table *table = table_create(style);
	char items[ITEMS_TEXT_MAX], size[TABLE_SIZE_MAX];

	fprintf(out, "heap: %s (%s)\n\n",
		format_items(contexts->objects.size, "memory context", items),
		table_size(style, contexts->size, size));
	records_columns(table, node_columns, 0);
	add_rows(table, output);
	add_rest(table, output);
	return table_print(table, out);
}

static struct error *print_tree(struct command_context *context,
				const struct runtime_objects *contexts, uint64_t top)
{
	struct output output = { .context = context, .contexts = contexts, .top = top };
	struct error *error = merge(&output);

	if (!error)
		error = choose(&output);
	if (!error)
		error = command_print(context, print_report, &output);
	node_vec_deinit(&output.nodes);
	hash_index_deinit(&output.index);
	return error;
}

/* ---- as stacks: a context is the caller of those below it ---- */

static struct error *write_stacks(struct command_context *context,
				  const struct runtime_objects *contexts,
				  struct profile_output output)
{
	cleanup(profile) struct profile *profile = NULL;
	struct error *error = group_profile_create(context, &profile);

	for (uint32_t i = 0; !error && i < contexts->objects.size; i++) {
		uint32_t chain[PATH_LEVELS], count = chain_of(contexts, i, chain);
		const char *names[PATH_LEVELS];

		for (uint32_t k = 0; k < count; k++)
			names[k] = contexts->objects.data[chain[count - 1 - k]].type;
		error = group_profile_add(profile, names, count, 1, contexts->objects.data[i].size);
	}
	if (error)
		return error;
	output.options.subtitle = "memory contexts";
	return group_profile_write(context, &output, profile);
}

struct error *heap_contexts_run(struct command_context *context,
				const struct profile_output *output)
{
	struct runtime_objects contexts = { 0 };
	struct error *error = read_contexts(context, &contexts);

	if (!error && output->format)
		error = write_stacks(context, &contexts, *output);
	else if (!error && context->json)
		error = command_write_json(context, json_report(context, &contexts));
	else if (!error)
		error = print_tree(context, &contexts, output->top);
	if (!error && !output->format)
		command_hint(
			context,
			"`memprobe allocs %s --pool postgres` shows who allocates in a context",
			context->target_text);
	runtime_objects_deinit(&contexts);
	return error;
}
