#include "memprobe/classify.h"

#include <stdarg.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/lower_bound.h"
#include "memprobe/mmapped.h"
#include "memprobe/num.h"
#include "memprobe/ptmalloc.h"

/*
 * Blocks that malloc maps are this large unless a program lowered M_MMAP_THRESHOLD. Smaller
 * mappings are looked into, too, until so many in a row were none: a process with 20,000 of them is
 * to be answered in milliseconds.
 */
#define SMALL_MAPPING	     (64u << 10)
#define SMALL_MAPPING_MISSES 256

/* A file with code, so that its other mappings are its data. */
struct code_file {
	dev_t device;
	uint64_t inode;
	uint64_t start;	       /* of the module */
	struct module *module; /* NULL: known by an executable mapping alone */
	bool is_exe;
	bool end_known;
	uint64_t memory_end; /* of its last segment: where .bss ends */
};

VEC_DEFINE(code_file_vec, struct code_file)

struct stack {
	uint64_t start, end;
	const struct thread *thread;
	bool shared; /* with another thread's */
};

VEC_DEFINE(stack_vec, struct stack)

/* A piece of an arena other than the main one. */
struct heap {
	uint64_t start, end;
	const struct arena *arena;
	bool first; /* the one that holds the malloc_state */
};

VEC_DEFINE(heap_vec, struct heap)

struct classifier {
	struct target *target;
	struct mapping_vec *maps;
	struct code_file_vec files; /* by device, inode, start */
	struct stack_vec stacks;    /* by start */
	struct arena_vec arenas;
	struct heap_vec heaps; /* by start */
	/* Of each of @arenas, one that uses it; NULL: none known. */
	const struct thread **arena_threads;
	bool chunks; /* glibc's chunk headers can be looked for */
	unsigned small_misses;
};

/* Reading the target's memory is a refinement: what is refused only leaves less said. */
static struct error *forgive(struct error *error, bool *forgiven)
{
	if (!error || error == &error_no_memory)
		return error;
	error_destroy(error);
	*forgiven = true;
	return NULL;
}

/* ---- files with code ---- */

static int compare_files(const void *left, const void *right)
{
	const struct code_file *a = left, *b = right;

	if (a->device != b->device)
		return a->device < b->device ? -1 : 1;
	if (a->inode != b->inode)
		return a->inode < b->inode ? -1 : 1;
	return a->start < b->start ? -1 : a->start > b->start;
}

/* The module of the mapping's file that begins last before it. */
static struct code_file *find_file(struct code_file_vec *files, const struct mapping *mapping)
{
	struct code_file key = {
		.device = mapping->device,
		.inode = mapping->inode,
		.start = mapping->start,
	};
	size_t low = lower_bound(files->data, files->size, file, compare_files(file, &key) <= 0);

	/* Before the first: the same file mapped again, below the module. */
	if (low < files->size && (!low || files->data[low - 1].device != key.device ||
				  files->data[low - 1].inode != key.inode))
		low++;
	if (!low || files->data[low - 1].device != key.device ||
	    files->data[low - 1].inode != key.inode)
		return NULL;
	return &files->data[low - 1];
}

static void sort_files(struct code_file_vec *files)
{
	if (files->size)
		qsort(files->data, files->size, sizeof(*files->data), compare_files);
}

static struct error *collect_files(struct classifier *classifier)
{
	struct target *target = classifier->target;
	struct code_file_vec *files = &classifier->files;
	const struct module_vec *modules;
	bool failed = false;
	struct error *error = forgive(target_modules(target, &modules), &failed);
	size_t known;

	for (size_t i = 0; !error && !failed && i < modules->size; i++) {
		struct module *module = &modules->data[i];
		struct code_file file = {
			.device = module->device,
			.inode = module->inode,
			.start = module->start,
			.module = module,
			.is_exe = module->is_exe,
		};

		if (!module->is_vdso && module->inode)
			error = code_file_vec_append(files, &file);
	}
	sort_files(files);
	known = files->size;
	vec_for_each (mapping, classifier->maps) {
		struct code_file_vec sorted = { files->data, known, files->capacity };
		struct code_file file = {
			.device = mapping->device,
			.inode = mapping->inode,
			.start = mapping->start,
			.is_exe = target->exe && target->exe[0] &&
				  !strcmp(mapping->path, target->exe),
		};

		/* Code that a JIT compiler shares with itself through a memfd is no library. */
		if (!error && mapping->inode && (mapping->perms & PERM_EXEC) &&
		    !(mapping->perms & PERM_SHARED) && !find_file(&sorted, mapping))
			error = code_file_vec_append(files, &file);
	}
	sort_files(files);
	return error;
}

/* Where the module's memory ends, from its program headers; 0: unknown. */
static uint64_t memory_end(struct target *target, struct code_file *file)
{
	Elf64_Phdr header;

	for (unsigned i = 0; file->module && !file->end_known && i < 64 &&
			     module_program_header(target, file->module, i, &header);
	     i++)
		if (header.p_type == PT_LOAD)
			file->memory_end =
				max_u64(file->memory_end,
					file->module->bias + header.p_vaddr + header.p_memsz);
	file->end_known = true;
	return file->memory_end;
}

/*
 * An anonymous mapping right behind a module's data is its .bss, if most of it is: the kernel
 * merges it with whatever anonymous memory follows.
 */
static bool is_bss(struct classifier *classifier, const struct mapping *mapping,
		   const struct mapping *previous)
{
	struct code_file *file;
	uint64_t end;

	if (!previous || previous->end != mapping->start || !previous->inode ||
	    !(previous->perms & PERM_READ))
		return false;
	file = find_file(&classifier->files, previous);
	end = file ? memory_end(classifier->target, file) : 0;
	return end > mapping->start &&
	       round_up(end, PAGE_SIZE) - mapping->start >= (mapping->end - mapping->start) / 2;
}

/* ---- by name ---- */

static bool begins(const char *text, const char *beginning)
{
	return !strncmp(text, beginning, strlen(beginning));
}

static enum mapping_type type_of_file(struct classifier *classifier, const struct mapping *mapping)
{
	const char *path = mapping->path;
	struct code_file *file;
	bool shared = mapping->perms & PERM_SHARED;

	if (begins(path, "/anon_hugepage") || !strcmp(path, "/dev/zero"))
		return shared ? MAPPING_SHM : MAPPING_ANON;
	file = find_file(&classifier->files, mapping);
	if (file)
		return file->is_exe ? MAPPING_EXE : MAPPING_LIB;
	if (begins(path, "/memfd:") || begins(path, "/dev/shm/") || begins(path, "/SYSV"))
		return MAPPING_SHM;
	return MAPPING_FILE;
}

static enum mapping_type type_by_name(struct classifier *classifier, const struct mapping *mapping)
{
	const char *path = mapping->path;

	if (path[0] == '[') {
		if (begins(path, "[anon_shmem:"))
			return MAPPING_SHM;
		if (begins(path, "[anon:"))
			return mapping->perms & PERM_SHARED ? MAPPING_SHM : MAPPING_ANON;
		if (!strcmp(path, "[heap]"))
			return MAPPING_HEAP;
		if (!strcmp(path, "[stack]"))
			return MAPPING_STACK;
		if (begins(path, "[stack:"))
			return MAPPING_THREAD_STACK;
		return MAPPING_KERNEL;
	}
	if (mapping->inode || (path[0] && strcmp(path, "//anon")))
		return type_of_file(classifier, mapping);
	return mapping->perms & PERM_SHARED ? MAPPING_SHM : MAPPING_ANON;
}

/* ---- stacks ---- */

static int compare_stacks(const void *left, const void *right)
{
	const struct stack *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

/* Threads whose stacks share a mapping (goroutines in Go's heap) do not own it. */
static struct error *collect_stacks(struct classifier *classifier, const struct thread_vec *threads)
{
	struct stack_vec *stacks = &classifier->stacks;
	struct error *error = NULL;

	for (size_t i = 0; !error && threads && i < threads->size; i++) {
		const struct thread *thread = &threads->data[i];
		struct stack stack = { thread->stack_start, thread->stack_end, thread, false };

		if (thread->stack_start)
			error = stack_vec_append(stacks, &stack);
	}
	if (stacks->size)
		qsort(stacks->data, stacks->size, sizeof(*stacks->data), compare_stacks);
	for (size_t i = 1; i < stacks->size; i++)
		if (stacks->data[i].start == stacks->data[i - 1].start)
			stacks->data[i].shared = stacks->data[i - 1].shared = true;
	return error;
}

/*
 * The kernel merges neighbours, where glibc's guards are no mappings of their own many stacks: a
 * mapping is theirs if its greater part is. Returns how many, and the first.
 */
static size_t find_stacks(const struct stack_vec *stacks, const struct mapping *mapping,
			  const struct stack **ret)
{
	size_t low = lower_bound(stacks->data, stacks->size, stack, stack->end <= mapping->start);
	size_t count = 0;
	uint64_t covered = 0;

	for (; low < stacks->size && stacks->data[low].start < mapping->end; low++) {
		const struct stack *stack = &stacks->data[low];

		if (stack->shared)
			continue;
		if (!count++)
			*ret = stack;
		covered +=
			min_u64(stack->end, mapping->end) - max_u64(stack->start, mapping->start);
	}
	return covered > (mapping->end - mapping->start) / 2 ? count : 0;
}

/* ---- arenas ---- */

static int compare_heaps(const void *left, const void *right)
{
	const struct heap *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

static struct error *collect_heaps(struct classifier *classifier)
{
	struct heap_vec *heaps = &classifier->heaps;
	struct error *error = NULL;

	vec_for_each (arena, &classifier->arenas) {
		for (size_t i = 0; !error && !arena->is_main && i < arena->heaps.size; i++) {
			const struct arena_heap *piece = &arena->heaps.data[i];
			struct heap heap = {
				.start = piece->start,
				.end = piece->end,
				.arena = arena,
				.first = arena->address >= piece->start &&
					 arena->address < piece->end,
			};

			if (heap.start < heap.end)
				error = heap_vec_append(heaps, &heap);
		}
	}
	if (heaps->size)
		qsort(heaps->data, heaps->size, sizeof(*heaps->data), compare_heaps);
	return error;
}

static struct error *collect_arenas(struct classifier *classifier, const struct thread_vec *threads)
{
	struct arena_vec *arenas = &classifier->arenas;
	bool failed = false;
	struct error *error = forgive(
		ptmalloc_find_arenas_in(classifier->target, classifier->maps, arenas), &failed);

	if (!error)
		error = collect_heaps(classifier);
	classifier->arena_threads = calloc(arenas->size + 1, sizeof(*classifier->arena_threads));
	if (!error && !classifier->arena_threads)
		error = &error_no_memory;
	if (error || !classifier->heaps.size || !threads)
		return error;
	vec_for_each (thread, threads) {
		const struct arena *arena = arena_of_thread(classifier->target, thread, arenas);
		size_t index = arena ? arena - arenas->data : 0;

		if (arena && !classifier->arena_threads[index])
			classifier->arena_threads[index] = thread;
	}
	return NULL;
}

/* The kernel merges neighbours: a mapping is an arena's if its greater part is. */
static const struct heap *heap_of(const struct classifier *classifier,
				  const struct mapping *mapping)
{
	const struct heap_vec *heaps = &classifier->heaps;
	size_t low = lower_bound(heaps->data, heaps->size, heap, heap->end <= mapping->start);
	uint64_t covered = 0;
	const struct heap *first;

	first = heaps->data + low;
	for (; low < heaps->size && heaps->data[low].start < mapping->end; low++)
		covered += min_u64(heaps->data[low].end, mapping->end) -
			   max_u64(heaps->data[low].start, mapping->start);
	return covered > (mapping->end - mapping->start) / 2 ? first : NULL;
}

static const char *base_name(const struct mapping *mapping)
{
	const char *slash = strrchr(mapping->path, '/');

	return slash ? slash + 1 : mapping->path;
}

static struct error *set_label(struct mapping *mapping, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static struct error *set_label(struct mapping *mapping, const char *format, ...)
{
	va_list args;
	int length;

	free(mapping->label);
	va_start(args, format);
	length = vasprintf(&mapping->label, format, args);
	va_end(args);
	if (length < 0)
		mapping->label = NULL;
	return mapping->label ? NULL : &error_no_memory;
}

static struct error *set_thread(struct mapping *mapping, const struct thread *thread)
{
	mapping->tid = thread->tid;
	mapping->thread = strdup(thread->name);
	return mapping->thread ? NULL : &error_no_memory;
}

static struct error *set_arena(struct classifier *classifier, struct mapping *mapping,
			       const struct heap *heap)
{
	const struct thread *thread =
		classifier->arena_threads[heap->arena - classifier->arenas.data];
	struct error *error = thread ? set_thread(mapping, thread) : NULL;

	mapping->type = MAPPING_ARENA;
	if (error)
		return error;
	return set_label(mapping, "arena %u%s", heap->arena->index,
			 !(mapping->perms & PERM_WRITE) ? ", reserve"
			 : heap->first			? ""
							: ", a further heap");
}

/* ---- all of it ---- */

static struct error *try_chunks(struct classifier *classifier, struct mapping *mapping)
{
	bool small = mapping->end - mapping->start < SMALL_MAPPING, failed = false;
	size_t count = 0;
	uint64_t bytes = 0;
	struct error *error;

	if (!classifier->chunks || !mapping_may_hold_chunks(mapping) ||
	    (small && classifier->small_misses >= SMALL_MAPPING_MISSES))
		return NULL;
	error = forgive(mmapped_chunks(classifier->target, mapping, &count, &bytes), &failed);
	if (error)
		return error;
	classifier->chunks = !failed;
	if (small)
		classifier->small_misses = count ? 0 : classifier->small_misses + 1;
	if (!count || (bytes < (mapping->end - mapping->start) / 2 && count < MMAPPED_CHUNKS_MAX))
		return NULL;
	mapping->type = MAPPING_MMAP_CHUNK;
	return set_label(mapping, "%zu%s block%s", count, count == MMAPPED_CHUNKS_MAX ? "+" : "",
			 count == 1 ? "" : "s");
}

static struct error *classify_anonymous(struct classifier *classifier, struct mapping *mapping,
					const struct mapping *previous)
{
	const struct heap *heap = heap_of(classifier, mapping);
	const struct stack *stack;
	struct error *error;
	size_t stacks;

	if (heap)
		return set_arena(classifier, mapping, heap);
	if (!(mapping->perms & (PERM_READ | PERM_WRITE | PERM_EXEC))) {
		if (mapping->usage.rss == 0 && mapping->usage.swap == 0)
			mapping->type = MAPPING_GUARD;
		return NULL;
	}
	stacks = find_stacks(&classifier->stacks, mapping, &stack);
	if (stacks) {
		mapping->type = MAPPING_THREAD_STACK;
		if (stacks > 1)
			return set_label(mapping, "stacks of %zu threads", stacks);
		error = set_thread(mapping, stack->thread);
		return error ? error : set_label(mapping, "stack of %s", stack->thread->name);
	}
	if (is_bss(classifier, mapping, previous)) {
		mapping->type = previous->type;
		return set_label(mapping, ".bss of %s", base_name(previous));
	}
	return try_chunks(classifier, mapping);
}

static struct error *classify_all(struct classifier *classifier)
{
	struct mapping *previous = NULL;
	struct error *error = NULL;

	vec_for_each (mapping, classifier->maps) {
		mapping->type = type_by_name(classifier, mapping);
		if (mapping->type == MAPPING_ANON)
			error = classify_anonymous(classifier, mapping, previous);
		if (error)
			return error;
		/* What a guard once was may have kept pages. */
		if (previous && mapping->type == MAPPING_THREAD_STACK &&
		    previous->end == mapping->start && previous->type == MAPPING_ANON &&
		    !(previous->perms & (PERM_READ | PERM_WRITE | PERM_EXEC)))
			previous->type = MAPPING_GUARD;
		previous = mapping;
	}
	return NULL;
}

struct error *mappings_classify(struct target *target, struct mapping_vec *maps,
				const struct thread_vec *threads)
{
	struct classifier classifier = { .target = target, .maps = maps };
	bool failed = false;
	struct libc libc = { 0 };
	struct error *error = collect_files(&classifier);

	if (!error)
		error = forgive(target_libc(target, &libc), &failed);
	classifier.chunks = !failed && libc.kind == LIBC_GLIBC;
	if (!error)
		error = collect_stacks(&classifier, threads);
	if (!error)
		error = collect_arenas(&classifier, threads);
	if (!error)
		error = classify_all(&classifier);
	code_file_vec_deinit(&classifier.files);
	stack_vec_deinit(&classifier.stacks);
	heap_vec_deinit(&classifier.heaps);
	arenas_deinit(&classifier.arenas);
	free(classifier.arena_threads);
	return error;
}

/* One thread has the stack that the kernel names, and the main arena: nothing to ask for. */
static bool has_one_thread(struct target *target)
{
	struct process_status status;
	struct error *error;

	if (!target->process)
		return false;
	error = process_read_status(target->process, 0, &status);
	error_destroy(error);
	return !error && status.threads == 1;
}

static struct error *read_and_classify(struct target *target, struct mapping_vec *maps)
{
	struct thread_vec threads = { 0 };
	bool failed = has_one_thread(target);
	struct error *error = NULL;

	if (!failed)
		error = forgive(target_read_threads(target, &threads), &failed);
	if (!error)
		error = mappings_classify(target, maps, failed ? NULL : &threads);
	thread_vec_deinit(&threads);
	return error;
}

struct error *target_read_classified(struct target *target, enum maps_detail detail,
				     struct mapping_vec *ret)
{
	struct error *error = target_read_maps(target, detail, ret);

	if (error)
		return error;
	target->lent_maps = ret;
	error = read_and_classify(target, ret);
	target->lent_maps = NULL;
	return error;
}
