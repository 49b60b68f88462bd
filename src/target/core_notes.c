/* The notes of a core: threads, process, auxiliary vector, mapped files. */
#include "core_private.h"

#include <string.h>

#include "memprobe/log.h"
#include "memprobe/num.h"

/* The largest note that is kept: names of 65,536 mapped files. */
#define NOTE_MAX (512ull << 20)
/* Threads of one process: PID_MAX_LIMIT of the kernel. */
#define THREADS_MAX (4u << 20)

struct note {
	char owner[16];
	uint32_t type;
	uint64_t offset; /* of its contents */
	uint32_t size;
};

/* ---- contents ---- */

/* All of the note, with a NUL behind it; the caller frees it. NULL *ret: it is cut short or beyond
 * all measure. */
static struct error *copy_note(const struct core *core, const struct note *note, char **ret)
{
	char *copy;

	*ret = NULL;
	if (note->size > NOTE_MAX || note->offset > core->size ||
	    note->size > core->size - note->offset)
		return NULL;
	copy = malloc((size_t)note->size + 1);
	if (!copy)
		return &error_no_memory;
	if (core_pread(core, note->offset, copy, note->size) != note->size) {
		free(copy);
		return NULL;
	}
	copy[note->size] = '\0';
	*ret = copy;
	return NULL;
}

static struct error *take_prstatus(struct target *target, const struct note *note)
{
	const struct arch_core *layout = &target->arch->core;
	struct core *core = target->backend;
	struct core_thread thread = { 0 };
	_Alignas(16) uint8_t bytes[512];

	if (note->size < layout->regs + layout->regs_size || note->size > sizeof(bytes) ||
	    core->threads.size >= THREADS_MAX)
		return NULL;
	if (core_pread(core, note->offset, bytes, note->size) != note->size)
		return NULL;
	thread.tid = (pid_t)load_word(bytes + layout->pid, 4);
	if (layout->take_regs)
		layout->take_regs(bytes + layout->regs, &thread.registers.regs);
	else
		memcpy(thread.registers.bytes, bytes + layout->regs, layout->regs_size);
	return core_thread_vec_append(&core->threads, &thread);
}

static void take_prpsinfo(struct target *target, const struct note *note)
{
	const struct arch_core *layout = &target->arch->core;
	struct core *core = target->backend;
	uint8_t bytes[256];

	if (note->size < layout->prpsinfo_size || note->size > sizeof(bytes) ||
	    core_pread(core, note->offset, bytes, note->size) != note->size)
		return;
	target->pid = (pid_t)load_word(bytes + layout->ps_pid, 4);
	memcpy(core->name, bytes + layout->fname, 16);
	core->name[16] = '\0';
}

/* Linux fs/binfmt_elf.c, fill_files_note(). */
static struct error *take_files(struct target *target, const struct note *note)
{
	const unsigned word = target->arch->word_size;
	struct core *core = target->backend;
	cleanup(free) char *bytes = NULL;
	struct error *error = core->file_names ? NULL : copy_note(core, note, &bytes);
	uint64_t count, page;
	const char *name, *end;

	if (error || !bytes || note->size < 2 * word)
		return error;
	count = load_word(bytes, word);
	page = load_word(bytes + word, word);
	if (count > (note->size - 2 * word) / (3 * word) || !page || page > (1 << 20))
		return NULL;
	end = bytes + note->size;
	name = bytes + (2 + 3 * count) * word;
	for (uint64_t i = 0; i < count && name < end; i++) {
		const char *entry = bytes + (2 + 3 * i) * word;
		struct core_mapped mapped = {
			.start = load_word(entry, word),
			.end = load_word(entry + word, word),
			.offset = load_word(entry + 2 * word, word),
			.file = (int)core->files.size - 1,
		};
		const struct core_file *last =
			core->files.size ? &core->files.data[core->files.size - 1] : NULL;
		struct core_file file = { .path = name, .fd = -1 };

		if (!last || strcmp(last->path, name)) {
			error = core_file_vec_append(&core->files, &file);
			mapped.file++;
		}
		if (!error && mapped.start < mapped.end && mapped.start % PAGE_SIZE == 0 &&
		    mapped.end % PAGE_SIZE == 0 && mapped.offset <= UINT64_MAX / page) {
			mapped.offset *= page;
			error = core_mapped_vec_append(&core->mapped, &mapped);
		}
		if (error)
			return error;
		name += strlen(name) + 1;
	}
	core->file_names = take_pointer(bytes);
	return NULL;
}

static struct error *take_names(struct core *core, const struct note *note)
{
	cleanup(free) char *bytes = NULL;
	struct error *error = copy_note(core, note, &bytes);
	size_t thread = 0;

	if (error || !bytes)
		return error;
	/* They were written in the order of the threads. */
	for (size_t at = 0; at + sizeof(struct core_note_thread) <= note->size;
	     at += sizeof(struct core_note_thread)) {
		struct core_note_thread named;

		memcpy(&named, bytes + at, sizeof(named));
		while (thread < core->threads.size &&
		       (uint32_t)core->threads.data[thread].tid != named.tid)
			thread++;
		if (thread == core->threads.size)
			break;
		named.name[sizeof(named.name) - 1] = '\0';
		memcpy(core->threads.data[thread].name, named.name, sizeof(named.name));
		core->threads.data[thread].state =
			named.state >= 'A' && named.state <= 'z' ? named.state : 0;
	}
	return NULL;
}

static struct error *take_zeros(struct core *core, const struct note *note)
{
	cleanup(free) char *bytes = NULL;
	struct error *error = copy_note(core, note, &bytes);

	for (size_t at = 0; !error && bytes && at + sizeof(struct range) <= note->size;
	     at += sizeof(struct range)) {
		struct range range;

		memcpy(&range, bytes + at, sizeof(range));
		if ((range.start | range.end) % PAGE_SIZE == 0)
			error = range_vec_append(&core->zeros, &range);
	}
	ranges_normalise(&core->zeros);
	return error;
}

static struct error *take_core_note(struct target *target, const struct note *note)
{
	struct core *core = target->backend;
	struct error *error;

	switch (note->type) {
	case NT_PRSTATUS:
		return take_prstatus(target, note);
	case NT_PRPSINFO:
		take_prpsinfo(target, note);
		return NULL;
	case NT_FILE:
		return take_files(target, note);
	case NT_AUXV:
		if (core->auxv || note->size > 65536)
			return NULL;
		error = copy_note(core, note, &core->auxv);
		core->auxv_size = core->auxv ? note->size : 0;
		return error;
	default:
		return NULL;
	}
}

static struct error *take_note(struct target *target, const struct note *note)
{
	struct core *core = target->backend;
	struct error *error;

	if (!strcmp(note->owner, "CORE"))
		return take_core_note(target, note);
	if (strcmp(note->owner, CORE_NOTE_OWNER))
		return NULL;
	if (note->type == CORE_NOTE_THREADS)
		return take_names(core, note);
	if (note->type == CORE_NOTE_ZEROS)
		return take_zeros(core, note);
	if (note->type != CORE_NOTE_MAPS || core->maps_text)
		return NULL;
	error = copy_note(core, note, &core->maps_text);
	core->maps_size = core->maps_text ? note->size : 0;
	return error;
}

/* ---- the walk ---- */

struct error *core_take_notes(struct target *target, uint64_t offset, uint64_t size)
{
	struct core *core = target->backend;
	uint64_t end = size > UINT64_MAX - offset ? UINT64_MAX : offset + size;
	struct error *error = NULL;

	if (end > core->size) {
		core->truncated = true;
		end = core->size;
	}
	/* Each step goes at least a header's length ahead. */
	while (!error && offset < end && end - offset >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr header;
		struct note note = { 0 };
		uint64_t name_size, contents;

		if (core_pread(core, offset, &header, sizeof(header)) != sizeof(header))
			break;
		name_size = round_up((uint64_t)header.n_namesz, 4);
		contents = round_up((uint64_t)header.n_descsz, 4);
		offset += sizeof(header);
		if (name_size > end - offset || header.n_descsz > end - offset - name_size) {
			if (!core->truncated)
				log_warn("a note of the core reaches beyond its end");
			break;
		}
		if (header.n_namesz < sizeof(note.owner))
			core_pread(core, offset, note.owner, header.n_namesz);
		note.type = header.n_type;
		note.offset = offset + name_size;
		note.size = header.n_descsz;
		error = take_note(target, &note);
		offset = note.offset + contents;
	}
	return error;
}
