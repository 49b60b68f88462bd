#include "memprobe/cmd.h"

#include <string.h>

#include "memprobe/num.h"
#include "memprobe/ptmalloc.h"
#include "memprobe/stack_use.h"
#include "memprobe/table.h"

static const struct command_option options[] = {
	{ "by-size", 0, NULL, "the largest resident stack first" },
	{ NULL, 0, NULL, NULL },
};

struct row {
	const struct thread *thread;
	const struct stack_use *use;
	const struct arena *arena; /* NULL: not known */
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

	if (a->use->rss != b->use->rss)
		return a->use->rss > b->use->rss ? -1 : 1;
	if (a->use->size != b->use->size)
		return a->use->size > b->use->size ? -1 : 1;
	return a->thread->tid < b->thread->tid ? -1 : 1;
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
		run->rows[i] = (struct row){
			.thread = &run->threads.data[i],
			.use = &run->uses.data[i],
			.arena = run->arenas.size ? arena_of_thread(target, &run->threads.data[i],
								    &run->arenas)
						  : NULL,
		};
	if (command_option(run->context, "by-size"))
		qsort(run->rows, run->threads.size, sizeof(*run->rows), compare_rss);
	run->total = stack_use_total(&run->uses);
	return judge(run);
}

static void stack_cells(struct table *table, const struct thread *thread,
			const struct stack_use *use)
{
	if (thread->stack_start && use->known) {
		table_cell_hex(table, thread->stack_start);
		table_cell_hex(table, thread->stack_end);
		table_cell_size(table, use->size);
		table_cell_size(table, use->rss);
		table_cell_size(table, use->depth);
	} else {
		for (int i = 0; i < 5; i++)
			table_cell_text(table, "-");
	}
}

static void arena_cell(struct table *table, const struct arena *arena)
{
	if (!arena)
		table_cell_text(table, "-");
	else if (arena->is_main)
		table_cell_text(table, "main");
	else
		table_cell(table, "%u at %llx", arena->index, (unsigned long long)arena->address);
}

static struct error *print_table(FILE *out, void *data)
{
	struct threads_run *run = data;
	cleanup(table) struct table *table = table_create(command_style(run->context));
	struct error *error;

	table_column(table, "TID", TABLE_RIGHT);
	table_column(table, "NAME", TABLE_LEFT);
	table_column(table, "STATE", TABLE_LEFT);
	table_column(table, "STACK START", TABLE_RIGHT);
	table_column(table, "END", TABLE_RIGHT);
	table_column(table, "SIZE", TABLE_RIGHT);
	table_column(table, "RSS", TABLE_RIGHT);
	table_column(table, "USED", TABLE_RIGHT);
	table_column(table, "ARENA", TABLE_LEFT);
	for (size_t i = 0; i < run->threads.size; i++) {
		const struct row *row = &run->rows[i];

		table_cell(table, "%d", (int)row->thread->tid);
		table_cell_text(table, row->thread->name);
		table_cell(table, "%c", row->thread->state ? row->thread->state : '?');
		stack_cells(table, row->thread, row->use);
		arena_cell(table, row->arena);
	}
	table_rule(table);
	table_cell_text(table, "total");
	table_cell(table, "%zu thread%s", run->threads.size, run->threads.size == 1 ? "" : "s");
	for (int i = 0; i < 3; i++)
		table_cell_text(table, "");
	table_cell_size(table, run->total.size);
	table_cell_size(table, run->total.rss);
	table_cell_size(table, run->total.depth);
	table_cell_text(table, "");
	error = table_print(table, out);
	if (!error && run->verdict)
		fprintf(out, "\n%s\n", run->verdict);
	return error;
}

static json_t *bytes_or_null(uint64_t bytes, bool known)
{
	return known ? json_integer((json_int_t)bytes) : json_null();
}

static json_t *json_thread(const struct row *row)
{
	const struct thread *thread = row->thread;
	bool known = row->use->known, found = thread->stack_start;
	char state[2] = { thread->state, '\0' };
	json_t *object = json_object();

	json_object_set_new(object, "tid", json_integer(thread->tid));
	json_object_set_new(object, "name", json_text(thread->name));
	json_object_set_new(object, "state", thread->state ? json_text(state) : json_null());
	json_object_set_new(object, "stack_start",
			    found ? json_address(thread->stack_start) : json_null());
	json_object_set_new(object, "stack_end",
			    found ? json_address(thread->stack_end) : json_null());
	json_object_set_new(object, "stack_size",
			    bytes_or_null(thread->stack_end - thread->stack_start, found));
	json_object_set_new(object, "stack_rss", bytes_or_null(row->use->rss, known));
	json_object_set_new(object, "stack_used", bytes_or_null(row->use->depth, known));
	json_object_set_new(object, "arena",
			    row->arena ? json_address(row->arena->address) : json_null());
	return object;
}

static struct error *write_document(struct threads_run *run)
{
	json_t *document = command_json(run->context);
	json_t *threads = json_array(), *totals = json_object();

	for (size_t i = 0; i < run->threads.size; i++)
		json_array_append_new(threads, json_thread(&run->rows[i]));
	json_object_set_new(document, "threads", threads);
	json_object_set_new(totals, "count", json_integer((json_int_t)run->threads.size));
	json_object_set_new(totals, "stack_size", json_integer((json_int_t)run->total.size));
	json_object_set_new(totals, "stack_rss", json_integer((json_int_t)run->total.rss));
	json_object_set_new(totals, "stack_used", json_integer((json_int_t)run->total.depth));
	json_object_set_new(document, "totals", totals);
	json_object_set_new(document, "verdict",
			    run->verdict ? json_text(run->verdict) : json_null());
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
