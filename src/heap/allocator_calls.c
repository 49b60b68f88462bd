#include "calls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "memprobe/elf_file.h"
#include "memprobe/num.h"

#define BUFFER_MAX    (1ull << 30)
#define BUFFER_GROWTH 16
#define PLACES_MAX    8
#define STRING_READ   65536u

/* struct _IO_FILE, in words (glibc 2.1 and later, bits/types/struct_FILE.h). */
enum file_word {
	FILE_WRITE_BASE = 4,
	FILE_WRITE_PTR,
	FILE_WRITE_END,
	FILE_BUF_BASE,
	FILE_BUF_END,
	FILE_FILENO = 14,
};

#define FILE_FLAGS_MAGIC 0xfbad0000u
#define FILE_ERROR_SEEN	 0x20u	 /* _IO_ERR_SEEN */
#define FILE_PUTTING	 0x800u	 /* _IO_CURRENTLY_PUTTING */
#define FILE_USER_LOCK	 0x8000u /* nobody locks it */

struct file_layout {
	unsigned mode, vtable, size; /* offsets; size with the vtable pointer */
};

static struct file_layout file_layout(unsigned word_size)
{
	return word_size == 8 ? (struct file_layout){ 192, 216, 224 }
			      : (struct file_layout){ 104, 148, 152 };
}

static void store_word(uint8_t *bytes, uint64_t value, unsigned word_size)
{
	memcpy(bytes, &value, word_size);
}

void call_text_deinit(struct call_text *text)
{
	free(text->bytes);
	*text = (struct call_text){ 0 };
}

/* ---- building ---- */

struct error *call_buffer_begin(struct allocator_caller *caller, uint64_t size, unsigned attempt,
				struct call_script *script, struct call_buffer *ret)
{
	const struct arch *arch = caller->target->arch;
	struct call_arg map[6];
	uint64_t address;
	struct error *error = call_find_gap(caller->target, size, attempt, &address);

	if (error)
		return error;
	*ret = (struct call_buffer){
		.address = address,
		.size = size,
		.target = caller->target,
	};
	map[0] = CALL_ARG(address);
	map[1] = CALL_ARG(size);
	map[2] = CALL_ARG(PROT_READ | PROT_WRITE);
	map[3] = CALL_ARG(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE);
	map[4] = CALL_ARG(-1);
	map[5] = CALL_ARG(0);
	call_begin(script, arch);
	ret->mapped = call_add_syscall(script, arch->syscalls.mmap, 6, map, CALL_EXPECT, address);
	/* What munmap gets if the script never comes to the mmap: an address that it refuses. */
	memset(script->data + ret->mapped, 0xff, arch->word_size);
	/* A child forked meanwhile is not to inherit it. 32 bit: no room for one more step. */
	if (arch->word_size == 8)
		call_add_syscall(script, arch->syscalls.madvise, 3,
				 (struct call_arg[]){ CALL_ARG(address), CALL_ARG(size),
						      CALL_ARG(MADV_DONTFORK) },
				 CALL_ANY, 0);
	return NULL;
}

/* A libc calls what is in its own table only. What has no stdio uses the program's. */
static struct error *find_file_jumps(struct allocator_caller *caller, struct module *module,
				     uint64_t *ret)
{
	struct file_layout layout = file_layout(caller->target->arch->word_size);
	struct elf_symbol symbol;

	if ((module && module_symbol(caller->target, module, "_IO_file_jumps", &symbol)) ||
	    target_symbol(caller->target, "_IO_file_jumps", &symbol, NULL)) {
		*ret = symbol.address;
		return NULL;
	}
	if (target_symbol(caller->target, "_IO_2_1_stderr_", &symbol, NULL))
		return target_read_word(caller->target, symbol.address + layout.vtable, ret);
	return error_hint(error_create(ERROR_UNSUPPORTED,
				       "cannot print inside process %d: it has no symbols of stdio",
				       (int)caller->target->pid),
			  "a stripped static program cannot be called into");
}

struct error *call_buffer_add_file(struct allocator_caller *caller, struct module *module,
				   struct call_script *script, struct call_buffer *buffer)
{
	unsigned word = caller->target->arch->word_size;
	struct file_layout layout = file_layout(word);
	uint32_t flags = FILE_FLAGS_MAGIC | FILE_PUTTING | FILE_USER_LOCK, minus_one = -1;
	uint8_t file[256] = { 0 };
	uint64_t jumps;
	struct error *error = find_file_jumps(caller, module, &jumps);

	if (error)
		return error;
	memcpy(file, &flags, sizeof(flags));
	store_word(file + FILE_WRITE_BASE * word, buffer->address, word);
	store_word(file + FILE_WRITE_PTR * word, buffer->address, word);
	store_word(file + FILE_WRITE_END * word, buffer->address + buffer->size, word);
	store_word(file + FILE_BUF_BASE * word, buffer->address, word);
	store_word(file + FILE_BUF_END * word, buffer->address + buffer->size, word);
	memcpy(file + FILE_FILENO * word, &minus_one, sizeof(minus_one));
	memcpy(file + layout.mode, &minus_one, sizeof(minus_one));
	store_word(file + layout.vtable, jumps, word);
	buffer->file = call_add_data(script, file, layout.size);
	buffer->has_file = true;
	return NULL;
}

/* ---- running ---- */

static struct error *text_reserve(struct call_text *text, uint64_t size)
{
	char *bytes = realloc(text->bytes, size + 1);

	if (!bytes)
		return &error_no_memory;
	text->bytes = bytes;
	return NULL;
}

/* Up to the FILE's write pointer. */
static struct error *take_file(struct call_buffer *buffer, const uint8_t *file)
{
	unsigned word = buffer->target->arch->word_size;
	uint64_t end = load_word(file + FILE_WRITE_PTR * word, word);
	struct error *error;
	uint32_t flags;

	memcpy(&flags, file, sizeof(flags));
	if (flags & FILE_ERROR_SEEN || end >= buffer->address + buffer->size) {
		buffer->full = true;
		return NULL;
	}
	if (end < buffer->address)
		return error_create(ERROR_FAILED, "the stream of process %d was changed",
				    (int)buffer->target->pid);
	error = text_reserve(&buffer->text, end - buffer->address);
	if (error)
		return error;
	buffer->text.size = end - buffer->address;
	return target_read(buffer->target, buffer->address, buffer->text.bytes, buffer->text.size);
}

/* Up to the first NUL; read in pieces, so that untouched pages stay so. */
static struct error *take_string(struct call_buffer *buffer)
{
	struct call_text *text = &buffer->text;

	while (text->size < buffer->size) {
		size_t size = min_u64(STRING_READ, buffer->size - text->size);
		struct error *error = text_reserve(text, text->size + size);
		char *end;

		if (!error)
			error = target_read(buffer->target, buffer->address + text->size,
					    text->bytes + text->size, size);
		if (error)
			return error;
		end = memchr(text->bytes + text->size, 0, size);
		if (end) {
			text->size = end - text->bytes;
			return NULL;
		}
		text->size += size;
	}
	buffer->full = true;
	return NULL;
}

static struct error *take_text(struct target *target, const struct call_result *result, void *data)
{
	struct call_buffer *buffer = data;
	struct error *error;

	call_text_deinit(&buffer->text);
	error = buffer->has_file ? take_file(buffer, result->data + buffer->file)
				 : take_string(buffer);
	if (!error && buffer->text.bytes)
		buffer->text.bytes[buffer->text.size] = '\0';
	return error;
}

struct error *check_completed(const struct call_result *result, const char *what)
{
	return result->completed ? NULL
				 : error_create(ERROR_FAILED, "cannot %s in thread %d", what,
						(int)result->tid);
}

/* Why the script stopped early: the mapping is its only step that can fail. */
static struct error *check_mapping(const struct call_script *script, struct call_buffer *buffer)
{
	unsigned word = script->arch->word_size;
	uint64_t mapped = call_result_word(&buffer->result, script, buffer->mapped);
	int64_t result = word == 8 ? (int64_t)mapped : (int32_t)mapped;

	if (buffer->result.completed)
		return NULL;
	if (result == -EEXIST || (mapped != buffer->address && (result < -4095 || result > 0))) {
		buffer->taken = true;
		return NULL;
	}
	return error_errno(ERROR_FAILED, result < 0 && result >= -4095 ? (int)-result : EINVAL,
			   "cannot map %llu bytes in process %d", (unsigned long long)buffer->size,
			   (int)buffer->target->pid);
}

struct error *call_buffer_run(struct allocator_caller *caller, struct call_script *script,
			      struct call_buffer *buffer, struct call_options options,
			      struct call_text *ret)
{
	struct call_arg unmap[2] = { CALL_WORD(buffer->mapped), CALL_ARG(buffer->size) };
	struct error *error;

	call_add_marker(script);
	call_add_syscall(script, script->arch->syscalls.munmap, 2, unmap, CALL_ANY, 0);
	options.at_marker = take_text;
	options.at_marker_data = buffer;
	error = call_run(caller->session, script, &options, &buffer->result);
	if (!error)
		error = check_mapping(script, buffer);
	if (error || buffer->full || buffer->taken)
		call_text_deinit(&buffer->text);
	else
		*ret = buffer->text;
	return error;
}

struct error *call_for_text(struct allocator_caller *caller, uint64_t size,
			    struct call_options options, call_add_steps *add_steps, void *data,
			    struct call_text *ret, struct call_result *result_ret)
{
	unsigned attempt = 0;

	size = round_up(size, PAGE_SIZE);
	while (size <= BUFFER_MAX && attempt < PLACES_MAX) {
		struct call_script script;
		struct call_buffer buffer;
		struct error *error = call_buffer_begin(caller, size, attempt, &script, &buffer);

		if (!error)
			error = add_steps(caller, &script, &buffer, data);
		if (!error)
			error = call_buffer_run(caller, &script, &buffer, options, ret);
		if (error)
			return error;
		if (!buffer.full && !buffer.taken) {
			if (result_ret)
				*result_ret = buffer.result;
			return NULL;
		}
		attempt += buffer.taken;
		if (buffer.full)
			size *= BUFFER_GROWTH;
	}
	return error_create(ERROR_FAILED, "cannot print inside process %d: %s",
			    (int)caller->target->pid,
			    attempt == PLACES_MAX ? "no room for a buffer" : "too much text");
}

struct error *find_own_function(struct allocator_caller *caller, const char *name, uint64_t *ret)
{
	char full[128];

	snprintf(full, sizeof(full), "%s%s",
		 caller->allocator.prefix ? caller->allocator.prefix : "", name);
	return call_find_function(caller->session, full, ret);
}
