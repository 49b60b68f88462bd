/*
 * Where a function returns to its caller: for those that may throw, since the kernel's return probe
 * puts its own address in the place of the caller's, and an exception finds no way past it. Their
 * `ret`s are probed instead, those of functions that they jump to at their end included.
 *
 * All ways through the code are followed, but for what is called.
 */
#include <elf.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/map64.h"
#include "uprobe.h"
#include "record/x86_decode.h"

#define INSTRUCTIONS_MAX 8192
#define READ_AHEAD	 256u

VEC_DEFINE(address_vec, uint64_t)

struct finder {
	struct target *target;
	struct module *module;
	struct map64 seen;
	struct address_vec work;
	uint8_t code[READ_AHEAD];
	uint64_t code_start, code_end;
	unsigned instructions;
	struct uprobe_returns *ret;
};

static bool is_text(const struct finder *finder, uint64_t address)
{
	vec_for_each (segment, &finder->module->segments)
		if (address >= segment->start && address < segment->end)
			return segment->perms & PERM_EXEC;
	return false;
}

/* A way that leads out of what can be seen. */
static struct error *give_up(struct finder *finder)
{
	finder->ret->all = false;
	return NULL;
}

static struct error *follow(struct finder *finder, uint64_t address)
{
	return is_text(finder, address) ? address_vec_append(&finder->work, &address)
					: give_up(finder);
}

/* A function of the same module that the linker has put there, or will when it is first called. */
static bool find_own(struct finder *finder, uint64_t slot, uint64_t *ret)
{
	struct target *target = finder->target;
	struct module *module = finder->module;
	Elf64_Shdr relocations, symbols;
	Elf64_Rela entry;
	Elf64_Sym symbol;

	if (!module_section(target, module, ".rela.plt", &relocations) ||
	    !module_section(target, module, ".dynsym", &symbols))
		return false;
	for (uint64_t at = 0; at + sizeof(entry) <= relocations.sh_size; at += sizeof(entry)) {
		uint64_t place;
		struct error *error = module_read(target, module, relocations.sh_offset + at,
						  &entry, sizeof(entry));

		if (error) {
			error_destroy(error);
			return false;
		}
		if (entry.r_offset + module->bias != slot)
			continue;
		place = ELF64_R_SYM(entry.r_info) * sizeof(symbol);
		if (place + sizeof(symbol) > symbols.sh_size)
			return false;
		error = module_read(target, module, symbols.sh_offset + place, &symbol,
				    sizeof(symbol));
		error_destroy(error);
		*ret = symbol.st_value + module->bias;
		return !error && symbol.st_shndx != SHN_UNDEF;
	}
	return false;
}

/* jmp *slot(%rip): of a PLT. Others are tables of jumps. */
static struct error *follow_indirect(struct finder *finder, uint64_t address, const uint8_t *code,
				     const struct x86_instruction *instruction)
{
	uint64_t next = address + instruction->length, slot, to;
	struct error *error;
	int32_t displacement;

	if (!instruction->rip_relative)
		return give_up(finder);
	memcpy(&displacement, code + instruction->displacement, sizeof(displacement));
	slot = next + (uint64_t)(int64_t)displacement;
	if (find_own(finder, slot, &to))
		return follow(finder, to);
	error = target_read_word(finder->target, slot, &to);
	if (error) {
		error_destroy(error);
		return give_up(finder);
	}
	/* Back into the PLT, which asks the linker. */
	return to == next ? give_up(finder) : follow(finder, to);
}

static struct error *note_return(struct finder *finder, uint64_t address)
{
	if (finder->ret->count == UPROBE_RETURNS_MAX)
		return give_up(finder);
	finder->ret->addresses[finder->ret->count++] = address;
	return NULL;
}

/* NULL: it cannot be read. */
static const uint8_t *code_at(struct finder *finder, uint64_t address, size_t *size_ret)
{
	static const size_t sizes[] = { READ_AHEAD, X86_INSTRUCTION_MAX };
	struct error *error;

	for (size_t i = 0; i < 2 && (address < finder->code_start ||
				     address + X86_INSTRUCTION_MAX > finder->code_end);
	     i++) {
		finder->code_start = finder->code_end = address;
		error = target_read(finder->target, address, finder->code, sizes[i]);
		if (!error)
			finder->code_end = address + sizes[i];
		error_destroy(error);
	}
	*size_ret = finder->code_end - address;
	return finder->code_end > address ? finder->code + (address - finder->code_start) : NULL;
}

/* Up to where it branches for good, or has been. */
static struct error *follow_line(struct finder *finder, uint64_t address)
{
	struct error *error = NULL;

	while (!error) {
		struct x86_instruction instruction;
		const uint8_t *code;
		size_t size;

		if (map64_get(&finder->seen, address) != MAP64_NONE)
			return NULL;
		code = code_at(finder, address, &size);
		if (++finder->instructions > INSTRUCTIONS_MAX || !code ||
		    !x86_decode(code, size, &instruction))
			return give_up(finder);
		error = map64_put(&finder->seen, address, 1);
		if (error)
			return error;
		switch (instruction.branch) {
		case X86_RETURN:
			return note_return(finder, address);
		case X86_TRAP:
			return NULL;
		case X86_JUMP:
			return follow(finder, address + (uint64_t)instruction.target);
		case X86_JUMP_INDIRECT:
			return follow_indirect(finder, address, code, &instruction);
		case X86_JUMP_IF:
		case X86_LOOP:
			error = follow(finder, address + (uint64_t)instruction.target);
			break;
		default:
			break;
		}
		address += instruction.length;
	}
	return error;
}

struct error *uprobe_find_returns(struct target *target, const struct function *function,
				  struct uprobe_returns *ret)
{
	struct finder finder = { .target = target, .module = function->module, .ret = ret };
	struct error *error;

	*ret = (struct uprobe_returns){ .all = true };
	error = follow(&finder, function->address);
	while (!error && finder.work.size)
		error = follow_line(&finder, finder.work.data[--finder.work.size]);
	map64_deinit(&finder.seen);
	address_vec_deinit(&finder.work);
	return error;
}
