/* What `leaks --retain` says: who points to a block. */
#include "leaks_output.h"

#include <inttypes.h>

#include "memprobe/leak_names.h"

struct retain_output {
	const struct heap_chunk *chunk;
	const struct retain_step_vec *chain, *referrers;
	/* Of each step, those of the chain first. */
	struct leak_name *names;
};

static const char *kind_name(enum leak_root_kind kind)
{
	static const char *const names[] = { "block",  "register", "stack",
					     "memory", "ended",	   "cached-stack" };

	return names[kind];
}

struct step_row {
	const char *kind, *what, *symbol, *module;
	uint64_t at, block, size; /* JSON_UNKNOWN: none */
	pid_t tid;
};

static const struct record_column step_columns[] = {
	RECORD(step_row, kind, "kind", NULL, RECORD_TEXT),
	RECORD(step_row, at, "at", NULL, RECORD_ADDRESS),
	RECORD(step_row, block, "block", NULL, RECORD_ADDRESS),
	RECORD(step_row, size, "size", NULL, RECORD_SIZE),
	RECORD(step_row, tid, "tid", NULL, RECORD_ID),
	RECORD(step_row, what, "what", NULL, RECORD_TEXT),
	RECORD(step_row, symbol, "symbol", NULL, RECORD_TEXT),
	RECORD(step_row, module, "module", NULL, RECORD_TEXT),
	{ 0 },
};

static json_t *json_steps(const struct retain_step_vec *steps, const struct leak_name *names)
{
	json_t *array = json_array();

	for (size_t i = 0; i < steps->size; i++) {
		const struct retain_step *step = &steps->data[i];
		const struct step_row row = {
			.kind = kind_name(step->kind),
			.what = names[i].text,
			.symbol = names[i].symbol,
			.module = names[i].module,
			.at = step->kind == ROOT_REGISTER ? JSON_UNKNOWN : step->at,
			.block = step->block ? step->block : JSON_UNKNOWN,
			.size = step->block ? step->size : JSON_UNKNOWN,
			.tid = step->tid,
		};

		json_array_append_new(array, records_json(step_columns, &row));
	}
	return array;
}

static void print_step(FILE *out, const struct retain_step *step, const struct leak_name *name)
{
	if (step->kind == ROOT_NONE)
		fprintf(out, "  0x%" PRIx64 " in the block 0x%" PRIx64 " of %" PRIu64 " bytes\n",
			step->at, step->block, step->size);
	else if (step->kind == ROOT_REGISTER)
		fprintf(out, "  %s\n", name->text);
	else
		fprintf(out, "  0x%" PRIx64 ": %s\n", step->at, name->text);
}

static struct error *print_retain(FILE *out, void *data)
{
	const struct retain_output *output = data;
	const struct leak_name *names = output->names;

	fprintf(out, "leaks: block 0x%" PRIx64 " of %" PRIu64 " bytes is %s\n",
		output->chunk->address, output->chunk->size,
		output->chain->size ? "reachable from" : "unreachable");
	vec_for_each (step, output->chain)
		print_step(out, step, names++);
	if (output->referrers->size)
		fprintf(out, "pointers to the block%s:\n",
			output->referrers->size == RETAIN_REFERRERS_MAX ? " (not all of them)"
									: "");
	vec_for_each (step, output->referrers)
		print_step(out, step, names++);
	return NULL;
}

static struct error *find_names(const struct heap *heap, const struct leak_options *options,
				struct retain_output *output)
{
	const struct retain_step_vec *vecs[] = { output->chain, output->referrers };
	cleanup(leak_names) struct leak_names *names = NULL;
	struct error *error = leak_names_create(heap, options, &names);
	size_t at = 0;

	for (unsigned i = 0; i < 2; i++)
		vec_for_each (step, vecs[i]) {
			if (!error && step->kind != ROOT_NONE)
				error = leak_names_find(names, step, &output->names[at]);
			at++;
		}
	return error;
}

static struct error *write_retain(struct command_context *context,
				  const struct retain_output *output)
{
	json_t *document, *block;

	if (!context->json)
		return command_print(context, print_retain, (void *)output);
	document = command_json(context);
	block = json_object();
	json_object_set_new(block, "address", json_address(output->chunk->address));
	json_object_set_new(block, "size", json_integer((json_int_t)output->chunk->size));
	json_object_set_new(block, "leaked", json_boolean(output->chain->size == 0));
	json_object_set_new(document, "block", block);
	json_object_set_new(document, "chain", json_steps(output->chain, output->names));
	json_object_set_new(document, "referrers",
			    json_steps(output->referrers, output->names + output->chain->size));
	return command_write_json(context, document);
}

struct error *retain_write(struct command_context *context, const struct heap *heap,
			   const struct leak_options *options, const struct heap_chunk *chunk,
			   const struct retain_step_vec *chain,
			   const struct retain_step_vec *referrers)
{
	size_t count = chain->size + referrers->size;
	struct retain_output output = { chunk, chain, referrers, NULL };
	struct error *error;

	output.names = calloc(count + 1, sizeof(*output.names));
	error = output.names ? find_names(heap, options, &output) : &error_no_memory;
	if (!error)
		error = write_retain(context, &output);
	for (size_t i = 0; output.names && i < count; i++)
		leak_name_deinit(&output.names[i]);
	free(output.names);
	return error;
}
