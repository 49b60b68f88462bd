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
#include "memprobe/table.h"

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

static json_t *json_used(const struct runtime_object *context)
{
	return json_number(context->free == RUNTIME_UNKNOWN ? RUNTIME_UNKNOWN
							    : context->size - context->free);
}

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

static json_t *json_path(const struct runtime_objects *contexts, uint32_t index)
{
	uint32_t chain[PATH_LEVELS], count = chain_of(contexts, index, chain);
	cleanup(free) char *text = NULL;
	json_t *path;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	while (count--)
		fprintf(out, "%s%s", contexts->objects.data[chain[count]].type, count ? "/" : "");
	path = fclose(out) ? NULL : json_text(text);
	return path;
}

static json_t *json_group(const struct runtime_objects *contexts, uint32_t index)
{
	const struct runtime_object *context = &contexts->objects.data[index];
	json_t *object = json_object();

	json_object_set_new(object, "key", json_text(context->type));
	json_object_set_new(object, "ident",
			    context->label ? json_text(context->label) : json_null());
	json_object_set_new(object, "path", json_path(contexts, index));
	json_object_set_new(object, "level", json_integer(context->level));
	json_object_set_new(object, "parent",
			    context->owner == RUNTIME_NO_OWNER
				    ? json_null()
				    : json_text(contexts->objects.data[context->owner].type));
	json_object_set_new(object, "kind",
			    context->kind ? json_string(context->kind) : json_null());
	json_object_set_new(object, "count", json_integer(1));
	json_object_set_new(object, "bytes", json_number(context->size));
	json_object_set_new(object, "total", json_number(context->size));
	json_object_set_new(object, "blocks", json_number(context->blocks));
	json_object_set_new(object, "free", json_number(context->free));
	json_object_set_new(object, "free_chunks", json_number(context->free_chunks));
	json_object_set_new(object, "used", json_used(context));
	json_object_set_new(object, "example", json_address(context->address));
	return object;
}

static json_t *json_totals(const struct runtime_objects *contexts)
{
	json_t *totals = json_object();
	uint64_t blocks = 0, freed = 0, unknown = 0;

	vec_for_each (context, &contexts->objects) {
		unknown += context->free == RUNTIME_UNKNOWN;
		blocks += context->free == RUNTIME_UNKNOWN ? 0 : context->blocks;
		freed += context->free == RUNTIME_UNKNOWN ? 0 : context->free;
	}
	json_object_set_new(totals, "count", json_integer((json_int_t)contexts->objects.size));
	json_object_set_new(totals, "bytes", json_number(contexts->size));
	json_object_set_new(totals, "total", json_number(contexts->size));
	json_object_set_new(totals, "blocks", unknown ? json_null() : json_number(blocks));
	json_object_set_new(totals, "free", unknown ? json_null() : json_number(freed));
	json_object_set_new(totals, "used",
			    unknown ? json_null() : json_number(contexts->size - freed));
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

/* SQL texts have lines, and are long. */
#define IDENT_WIDTH  60
#define INDENT_WIDTH 64

static void add_name(struct table *table, const struct output *output, const struct node *node)
{
	const struct runtime_object *context = &output->contexts->objects.data[node->context];
	int indent = (int)min_u64(2 * (uint64_t)context->level, INDENT_WIDTH);
	char ident[IDENT_WIDTH + 1];
	int length;

	if (node->count > 1 || !context->label) {
		table_cell(table, "%*s%s", indent, "", context->type);
		return;
	}
	length = snprintf(ident, sizeof(ident), "%s", context->label);
	for (char *c = ident; *c; c++)
		if (*c == '\n' || *c == '\t' || *c == '\r')
			*c = ' ';
	table_cell(table, "%*s%s: %s%s", indent, "", context->type, ident,
		   length > IDENT_WIDTH ? "..." : "");
}

static void add_row(struct table *table, const struct output *output, const struct node *node)
{
	table_cell_size(table, node->tree);
	table_cell_size(table, node->total);
	if (node->free_known) {
		table_cell_size(table, node->total - node->free);
		table_cell_size(table, node->free);
	} else {
		table_cell_size(table, TABLE_UNKNOWN);
		table_cell_size(table, TABLE_UNKNOWN);
	}
	table_cell(table, "%" PRIu64, node->count);
	add_name(table, output, node);
}

/* From node to node without recursion: depth is the target's. */
static void add_rows(struct table *table, const struct output *output)
{
	uint32_t at = output->nodes.size ? 0 : NODE_NONE;

	while (at != NODE_NONE) {
		const struct node *node = &output->nodes.data[at];

		add_row(table, output, node);
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
	table_cell_text(table, "-");
	table_cell_size(table, rest.total);
	table_cell_size(table, rest.free_known ? rest.total - rest.free : TABLE_UNKNOWN);
	table_cell_size(table, rest.free_known ? rest.free : TABLE_UNKNOWN);
	table_cell(table, "%" PRIu64, rest.count);
	table_cell_text(table, what);
}

static struct error *print_report(FILE *out, void *data)
{
	struct output *output = data;
	const struct runtime_objects *contexts = output->contexts;
	cleanup(table) struct table *table = table_create(command_style(output->context));
	char text[SIZE_TEXT_MAX];

	if (!table)
		return &error_no_memory;
	fprintf(out, "%zu memory contexts, %s\n\n", contexts->objects.size,
		format_size(contexts->size, text));
	table_column(table, "TREE", TABLE_RIGHT);
	table_column(table, "OWN", TABLE_RIGHT);
	table_column(table, "USED", TABLE_RIGHT);
	table_column(table, "FREE", TABLE_RIGHT);
	table_column(table, "COUNT", TABLE_RIGHT);
	table_column(table, "CONTEXT", TABLE_LEFT);
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
		command_hint(context, "TREE counts what is below, too, OWN, USED and FREE do not");
	runtime_objects_deinit(&contexts);
	return error;
}
