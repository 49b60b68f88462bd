#include "memprobe/cmd.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "find_output.h"
#include "frozen_heap.h"
#include "memprobe/core_writer.h"
#include "memprobe/dump_filter.h"
#include "memprobe/io.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/snapshot.h"

#define MISSING_NAMED 4

static const struct command_option options[] = {
	{ "compress", 'z', NULL, "compress by zstd; memprobe opens such cores as they are" },
	{ "full", 0, NULL, "all memory that can be read, whatever coredump_filter says" },
	{ "no-fork", 0, NULL, "hold the target while it is read, instead of forking it" },
	{ NULL, 0, NULL, NULL },
};

struct core_run {
	struct command_context *context;
	unsigned filter;
	/* Read before the target is stopped. */
	struct mapping_vec before; /* with usage */
	char *auxv, *arguments;
	size_t auxv_size;
	struct process_status status;
	/* Of the stop. */
	struct snapshot *snapshot;
	struct mapping_vec maps, dumped; /* @dumped borrows its paths from @maps */
	struct core_image image;
	struct range_vec missing;
	const struct memory_visitor *visitor;
	struct core_written written;
};

/* ---- before the stop ---- */

/* /proc/PID/coredump_filter: a hexadecimal number. */
static unsigned read_filter(const struct process *process)
{
	cleanup(free) char *text = NULL;
	cleanup(error) struct error *error =
		read_file_at(process->dirfd, "coredump_filter", &text, NULL);
	uint64_t filter;

	if (!error) {
		text[strcspn(text, "\n")] = '\0';
		error = parse_address(text, &filter);
	}
	return error ? DUMP_DEFAULT : (unsigned)filter & 0x1ff;
}

/* As ps shows it; "" of who has hidden or overwritten it. */
static struct error *read_arguments(struct core_run *run)
{
	size_t size = 0;
	struct error *error = read_file_at(run->context->target->process->dirfd, "cmdline",
					   &run->arguments, &size);

	if (error && error != &error_no_memory) {
		error_destroy(error);
		run->arguments = strdup("");
		return run->arguments ? NULL : &error_no_memory;
	}
	for (size_t i = 0; i + 1 < size; i++)
		if (!run->arguments[i])
			run->arguments[i] = ' ';
	return error;
}

static struct error *look_before(struct core_run *run)
{
	struct target *target = run->context->target;
	struct error *error = target_read_maps(target, MAPS_USAGE, &run->before);

	if (!error)
		error = process_read_status(target->process, 0, &run->status);
	if (!error)
		error = read_arguments(run);
	if (!error && target->ops->read_auxv)
		error = target->ops->read_auxv(target, &run->auxv, &run->auxv_size);
	run->filter =
		command_option(run->context, "full") ? DUMP_ALL : read_filter(target->process);
	return error;
}

/* ---- what goes into it ---- */

/* The mapping's flags and usage as they were a moment before. */
static void recall(const struct core_run *run, struct mapping *mapping)
{
	const struct mapping *before = mappings_find(&run->before, mapping->start);

	if (!before || before->inode != mapping->inode)
		return;
	mapping->usage_known = before->usage_known;
	mapping->usage = before->usage;
	mapping->no_dump = before->no_dump;
	mapping->is_huge = before->is_huge;
}

static bool is_own(const struct snapshot *snapshot, const struct mapping *mapping)
{
	return mapping->start >= snapshot->own_start && mapping->end <= snapshot->own_end;
}

static struct error *choose_memory(struct core_run *run)
{
	struct target *target = run->snapshot->target;
	struct error *error = target_read_maps(target, MAPS_PLAIN, &run->maps);

	for (size_t i = 0; !error && i < run->maps.size; i++) {
		struct mapping *mapping = &run->maps.data[i], part;
		struct core_piece piece = { .mapping = mapping };

		if (is_own(run->snapshot, mapping))
			continue;
		recall(run, mapping);
		piece.size = dump_filter_size(target, mapping, run->filter);
		error = core_piece_vec_append(&run->image.pieces, &piece);
		if (!error)
			error = dump_find_reserves(target, mapping, piece.size,
						   &run->image.reserves);
		part = *mapping;
		part.end = part.start + piece.size;
		if (!error && piece.size)
			error = mapping_vec_append(&run->dumped, &part);
	}
	return error;
}

/* The first thread of the process is the one that debuggers show first. */
static void order_threads(struct core_run *run)
{
	struct thread_state_vec *threads = &run->snapshot->threads;

	for (size_t i = 1; i < threads->size; i++) {
		struct thread_state state = threads->data[i];

		if (state.tid != run->context->target->pid)
			continue;
		threads->data[i] = threads->data[0];
		threads->data[0] = state;
		break;
	}
}

static pid_t known_pid(pid_t pid)
{
	return pid < 0 ? 0 : pid;
}

static void fill_image(struct core_run *run)
{
	const struct target *target = run->context->target;

	run->image.arch = target->arch;
	run->image.threads = &run->snapshot->threads;
	run->image.name = target->name;
	run->image.arguments = run->arguments;
	run->image.pid = target->pid;
	run->image.ppid = run->status.ppid;
	run->image.pgrp = known_pid(getpgid(target->pid));
	run->image.sid = known_pid(getsid(target->pid));
	run->image.uid = run->status.uid;
	run->image.gid = run->status.gid;
	run->image.state = run->status.state;
	run->image.auxv = run->auxv;
	run->image.auxv_size = run->auxv_size;
}

/* ---- writing ---- */

static struct error *take_bytes(void *data, uint64_t address, const void *bytes, size_t size)
{
	struct core_run *run = data;

	if (command_interrupted())
		return error_create(ERROR_INTERRUPTED, "interrupted");
	return run->visitor->bytes(run->visitor->data, address, bytes, size);
}

static struct error *take_zeros(void *data, uint64_t address, uint64_t size)
{
	struct core_run *run = data;

	return run->visitor->zeros(run->visitor->data, address, size);
}

static struct error *take_missing(void *data, uint64_t address, uint64_t size)
{
	struct core_run *run = data;

	return run->visitor->missing(run->visitor->data, address, size);
}

static struct error *visit_memory(void *data, const struct memory_visitor *visitor)
{
	struct core_run *run = data;
	struct memory_visitor own = { take_bytes, take_zeros, take_missing, run };
	struct error *error = NULL;

	run->visitor = visitor;
	if (run->dumped.size)
		error = memory_walk(run->snapshot->target, &run->dumped, run->dumped.data[0].start,
				    run->dumped.data[run->dumped.size - 1].end, &own);
	return error;
}

static struct error *note_missing(void *data, uint64_t address, uint64_t size)
{
	struct core_run *run = data;
	struct range_vec *missing = &run->missing;
	struct range range = { address, address + size };

	if (missing->size && missing->data[missing->size - 1].end == address) {
		missing->data[missing->size - 1].end = range.end;
		return NULL;
	}
	return range_vec_append(missing, &range);
}

static struct error *write_core(struct core_run *run, struct output *output)
{
	struct core_output to = {
		.fd = output_fd(output),
		.name = output_name(output),
		.regular = output_is_regular(output),
		.compress = command_option(run->context, "compress"),
		.memory = visit_memory,
		.missing = note_missing,
		.data = run,
	};

	fill_image(run);
	order_threads(run);
	return core_write(&run->image, &to, &run->written);
}

static struct error *freeze_and_write(struct core_run *run, struct output *output)
{
	struct snapshot_options options = command_snapshot_options(run->context);
	struct error *error;

	options.all_registers = true;
	error = snapshot_take(run->context->target, &options, &run->snapshot);

	if (error)
		return error;
	if (run->snapshot->missed.size)
		run->context->status = ERROR_PARTIAL;
	error = choose_memory(run);
	if (!error)
		error = write_core(run, output);
	command_stopped(run->context, snapshot_stopped_us(run->snapshot));
	/* The target goes on before anything else is done. */
	snapshot_destroy(take_pointer(run->snapshot));
	return error;
}

/* ---- the command ---- */

static struct error *check_output(const struct command_context *context)
{
	const char *path = context->output_path;

	if (!path)
		return error_hint(error_create(ERROR_USAGE, "core: -o FILE is missing"),
				  "memprobe core %s -o FILE", context->target_text);
	if (strcmp(path, "-"))
		return NULL;
	if (context->json)
		return error_create(ERROR_USAGE, "--json takes standard output: the core needs -o "
						 "FILE");
	return isatty(STDOUT_FILENO)
		       ? error_create(ERROR_USAGE, "a core does not go onto a terminal")
		       : NULL;
}

static void warn_of_missing(const struct core_run *run)
{
	uint64_t bytes = 0;
	char text[SIZE_TEXT_MAX];

	for (size_t i = 0; i < run->missing.size; i++) {
		const struct range *range = &run->missing.data[i];

		bytes += range->end - range->start;
		if (i < MISSING_NAMED)
			log_warn("0x%llx-0x%llx could not be read: it is zeros in the core",
				 (unsigned long long)range->start, (unsigned long long)range->end);
	}
	if (run->missing.size > MISSING_NAMED)
		log_warn("%zu ranges could not be read, %s in all", run->missing.size,
			 format_size(bytes, text));
	if (run->written.too_large)
		log_warn("the memory does not fit a 32-bit core: the last mappings are left out");
	if (run->missing.size || run->written.too_large)
		run->context->status = ERROR_PARTIAL;
}

/* gdb does not unpack a core. */
static void hint_at_gdb(const struct core_run *run, const char *path)
{
	struct command_context *context = run->context;
	const char *exe = context->target->exe[0] ? context->target->exe : "EXE";
	const char *ending = path + strlen(path) - min_u64(strlen(path), strlen(".zst"));
	char text[TABLE_SIZE_MAX];

	command_note(context, "core: %s of memory in %s",
		     table_size(command_style(context), run->written.data, text), path);
	if (!command_option(context, "compress"))
		command_hint(context, "`memprobe threads %s` or `gdb %s %s` opens it", path, exe,
			     path);
	else if (!strcmp(ending, ".zst"))
		command_hint(context,
			     "`memprobe threads %s` opens it; for gdb unpack it first: "
			     "`zstd -d %s && gdb %s %.*s`",
			     path, path, exe, (int)(ending - path), path);
	else
		command_hint(context,
			     "`memprobe threads %s` opens it; for gdb unpack it first: "
			     "`zstd -d < %s > %s.core && gdb %s %s.core`",
			     path, path, path, exe, path);
}

static struct error *report(struct core_run *run)
{
	struct command_context *context = run->context;
	const char *path = context->output_path;
	json_t *document;
	struct error *error;

	if (!context->json) {
		if (strcmp(path, "-"))
			hint_at_gdb(run, path);
		return NULL;
	}
	document = command_json(context);
	json_object_set_new(document, "file", json_text(path));
	json_object_set_new(document, "bytes", json_number(run->written.size));
	json_object_set_new(document, "data", json_number(run->written.data));
	json_object_set_new(document, "missing", command_json_ranges(&run->missing));
	/* -o was for the core. */
	context->output_path = NULL;
	error = command_write_json(context, document);
	context->output_path = path;
	return error;
}

static struct error *make_core(struct core_run *run)
{
	cleanup(output) struct output *output = NULL;
	struct error *error = check_output(run->context);

	if (!error)
		error = look_before(run);
	if (!error)
		error = output_open(run->context->output_path, &output);
	if (!error)
		error = freeze_and_write(run, output);
	if (!error)
		error = output_commit(take_pointer(output));
	if (!error)
		command_written();
	if (error)
		return error;
	warn_of_missing(run);
	return report(run);
}

static struct error *run_core(struct command_context *context)
{
	struct core_run run = { .context = context };
	struct error *error = make_core(&run);

	mappings_deinit(&run.before);
	mappings_deinit(&run.maps);
	mapping_vec_deinit(&run.dumped);
	core_piece_vec_deinit(&run.image.pieces);
	range_vec_deinit(&run.image.reserves);
	range_vec_deinit(&run.missing);
	free(run.auxv);
	free(run.arguments);
	return error;
}

const struct command cmd_core = {
	.name = "core",
	.arguments = "",
	.summary = "a core file of a running process, for gdb and for memprobe itself",
	.notes = "The target is held for the time of a fork: milliseconds for each GiB.\n",
	.target = TARGET_LIVE,
	.options = options,
	.stops = true,
	.run = run_core,
};
