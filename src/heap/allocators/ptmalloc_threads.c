/* Which threads allocate from which arena: by what their thread-local `thread_arena` holds. */
#include "memprobe/elf_file.h"
#include "memprobe/num.h"
#include "memprobe/sparse_read.h"
#include "ptmalloc_layout.h"
#include "ptmalloc_walk.h"

#define TLS_SURPLUS  4096 /* what ld.so keeps for libraries to come, and a margin */
#define TLS_SCAN_MAX (1u << 20)

#define ANY_LIBC UINT32_MAX

static const struct arena *arena_at(const struct arena_vec *arenas, unsigned word, unsigned libc,
				    uint64_t address)
{
	for (size_t i = 0; i < arenas->size; i += arenas->data[i].libc_size) {
		const struct arena *main_arena = &arenas->data[i];

		if (address == main_arena->address)
			return libc == ANY_LIBC || libc == main_arena->libc ? main_arena : NULL;
		if (!main_arena->libc_size)
			break;
	}
	if (!ptmalloc_is_heap_info_size(word, address & ((1u << 20) - 1)))
		return NULL;
	vec_for_each (arena, arenas)
		if (arena->address == address && (libc == ANY_LIBC || libc == arena->libc))
			return arena;
	return NULL;
}

/*
 * How far static TLS reaches below a thread pointer (x86: TLS variant II), upper bound: every
 * module's PT_TLS. Below that, in the stacks of other threads than the first, are dead frames.
 */
static uint64_t static_tls_size(struct target *target)
{
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);
	uint64_t size = TLS_SURPLUS;
	Elf64_Phdr header;

	error_destroy(error);
	if (error)
		return TLS_SURPLUS;
	vec_for_each (module, modules)
		for (unsigned i = 0; module_program_header(target, module, i, &header); i++)
			if (header.p_type == PT_TLS && header.p_memsz < TLS_SCAN_MAX &&
			    header.p_align < TLS_SCAN_MAX)
				size += header.p_memsz + header.p_align;
	return min_u64(size, TLS_SCAN_MAX);
}

/*
 * Downwards page by page: the nearest hit counts, the lower end may not be mapped. Pages that the
 * thread has not touched yet stay so: they are its stack's.
 */
const struct arena *arena_of_thread_in(struct target *target, const struct thread *thread,
				       const struct arena_vec *arenas, unsigned libc)
{
	unsigned word = target->arch->word_size;
	uint64_t end = round_down(thread->thread_pointer, word), lowest;
	uint8_t bytes[PAGE_SIZE];

	if (end <= TLS_SCAN_MAX || end > target->arch->address_max)
		return NULL;
	lowest = end - round_down(static_tls_size(target), word);
	while (end > lowest) {
		uint64_t start = max_u64(lowest, round_down(end - 1, PAGE_SIZE));
		uint64_t missing = 0;
		struct error *error =
			target_read_sparse(target, start, bytes, end - start, &missing);

		error_destroy(error);
		if (error || missing)
			return NULL;
		for (size_t i = end - start; i >= word; i -= word) {
			const struct arena *arena =
				arena_at(arenas, word, libc, load_word(bytes + i - word, word));

			if (arena)
				return arena;
		}
		end = start;
	}
	return NULL;
}

const struct arena *arena_of_thread(struct target *target, const struct thread *thread,
				    const struct arena_vec *arenas)
{
	return arena_of_thread_in(target, thread, arenas, ANY_LIBC);
}

/* Each copy of malloc has a thread_arena of its own. */
static struct error *assign(const struct heap *heap, const struct thread_vec *threads,
			    const struct arena_vec *arenas, unsigned libcs,
			    struct heap_stats *stats)
{
	struct error *error = NULL;

	for (size_t i = 0; !error && i < threads->size * libcs; i++) {
		const struct thread *thread = &threads->data[i / libcs];
		const struct arena *arena =
			arena_of_thread_in(heap->target, thread, arenas, i % libcs);

		if (arena)
			error = pid_vec_append(&stats->arenas.data[arena->index].threads,
					       &thread->tid);
	}
	return error;
}

struct error *ptmalloc_add_threads(const struct heap *heap, const struct thread_vec *threads,
				   struct heap_stats *stats)
{
	struct arena_vec arenas = { 0 };
	struct error *error = NULL;
	unsigned libcs = 0;

	for (size_t i = 0; !error && i < heap->arenas.size; i++) {
		const struct heap_arena *from = &heap->arenas.data[i];
		struct arena arena = {
			.address = from->address,
			.index = i,
			.is_main = from->is_main,
			.libc = from->libc,
			.libc_size = from->libc_size,
		};

		libcs = max_u64(libcs, from->libc + 1);
		error = arena_vec_append(&arenas, &arena);
	}
	if (!error)
		error = assign(heap, threads, &arenas, libcs, stats);
	arenas_deinit(&arenas);
	vec_for_each (arena, &stats->arenas)
		arena->threads_known = !error;
	return error;
}
