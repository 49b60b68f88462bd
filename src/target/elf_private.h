/*
 * elf_private.h - what the files that read ELF share.
 *
 * Headers and symbols are kept in their 64-bit form, whatever the class of the file.
 */
#ifndef MEMPROBE_TARGET_ELF_PRIVATE_H
#define MEMPROBE_TARGET_ELF_PRIVATE_H

#include "memprobe/elf_file.h"

struct symbol_table {
	bool known; /* looked for, found or not */
	size_t count;
	Elf64_Sym *symbols;
	char *names; /* ends with a NUL of our own */
	size_t names_size;
	uint16_t *versions; /* .gnu.version, as many as symbols; NULL: it has none */
};

struct elf_file {
	bool is_64;
	Elf64_Ehdr header;
	Elf64_Phdr *segments;
	unsigned segment_count;
	struct symbol_table dynsym, symtab;
};

/* A module's bytes: from its file, or where that cannot be opened from memory. */
struct elf_reader {
	struct target *target;
	struct module *module;
	int fd;	       /* -1: memory */
	uint64_t size; /* of the file, or of what is mapped of it */
};

void elf_reader_open(struct elf_reader *reader, struct target *target, struct module *module);
void elf_reader_close(struct elf_reader *reader);

/* All of @size at @offset of the file, or false. */
bool elf_read(const struct elf_reader *reader, uint64_t offset, void *buffer, uint64_t size);

/* All of @size at an address of the file, bias not added. */
bool elf_read_address(const struct elf_reader *reader, uint64_t address, void *buffer,
		      uint64_t size);

/* The same into new memory with a NUL behind it, which the caller frees; NULL: not to be had. */
void *elf_copy(const struct elf_reader *reader, uint64_t offset, uint64_t size);
void *elf_copy_address(const struct elf_reader *reader, uint64_t address, uint64_t size);

/* The header of section @index, in its 64-bit form. False past the end. */
bool elf_section(const struct elf_reader *reader, const struct elf_file *elf, unsigned index,
		 Elf64_Shdr *ret);

/* Reads the headers, once. ERROR_UNSUPPORTED: garbage. */
struct error *elf_open(struct target *target, struct module *module);

/* Sets module->bias; leaves it alone where the headers cannot be read. */
void elf_find_bias(struct target *target, struct module *module);

/* Fills @table, once; an empty one if the file has none. */
struct symbol_table *elf_dynsym(struct target *target, struct module *module);
struct symbol_table *elf_symtab(struct target *target, struct module *module);
void symbol_table_deinit(struct symbol_table *table);

/* A defined symbol of one table by name, default version first. */
bool elf_find_symbol(struct target *target, const struct module *module,
		     const struct symbol_table *table, const char *name, struct elf_symbol *ret);

#endif
