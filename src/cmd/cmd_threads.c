#include "memprobe/cmd.h"

#include <string.h>

#include "memprobe/num.h"
#include "memprobe/ptmalloc.h"
#include "memprobe/stack_use.h"
#include "memprobe/records.h"

static const struct command_option options[] = {
	{ "by-size", 0, NULL, "the largest resident stack first" },
	{ NULL, 0, NULL, NULL },
};

struct row {
	const char *name, *state; /* NULL: not known */
	pid_t tid;
	uint64_t start, end, stack_size; /* of the stack; JSON_UNKNOWN: not found */
	uint64_t size, rss, used;	 /* JSON_UNKNOWN, as is the arena's address */
	uint64_t arena;
	const struct arena *arena_of; /* NULL: not known */
	char state_text[2];
};

struct threads_run {
	struct command_context *context;
	struct thread_vec threads;
	struct stack_use_vec uses;
	struct arena_vec arenas;
	struct row *rows; /* one per thread */
	struct stack_use total;
	char *verdict; /* NULL: nothing is remarkable */
};

static int compare_rss(const void *left, const void *right)
{
	const struct row *a = left, *b = right;

	/* Unknown, the largest number of all, comes last. */
	if (a->rss != b->rss)
		return a->rss + 1 > b->rss + 1 ? -1 : 1;
	if (a->size != b->size)
		return a->size + 1 > b->size + 1 ? -1 : 1;
	return a->tid < b->tid ? -1 : 1;
}

/* Of a 32-bit process; else 0. */
static struct error *read_space(struct target *target, uint64_t *ret)
{
	struct mapping_vec maps = { 0 };
	struct error *error = NULL;

	*ret = 0;
	if (target->arch->bits != 32)
		return NULL;
	error = target_read_maps(target, MAPS_PLAIN, &maps);
	if (!error)
		*ret = stack_use_space_32(&maps);
	mappings_deinit(&maps);
	return error;
}

static struct error *judge(struct threads_run *run)
{
	char size[SIZE_TEXT_MAX], used[SIZE_TEXT_MAX], each[SIZE_TEXT_MAX];
	uint64_t space;
	size_t count = 0;
	int length;
	struct error *error = read_space(run->context->target, &space);

	if (error)
		return error;
	vec_for_each (use, &run->uses)
		count += use->known;
	if (!count || !stack_use_is_wasteful(&run->total, space))
		return NULL;
	format_size(run->total.size, size);
	format_size(run->total.depth, used);
	format_size(run->total.size / count, each);
	length = asprintf(&run->verdict,
			  "%zu stacks reserve %s of address space (%s each on average) and have "
			  "used %s of it at most; %s, and `ulimit -s` before the start or "
			  "pthread_attr_setstacksize() makes them smaller",
			  count, size, each, used,
			  space == 4ull << 30
				  ? "a 32-bit process has 4 GiB in all, and pthread_create() "
				    "fails with EAGAIN when they are used up"
			  : space ? "a 32-bit process has 3 GiB in all here, and "
				    "pthread_create() fails with EAGAIN when they are used up"
				  : "this costs no memory, but counts against ulimit -v and "
				    "overcommit limits");
	if (length < 0)
		run->verdict = NULL;
	return length < 0 ? &error_no_memory : NULL;
}

/* Arenas are a refinement: without them the column stays empty. */
static struct error *find_arenas(struct threads_run *run)
{
	struct error *error = ptmalloc_find_arenas(run->context->target, &run->arenas);

	if (!error || error == &error_no_memory)
		return error;
	error_destroy(error);
	arenas_deinit(&run->arenas);
	return NULL;
}

/* Without the memory map no stack is known: then what forbids to read it is the answer. */
static struct error *explain_unknown(const struct threads_run *run)
{
	struct mapping_vec maps = { 0 };
	struct error *error;

	vec_for_each (thread, &run->threads)
		if (thread->stack_start)
			return NULL;
	error = target_read_maps(run->context->target, MAPS_PLAIN, &maps);
	mappings_deinit(&maps);
	return error;
}

static void fill_row(struct threads_run *run, size_t i)
{
	const struct thread *thread = &run->threads.data[i];
	const struct stack_use *use = &run->uses.data[i];
	bool found = thread->stack_start != 0;
	struct row *row = &run->rows[i];

	*row = (struct row){
		.name = thread->name,
		.tid = thread->tid,
		.start = found ? thread->stack_start : JSON_UNKNOWN,
		.end = found ? thread->stack_end : JSON_UNKNOWN,
		.stack_size = found ? thread->stack_end - thread->stack_start : JSON_UNKNOWN,
		.size = found && use->known ? use->size : JSON_UNKNOWN,
		.rss = use->known ? use->rss : JSON_UNKNOWN,
		.used = use->known ? use->depth : JSON_UNKNOWN,
		.arena = JSON_UNKNOWN,
		.state_text = { thread->state, '\0' },
	};
	if (thread->state)
		row->state = row->state_text;
	if (run->arenas.size)
		row->arena_of = arena_of_thread(run->context->target, thread, &run->arenas);
	if (row->arena_of)
		row->arena = row->arena_of->address;
}

static struct error *collect(struct threads_run *run)
{
	struct target *target = run->context->target;
	struct error *error = target_read_threads(target, &run->threads);

	if (!error)
		error = stack_use_read(target, &run->threads, &run->uses);
	if (!error)
		error = explain_unknown(run);
	if (!error)
		error = find_arenas(run);
	if (error)
		return error;
	run->rows = calloc(run->threads.size + 1, sizeof(*run->rows));
	if (!run->rows)
		return &error_no_memory;
	for (size_t i = 0; i < run->threads.size; i++)
		fill_row(run, i);
	if (command_option(run->context, "by-size"))
		qsort(run->rows, run->threads.size, sizeof(*run->rows), compare_rss);
	run->total = stack_use_total(&run->uses);
	return judge(run);
}

static void arena_cell(struct table *table, const void *data)
{
	const struct row *row = data;

	if (!row->arena_of)
		table_cell_text(table, "-");
	else if (row->arena_of->is_main)
		table_cell_text(table, "main");
	else
		table_cell(table, "%u at %llx", row->arena_of->index,
			   (unsigned long long)row->arena);
}

static const struct record_column columns[] = {
	RECORD(row, tid, "tid", "TID", RECORD_INT),
	RECORD(row, name, "name", "NAME", RECORD_TEXT),
	RECORD(row, state, "state", "STATE", RECORD_TEXT),
	RECORD(row, start, "stack_start", "STACK START", RECORD_HEX, .rank = 2),
	RECORD(row, end, "stack_end", "END", RECORD_HEX, .rank = 3),
	RECORD(row, stack_size, "stack_size", NULL, RECORD_SIZE),
	RECORD(row, size, NULL, "SIZE", RECORD_SIZE),
	RECORD(row, rss, "stack_rss", "RSS", RECORD_SIZE),
	RECORD(row, used, "stack_used", "USED", RECORD_SIZE),
	RECORD(row, arena, "arena", "ARENA", RECORD_ADDRESS, .cell = arena_cell, .rank = 1),
	{ 0 },
};

static struct records records_of(const struct threads_run *run)
{
	return (struct records){
		.columns = columns,
		.rows = run->rows,
		.count = run->threads.size,
		.size = sizeof(*run->rows),
	};
}

static struct error *print_table(FILE *out, void *data)
{
	struct threads_run *run = data;
	struct table_style style = command_style(run->context);
	const struct records records = records_of(run);
	const struct row total = {
		.size = run->total.size,
		.rss = run->total.rss,
		.used = run->total.depth,
	};
	cleanup(table) struct table *table = records_table(&records, style);
	char items[ITEMS_TEXT_MAX], size[TABLE_SIZE_MAX], rss[TABLE_SIZE_MAX];
	struct error *error;

	fprintf(out, "threads: %s, whose stacks reserve %s and hold %s\n\n",
		format_items(run->threads.size, "thread", items),
		table_size(style, run->total.size, size), table_size(style, run->total.rss, rss));
	records_total(table, columns, 0, &total);
	error = table_print(table, out);
	if (!error && run->verdict)
		fprintf(out, "\n%s\n", run->verdict);
	return error;
}

static struct error *write_document(struct threads_run *run)
{
	json_t *document = command_json(run->context);
	const struct records records = records_of(run);
	json_t *totals = json_object();

	json_object_set_new(document, "threads", records_array(&records));
	json_object_set_new(totals, "count", json_number(run->threads.size));
	json_object_set_new(totals, "stack_size", json_number(run->total.size));
	json_object_set_new(totals, "stack_rss", json_number(run->total.rss));
	json_object_set_new(totals, "stack_used", json_number(run->total.depth));
	json_object_set_new(document, "totals", totals);
	json_object_set_new(document, "verdict", json_text(run->verdict));
	return command_write_json(run->context, document);
}

static struct error *run_threads(struct command_context *context)
{
	struct threads_run run = { .context = context };
	struct error *error = collect(&run);

	if (!error)
		error = context->json ? write_document(&run)
				      : command_print(context, print_table, &run);
	thread_vec_deinit(&run.threads);
	stack_use_vec_deinit(&run.uses);
	arenas_deinit(&run.arenas);
	free(run.rows);
	free(run.verdict);
	return error;
}

const struct command cmd_threads = {
	.name = "threads",
	.arguments = "",
	.summary = "each thread's stack: reserved, resident, deepest use; and its malloc arena",
	.target = TARGET_ANY,
	.options = options,
	.run = run_threads,
};
