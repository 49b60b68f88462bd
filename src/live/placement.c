#include "session.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/elf_file.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

/* A stretch of zeros behind the end of an executable segment, in its last page. */
struct padding {
	uint64_t start, end;
};

VEC_DEFINE(padding_vec, struct padding)

/* The largest stub with its literal filled in. */
#define CODE_MAX 2048

/*
 * Before we have stopped a thread we write through /proc/PID/mem; a kernel whose
 * proc_mem.force_override forbids that for text still lets the tracer of a stopped thread poke.
 */
static struct error *write_text(struct call_session *session, pid_t tid, uint64_t address,
				const void *bytes, size_t size)
{
	ssize_t written = pwrite(session->memory, bytes, size, (off_t)address);

	if (written == (ssize_t)size)
		return NULL;
	if (!tid)
		return error_errno(ERROR_PERMISSION, written < 0 ? errno : EIO,
				   "cannot write the text padding of %d",
				   (int)session->target->pid);
	for (size_t done = 0; done < size; done += sizeof(long)) {
		size_t count = min_u64(size - done, sizeof(long));
		struct error *error;
		long word = 0;

		if (count < sizeof(long)) {
			errno = 0;
			word = ptrace(PTRACE_PEEKDATA, tid, (void *)(address + done), NULL);
			if (word == -1 && errno)
				return error_errno(ERROR_FAILED, errno, "cannot read thread %d",
						   (int)tid);
		}
		memcpy(&word, (const uint8_t *)bytes + done, count);
		error = ptrace_call(PTRACE_POKEDATA, tid, address + done, (void *)word,
				    "write the text padding of thread");
		if (error)
			return error;
	}
	return NULL;
}

static struct error *read_text(struct call_session *session, uint64_t address, void *bytes,
			       size_t size)
{
	if (pread(session->memory, bytes, size, (off_t)address) != (ssize_t)size)
		return error_fault(address);
	return NULL;
}

/* The stub as it has to stand in the target. */
static void build_code(const struct placement *place, const struct arch *arch,
		       uint8_t code[CODE_MAX])
{
	memcpy(code, place->detour.code, place->detour.size);
	memcpy(code + place->detour.literal, &place->block, arch->word_size);
}

static bool is_private_text(const struct call_session *session, uint64_t start, uint64_t end)
{
	const struct mapping *mapping = mappings_find(&session->maps, start);

	return mapping && end <= mapping->end && (mapping->perms & PERM_EXEC) &&
	       (mapping->perms & PERM_READ) && !(mapping->perms & (PERM_SHARED | PERM_WRITE));
}

/* The vdso's image goes on behind its segment: with section headers, then zeros. */
static uint64_t vdso_end(struct call_session *session, const struct module *module)
{
	union {
		Elf64_Ehdr wide;
		Elf32_Ehdr narrow;
	} header;
	struct error *error = target_read(session->target, module->start, &header, sizeof(header));

	if (error) {
		error_destroy(error);
		return module->end;
	}
	if (session->target->arch->bits == 64)
		return module->start + header.wide.e_shoff +
		       (uint64_t)header.wide.e_shnum * header.wide.e_shentsize;
	return module->start + header.narrow.e_shoff +
	       (uint64_t)header.narrow.e_shnum * header.narrow.e_shentsize;
}

static struct error *add_padding(struct call_session *session, struct module *module,
				 struct padding_vec *ret)
{
	Elf64_Phdr header;

	for (unsigned i = 0; i < 64 && module_program_header(session->target, module, i, &header);
	     i++) {
		struct padding padding;
		struct error *error;

		if (header.p_type != PT_LOAD || !(header.p_flags & PF_X))
			continue;
		padding.start = round_up(module->bias + header.p_vaddr + header.p_filesz, 16);
		if (module->is_vdso)
			padding.start =
				round_up(max_u64(padding.start, vdso_end(session, module)), 16);
		padding.end = round_up(padding.start, PAGE_SIZE);
		if (padding.end - padding.start < 64 ||
		    !is_private_text(session, padding.start, padding.end))
			continue;
		error = padding_vec_append(ret, &padding);
		if (error)
			return error;
	}
	return NULL;
}

/* The dynamic linker first: its padding is large, and every dynamic process has it. */
static int padding_rank(const struct module *module)
{
	const char *name = strrchr(module->path, '/');

	name = name ? name + 1 : module->path;
	if (!strncmp(name, "ld", 2))
		return 0;
	if (!strncmp(name, "libc.", 5) || !strncmp(name, "libc-", 5))
		return 1;
	if (module->is_vdso)
		return 4;
	return module->is_exe ? 3 : 2;
}

static struct error *list_padding(struct call_session *session, struct padding_vec *ret)
{
	struct module_vec *modules;
	struct error *error = target_modules(session->target, (const struct module_vec **)&modules);

	for (int rank = 0; !error && rank <= 4; rank++)
		for (size_t i = 0; !error && i < modules->size; i++)
			if (padding_rank(&modules->data[i]) == rank)
				error = add_padding(session, &modules->data[i], ret);
	return error;
}

/* How many zero bytes the padding has from @start on. */
static uint64_t count_zeros(struct call_session *session, uint64_t start, uint64_t end)
{
	uint8_t bytes[PAGE_SIZE];
	uint64_t count = 0;
	struct error *error;

	if (end - start > sizeof(bytes))
		return 0;
	error = read_text(session, start, bytes, end - start);
	if (error) {
		error_destroy(error);
		return 0;
	}
	while (count < end - start && !bytes[count])
		count++;
	return count;
}

/*
 * A predecessor that was killed left its stub: ours, byte for byte, with a block that lies in
 * padding, too.
 */
static bool find_installed(struct call_session *session, const struct padding *padding,
			   const struct padding_vec *all)
{
	struct placement place = session->place;
	uint8_t found[CODE_MAX], expected[CODE_MAX];
	struct error *error;

	if (padding->end - padding->start < place.detour.size)
		return false;
	error = read_text(session, padding->start, found, place.detour.size);
	if (error) {
		error_destroy(error);
		return false;
	}
	place.code = padding->start;
	place.block = load_word(found + place.detour.literal, session->target->arch->word_size);
	build_code(&place, session->target->arch, expected);
	if (memcmp(found, expected, place.detour.size))
		return false;
	vec_for_each (other, all) {
		if (place.block < other->start || place.block >= other->end)
			continue;
		place.block_room = other->end - place.block;
		place.installed = true;
		session->place = place;
		return true;
	}
	return false;
}

static bool place_in(struct call_session *session, const struct padding *padding,
		     const struct padding_vec *all, size_t block_size)
{
	struct placement *place = &session->place;
	uint64_t room = count_zeros(session, padding->start, padding->end);
	uint64_t block = round_up(padding->start + place->detour.size, 16);

	if (room < place->detour.size)
		return false;
	place->code = padding->start;
	if (block + block_size <= padding->start + room) {
		place->block = block;
		place->block_room = padding->start + room - block;
		return true;
	}
	vec_for_each (other, all) {
		room = count_zeros(session, other->start, other->end);
		if (other == padding || room < block_size)
			continue;
		place->block = other->start;
		place->block_room = room;
		return true;
	}
	return false;
}

struct error *placement_find(struct call_session *session, size_t block_size)
{
	struct padding_vec paddings = { 0 };
	struct placement *place = &session->place;
	struct error *error;
	bool found = false;

	if (place->code && place->block_room >= block_size)
		return NULL;
	placement_erase(session);
	*place = (struct placement){ .detour = place->detour };
	error = list_padding(session, &paddings);
	for (size_t i = 0; !error && !found && i < paddings.size; i++)
		found = find_installed(session, &paddings.data[i], &paddings) &&
			place->block_room >= block_size;
	if (!found)
		*place = (struct placement){ .detour = place->detour };
	for (size_t i = 0; !error && !found && i < paddings.size; i++)
		found = place_in(session, &paddings.data[i], &paddings, block_size);
	padding_vec_deinit(&paddings);
	if (!error && !found) {
		*place = (struct placement){ .detour = place->detour };
		error = error_create(ERROR_UNSUPPORTED,
				     "no executable file of %d has %zu bytes of padding behind its "
				     "text to run a call from",
				     (int)session->target->pid, place->detour.size + block_size);
	}
	return error;
}

struct error *placement_install(struct call_session *session, pid_t tid)
{
	struct placement *place = &session->place;
	uint8_t code[CODE_MAX], written[CODE_MAX];
	struct error *error;

	if (place->installed)
		return NULL;
	build_code(place, session->target->arch, code);
	error = write_text(session, tid, place->code, code, place->detour.size);
	if (!error)
		error = read_text(session, place->code, written, place->detour.size);
	if (!error && memcmp(code, written, place->detour.size))
		error = error_create(ERROR_FAILED, "the text padding of %d did not take the stub",
				     (int)session->target->pid);
	if (!error)
		place->installed = place->checked = true;
	return error;
}

struct error *placement_write_block(struct call_session *session, pid_t tid,
				    const struct block *block)
{
	uint8_t written[BLOCK_MAX];
	struct error *error;

	error = write_text(session, tid, session->place.block, block->bytes, block->size);
	if (!error)
		error = read_text(session, session->place.block, written, block->size);
	if (!error && memcmp(block->bytes, written, block->size))
		error = error_create(ERROR_BUSY, "another memprobe is at work on %d",
				     (int)session->target->pid);
	return error;
}

struct error *placement_set_word(struct call_session *session, pid_t tid, unsigned index,
				 uint64_t value)
{
	size_t word_size = session->target->arch->word_size;

	return write_text(session, tid, session->place.block + index * word_size, &value,
			  word_size);
}

static void write_zeros(struct call_session *session, uint64_t address, size_t size)
{
	static const uint8_t zeros[BLOCK_MAX];
	struct error *error = write_text(session, 0, address, zeros, size);

	if (error && process_is_alive(session->target->process))
		log_warn("%s: the stub stays", error->message);
	error_destroy(error);
}

void placement_erase(struct call_session *session)
{
	struct placement *place = &session->place;

	if (!place->installed)
		return;
	if (place->in_use) {
		log_debug("the stub at 0x%llx stays: a thread is inside",
			  (unsigned long long)place->code);
		return;
	}
	/* The code last: what is still recognised as ours must be whole. */
	write_zeros(session, place->block, min_u64(place->block_room, BLOCK_MAX));
	write_zeros(session, place->code, place->detour.size);
	place->installed = false;
	place->code = 0;
}

bool placement_holds(const struct placement *place, uint64_t pc)
{
	return pc >= place->code && pc < place->code + place->detour.size;
}
