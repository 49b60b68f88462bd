#include "memprobe/cmd.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "find_output.h"
#include "memprobe/hexdump.h"
#include "memprobe/io.h"
#include "memprobe/log.h"
#include "memprobe/memory_walk.h"
#include "memprobe/num.h"

#define MISSING_NAMED 4

static const struct command_option options[] = {
	{ "hex", 'x', NULL, "print a hex dump instead" },
	{ NULL, 0, NULL, NULL },
};

struct dump {
	struct command_context *context;
	struct range_vec ranges;
	struct mapping_vec maps;
	struct range_vec missing; /* sorted, neighbours merged */
	struct output *output;
	uint64_t bytes;	   /* written, holes included */
	uint64_t readable; /* of them, what the target has */
	uint64_t size;	   /* of all ranges */
	bool hole_at_end;
	struct hexdump *hex;
};

/* ---- what was not there ---- */

static struct error *note_missing(struct dump *dump, uint64_t address, uint64_t size)
{
	struct range_vec *missing = &dump->missing;
	struct range range = { address, address + size };

	if (missing->size && missing->data[missing->size - 1].end == address) {
		missing->data[missing->size - 1].end = range.end;
		return NULL;
	}
	return range_vec_append(missing, &range);
}

static void warn_of_missing(const struct dump *dump)
{
	uint64_t bytes = 0;
	char text[SIZE_TEXT_MAX];

	for (size_t i = 0; i < dump->missing.size; i++) {
		const struct range *range = &dump->missing.data[i];

		bytes += range->end - range->start;
		if (i < MISSING_NAMED)
			log_warn("0x%llx-0x%llx is not mapped or not readable",
				 (unsigned long long)range->start, (unsigned long long)range->end);
	}
	if (dump->missing.size > MISSING_NAMED)
		log_warn("%zu ranges are missing, %s in all", dump->missing.size,
			 format_size(bytes, text));
}

/* ---- into a file ---- */

static struct error *interrupted(void)
{
	return command_interrupted() ? error_create(ERROR_INTERRUPTED, "interrupted") : NULL;
}

static struct error *write_zeros(struct dump *dump, uint64_t size)
{
	static const char zeros[64 << 10];
	struct error *error = NULL;

	while (!error && size) {
		size_t part = min_u64(size, sizeof(zeros));

		error = write_all(output_fd(dump->output), zeros, part, output_name(dump->output));
		if (!error)
			error = interrupted();
		size -= part;
	}
	return error;
}

static struct error *leave_hole(struct dump *dump, uint64_t size)
{
	struct error *error = NULL;

	if (!output_is_regular(dump->output))
		error = write_zeros(dump, size);
	else if (size > INT64_MAX || lseek(output_fd(dump->output), (off_t)size, SEEK_CUR) < 0)
		error = error_errno(ERROR_FAILED, EFBIG, "cannot write %s",
				    output_name(dump->output));
	dump->bytes += size;
	dump->hole_at_end = true;
	return error;
}

static struct error *file_bytes(void *data, uint64_t address, const void *bytes, size_t size)
{
	struct dump *dump = data;
	struct error *error =
		write_all(output_fd(dump->output), bytes, size, output_name(dump->output));

	dump->bytes += size;
	dump->readable += size;
	dump->hole_at_end = false;
	log_progress(dump->bytes, dump->size);
	return error ? error : interrupted();
}

static struct error *file_zeros(void *data, uint64_t address, uint64_t size)
{
	struct dump *dump = data;

	dump->readable += size;
	return leave_hole(dump, size);
}

static struct error *file_missing(void *data, uint64_t address, uint64_t size)
{
	struct dump *dump = data;
	struct error *error = note_missing(dump, address, size);

	return error ? error : leave_hole(dump, size);
}

static struct error *walk_ranges(struct dump *dump, const struct memory_visitor *visitor)
{
	struct error *error = NULL;

	dump->size = ranges_size(&dump->ranges);
	vec_for_each (range, &dump->ranges) {
		error = memory_walk(dump->context->target, &dump->maps, range->start, range->end,
				    visitor);
		if (error)
			return error;
	}
	if (!dump->readable)
		return error_create(ERROR_FAILED, "cannot read any of 0x%llx-0x%llx",
				    (unsigned long long)dump->ranges.data[0].start,
				    (unsigned long long)dump->ranges.data[0].end);
	return NULL;
}

static struct error *write_file(struct dump *dump)
{
	const char *path = dump->context->output_path;
	struct memory_visitor visitor = { file_bytes, file_zeros, file_missing, dump };
	cleanup(output) struct output *output = NULL;
	struct error *error = output_open(path ? path : "-", &output);

	if (error)
		return error;
	dump->output = output;
	error = walk_ranges(dump, &visitor);
	if (!error && dump->hole_at_end && output_is_regular(output) &&
	    ftruncate(output_fd(output), (off_t)dump->bytes) < 0)
		error = error_errno(ERROR_FAILED, errno, "cannot write %s", output_name(output));
	if (!error)
		error = output_commit(take_pointer(output));
	if (!error)
		command_written();
	return error;
}

/* ---- as text ---- */

static struct error *hex_bytes(void *data, uint64_t address, const void *bytes, size_t size)
{
	struct dump *dump = data;

	dump->readable += size;
	dump->bytes += size;
	hexdump_bytes(dump->hex, address, bytes, size);
	return interrupted();
}

static struct error *hex_zeros(void *data, uint64_t address, uint64_t size)
{
	struct dump *dump = data;

	dump->readable += size;
	dump->bytes += size;
	hexdump_zeros(dump->hex, address, size);
	return NULL;
}

static struct error *hex_missing(void *data, uint64_t address, uint64_t size)
{
	struct dump *dump = data;

	dump->bytes += size;
	hexdump_missing(dump->hex, address, size);
	return note_missing(dump, address, size);
}

static struct error *print_hex(FILE *out, void *data)
{
	struct dump *dump = data;
	struct memory_visitor visitor = { hex_bytes, hex_zeros, hex_missing, dump };
	struct hexdump hex = { .out = out, .bits = dump->context->target->arch->bits };
	struct error *error;

	dump->hex = &hex;
	error = walk_ranges(dump, &visitor);
	hexdump_end(&hex);
	return error;
}

/* ---- the command ---- */

static struct error *check_output(const struct command_context *context)
{
	bool to_stdout = !context->output_path || !strcmp(context->output_path, "-");

	if (command_option(context, "hex"))
		return context->json ? error_create(ERROR_USAGE, "--hex and --json exclude each "
								 "other")
				     : NULL;
	if (context->json && to_stdout)
		return error_hint(error_create(ERROR_USAGE,
					       "--json takes standard output: the bytes need -o "
					       "FILE"),
				  "add -o FILE");
	if (to_stdout && isatty(STDOUT_FILENO))
		return error_hint(error_create(ERROR_USAGE, "raw bytes do not go onto a terminal"),
				  "add -o FILE, or -x for a hex dump");
	return NULL;
}

static struct error *check_mapped(const struct dump *dump)
{
	vec_for_each (range, &dump->ranges)
		if (memory_is_mapped(&dump->maps, range->start, range->end))
			return NULL;
	return error_hint(error_create(ERROR_FAILED, "nothing is mapped at 0x%llx-0x%llx",
				       (unsigned long long)dump->ranges.data[0].start,
				       (unsigned long long)dump->ranges.data[0].end),
			  "`memprobe maps %s` shows what is", dump->context->target_text);
}

static json_t *json_ranges(const struct range_vec *ranges)
{
	json_t *array = command_json_ranges(ranges);
	uint64_t offset = 0;

	for (size_t i = 0; i < ranges->size; i++) {
		json_object_set_new(json_array_get(array, i), "offset", json_number(offset));
		offset += ranges->data[i].end - ranges->data[i].start;
	}
	return array;
}

static struct error *write_document(struct dump *dump)
{
	struct command_context *context = dump->context;
	const char *path = context->output_path;
	json_t *document = command_json(context);
	struct error *error;

	json_object_set_new(document, "file", json_text(path));
	json_object_set_new(document, "bytes", json_number(dump->bytes));
	json_object_set_new(document, "ranges", json_ranges(&dump->ranges));
	json_object_set_new(document, "missing", command_json_ranges(&dump->missing));
	/* -o was for the bytes. */
	context->output_path = NULL;
	error = command_write_json(context, document);
	context->output_path = path;
	return error;
}

static struct error *do_dump(struct dump *dump)
{
	struct command_context *context = dump->context;
	struct error *error = check_output(context);
	int used;

	if (!error)
		error = command_parse_ranges(context, 0, &used, &dump->ranges);
	if (!error && used < context->argument_count)
		error = error_create(ERROR_USAGE, "'%s' is one argument too many",
				     context->arguments[used]);
	if (!error)
		error = target_read_maps(context->target, MAPS_PLAIN, &dump->maps);
	if (!error)
		error = check_mapped(dump);
	if (!error && command_option(context, "hex"))
		error = command_print(context, print_hex, dump);
	else if (!error)
		error = write_file(dump);
	if (error)
		return error;
	warn_of_missing(dump);
	if (dump->missing.size)
		context->status = ERROR_PARTIAL;
	return context->json ? write_document(dump) : NULL;
}

static struct error *run_dump(struct command_context *context)
{
	struct dump dump = { .context = context };
	struct error *error = do_dump(&dump);

	range_vec_deinit(&dump.ranges);
	range_vec_deinit(&dump.missing);
	mappings_deinit(&dump.maps);
	return error;
}

const struct command cmd_dump = {
	.name = "dump",
	.arguments = "START END",
	.summary = "a range's bytes into a file; also START-END, START+SIZE, or the name of a type",
	.target = TARGET_ANY,
	.options = options,
	.arguments_min = 1,
	.arguments_max = 2,
	.run = run_dump,
};
