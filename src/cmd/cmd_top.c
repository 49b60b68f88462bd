#include "memprobe/cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/num.h"
#include "memprobe/process_table.h"
#include "memprobe/records.h"
#include "memprobe/text.h"
#include "interrupt.h"

#define INTERVAL_DEFAULT_US 1000000u
#define ROWS_DEFAULT	    20u
#define GONE_SHOWN	    3u

static const struct command_option options[] = {
	{ "interval", 'i', "TIME", "time between two looks (default 1s)" },
	{ "top", 'n', "N", "the first N (default 20 in a table, else all; 0: all)" },
	{ "by", 0, "FIGURE", "rss, pss, growth or swap (default rss)" },
	{ "once", 0, NULL, "print one table (the default if the output is no terminal)" },
	{ NULL, 0, NULL, NULL },
};

static const char *const order_names[] = {
	[ORDER_RSS] = "rss",
	[ORDER_PSS] = "pss",
	[ORDER_GROWTH] = "growth",
	[ORDER_SWAP] = "swap",
};

struct top_run {
	struct command_context *context;
	struct process_table table;
	enum process_order order;
	uint64_t interval_us, top;
	bool once;
};

/* ---- output ---- */

static void name_cell(struct table *table, const void *data)
{
	const struct process_row *row = data;

	table_cell_text(table, row->name);
}

static json_t *name_json(const void *data)
{
	const struct process_row *row = data;

	return json_text(row->name);
}

enum { PART_PSS = 1 };

static const struct record_column columns[] = {
	RECORD(process_row, pid, "pid", "PID", RECORD_INT),
	RECORD(process_row, name, "name", NULL, RECORD_OTHER, .json = name_json),
	RECORD(process_row, rss, "rss", "RSS", RECORD_SIZE),
	RECORD(process_row, pss, "pss", "PSS", RECORD_SIZE, .part = PART_PSS),
	RECORD(process_row, swap, "swap", "SWAP", RECORD_SIZE),
	RECORD(process_row, growth, "growth", "GROWTH/S", RECORD_DELTA),
	RECORD(process_row, group, "cgroup", NULL, RECORD_TEXT),
	RECORD(process_row, container, "container", "CONTAINER", RECORD_TEXT, .optional = true,
	       .rank = 1),
	RECORD(process_row, name, NULL, "NAME", RECORD_OTHER, .cell = name_cell),
	{ 0 },
};

static struct records records_of(const struct top_run *run)
{
	return (struct records){
		.columns = columns,
		.without = run->order == ORDER_PSS ? 0 : PART_PSS,
		.rows = run->table.rows.data,
		.count = min_u64(run->table.rows.size, run->top),
		.size = sizeof(*run->table.rows.data),
	};
}

static struct error *write_json(struct top_run *run)
{
	const struct records records = records_of(run);
	json_t *document = command_json(run->context);

	json_object_set_new(document, "rss", json_number(run->table.rss));
	json_object_set_new(document, "count", json_number(run->table.rows.size));
	json_object_set_new(document, "oom_kills", json_number(run->table.oom_kills));
	json_object_set_new(document, "processes", records_array(&records));
	return command_write_json(run->context, document);
}

static void print_gone(FILE *out, const struct top_run *run, struct table_style style)
{
	const struct process_row_vec *gone = &run->table.gone;

	for (size_t i = 0; i < gone->size && i < GONE_SHOWN; i++) {
		cleanup(free) char *name = text_printable(gone->data[i].name);
		char size[TABLE_SIZE_MAX];

		fprintf(out, "ended: %s (%d), %s\n", name ? name : "", (int)gone->data[i].pid,
			table_size(style, gone->data[i].rss, size));
	}
	if (run->table.oom_kills)
		fprintf(out, "killed for want of memory since the start: %" PRIu64 "\n",
			run->table.oom_kills);
	if (gone->size || run->table.oom_kills)
		fputc('\n', out);
}

static struct error *print_table(FILE *out, void *data)
{
	const struct top_run *run = data;
	struct table_style style = command_style(run->context);
	const struct records records = records_of(run);
	cleanup(table) struct table *table = records_table(&records, style);
	char items[ITEMS_TEXT_MAX], size[TABLE_SIZE_MAX];

	fprintf(out, "top: %s, RSS %s together; the largest by %s\n\n",
		format_items(run->table.rows.size, "process", items),
		table_size(style, run->table.rss, size), order_names[run->order]);
	print_gone(out, run, style);
	return table ? table_print(table, out) : &error_no_memory;
}

/* ---- looks ---- */

static struct error *look(struct top_run *run)
{
	struct error *error = process_table_look(&run->table);

	return error ? error : process_table_sort(&run->table, run->order, run->top);
}

/* Growth takes two looks. */
static struct error *run_once(struct top_run *run)
{
	struct error *error = process_table_look(&run->table);

	if (!error && !command_sleep_until(clock_us() + run->interval_us))
		error = interrupt_error();
	if (!error)
		error = look(run);
	if (error)
		return error;
	return run->context->json ? write_json(run) : command_print(run->context, print_table, run);
}

/* As many rows as the screen has. */
static void fit_screen(struct top_run *run, uint64_t wanted)
{
	enum { ROWS_BESIDE = 8 + GONE_SHOWN };
	struct winsize size = { 0 };
	uint64_t rows = ROWS_DEFAULT;

	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_row)
		rows = size.ws_row > ROWS_BESIDE + 1 ? size.ws_row - ROWS_BESIDE : 1;
	run->top = min_u64(wanted, rows);
}

/* Over what was there before; the last one stays, as with top(1). */
static struct error *draw(struct top_run *run)
{
	struct error *error;

	fputs("\033[H\033[J", stdout);
	error = print_table(stdout, run);
	if (!error && fflush(stdout))
		error = error_errno(ERROR_FAILED, errno, "cannot write standard output");
	return error;
}

/* Ctrl-C is how it ends. */
static struct error *run_screen(struct top_run *run)
{
	uint64_t wanted = run->top, next_us = clock_us();
	struct error *error = process_table_look(&run->table);

	do {
		fit_screen(run, wanted);
		if (!error)
			error = look(run);
		if (!error)
			error = draw(run);
		next_us = max_u64(next_us + run->interval_us, clock_us());
	} while (!error && command_sleep_until(next_us));
	if (!error_is(error, ERROR_INTERRUPTED))
		return error;
	error_destroy(error);
	return NULL;
}

/* ---- the command ---- */

static struct error *parse_order(struct top_run *run)
{
	const char *text = command_option(run->context, "by");

	for (unsigned i = 0; text && i < sizeof(order_names) / sizeof(order_names[0]); i++) {
		if (strcmp(text, order_names[i]))
			continue;
		run->order = i;
		return NULL;
	}
	return text ? error_create(ERROR_USAGE, "--by takes rss, pss, growth or swap, not '%s'",
				   text)
		    : NULL;
}

static struct error *parse(struct top_run *run)
{
	struct command_context *context = run->context;
	const char *interval = command_option(context, "interval");
	const char *top = command_option(context, "top");
	struct error *error = parse_order(run);

	run->interval_us = INTERVAL_DEFAULT_US;
	run->once = command_option(context, "once") || context->json ||
		    !command_prints_to_stdout(context) || !isatty(STDOUT_FILENO);
	run->top = context->json ? UINT64_MAX : ROWS_DEFAULT;
	if (!error && interval)
		error = parse_time(interval, &run->interval_us);
	if (!error && top)
		error = parse_u64(top, &run->top);
	if (!error && run->interval_us < 10000)
		error = error_create(ERROR_USAGE, "--interval is 10ms at least");
	if (!run->top)
		run->top = UINT64_MAX;
	return error;
}

static struct error *run(struct command_context *context)
{
	struct top_run run = { .context = context, .table.interrupted = command_interrupted };
	struct error *error = parse(&run);

	if (!error)
		error = run.once ? run_once(&run) : run_screen(&run);
	process_table_deinit(&run.table);
	return error;
}

const struct command cmd_top = {
	.name = "top",
	.arguments = "",
	.summary = "the processes that hold most memory, and that grow fastest",
	.target = TARGET_NONE,
	.options = options,
	.records = RECORDS_ALWAYS,
	.run = run,
};
