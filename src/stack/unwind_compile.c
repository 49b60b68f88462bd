#include "unwind_compile.h"

#include <dwarf.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

/* The largest programs have some 5 MiB of .eh_frame. */
#define EH_FRAME_MAX (128u << 20)

/* A libc without call frame information of its signal return is a small one. */
#define SIGRETURN_TEXT_MAX (8u << 20)
#define SIGRETURNS_MAX	   4

bool module_text(const struct module *module, uint64_t *start, uint64_t *end)
{
	*start = UINT64_MAX;
	*end = 0;
	vec_for_each (segment, &module->segments) {
		if (!(segment->perms & PERM_EXEC))
			continue;
		*start = min_u64(*start, segment->start);
		*end = max_u64(*end, segment->end);
	}
	return *start < *end && *end - *start < UINT32_MAX;
}

uint64_t unwind_index_size(uint64_t text_size)
{
	return round_up(text_size, UNWIND_BLOCK) / UNWIND_BLOCK + 1;
}

void unwind_make_index(const struct unwind_row *rows, size_t count, uint32_t *index,
		       uint64_t index_size)
{
	size_t row = 0;

	for (uint64_t block = 0; block + 1 < index_size; block++) {
		while (row + 1 < count && rows[row + 1].offset <= block * UNWIND_BLOCK)
			row++;
		index[block] = row;
	}
	index[index_size - 1] = count - 1;
}

/* ---- where .eh_frame is ---- */

struct place {
	uint64_t address, size; /* as in the file */
	uint64_t data_base;
};

/* The loaded segment that has @address: its bytes from there on. */
static uint64_t rest_of_segment(struct target *target, struct module *module, uint64_t address)
{
	Elf64_Phdr segment;

	for (unsigned i = 0; module_program_header(target, module, i, &segment); i++)
		if (segment.p_type == PT_LOAD && address >= segment.p_vaddr &&
		    address - segment.p_vaddr < segment.p_filesz)
			return segment.p_filesz - (address - segment.p_vaddr);
	return 0;
}

static bool find_segment(struct target *target, struct module *module, uint32_t type,
			 Elf64_Phdr *ret)
{
	for (unsigned i = 0; module_program_header(target, module, i, ret); i++)
		if (ret->p_type == type)
			return true;
	return false;
}

/* By .eh_frame_hdr, which begins with the place of .eh_frame: as a rule relative to itself. */
static bool place_by_header(struct target *target, struct module *module, const Elf64_Phdr *header,
			    struct place *ret)
{
	cleanup(free) uint8_t *bytes = module_copy(target, module, header->p_vaddr, 8);

	if (!bytes || bytes[0] != 1 || bytes[1] != (DW_EH_PE_pcrel | DW_EH_PE_sdata4))
		return false;
	ret->address = header->p_vaddr + 4 + (int64_t)(int32_t)load_word(bytes + 4, 4);
	ret->size = rest_of_segment(target, module, ret->address);
	return ret->size;
}

static bool find_place(struct target *target, struct module *module, struct place *ret)
{
	Elf64_Phdr header;
	Elf64_Shdr section;
	bool has_header = find_segment(target, module, PT_GNU_EH_FRAME, &header);

	*ret = (struct place){ .data_base = has_header ? header.p_vaddr : 0 };
	if (module_section(target, module, ".eh_frame", &section) && section.sh_addr &&
	    section.sh_size && section.sh_type != SHT_NOBITS) {
		ret->address = section.sh_addr;
		ret->size = section.sh_size;
		return true;
	}
	return has_header && place_by_header(target, module, &header, ret);
}

/* ---- returns of signal handlers that nothing describes ---- */

static bool may_have_sigreturn(struct target *target, struct module *module, uint64_t text_size)
{
	const char *name = strrchr(module->path, '/');
	Elf64_Phdr header;

	if (text_size > SIGRETURN_TEXT_MAX)
		return false;
	name = name ? name + 1 : module->path;
	return !strncmp(name, "ld-musl", 7) || !strncmp(name, "libc.", 5) ||
	       (module->is_exe && !find_segment(target, module, PT_INTERP, &header));
}

/* Gives [start, end) @rule if nothing is known of all of it. */
static void describe(struct unwind_row *rows, size_t *count, size_t capacity, uint32_t start,
		     uint32_t end, uint32_t rule)
{
	size_t row = 0;

	while (row + 1 < *count && rows[row + 1].offset <= start)
		row++;
	if (rows[row].rule != UNWIND_RULE_NO_CFI || capacity - *count < 2 ||
	    (row + 1 < *count && rows[row + 1].offset < end))
		return;
	memmove(rows + row + 3, rows + row + 1, (*count - row - 1) * sizeof(*rows));
	rows[row + 1] = (struct unwind_row){ start, rule };
	rows[row + 2] = (struct unwind_row){ end, UNWIND_RULE_NO_CFI };
	*count += 2;
}

/* Describes those within one segment of code. */
static void describe_sigreturns(const uint8_t *text, size_t size, uint64_t offset,
				struct unwind_row *rows, size_t *count, size_t capacity)
{
	/* mov $15,%rax; syscall */
	static const uint8_t code[] = { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 };
	/* The stack pointer points to the struct ucontext, whose registers begin 40 bytes into it
	 * and end with rsp and rip. */
	const uint32_t rule = UNWIND_RULE(UNWIND_SIGNAL, (40 + 15 * 8) / 8, 0, 0);
	const uint8_t *found = text;

	for (unsigned times = 0; times < SIGRETURNS_MAX; times++, found++) {
		found = memmem(found, text + size - found, code, sizeof(code));
		if (!found)
			return;
		/* A return address is looked up one byte in front of it. */
		if (found > text)
			describe(rows, count, capacity, offset + (found - text) - 1,
				 offset + (found - text) + sizeof(code), rule);
	}
}

/* musl says nothing about where signal handlers return to. */
static void find_sigreturns(struct target *target, struct module *module,
			    const struct eh_frame *eh_frame, struct unwind_row *rows, size_t *count,
			    size_t capacity)
{
	Elf64_Phdr segment;

	for (unsigned i = 0; module_program_header(target, module, i, &segment); i++) {
		cleanup(free) uint8_t *text = NULL;

		if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X) ||
		    segment.p_vaddr < eh_frame->text_start ||
		    segment.p_vaddr > eh_frame->text_end ||
		    segment.p_filesz > eh_frame->text_end - segment.p_vaddr)
			continue;
		text = module_copy(target, module, segment.p_vaddr, segment.p_filesz);
		if (text)
			describe_sigreturns(text, segment.p_filesz,
					    segment.p_vaddr - eh_frame->text_start, rows, count,
					    capacity);
	}
}

/* ---- a module ---- */

bool unwind_read_eh_frame(struct target *target, struct module *module, struct eh_frame *ret,
			  uint8_t **bytes_ret)
{
	uint64_t start, end;
	struct place place;

	if (!module_text(module, &start, &end))
		return false;
	*ret = (struct eh_frame){ .text_start = start - module->bias,
				  .text_end = end - module->bias };
	*bytes_ret = NULL;
	if (!find_place(target, module, &place))
		return true;
	place.size = min_u64(place.size, EH_FRAME_MAX);
	*bytes_ret = module_copy(target, module, place.address, place.size);
	if (*bytes_ret) {
		ret->bytes = *bytes_ret;
		ret->size = place.size;
		ret->address = place.address;
		ret->data_base = place.data_base;
	} else {
		log_debug("cannot read .eh_frame of %s", module->path);
	}
	return true;
}

struct error *unwind_compile(struct target *target, struct module *module, struct unwind_row *rows,
			     size_t capacity, size_t *count_ret, struct eh_frame_counts *counts)
{
	cleanup(free) uint8_t *bytes = NULL;
	struct eh_frame eh_frame;
	struct error *error;

	if (!unwind_read_eh_frame(target, module, &eh_frame, &bytes))
		return error_create(ERROR_UNSUPPORTED, "%s has no code", module->path);
	error = eh_frame_compile(&eh_frame, rows, capacity, count_ret, counts);
	if (!error && !counts->has_signal &&
	    may_have_sigreturn(target, module, eh_frame.text_end - eh_frame.text_start))
		find_sigreturns(target, module, &eh_frame, rows, count_ret, capacity);
	return error;
}
