/* glibc: malloc_info, malloc_stats, malloc_trim. None of them allocates. */
#include "ptmalloc_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/io.h"
#include "memprobe/log.h"
#include "memprobe/malloc_info.h"
#include "memprobe/num.h"
#include "memprobe/ptmalloc.h"

#define XML_PER_ARENA 16384u /* 127 size classes of at most 100 bytes */
#define XML_MIN	      (256u << 10)
#define STATS_MAX     (16u << 20)
#define STACK_NEEDED  32768u

/* Index of _fileno in struct _IO_FILE, in words. */
#define FILE_FILENO 14

/* ---- copies of malloc ---- */

/*
 * The arenas of the process, by copy. Each copy has functions of its own, in the module that has
 * its main arena, and so has it a stdio.
 */
static struct module *module_of(struct allocator_caller *caller, const struct arena *main_arena)
{
	return target_module_at(caller->target, main_arena->address);
}

static const struct arena *main_arena_of(const struct arena_vec *arenas, unsigned libc)
{
	vec_for_each (arena, arenas)
		if (arena->libc == libc && arena->is_main)
			return arena;
	return NULL;
}

static unsigned count_libcs(const struct arena_vec *arenas)
{
	return arenas->size ? arenas->data[arenas->size - 1].libc + 1 : 0;
}

static unsigned count_arenas(const struct arena_vec *arenas, unsigned libc)
{
	unsigned count = 0;

	vec_for_each (arena, arenas)
		count += arena->libc == libc;
	return count;
}

/* A copy's arenas were left out. */
static void miss(struct allocator_caller *caller, const struct arena_vec *arenas, unsigned libc)
{
	vec_for_each (arena, arenas)
		if (arena->libc == libc)
			caller->missing_bytes += arena->system_mem;
}

/* What only the first copy was asked for. */
static struct error *miss_all_but_first(struct allocator_caller *caller)
{
	struct arena_vec arenas = { 0 };
	struct error *error = ptmalloc_find_arenas(caller->target, &arenas);

	for (unsigned libc = 1; libc < count_libcs(&arenas); libc++)
		miss(caller, &arenas, libc);
	arenas_deinit(&arenas);
	return error;
}

/* ---- malloc_info ---- */

/* Of the copy in @module; NULL: the program's. */
static struct error *add_malloc_info(struct allocator_caller *caller, struct call_script *script,
				     struct call_buffer *buffer, void *data)
{
	struct module *module = data;
	struct elf_symbol symbol;
	uint64_t function;
	struct error *error = NULL;

	if (module && module_symbol(caller->target, module, "malloc_info", &symbol))
		function = symbol.address;
	else
		error = call_find_function(caller->session, "malloc_info", &function);
	if (!error)
		error = call_buffer_add_file(caller, module, script, buffer);
	if (error)
		return error;
	call_add_function(script, function, 2,
			  (struct call_arg[]){ CALL_ARG(0), CALL_ADDR(buffer->file) });
	return NULL;
}

/* @count: how many arenas it is going to tell of, about. */
static struct error *run_malloc_info(struct allocator_caller *caller, struct module *module,
				     uint64_t count, struct call_text *ret)
{
	struct call_options options = {
		.uses_malloc = true,
		.helper_allowed = true,
		.abort_in_lock_wait = true,
		.stack_needed = STACK_NEEDED,
	};

	return call_for_text(caller, max_u64(XML_MIN, (count + 4) * XML_PER_ARENA), options,
			     add_malloc_info, module, ret, NULL);
}

/* The program's: the first copy's. */
struct error *ptmalloc_xml(struct allocator_caller *caller, struct call_text *ret)
{
	struct arena_vec arenas = { 0 };
	struct error *error = ptmalloc_find_arenas(caller->target, &arenas);

	if (!error)
		error = run_malloc_info(caller, NULL, count_arenas(&arenas, 0), ret);
	if (!error)
		error = miss_all_but_first(caller);
	arenas_deinit(&arenas);
	return error;
}

static struct error *read_malloc_info(struct allocator_caller *caller, struct module *module,
				      uint64_t count, struct heap_stats *ret)
{
	struct call_text text = { 0 };
	struct error *error = run_malloc_info(caller, module, count, &text);

	if (!error)
		error = malloc_info_parse(text.bytes ? text.bytes : "", text.size, ret);
	call_text_deinit(&text);
	return error;
}

/* A copy that never allocated: its functions would only get it ready. */
static struct error *add_unused(const struct arena_vec *arenas, unsigned libc,
				struct heap_stats *ret)
{
	struct error *error = NULL;

	memset(&ret->totals, 0, sizeof(ret->totals));
	ret->mmapped_count = ret->mmapped_bytes = 0;
	vec_for_each (arena, arenas) {
		struct arena_stats *stats;

		if (error || arena->libc != libc)
			continue;
		error = heap_stats_add_arena(ret, 0, &stats);
		if (!error)
			stats->figures = (struct heap_figures){ 0 };
	}
	return error;
}

/* The figures of one of several copies, beside those of the ones before. */
static struct error *add_copy(struct allocator_caller *caller, const struct arena_vec *arenas,
			      unsigned libc, struct heap_stats *ret)
{
	const struct arena *main_arena = main_arena_of(arenas, libc);
	struct module *module = main_arena ? module_of(caller, main_arena) : NULL;
	struct elf_symbol symbol;
	struct heap_stats stats;
	struct error *error;

	heap_stats_init(&stats);
	if (main_arena && !main_arena->top) {
		error = add_unused(arenas, libc, &stats);
	} else if (!module || !module_symbol(caller->target, module, "malloc_info", &symbol) ||
		   symbol.type != STT_FUNC) {
		miss(caller, arenas, libc);
		return NULL;
	} else {
		error = read_malloc_info(caller, module, count_arenas(arenas, libc), &stats);
	}
	vec_for_each (arena, &stats.arenas)
		arena->libc = libc;
	if (!error)
		error = heap_stats_merge(ret, &stats);
	heap_stats_deinit(&stats);
	return error;
}

static struct error *read_copies(struct allocator_caller *caller, const struct arena_vec *arenas,
				 struct heap_stats *ret)
{
	unsigned libcs = count_libcs(arenas);
	struct error *error = NULL;

	if (libcs <= 1)
		return read_malloc_info(caller, NULL, arenas->size, ret);
	for (unsigned libc = 0; !error && libc < libcs; libc++)
		error = add_copy(caller, arenas, libc, ret);
	return error;
}

/* The size of its top chunk, which malloc_info does not tell. */
static uint64_t read_top(struct target *target, const struct arena *arena)
{
	uint64_t field;
	struct error *error;

	if (!arena->top)
		return 0;
	error = target_read_word(target, arena->top + target->arch->word_size, &field);
	error_destroy(error);
	return error ? STAT_UNKNOWN : field & ~(uint64_t)7;
}

/* malloc_info counts the arenas along the same rings. As many were found @before and @after, so
 * they are the same ones. */
static bool are_same(const struct heap_stats *stats, const struct arena_vec *before,
		     const struct arena_vec *after)
{
	if (!after->size || before->size != after->size || stats->arenas.size != after->size)
		return false;
	for (size_t i = 0; i < after->size; i++)
		if (before->data[i].address != after->data[i].address ||
		    stats->arenas.data[i].libc != after->data[i].libc)
			return false;
	return true;
}

/* Each copy of malloc has a thread_arena of its own. */
static struct error *add_threads(struct target *target, const struct arena_vec *arenas,
				 struct heap_stats *stats)
{
	unsigned libcs = count_libcs(arenas);
	struct thread_vec threads = { 0 };
	struct error *error = target_read_threads(target, &threads);

	for (size_t i = 0; !error && i < threads.size * libcs; i++) {
		const struct thread *thread = &threads.data[i / libcs];
		const struct arena *arena = arena_of_thread_in(target, thread, arenas, i % libcs);

		if (arena)
			error = pid_vec_append(&stats->arenas.data[arena->index].threads,
					       &thread->tid);
	}
	thread_vec_deinit(&threads);
	return error;
}

static struct error *add_addresses(const struct arena_vec *before, struct target *target,
				   struct heap_stats *stats)
{
	struct arena_vec after = { 0 };
	struct error *error = ptmalloc_find_arenas(target, &after);

	if (!error && are_same(stats, before, &after)) {
		vec_for_each (arena, &after) {
			struct arena_stats *to = &stats->arenas.data[arena->index];

			to->address = arena->address;
			to->is_main = arena->is_main;
			to->module = arena->module;
			to->threads_known = true;
			to->figures.top = read_top(target, arena);
		}
		heap_stats_sum_caches(stats);
		error = add_threads(target, &after, stats);
	}
	arenas_deinit(&after);
	return error;
}

struct error *ptmalloc_stats(struct allocator_caller *caller, struct heap_stats *ret)
{
	struct arena_vec arenas = { 0 };
	struct error *error = ptmalloc_find_arenas(caller->target, &arenas);

	if (!error)
		error = read_copies(caller, &arenas, ret);
	if (!error)
		error = add_addresses(&arenas, caller->target, ret);
	arenas_deinit(&arenas);
	return error;
}

/* ---- malloc_stats ---- */

struct stats_run {
	int fd; /* that stderr writes to */
	struct call_text text;
};

/* The descriptor behind the target's stderr, which is where malloc_stats prints. */
static struct error *find_stderr(struct target *target, int *ret)
{
	unsigned word = target->arch->word_size;
	struct elf_symbol symbol;
	uint64_t file;
	uint32_t fd;
	struct error *error;

	if (!target_symbol(target, "stderr", &symbol, NULL))
		return error_create(ERROR_UNSUPPORTED, "process %d has no symbol stderr",
				    (int)target->pid);
	error = target_read_word(target, symbol.address, &file);
	if (!error)
		error = target_read_u32(target, file + FILE_FILENO * word, &fd);
	if (error)
		return error;
	if (fd > INT32_MAX)
		return error_hint(error_create(ERROR_UNSUPPORTED,
					       "stderr of process %d is closed: malloc_stats has "
					       "nowhere to print",
					       (int)target->pid),
				  "`memprobe mallinfo` without --stats gives the same figures");
	*ret = (int)fd;
	return NULL;
}

/* What was written to the memfd, through the descriptor table of the thread that ran it. */
static struct error *take_stats(struct target *target, const struct call_result *result, void *data)
{
	struct stats_run *run = data;
	cleanup(close) int fd = -1;
	char path[64];
	size_t size = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", (int)target->pid, (int)result->tid,
		 run->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(ERROR_FAILED, errno, "cannot open %s", path);
	call_text_deinit(&run->text);
	for (;;) {
		char *bytes = realloc(run->text.bytes, size + STACK_NEEDED + 1);
		ssize_t count;

		if (!bytes)
			return &error_no_memory;
		run->text.bytes = bytes;
		count = pread(fd, bytes + size, STACK_NEEDED, (off_t)size);
		if (count < 0)
			return error_errno(ERROR_FAILED, errno, "cannot read %s", path);
		size += count;
		bytes[size] = '\0';
		run->text.size = size;
		if (count == 0 || size >= STATS_MAX)
			return NULL;
	}
}

/* In a helper thread with a descriptor table of its own, which ends with it. */
static void add_private_stats(struct call_script *script, int fd, uint64_t malloc_stats)
{
	const struct arch *arch = script->arch;
	size_t name = call_add_data(script, "memprobe", sizeof("memprobe"));
	size_t memfd = call_add_syscall(script, arch->syscalls.memfd_create, 2,
					(struct call_arg[]){ CALL_ADDR(name), CALL_ARG(0) },
					CALL_NO_ERRNO, 0);

	call_add_syscall(script, arch->syscalls.dup3, 3,
			 (struct call_arg[]){ CALL_WORD(memfd), CALL_ARG(fd), CALL_ARG(0) },
			 CALL_NO_ERRNO, 0);
	call_add_function(script, malloc_stats, 0, NULL);
	call_add_marker(script);
}

/*
 * In the only thread: its stderr is put aside and back. The words start as -1, which the clean-up
 * calls refuse as a descriptor, should the script end before they are set.
 */
static void add_shared_stats(struct call_script *script, int fd, int flags, uint64_t malloc_stats)
{
	const struct arch *arch = script->arch;
	size_t name = call_add_data(script, "memprobe", sizeof("memprobe"));
	size_t saved = call_add_syscall(
		script, arch->syscalls.fcntl, 3,
		(struct call_arg[]){ CALL_ARG(fd), CALL_ARG(F_DUPFD_CLOEXEC), CALL_ARG(3) },
		CALL_NO_ERRNO, 0);
	size_t memfd = call_add_syscall(script, arch->syscalls.memfd_create, 2,
					(struct call_arg[]){ CALL_ADDR(name), CALL_ARG(1) },
					CALL_NO_ERRNO, 0);

	memset(script->data + saved, 0xff, arch->word_size);
	memset(script->data + memfd, 0xff, arch->word_size);
	call_add_syscall(script, arch->syscalls.dup3, 3,
			 (struct call_arg[]){ CALL_WORD(memfd), CALL_ARG(fd), CALL_ARG(0) },
			 CALL_NO_ERRNO, 0);
	call_add_function(script, malloc_stats, 0, NULL);
	call_add_marker(script);
	call_add_syscall(script, arch->syscalls.dup3, 3,
			 (struct call_arg[]){ CALL_WORD(saved), CALL_ARG(fd), CALL_ARG(flags) },
			 CALL_ANY, 0);
	call_add_syscall(script, arch->syscalls.close, 1, (struct call_arg[]){ CALL_WORD(saved) },
			 CALL_ANY, 0);
	call_add_syscall(script, arch->syscalls.close, 1, (struct call_arg[]){ CALL_WORD(memfd) },
			 CALL_ANY, 0);
}

/* O_CLOEXEC or 0, as the descriptor has it. */
static int descriptor_flags(struct target *target, int fd)
{
	cleanup(free) char *text = NULL;
	char path[32], *line;
	struct error *error;
	size_t size;

	snprintf(path, sizeof(path), "fdinfo/%d", fd);
	error = read_file_at(target->process->dirfd, path, &text, &size);
	error_destroy(error);
	line = error ? NULL : strstr(text, "flags:");
	return line && strtoul(line + strlen("flags:"), NULL, 8) & O_CLOEXEC ? O_CLOEXEC : 0;
}

/* A write beyond the limit would raise SIGXFSZ, which ends a process that does not expect it. */
static struct error *check_file_limit(const struct target *target)
{
	uint64_t limit = process_limit(target->process, "Max file size");

	if (limit >= STATS_MAX)
		return NULL;
	return error_hint(error_create(ERROR_UNSUPPORTED,
				       "%d may write files of %llu bytes only (RLIMIT_FSIZE): "
				       "malloc_stats cannot be captured",
				       (int)target->pid, (unsigned long long)limit),
			  "`memprobe mallinfo` without --stats gives the figures");
}

static struct error *is_threaded(struct target *target, bool *ret)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(target->process, &tids);

	*ret = tids.size > 1;
	pid_vec_deinit(&tids);
	return error;
}

static struct error *run_malloc_stats(struct allocator_caller *caller, struct call_text *ret)
{
	struct stats_run run = { 0 };
	struct call_options options = {
		.uses_malloc = true,
		.stack_needed = STACK_NEEDED,
		.at_marker = take_stats,
		.at_marker_data = &run,
	};
	struct call_result result = { 0 };
	struct call_script script;
	uint64_t malloc_stats;
	bool threaded;
	struct error *error = check_file_limit(caller->target);

	if (!error)
		error = find_stderr(caller->target, &run.fd);
	if (!error)
		error = call_find_function(caller->session, "malloc_stats", &malloc_stats);
	if (!error)
		error = is_threaded(caller->target, &threaded);
	if (error)
		return error;
	call_begin(&script, caller->target->arch);
	if (threaded)
		add_private_stats(&script, run.fd, malloc_stats);
	else
		add_shared_stats(&script, run.fd, descriptor_flags(caller->target, run.fd),
				 malloc_stats);
	options.helper_allowed = options.helper_private_files = threaded;
	error = call_run(caller->session, &script, &options, &result);
	if (threaded && error_is(error, ERROR_UNSUPPORTED) && !error->hint)
		error = error_hint(error,
				   "malloc_stats prints to stderr, which other threads share; "
				   "`memprobe mallinfo` without --stats gives the figures");
	if (!error)
		error = check_completed(&result, "redirect stderr");
	if (error)
		call_text_deinit(&run.text);
	else
		*ret = run.text;
	return error;
}

/*
 * malloc_stats counts in unsigned int up to glibc 2.36 and beyond: over 4 GiB it prints the rest
 * of the division.
 */
static struct error *warn_of_overflow(struct allocator_caller *caller)
{
	struct heap_stats stats;
	struct error *error;
	uint64_t total;

	if (caller->target->arch->bits != 64)
		return NULL;
	heap_stats_init(&stats);
	error = read_malloc_info(caller, NULL, 0, &stats);
	total = error ? 0 : stats.totals.system + stats.mmapped_bytes;
	if (total > UINT32_MAX)
		log_warn(
			"malloc_stats counts in 32 bits; the true figures are: system bytes %" PRIu64
			", in use bytes %" PRIu64,
			total, stats.totals.in_use + stats.mmapped_bytes);
	heap_stats_deinit(&stats);
	return error;
}

struct error *ptmalloc_text(struct allocator_caller *caller, struct call_text *ret)
{
	struct error *error = run_malloc_stats(caller, ret);

	if (!error)
		error = warn_of_overflow(caller);
	if (!error)
		error = miss_all_but_first(caller);
	return error;
}

/* ---- malloc_trim ---- */

static struct error *trim_by(struct allocator_caller *caller, uint64_t function, uint64_t pad,
			     int64_t *returned_ret)
{
	struct call_options options = {
		.uses_malloc = true,
		.helper_allowed = true,
		.abort_in_lock_wait = true,
		.stack_needed = STACK_NEEDED,
	};
	struct call_result result = { 0 };
	struct call_script script;
	size_t returned;
	struct error *error;

	call_begin(&script, caller->target->arch);
	returned = call_add_function(&script, function, 1, (struct call_arg[]){ CALL_ARG(pad) });
	call_add_marker(&script);
	error = call_run(caller->session, &script, &options, &result);
	if (!error)
		error = check_completed(&result, "trim");
	if (!error)
		*returned_ret = (int32_t)call_result_word(&result, &script, returned);
	return error;
}

/* A further copy of malloc, which has the arena @main_arena: by its own malloc_trim. */
static struct error *trim_other(struct allocator_caller *caller, const struct arena *main_arena,
				uint64_t pad, int64_t *returned_ret)
{
	struct module *module = module_of(caller, main_arena);
	struct elf_symbol symbol;
	int64_t returned = 0;
	struct error *error = NULL;

	if (!module || !module_symbol(caller->target, module, "malloc_trim", &symbol) ||
	    symbol.type != STT_FUNC) {
		log_warn("%s has a malloc of its own, but no malloc_trim: its memory stays",
			 main_arena->module);
		return NULL;
	}
	error = trim_by(caller, symbol.address, pad, &returned);
	*returned_ret |= !error && returned;
	return error;
}

struct error *ptmalloc_trim(struct allocator_caller *caller, uint64_t pad, int64_t *returned_ret)
{
	struct arena_vec arenas = { 0 };
	uint64_t function;
	struct error *error = call_find_function(caller->session, "malloc_trim", &function);

	if (!error)
		error = trim_by(caller, function, pad, returned_ret);
	if (!error)
		error = ptmalloc_find_arenas(caller->target, &arenas);
	vec_for_each (arena, &arenas)
		if (!error && arena->libc && arena->is_main && arena->top)
			error = trim_other(caller, arena, pad, returned_ret);
	arenas_deinit(&arenas);
	return error;
}
