#include "memprobe/leak_names.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/num.h"
#include "memprobe/pthread_lists.h"
#include "memprobe/sparse_read.h"
#include "memprobe/symbols.h"
#include "memprobe/unwind.h"

/* Of a stack, from its pointer upwards, what is copied to be unwound. */
#define STACK_MAX (4u << 20)
/* How far static thread-local storage reaches below a thread pointer, at most. */
#define TLS_MAX (1u << 20)
/* Program headers of a module that are looked at. */
#define HEADERS_MAX 64u

struct leak_names {
	const struct heap *heap;
	const struct leak_options *options;
	struct symbolizer *symbolizer;
	struct unwinder *unwinder;
	/* The frames of the thread that was asked for last. */
	struct frame_vec frames;
	pid_t frames_tid;
};

struct error *leak_names_create(const struct heap *heap, const struct leak_options *options,
				struct leak_names **ret)
{
	cleanup(leak_names) struct leak_names *names = calloc(1, sizeof(*names));
	struct error *error;

	if (!names)
		return &error_no_memory;
	names->heap = heap;
	names->options = options;
	error = symbolizer_create(heap->target, &names->symbolizer);
	if (!error)
		error = unwinder_create(names->symbolizer, &names->unwinder);
	if (!error)
		*ret = take_pointer(names);
	return error;
}

void leak_names_destroy(struct leak_names *names)
{
	if (!names)
		return;
	frame_vec_deinit(&names->frames);
	unwinder_destroy(names->unwinder);
	symbolizer_destroy(names->symbolizer);
	free(names);
}

void leak_name_deinit(struct leak_name *name)
{
	free(name->text);
	free(name->symbol);
	free(name->module);
	*name = (struct leak_name){ 0 };
}

__attribute__((format(printf, 2, 3))) static struct error *set_text(struct leak_name *name,
								    const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vasprintf(&name->text, format, args);
	va_end(args);
	if (length < 0)
		name->text = NULL;
	return length < 0 ? &error_no_memory : NULL;
}

static struct error *copy_text(const char *text, char **ret)
{
	*ret = text ? strdup(text) : NULL;
	return text && !*ret ? &error_no_memory : NULL;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* ---- threads ---- */

#define THREAD_TEXT 96

/* `thread 12 "worker"`. */
static const char *thread_text(const struct leak_names *names, pid_t tid, char text[THREAD_TEXT])
{
	snprintf(text, THREAD_TEXT, "thread %d", (int)tid);
	for (size_t i = 0; names->options->threads && i < names->options->threads->size; i++) {
		const struct thread *thread = &names->options->threads->data[i];

		if (thread->tid == tid && *thread->name)
			snprintf(text, THREAD_TEXT, "thread %d \"%s\"", (int)tid, thread->name);
	}
	return text;
}

static const struct thread_state *state_of(const struct leak_names *names, pid_t tid)
{
	const struct thread_state_vec *states = names->options->states;

	for (size_t i = 0; states && i < states->size; i++)
		if (states->data[i].tid == tid)
			return &states->data[i];
	return NULL;
}

static struct error *unwind(struct leak_names *names, pid_t tid, uint64_t stack_end)
{
	const struct arch *arch = names->heap->target->arch;
	const struct thread_state *known = state_of(names, tid);
	cleanup(free) uint8_t *stack = NULL;
	struct thread_state state;
	struct error *error;
	uint64_t sp;

	if (names->frames_tid == tid)
		return NULL;
	names->frames.size = 0;
	names->frames_tid = tid;
	if (!known)
		return NULL;
	state = *known;
	sp = arch->sp(&state.regs);
	if (sp >= stack_end)
		return NULL;
	state.stack_start = round_down(sp - min_u64(sp, arch->red_zone), arch->word_size);
	state.stack_size = min_u64(stack_end - state.stack_start, STACK_MAX);
	state.stack = stack = malloc(state.stack_size);
	if (!stack)
		return &error_no_memory;
	error = target_read_sparse(names->heap->target, state.stack_start, stack, state.stack_size,
				   NULL);
	if (!error)
		error = unwind_thread(names->unwinder, &state, &names->frames);
	if (error && error != &error_no_memory) {
		error_destroy(error);
		names->frames.size = 0;
		error = NULL;
	}
	return error;
}

/* The function whose frame has @at: the last one that was called from above it. */
static struct error *find_frame(struct leak_names *names, uint64_t at, struct leak_name *ret)
{
	struct symbol_vec symbols = { 0 };
	struct error *error = NULL;

	vec_for_each (frame, &names->frames) {
		if (!frame->cfa)
			break;
		if (at >= frame->cfa)
			continue;
		error = symbolize(names->symbolizer, frame->pc, !frame->is_activation, &symbols);
		if (!error && symbols.size) {
			/* The function itself, not what is inlined there. */
			const struct symbol *symbol = &symbols.data[symbols.size - 1];

			error = copy_text(symbol->function, &ret->symbol);
			if (!error)
				error = copy_text(symbol->module, &ret->module);
		}
		break;
	}
	symbols_deinit(&symbols);
	return error;
}

static struct error *name_register(const struct leak_names *names, const struct retain_step *step,
				   struct leak_name *ret)
{
	const struct arch *arch = names->heap->target->arch;
	const char *name =
		step->number < arch->register_count ? arch->register_names[step->number] : NULL;
	char thread[THREAD_TEXT];

	thread_text(names, step->tid, thread);
	return name ? set_text(ret, "register %s of %s", name, thread)
		    : set_text(ret, "a register of %s", thread);
}

/* ---- thread-local storage ---- */

struct tls_search {
	uint64_t offset; /* into the module's block */
	char *name;	 /* of the variable there */
	uint64_t name_offset;
	bool failed;
};

static bool is_tls_symbol(const char *name, const struct elf_symbol *symbol, void *data)
{
	struct tls_search *search = data;

	if (symbol->type != STT_TLS || search->offset < symbol->address ||
	    search->offset - symbol->address >= symbol->size)
		return true;
	search->name = demangle(name);
	search->name_offset = search->offset - symbol->address;
	search->failed = !search->name;
	return false;
}

static bool find_tls_header(struct target *target, struct module *module, Elf64_Phdr *ret)
{
	for (unsigned i = 0; i < HEADERS_MAX && module_program_header(target, module, i, ret); i++)
		if (ret->p_type == PT_TLS)
			return true;
	return false;
}

/*
 * The module whose thread-local storage has @at in the thread with that thread pointer. glibc
 * numbers modules with such storage as it loads them; its dtv has two words for each number, the
 * first of which is the address of the thread's storage (sysdeps/generic/dl-dtv.h).
 */
static struct module *find_tls_module(struct target *target, uint64_t pointer, uint64_t at,
				      uint64_t *offset_ret)
{
	const unsigned word = target->arch->word_size;
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);
	uint64_t dtv = 0, block;
	unsigned number = 0;

	if (!error)
		error = target_read_word(target, pointer + word, &dtv);
	for (size_t i = 0; !error && i < modules->size; i++) {
		Elf64_Phdr header;

		if (!find_tls_header(target, &modules->data[i], &header))
			continue;
		number++;
		error = target_read_word(target, dtv + number * 2 * word, &block);
		if (!error && at >= block && at - block < header.p_memsz) {
			*offset_ret = at - block;
			return &modules->data[i];
		}
	}
	error_destroy(error);
	return NULL;
}

/* The thread whose static thread-local storage may have @at: its control block is next above. */
static const struct thread *find_tls_thread(const struct leak_names *names, uint64_t at)
{
	const struct thread_vec *threads = names->options->threads;
	const struct thread *found = NULL;

	for (size_t i = 0; threads && i < threads->size; i++) {
		const struct thread *thread = &threads->data[i];

		if (thread->thread_pointer > at && thread->thread_pointer - at < TLS_MAX &&
		    (!found || thread->thread_pointer < found->thread_pointer))
			found = thread;
	}
	return found;
}

/* Leaves *ret as it is if @at is in no thread-local variable. */
static struct error *name_tls(const struct leak_names *names, uint64_t at, struct leak_name *ret)
{
	struct target *target = names->heap->target;
	const struct thread *thread = find_tls_thread(names, at);
	struct tls_search search = { 0 };
	struct module *module;
	char text[THREAD_TEXT];
	struct error *error;

	module =
		thread ? find_tls_module(target, thread->thread_pointer, at, &search.offset) : NULL;
	if (!module)
		return NULL;
	error = module_each_symbol(target, module, is_tls_symbol, &search);
	error_destroy(error);
	if (search.failed)
		return &error_no_memory;
	ret->symbol = search.name;
	error = copy_text(module->path, &ret->module);
	thread_text(names, thread->tid, text);
	if (error)
		return error;
	if (!ret->symbol)
		return set_text(ret, "thread-local storage of %s, of %s", text,
				base_name(module->path));
	if (search.name_offset)
		return set_text(ret, "thread-local %s+0x%" PRIx64 " of %s", ret->symbol,
				search.name_offset, text);
	return set_text(ret, "thread-local %s of %s", ret->symbol, text);
}

/* ---- memory ---- */

static const struct thread *thread_at(const struct leak_names *names, uint64_t at)
{
	const struct thread_vec *threads = names->options->threads;

	for (size_t i = 0; threads && i < threads->size; i++) {
		uint64_t pointer = threads->data[i].thread_pointer;

		if (pointer && at >= pointer && at - pointer < PTHREAD_BLOCK_SIZE)
			return &threads->data[i];
	}
	return NULL;
}

static struct error *name_stack(struct leak_names *names, const struct retain_step *step,
				struct leak_name *ret)
{
	const struct thread *block = thread_at(names, step->at);
	uint64_t end = step->at + 1;
	char thread[THREAD_TEXT];
	struct error *error = name_tls(names, step->at, ret);

	if (error || ret->text)
		return error;
	thread_text(names, step->tid, thread);
	/* Values of pthread_setspecific() are there. */
	if (block && block->tid == step->tid)
		return set_text(ret, "thread-specific data of %s", thread);
	for (size_t i = 0; names->options->threads && i < names->options->threads->size; i++)
		if (names->options->threads->data[i].tid == step->tid)
			end = names->options->threads->data[i].stack_end;
	error = unwind(names, step->tid, end);
	if (!error)
		error = find_frame(names, step->at, ret);
	if (error)
		return error;
	return ret->symbol ? set_text(ret, "stack of %s, in %s", thread, ret->symbol)
			   : set_text(ret, "stack of %s", thread);
}

static struct error *name_mapping(const struct leak_names *names, uint64_t at,
				  struct leak_name *ret)
{
	const struct mapping *mapping = mappings_find(names->heap->maps, at);

	return mapping && *mapping->path ? set_text(ret, "memory of %s", mapping->path)
					 : set_text(ret, "anonymous memory");
}

static struct error *name_memory(struct leak_names *names, const struct retain_step *step,
				 struct leak_name *ret)
{
	struct data_symbol data = { 0 };
	const struct thread *thread = thread_at(names, step->at);
	char text[THREAD_TEXT];
	struct error *error = name_tls(names, step->at, ret);

	if (error || ret->text)
		return error;
	if (thread)
		return set_text(ret, "thread-specific data of %s",
				thread_text(names, thread->tid, text));
	error = symbolizer_data(names->symbolizer, step->at, &data);
	if (error)
		return error;
	if (!data.module)
		return name_mapping(names, step->at, ret);
	ret->symbol = take_pointer(data.name);
	error = copy_text(data.module, &ret->module);
	if (!error && ret->symbol && data.offset)
		error = set_text(ret, "%s+0x%" PRIx64 " in %s of %s", ret->symbol, data.offset,
				 data.section ? data.section : "data", base_name(data.module));
	else if (!error && ret->symbol)
		error = set_text(ret, "%s in %s of %s", ret->symbol,
				 data.section ? data.section : "data", base_name(data.module));
	else if (!error)
		error = set_text(ret, "%s of %s", data.section ? data.section : "data",
				 base_name(data.module));
	data_symbol_deinit(&data);
	return error;
}

struct error *leak_names_find(struct leak_names *names, const struct retain_step *step,
			      struct leak_name *ret)
{
	struct error *error = NULL;

	*ret = (struct leak_name){ 0 };
	if (step->kind == ROOT_REGISTER)
		error = name_register(names, step, ret);
	else if (step->kind == ROOT_STACK)
		error = name_stack(names, step, ret);
	else if (step->kind == ROOT_MEMORY)
		error = name_memory(names, step, ret);
	else if (step->kind == ROOT_JOIN)
		error = set_text(ret, "control block of a thread that ended");
	else
		error = set_text(ret, "cached stack of a thread that ended: no root");
	if (error)
		leak_name_deinit(ret);
	return error;
}
