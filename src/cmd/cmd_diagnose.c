#include "memprobe/cmd.h"

#include <inttypes.h>
#include <string.h>

#include "diagnose_gather.h"
#include "memprobe/num.h"
#include "memprobe/records.h"

#define BESIDE_LEAST (1u << 20)

static const struct command_option options[] = {
	{ NULL, 0, NULL, NULL },
};

struct output {
	struct command_context *context;
	struct diagnose_gathered gathered;
	struct diagnosis diagnosis;
};

/* ---- parts ---- */

static uint64_t rss_of(const struct output *output)
{
	return output->gathered.facts.rss;
}

struct part_row {
	const char *name;
	uint64_t bytes;
	double share;
};

static void share_cell(struct table *table, const void *data)
{
	const struct part_row *row = data;

	table_cell(table, "%.1f%%", 100 * row->share);
}

static const struct record_column part_columns[] = {
	RECORD(part_row, name, "name", NULL, RECORD_TEXT),
	RECORD(part_row, bytes, "bytes", "BYTES", RECORD_SIZE),
	RECORD(part_row, share, NULL, "%", RECORD_OTHER, .cell = share_cell, .right = true),
	RECORD(part_row, name, NULL, "WHAT", RECORD_TEXT),
	{ 0 },
};

struct part_source {
	const struct output *output;
	struct part_row row;
};

static struct part_row row_of(const struct output *output, const char *name, uint64_t bytes)
{
	uint64_t rss = rss_of(output);

	return (struct part_row){ name, bytes, rss ? (double)bytes / (double)rss : 0 };
}

static const void *part_row(void *data, size_t i)
{
	struct part_source *source = data;
	const struct diagnose_part *part = &source->output->diagnosis.parts.data[i];

	source->row = row_of(source->output, part->name, part->bytes);
	return &source->row;
}

static struct records parts_of(struct part_source *source)
{
	return (struct records){
		.columns = part_columns,
		.count = source->output->diagnosis.parts.size,
		.row = part_row,
		.data = source,
	};
}

static struct error *print_parts(FILE *out, const struct output *output)
{
	struct part_source source = { output, { 0 } };
	const struct records records = parts_of(&source);
	cleanup(table) struct table *table =
		records_table(&records, command_style(output->context));
	struct part_row rest = row_of(output, "unexplained", output->diagnosis.unexplained);
	struct part_row total = row_of(output, "total", rss_of(output));

	if (!table)
		return &error_no_memory;
	records_row(table, part_columns, 0, &rest);
	table_rule(table);
	total.name = output->gathered.facts.is_live ? "resident" : "mapped";
	records_row(table, part_columns, 0, &total);
	return table_print(table, out);
}

/* ---- verdicts ---- */

static json_t *verdict_json(const struct diagnose_verdict *verdict)
{
	json_t *object = json_object(), *next = json_array();

	json_object_set_new(object, "id", json_string(verdict->id));
	json_object_set_new(object, "bytes", json_number(verdict->bytes));
	json_object_set_new(object, "share", json_real(verdict->share));
	json_object_set_new(object, "text", json_text(verdict->text));
	for (unsigned i = 0; i < DIAGNOSE_NEXT_MAX && verdict->next[i]; i++)
		json_array_append_new(next, json_text(verdict->next[i]));
	json_object_set_new(object, "next", next);
	return object;
}

static struct error *write_json(struct output *output)
{
	const struct diagnose_facts *facts = &output->gathered.facts;
	struct part_source source = { output, { 0 } };
	const struct records parts = parts_of(&source);
	json_t *document = command_json(output->context), *verdicts = json_array();

	json_object_set_new(document, "rss",
			    facts->is_live ? json_number(facts->rss) : json_null());
	json_object_set_new(document, "mapped", json_number(facts->space_used));
	json_object_set_new(document, "swap",
			    facts->is_live ? json_number(facts->swap) : json_null());
	json_object_set_new(document, "page_tables", json_number(facts->page_tables));
	json_object_set_new(document, "parts", records_array(&parts));
	json_object_set_new(document, "unexplained", json_number(output->diagnosis.unexplained));
	vec_for_each (verdict, &output->diagnosis.verdicts)
		json_array_append_new(verdicts, verdict_json(verdict));
	json_object_set_new(document, "verdicts", verdicts);
	json_object_set_new(document, "no_leak_search", json_text(output->gathered.no_leaks));
	return command_write_json(output->context, document);
}

static void print_next(FILE *out, const struct diagnose_verdict *verdict)
{
	for (unsigned i = 0; i < DIAGNOSE_NEXT_MAX && verdict->next[i]; i++)
		fprintf(out, "    %s\n", verdict->next[i]);
}

/* What the process costs beside RSS, if it is worth a line. */
static void print_beside(FILE *out, const struct output *output)
{
	const struct diagnose_facts *facts = &output->gathered.facts;
	struct table_style style = command_style(output->context);
	uint64_t tables = facts->page_tables == DIAGNOSE_UNKNOWN ? 0 : facts->page_tables;
	char size[2][TABLE_SIZE_MAX];

	if (facts->swap >= BESIDE_LEAST || tables >= BESIDE_LEAST)
		fprintf(out, "not in RSS: %s swapped out, %s page tables\n",
			table_size(style, facts->swap, size[0]),
			table_size(style, tables, size[1]));
}

static struct error *print_result(FILE *out, void *data)
{
	const struct output *output = data;
	const struct diagnose_verdict_vec *verdicts = &output->diagnosis.verdicts;
	struct error *error;

	fprintf(out, "%s\n\n", verdicts->data[0].text);
	error = print_parts(out, output);
	if (error)
		return error;
	print_beside(out, output);
	fputc('\n', out);
	for (size_t i = 0; i < verdicts->size; i++) {
		if (i)
			fprintf(out, "%s\n", verdicts->data[i].text);
		print_next(out, &verdicts->data[i]);
	}
	if (output->gathered.no_leaks)
		fprintf(out, "not searched for leaks: %s\n", output->gathered.no_leaks);
	return NULL;
}

/* ---- the command ---- */

static struct error *run(struct command_context *context)
{
	struct output output = { .context = context };
	struct error *error = diagnose_gather(context, &output.gathered);

	if (!error)
		error = diagnose(&output.gathered.facts, &output.diagnosis);
	if (!error)
		error = context->json ? write_json(&output)
				      : command_print(context, print_result, &output);
	diagnosis_deinit(&output.diagnosis);
	diagnose_gathered_deinit(&output.gathered);
	return error;
}

const struct command cmd_diagnose = {
	.name = "diagnose",
	.arguments = "",
	.summary = "what holds its memory, and which command to run next",
	.notes = "`memprobe TARGET` is the same. No thread is held for longer than 50 ms, and "
		 "nothing runs\nin the target.\n",
	.target = TARGET_ANY,
	.options = options,
	.stops = true,
	.run = run,
};
