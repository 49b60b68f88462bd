/* Notes as the kernel writes them (Linux fs/binfmt_elf.c), and memprobe's own behind them. */
#include "core_notes_writer.h"

#include <elf.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "memprobe/core.h"
#include "memprobe/num.h"

#define SIGINFO_SIZE 128

static void pad(FILE *out, size_t size)
{
	static const char zeros[4];

	fwrite(zeros, 1, round_up(size, 4) - size, out);
}

static void put_note(FILE *out, const char *owner, uint32_t type, const void *bytes, size_t size)
{
	Elf64_Nhdr header = {
		.n_namesz = (uint32_t)strlen(owner) + 1,
		.n_descsz = (uint32_t)size,
		.n_type = type,
	};

	fwrite(&header, sizeof(header), 1, out);
	fwrite(owner, 1, header.n_namesz, out);
	pad(out, header.n_namesz);
	fwrite(bytes, 1, size, out);
	pad(out, size);
}

static void put_u32(uint8_t *to, uint32_t value)
{
	memcpy(to, &value, sizeof(value));
}

static void put_word(const struct arch *arch, uint8_t *to, uint64_t value)
{
	memcpy(to, &value, arch->word_size);
}

/* ---- threads ---- */

/* Visits the sets of a thread; NULL: the end. */
static const struct thread_regset *next_regset(const struct thread_state *state, size_t *at)
{
	const struct thread_regset *set;

	if (!state->regsets || *at + sizeof(*set) > state->regsets_size)
		return NULL;
	set = (const struct thread_regset *)(state->regsets + *at);
	*at = round_up(*at + sizeof(*set) + set->size, 8);
	return *at > round_up(state->regsets_size, 8) ? NULL : set;
}

static bool has_fpregs(const struct thread_state *state)
{
	const struct thread_regset *set;
	size_t at = 0;

	while ((set = next_regset(state, &at)))
		if (set->type == NT_PRFPREG)
			return true;
	return false;
}

static void put_prstatus(FILE *out, const struct core_image *image,
			 const struct thread_state *state)
{
	const struct arch *arch = image->arch;
	const struct arch_core *layout = &arch->core;
	_Alignas(16) uint8_t bytes[512] = { 0 };

	/* No signal: the process lives. */
	put_word(arch, bytes + layout->sighold, state->sig_blocked);
	put_u32(bytes + layout->pid, (uint32_t)state->tid);
	put_u32(bytes + layout->pid + 4, (uint32_t)image->ppid);
	put_u32(bytes + layout->pid + 8, (uint32_t)image->pgrp);
	put_u32(bytes + layout->pid + 12, (uint32_t)image->sid);
	layout->give_regs(&state->regs, bytes + layout->regs);
	put_u32(bytes + layout->fpvalid, has_fpregs(state));
	put_note(out, "CORE", NT_PRSTATUS, bytes, layout->prstatus_size);
}

static void put_regsets(FILE *out, const struct thread_state *state)
{
	const struct thread_regset *set;
	size_t at = 0;

	while ((set = next_regset(state, &at)))
		put_note(out, set->type == NT_PRFPREG ? "CORE" : "LINUX", set->type, set->bytes,
			 set->size);
}

/* ---- the process ---- */

static void put_prpsinfo(FILE *out, const struct core_image *image)
{
	static const char states[] = "RSDTZW";
	const struct arch_core *layout = &image->arch->core;
	const char *known = image->state ? strchr(states, image->state) : NULL;
	uint8_t bytes[256] = { 0 };

	bytes[0] = known ? (uint8_t)(known - states) : 0;
	bytes[1] = (uint8_t)(image->state ? image->state : '.');
	memcpy(bytes + layout->uid, &image->uid, layout->id_size);
	memcpy(bytes + layout->gid, &image->gid, layout->id_size);
	put_u32(bytes + layout->ps_pid, (uint32_t)image->pid);
	put_u32(bytes + layout->ps_pid + 4, (uint32_t)image->ppid);
	put_u32(bytes + layout->ps_pid + 8, (uint32_t)image->pgrp);
	put_u32(bytes + layout->ps_pid + 12, (uint32_t)image->sid);
	memcpy(bytes + layout->fname, image->name, strnlen(image->name, 15));
	memcpy(bytes + layout->fname + 16, image->arguments, strnlen(image->arguments, 79));
	put_note(out, "CORE", NT_PRPSINFO, bytes, layout->prpsinfo_size);
}

static bool has_file(const struct mapping *mapping)
{
	return mapping->inode && mapping->path[0] == '/';
}

static struct error *put_files(FILE *out, const struct core_image *image)
{
	const struct arch *arch = image->arch;
	cleanup(free) char *bytes = NULL;
	size_t size;
	FILE *text = open_memstream(&bytes, &size);
	uint64_t head[2] = { 0, PAGE_SIZE };

	if (!text)
		return &error_no_memory;
	vec_for_each (piece, &image->pieces)
		head[0] += has_file(piece->mapping);
	for (unsigned i = 0; i < 2; i++)
		fwrite(&head[i], arch->word_size, 1, text);
	vec_for_each (piece, &image->pieces) {
		const struct mapping *mapping = piece->mapping;
		uint64_t entry[] = { mapping->start, mapping->end, mapping->offset / PAGE_SIZE };

		for (unsigned i = 0; has_file(mapping) && i < 3; i++)
			fwrite(&entry[i], arch->word_size, 1, text);
	}
	vec_for_each (piece, &image->pieces) {
		const struct mapping *mapping = piece->mapping;

		if (!has_file(mapping))
			continue;
		fputs(mapping->path, text);
		fputs(mapping->deleted ? " (deleted)" : "", text);
		fputc('\0', text);
	}
	if (fclose(text))
		return &error_no_memory;
	if (head[0])
		put_note(out, "CORE", NT_FILE, bytes, size);
	return NULL;
}

/* ---- memprobe's own ---- */

static void put_path(FILE *text, const struct mapping *mapping)
{
	for (const char *at = mapping->path; *at; at++) {
		if (*at == '\n')
			fputs("\\012", text);
		else
			fputc(*at, text);
	}
	if (mapping->deleted)
		fputs(" (deleted)", text);
}

static struct error *put_maps(FILE *out, const struct core_image *image)
{
	cleanup(free) char *bytes = NULL;
	size_t size;
	FILE *text = open_memstream(&bytes, &size);

	if (!text)
		return &error_no_memory;
	vec_for_each (piece, &image->pieces) {
		const struct mapping *mapping = piece->mapping;
		char perms[5];

		mapping_perms_text(mapping->perms, perms);
		fprintf(text, "%08llx-%08llx %s %08llx %02x:%02x %llu ",
			(unsigned long long)mapping->start, (unsigned long long)mapping->end, perms,
			(unsigned long long)mapping->offset, major(mapping->device),
			minor(mapping->device), (unsigned long long)mapping->inode);
		put_path(text, mapping);
		fputc('\n', text);
	}
	if (fclose(text))
		return &error_no_memory;
	put_note(out, CORE_NOTE_OWNER, CORE_NOTE_MAPS, bytes, size);
	return NULL;
}

static struct error *put_names(FILE *out, const struct core_image *image)
{
	const size_t count = image->threads->size;
	cleanup(free) struct core_note_thread *names = calloc(count + 1, sizeof(*names));

	if (!names)
		return &error_no_memory;
	for (size_t i = 0; i < count; i++) {
		const struct thread_state *state = &image->threads->data[i];

		names[i].tid = (uint32_t)state->tid;
		names[i].state = state->state;
		memcpy(names[i].name, state->name, strnlen(state->name, sizeof(names[i].name) - 1));
	}
	put_note(out, CORE_NOTE_OWNER, CORE_NOTE_THREADS, names, count * sizeof(*names));
	return NULL;
}

static void put_reserves(FILE *out, const struct core_image *image)
{
	const struct range_vec *reserves = &image->reserves;

	if (reserves->size)
		put_note(out, CORE_NOTE_OWNER, CORE_NOTE_ZEROS, reserves->data,
			 reserves->size * sizeof(*reserves->data));
}

/* ---- all ---- */

static struct error *put_all(FILE *out, const struct core_image *image)
{
	static const uint8_t siginfo[SIGINFO_SIZE];
	struct error *error = NULL;

	for (size_t i = 0; !error && i < image->threads->size; i++) {
		const struct thread_state *state = &image->threads->data[i];

		put_prstatus(out, image, state);
		if (i == 0) {
			put_prpsinfo(out, image);
			put_note(out, "CORE", NT_SIGINFO, siginfo, sizeof(siginfo));
			if (image->auxv_size)
				put_note(out, "CORE", NT_AUXV, image->auxv, image->auxv_size);
			error = put_files(out, image);
		}
		put_regsets(out, state);
	}
	put_reserves(out, image);
	if (!error)
		error = put_names(out, image);
	return error ? error : put_maps(out, image);
}

struct error *core_notes_create(const struct core_image *image, char **bytes_ret, size_t *size_ret)
{
	char *bytes = NULL;
	FILE *out = open_memstream(&bytes, size_ret);
	struct error *error = out ? put_all(out, image) : &error_no_memory;

	if (out && (ferror(out) | fclose(out)) && !error)
		error = &error_no_memory;
	if (error)
		free(bytes);
	else
		*bytes_ret = bytes;
	return error;
}
