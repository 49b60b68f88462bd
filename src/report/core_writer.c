#include "memprobe/core_writer.h"

#include <elf.h>
#include <string.h>

#include "core_notes_writer.h"
#include "core_sink.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

/* A segment: a piece, or a part of one up to a reserve and the reserve behind it. */
struct place {
	uint64_t start, end;   /* of the memory */
	uint64_t offset, size; /* what is in the file: its first bytes */
	unsigned perms;
};

VEC_DEFINE(place_vec, struct place)

struct writer {
	const struct core_image *image;
	const struct core_output *output;
	struct core_sink *sink;
	bool is_64;
	char *notes;
	size_t notes_size;
	struct place_vec places; /* by address */
	size_t current;		 /* the one that memory is coming for */
	uint64_t headers_size, notes_offset, size;
	struct core_written *written;
};

/* ---- layout ---- */

/* @piece as segments. *reserve: the first one that ends behind its start. */
static struct error *place_piece(struct writer *writer, const struct core_piece *piece,
				 size_t *reserve)
{
	const struct range_vec *reserves = &writer->image->reserves;
	const struct mapping *mapping = piece->mapping;
	const uint64_t end = mapping->start + piece->size;
	uint64_t at = mapping->start;
	struct error *error = NULL;

	do {
		const struct range *next =
			*reserve < reserves->size ? &reserves->data[*reserve] : NULL;
		bool is_cut = next && next->start < end;
		struct place place = {
			.start = at,
			.end = is_cut && next->end < end ? next->end : mapping->end,
			.size = (is_cut ? next->start : end) - at,
			.perms = mapping->perms,
		};

		error = place_vec_append(&writer->places, &place);
		*reserve += is_cut;
		at = place.end;
	} while (!error && at < mapping->end);
	return error;
}

static struct error *make_places(struct writer *writer)
{
	const struct core_piece_vec *pieces = &writer->image->pieces;
	struct error *error = NULL;
	size_t reserve = 0;

	for (size_t i = 0; !error && i < pieces->size; i++)
		error = place_piece(writer, &pieces->data[i], &reserve);
	return error;
}

static void lay_out(struct writer *writer)
{
	const uint64_t count = writer->places.size + 1;
	uint64_t offset;

	writer->headers_size = writer->is_64 ? sizeof(Elf64_Ehdr) + count * sizeof(Elf64_Phdr)
					     : sizeof(Elf32_Ehdr) + count * sizeof(Elf32_Phdr);
	if (count >= PN_XNUM)
		writer->headers_size += writer->is_64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	writer->notes_offset = writer->headers_size;
	offset = round_up(writer->notes_offset + writer->notes_size, PAGE_SIZE);
	vec_for_each (place, &writer->places) {
		if (!writer->is_64 && offset + place->size > UINT32_MAX) {
			writer->written->too_large = true;
			place->size = 0;
		}
		place->offset = offset;
		offset += place->size;
	}
	writer->size = offset;
}

/* ---- headers ---- */

static void put_header(FILE *out, const struct writer *writer)
{
	const struct arch *arch = writer->image->arch;
	const uint64_t count = writer->places.size + 1;
	const bool extended = count >= PN_XNUM;
	Elf64_Ehdr wide = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, arch->elf_class, ELFDATA2LSB,
			     EV_CURRENT },
		.e_type = ET_CORE,
		.e_machine = arch->elf_machine,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = extended ? PN_XNUM : (uint16_t)count,
		.e_shoff = extended ? writer->headers_size - sizeof(Elf64_Shdr) : 0,
		.e_shentsize = extended ? sizeof(Elf64_Shdr) : 0,
		.e_shnum = extended,
	};
	Elf32_Ehdr narrow = {
		.e_type = wide.e_type,
		.e_machine = wide.e_machine,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(Elf32_Ehdr),
		.e_ehsize = sizeof(Elf32_Ehdr),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_phnum = wide.e_phnum,
		.e_shoff = extended ? (uint32_t)(writer->headers_size - sizeof(Elf32_Shdr)) : 0,
		.e_shentsize = extended ? sizeof(Elf32_Shdr) : 0,
		.e_shnum = extended,
	};

	memcpy(narrow.e_ident, wide.e_ident, sizeof(narrow.e_ident));
	if (writer->is_64)
		fwrite(&wide, sizeof(wide), 1, out);
	else
		fwrite(&narrow, sizeof(narrow), 1, out);
}

static void put_segment(FILE *out, const struct writer *writer, const Elf64_Phdr *wide)
{
	Elf32_Phdr narrow = {
		.p_type = wide->p_type,
		.p_flags = wide->p_flags,
		.p_offset = (uint32_t)wide->p_offset,
		.p_vaddr = (uint32_t)wide->p_vaddr,
		.p_filesz = (uint32_t)wide->p_filesz,
		.p_memsz = (uint32_t)wide->p_memsz,
		.p_align = (uint32_t)wide->p_align,
	};

	if (writer->is_64)
		fwrite(wide, sizeof(*wide), 1, out);
	else
		fwrite(&narrow, sizeof(narrow), 1, out);
}

static void put_segments(FILE *out, const struct writer *writer)
{
	Elf64_Phdr notes = {
		.p_type = PT_NOTE,
		.p_offset = writer->notes_offset,
		.p_filesz = writer->notes_size,
		.p_align = 4,
	};

	put_segment(out, writer, &notes);
	vec_for_each (place, &writer->places) {
		Elf64_Phdr load = {
			.p_type = PT_LOAD,
			.p_flags = (place->perms & PERM_READ ? PF_R : 0) |
				   (place->perms & PERM_WRITE ? PF_W : 0) |
				   (place->perms & PERM_EXEC ? PF_X : 0),
			.p_offset = place->offset,
			.p_vaddr = place->start,
			.p_filesz = place->size,
			.p_memsz = place->end - place->start,
			.p_align = PAGE_SIZE,
		};

		put_segment(out, writer, &load);
	}
	/* The kernel's fill_extnum_info(). */
	if (writer->places.size + 1 >= PN_XNUM) {
		uint32_t count = (uint32_t)writer->places.size + 1;
		Elf64_Shdr wide = { .sh_size = 1, .sh_info = count };
		Elf32_Shdr narrow = { .sh_size = 1, .sh_info = count };

		if (writer->is_64)
			fwrite(&wide, sizeof(wide), 1, out);
		else
			fwrite(&narrow, sizeof(narrow), 1, out);
	}
}

static struct error *write_headers(struct writer *writer)
{
	cleanup(free) char *bytes = NULL;
	struct error *error = NULL;
	size_t size;
	FILE *out = open_memstream(&bytes, &size);

	if (!out)
		return &error_no_memory;
	put_header(out, writer);
	put_segments(out, writer);
	if (ferror(out) | fclose(out))
		return &error_no_memory;
	error = core_sink_bytes(writer->sink, 0, bytes, size);
	if (!error)
		error = core_sink_bytes(writer->sink, writer->notes_offset, writer->notes,
					writer->notes_size);
	return error;
}

/* ---- memory ---- */

/* Goes to the segment that has @address; false: none has. */
static bool find_place(struct writer *writer, uint64_t address)
{
	while (writer->current < writer->places.size) {
		const struct place *place = &writer->places.data[writer->current];

		if (address < place->start + place->size)
			return address >= place->start;
		writer->current++;
	}
	return false;
}

static bool is_zero(const unsigned char *bytes, size_t size)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, size - 1);
}

/* Without its pages of zeros: those that were only ever read are no memory of the process. */
static struct error *write_bytes(struct writer *writer, uint64_t offset, const unsigned char *bytes,
				 size_t size)
{
	for (size_t done = 0; done < size;) {
		size_t end = done;
		struct error *error;

		while (end < size && !is_zero(bytes + end, min_u64(PAGE_SIZE, size - end)))
			end += min_u64(PAGE_SIZE, size - end);
		if (end > done) {
			error = core_sink_bytes(writer->sink, offset + done, bytes + done,
						end - done);
			if (error)
				return error;
			writer->written->data += end - done;
		}
		done = end;
		while (done < size && is_zero(bytes + done, min_u64(PAGE_SIZE, size - done)))
			done += min_u64(PAGE_SIZE, size - done);
	}
	return NULL;
}

/* Up to @size bytes; *part_ret: how many. */
static struct error *take_part(struct writer *writer, uint64_t address, const void *bytes,
			       size_t size, size_t *part_ret)
{
	bool is_placed = find_place(writer, address);
	const struct place *place = &writer->places.data[writer->current];
	uint64_t offset;

	if (!is_placed) {
		/* Shared memory that somebody has written to since. */
		*part_ret = writer->current < writer->places.size
				    ? min_u64(size, place->start - address)
				    : size;
		return writer->output->missing(writer->output->data, address, *part_ret);
	}
	*part_ret = min_u64(size, place->start + place->size - address);
	offset = place->offset + (address - place->start);
	log_progress(offset, writer->size);
	return write_bytes(writer, offset, bytes, *part_ret);
}

static struct error *take_bytes(void *data, uint64_t address, const void *bytes, size_t size)
{
	struct error *error = NULL;

	while (!error && size) {
		size_t part = 0;

		error = take_part(data, address, bytes, size, &part);
		bytes = (const char *)bytes + part;
		address += part;
		size -= part;
	}
	return error;
}

static struct error *take_zeros(void *data, uint64_t address, uint64_t size)
{
	return NULL;
}

/* Also called for what lies between the segments, which nobody asked for. */
static struct error *take_missing(void *data, uint64_t address, uint64_t size)
{
	struct writer *writer = data;
	const uint64_t end = address + size;

	while (address < end) {
		const struct place *place;
		struct error *error;
		uint64_t to;

		find_place(writer, address);
		if (writer->current == writer->places.size)
			break;
		place = &writer->places.data[writer->current];
		address = max_u64(address, place->start);
		to = min_u64(end, place->start + place->size);
		if (address >= to)
			break;
		error = writer->output->missing(writer->output->data, address, to - address);
		if (error)
			return error;
		address = to;
	}
	return NULL;
}

/* ---- all ---- */

static struct error *write_all_parts(struct writer *writer)
{
	struct memory_visitor visitor = { take_bytes, take_zeros, take_missing, writer };
	struct error *error = write_headers(writer);

	if (!error)
		error = writer->output->memory(writer->output->data, &visitor);
	return error ? error : core_sink_finish(writer->sink, writer->size);
}

struct error *core_write(const struct core_image *image, const struct core_output *output,
			 struct core_written *ret)
{
	struct core_written written = { 0 };
	struct writer writer = {
		.image = image,
		.output = output,
		.is_64 = image->arch->elf_class == ELFCLASS64,
		.written = &written,
	};
	enum sink_kind kind = output->compress	? SINK_ZSTD
			      : output->regular ? SINK_HOLES
						: SINK_STREAM;
	struct error *error;

	if (!image->arch->core.give_regs)
		return error_create(ERROR_UNSUPPORTED, "cannot write cores of %s on this machine",
				    image->arch->name);
	error = core_notes_create(image, &writer.notes, &writer.notes_size);
	if (!error)
		error = make_places(&writer);
	lay_out(&writer);
	if (!error)
		error = core_sink_create(output->fd, output->name, kind, &writer.sink);
	if (!error)
		error = write_all_parts(&writer);
	core_sink_destroy(writer.sink);
	place_vec_deinit(&writer.places);
	free(writer.notes);
	if (error)
		return error;
	written.size = writer.size;
	*ret = written;
	return NULL;
}
