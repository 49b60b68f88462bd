#include "elf_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "memprobe/num.h"

/* What a copy may take: the largest libraries have some 200 MiB, with debug info a few GiB. */
#define COPY_MAX (4ULL << 30)
/* Bytes of all notes that are searched for the build-id, which stands in the first ones. */
#define NOTES_MAX (1u << 20)

/* ---- bytes ---- */

void elf_reader_open(struct elf_reader *reader, struct target *target, struct module *module)
{
	struct error *error = NULL;
	struct stat status;

	*reader = (struct elf_reader){ .target = target, .module = module, .fd = -1 };
	if (target->ops->open_module)
		error = target->ops->open_module(target, module, &reader->fd);
	if (error) {
		reader->fd = -1;
		error_destroy(error);
	}
	if (reader->fd >= 0 && fstat(reader->fd, &status) == 0) {
		reader->size = status.st_size;
		return;
	}
	vec_for_each (segment, &module->segments) {
		uint64_t size = segment->end - segment->start;

		/* What maps, or a core's list of files, say may be anything. */
		if (segment->offset <= UINT64_MAX - size)
			reader->size = max_u64(reader->size, segment->offset + size);
	}
}

void elf_reader_close(struct elf_reader *reader)
{
	if (reader->fd >= 0)
		close(reader->fd);
	reader->fd = -1;
}

static bool read_file(int fd, uint64_t offset, void *buffer, uint64_t size)
{
	while (size) {
		ssize_t got = pread(fd, buffer, size, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		buffer = (char *)buffer + got;
		offset += got;
		size -= got;
	}
	return true;
}

static bool read_memory(struct target *target, uint64_t address, void *buffer, uint64_t size)
{
	struct error *error = target_read(target, address, buffer, size);

	if (!error)
		return true;
	error_destroy(error);
	return false;
}

bool elf_read(const struct elf_reader *reader, uint64_t offset, void *buffer, uint64_t size)
{
	if (offset > reader->size || size > reader->size - offset)
		return false;
	if (reader->fd >= 0)
		return read_file(reader->fd, offset, buffer, size);
	while (size) {
		const struct module_segment *found = NULL;
		uint64_t part;

		vec_for_each (segment, &reader->module->segments)
			if (offset >= segment->offset &&
			    offset - segment->offset < segment->end - segment->start &&
			    (!found || !(segment->perms & PERM_WRITE)))
				found = segment;
		if (!found)
			return false;
		part = min_u64(size, found->end - found->start - (offset - found->offset));
		if (!read_memory(reader->target, found->start + (offset - found->offset), buffer,
				 part))
			return false;
		buffer = (char *)buffer + part;
		offset += part;
		size -= part;
	}
	return true;
}

static uint64_t address_in_target(const struct target *target, const struct module *module,
				  uint64_t address)
{
	address += module->bias;
	return target->arch->word_size == 4 ? (uint32_t)address : address;
}

bool elf_read_address(const struct elf_reader *reader, uint64_t address, void *buffer,
		      uint64_t size)
{
	const struct elf_file *elf = reader->module->elf;

	if (reader->fd < 0)
		return read_memory(reader->target,
				   address_in_target(reader->target, reader->module, address),
				   buffer, size);
	for (unsigned i = 0; i < elf->segment_count; i++) {
		const Elf64_Phdr *segment = &elf->segments[i];

		if (segment->p_type == PT_LOAD && address >= segment->p_vaddr &&
		    address - segment->p_vaddr < segment->p_filesz &&
		    size <= segment->p_filesz - (address - segment->p_vaddr))
			return elf_read(reader, segment->p_offset + (address - segment->p_vaddr),
					buffer, size);
	}
	return false;
}

static void *new_copy(const struct elf_reader *reader, uint64_t size)
{
	char *copy;

	if (size > COPY_MAX || size > reader->size)
		return NULL;
	copy = malloc(size + 1);
	if (copy)
		copy[size] = '\0';
	return copy;
}

void *elf_copy(const struct elf_reader *reader, uint64_t offset, uint64_t size)
{
	cleanup(free) void *copy = new_copy(reader, size);

	return copy && elf_read(reader, offset, copy, size) ? take_pointer(copy) : NULL;
}

void *elf_copy_address(const struct elf_reader *reader, uint64_t address, uint64_t size)
{
	cleanup(free) void *copy = new_copy(reader, size);

	return copy && elf_read_address(reader, address, copy, size) ? take_pointer(copy) : NULL;
}

/* ---- headers ---- */

static bool take_header(struct elf_file *elf, const void *bytes, const struct arch *arch)
{
	const unsigned char *ident = bytes;

	if (memcmp(ident, ELFMAG, SELFMAG) || ident[EI_DATA] != ELFDATA2LSB)
		return false;
	elf->is_64 = ident[EI_CLASS] == ELFCLASS64;
	if (elf->is_64) {
		memcpy(&elf->header, bytes, sizeof(elf->header));
	} else if (ident[EI_CLASS] == ELFCLASS32) {
		Elf32_Ehdr narrow;

		memcpy(&narrow, bytes, sizeof(narrow));
		memcpy(elf->header.e_ident, narrow.e_ident, EI_NIDENT);
		elf->header.e_type = narrow.e_type;
		elf->header.e_machine = narrow.e_machine;
		elf->header.e_phoff = narrow.e_phoff;
		elf->header.e_shoff = narrow.e_shoff;
		elf->header.e_phentsize = narrow.e_phentsize;
		elf->header.e_phnum = narrow.e_phnum;
		elf->header.e_shentsize = narrow.e_shentsize;
		elf->header.e_shnum = narrow.e_shnum;
		elf->header.e_shstrndx = narrow.e_shstrndx;
	} else {
		return false;
	}
	return elf->header.e_phentsize == (elf->is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) &&
	       elf->header.e_phnum && elf->header.e_phnum != PN_XNUM;
}

static void widen_segment(Elf64_Phdr *wide, const Elf32_Phdr *narrow)
{
	*wide = (Elf64_Phdr){
		.p_type = narrow->p_type,
		.p_flags = narrow->p_flags,
		.p_offset = narrow->p_offset,
		.p_vaddr = narrow->p_vaddr,
		.p_paddr = narrow->p_paddr,
		.p_filesz = narrow->p_filesz,
		.p_memsz = narrow->p_memsz,
		.p_align = narrow->p_align,
	};
}

static bool take_segments(struct elf_file *elf, const struct elf_reader *reader)
{
	const unsigned count = elf->header.e_phnum;
	cleanup(free) char *bytes =
		elf_copy(reader, elf->header.e_phoff, (uint64_t)count * elf->header.e_phentsize);

	elf->segments = bytes ? calloc(count, sizeof(*elf->segments)) : NULL;
	if (!elf->segments)
		return false;
	elf->segment_count = count;
	for (unsigned i = 0; i < count; i++) {
		Elf32_Phdr narrow;

		if (elf->is_64) {
			memcpy(&elf->segments[i], bytes + i * sizeof(*elf->segments),
			       sizeof(*elf->segments));
			continue;
		}
		memcpy(&narrow, bytes + i * sizeof(narrow), sizeof(narrow));
		widen_segment(&elf->segments[i], &narrow);
	}
	return true;
}

static void elf_free(struct elf_file *elf)
{
	if (!elf)
		return;
	symbol_table_deinit(&elf->dynsym);
	symbol_table_deinit(&elf->symtab);
	free(elf->segments);
	free(elf);
}

static struct elf_file *read_headers(const struct elf_reader *reader)
{
	struct elf_file *elf = calloc(1, sizeof(*elf));
	char bytes[sizeof(Elf64_Ehdr)];

	if (elf && elf_read(reader, 0, bytes, sizeof(bytes)) &&
	    take_header(elf, bytes, reader->target->arch) && take_segments(elf, reader))
		return elf;
	elf_free(elf);
	return NULL;
}

struct error *elf_open(struct target *target, struct module *module)
{
	struct elf_reader reader = { target, module, -1, COPY_MAX };

	if (module->elf)
		return NULL;
	/* From memory first: that is a hundred times faster than to open a file. */
	module->elf = read_headers(&reader);
	if (!module->elf) {
		elf_reader_open(&reader, target, module);
		module->elf = read_headers(&reader);
		elf_reader_close(&reader);
	}
	if (!module->elf)
		return error_create(ERROR_UNSUPPORTED, "cannot understand the ELF headers of %s",
				    module->path);
	return NULL;
}

static bool elf_is_open(struct target *target, struct module *module)
{
	struct error *error = elf_open(target, module);

	if (!error)
		return true;
	error_destroy(error);
	return false;
}

void elf_find_bias(struct target *target, struct module *module)
{
	const struct module_segment *first = module->segments.data;

	if (!module->segments.size || !elf_is_open(target, module))
		return;
	for (unsigned i = 0; i < module->elf->segment_count; i++) {
		const Elf64_Phdr *segment = &module->elf->segments[i];

		if (segment->p_type != PT_LOAD ||
		    round_down(segment->p_offset, PAGE_SIZE) != first->offset)
			continue;
		module->bias = first->start - round_down(segment->p_vaddr, PAGE_SIZE);
		return;
	}
}

bool elf_section(const struct elf_reader *reader, const struct elf_file *elf, unsigned index,
		 Elf64_Shdr *ret)
{
	const uint64_t size = elf->is_64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	Elf32_Shdr narrow;

	if (!elf->header.e_shoff || index >= elf->header.e_shnum || elf->header.e_shentsize != size)
		return false;
	if (elf->header.e_shoff > UINT64_MAX - index * size)
		return false;
	if (elf->is_64)
		return elf_read(reader, elf->header.e_shoff + index * size, ret, size);
	if (!elf_read(reader, elf->header.e_shoff + index * size, &narrow, size))
		return false;
	*ret = (Elf64_Shdr){
		.sh_name = narrow.sh_name,
		.sh_type = narrow.sh_type,
		.sh_flags = narrow.sh_flags,
		.sh_addr = narrow.sh_addr,
		.sh_offset = narrow.sh_offset,
		.sh_size = narrow.sh_size,
		.sh_link = narrow.sh_link,
		.sh_info = narrow.sh_info,
		.sh_addralign = narrow.sh_addralign,
		.sh_entsize = narrow.sh_entsize,
	};
	return true;
}

/* ---- the interface ---- */

bool module_program_header(struct target *target, struct module *module, unsigned index,
			   Elf64_Phdr *ret)
{
	if (!elf_is_open(target, module) || index >= module->elf->segment_count)
		return false;
	*ret = module->elf->segments[index];
	return true;
}

struct error *module_read(struct target *target, struct module *module, uint64_t offset,
			  void *buffer, size_t size)
{
	struct elf_reader reader;
	bool done;

	elf_reader_open(&reader, target, module);
	done = elf_read(&reader, offset, buffer, size);
	elf_reader_close(&reader);
	return done ? NULL
		    : error_create(ERROR_FAILED, "cannot read %zu bytes at 0x%llx of %s", size,
				   (unsigned long long)offset, module->path);
}

void *module_copy(struct target *target, struct module *module, uint64_t address, uint64_t size)
{
	struct elf_reader reader;
	void *copy;

	if (!elf_is_open(target, module))
		return NULL;
	elf_reader_open(&reader, target, module);
	copy = elf_copy_address(&reader, address, size);
	elf_reader_close(&reader);
	return copy;
}

static bool find_section(const struct elf_reader *reader, const char *name, Elf64_Shdr *ret)
{
	const struct elf_file *elf = reader->module->elf;
	const size_t size = strlen(name) + 1;
	cleanup(free) char *names = NULL;
	Elf64_Shdr table;

	if (!elf_section(reader, elf, elf->header.e_shstrndx, &table))
		return false;
	names = elf_copy(reader, table.sh_offset, table.sh_size);
	for (unsigned i = 0; names && elf_section(reader, elf, i, ret); i++)
		if (ret->sh_name < table.sh_size && table.sh_size - ret->sh_name >= size &&
		    !memcmp(names + ret->sh_name, name, size))
			return true;
	return false;
}

bool module_section(struct target *target, struct module *module, const char *name, Elf64_Shdr *ret)
{
	struct elf_reader reader;
	bool found;

	if (!elf_is_open(target, module))
		return false;
	elf_reader_open(&reader, target, module);
	found = find_section(&reader, name, ret);
	elf_reader_close(&reader);
	return found;
}

/* What is mapped, each at its offset of the file; the rest is zeros. */
static void copy_segments(const struct elf_reader *reader, char *image)
{
	vec_for_each (segment, &reader->module->segments) {
		uint64_t size = segment->end - segment->start;

		if (segment->offset <= reader->size && size <= reader->size - segment->offset)
			read_memory(reader->target, segment->start, image + segment->offset, size);
	}
}

struct error *module_load(struct target *target, struct module *module)
{
	struct elf_reader reader;
	char *image;

	if (module->image)
		return NULL;
	elf_reader_open(&reader, target, module);
	image = reader.size && reader.size <= COPY_MAX ? calloc(1, reader.size) : NULL;
	if (image && reader.fd >= 0 && !elf_read(&reader, 0, image, reader.size)) {
		free(image);
		image = NULL;
	} else if (image && reader.fd < 0) {
		copy_segments(&reader, image);
	}
	elf_reader_close(&reader);
	if (!image)
		return error_create(ERROR_FAILED, "cannot read %s", module->path);
	module->image = image;
	module->image_size = reader.size;
	return NULL;
}

void module_unload(struct module *module)
{
	elf_free(module->elf);
	free(module->image);
	module->elf = NULL;
	module->image = NULL;
	module->image_size = 0;
}

static void hex_text(const unsigned char *bytes, size_t size, char text[65])
{
	for (size_t i = 0; i < size && i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

/* The notes of one segment; a note's parts are padded to 4 bytes (NT_GNU_BUILD_ID always is). */
static bool find_build_id(const unsigned char *notes, uint64_t size, char text[65])
{
	while (size >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;
		uint64_t name_size, value_size;

		memcpy(&note, notes, sizeof(note));
		name_size = round_up(note.n_namesz, 4);
		value_size = round_up(note.n_descsz, 4);
		if (name_size > size - sizeof(note) || value_size > size - sizeof(note) - name_size)
			return false;
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
		    !memcmp(notes + sizeof(note), "GNU", 4)) {
			hex_text(notes + sizeof(note) + name_size, note.n_descsz, text);
			return true;
		}
		notes += sizeof(note) + name_size + value_size;
		size -= sizeof(note) + name_size + value_size;
	}
	return false;
}

void module_build_id(struct target *target, struct module *module, char text[65])
{
	struct elf_reader reader;
	uint64_t left = NOTES_MAX;
	bool found = false;

	text[0] = '\0';
	if (!elf_is_open(target, module))
		return;
	elf_reader_open(&reader, target, module);
	for (unsigned i = 0; i < module->elf->segment_count && !found; i++) {
		const Elf64_Phdr *segment = &module->elf->segments[i];
		cleanup(free) void *notes = NULL;

		if (segment->p_type != PT_NOTE || segment->p_filesz > left)
			continue;
		left -= segment->p_filesz;
		notes = elf_copy(&reader, segment->p_offset, segment->p_filesz);
		found = notes && find_build_id(notes, segment->p_filesz, text);
	}
	elf_reader_close(&reader);
}
