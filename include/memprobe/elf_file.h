/*
 * elf_file.h - bounded reading of the ELF files that a target maps.
 *
 * All of it takes foreign bytes: every offset is checked against the image, every loop has a
 * budget, garbage gives ERROR_UNSUPPORTED. Both classes, little endian.
 */
#ifndef MEMPROBE_ELF_FILE_H
#define MEMPROBE_ELF_FILE_H

#include <elf.h>

#include "memprobe/target.h"

struct elf_symbol {
	uint64_t address; /* in the target: bias added */
	uint64_t size;
	uint8_t type; /* STT_FUNC, STT_OBJECT, STT_GNU_IFUNC, STT_TLS (address is then the offset)
		       */
};

/*
 * Copies the whole file to module->image, once: for libraries that want it so. The functions below
 * read only what they need, and do without. (A copy, since a file that is cut short under a
 * mapping kills who reads it.)
 */
struct error *module_load(struct target *target, struct module *module);

/* Frees what this file keeps for the module. */
void module_unload(struct module *module);

/*
 * Bytes of the module's file at @offset; of the target's memory where the file cannot be opened.
 * All of @size, or an error.
 */
struct error *module_read(struct target *target, struct module *module, uint64_t offset,
			  void *buffer, size_t size);

/*
 * The same by an address of the file (bias not added), in new memory, which the caller frees. NULL:
 * it is not all in one loaded segment, cannot be read, or there is no memory for it.
 */
void *module_copy(struct target *target, struct module *module, uint64_t address, uint64_t size);

/* A section by name, in Elf64 form; false: there is none, or no section headers. */
bool module_section(struct target *target, struct module *module, const char *name,
		    Elf64_Shdr *ret);

/*
 * A defined symbol of .dynsym, else of .symtab, by exact name; the default version where there
 * are several. False: there is none.
 */
bool module_symbol(struct target *target, struct module *module, const char *name,
		   struct elf_symbol *ret);

/*
 * The symbol as the dynamic linker would find it for the program: .dynsym of the modules in
 * link-map order, the executable first; then .symtab of the executable, for programs linked
 * statically. An IFUNC is given back as such: its address is the resolver's.
 */
bool target_symbol(struct target *target, const char *name, struct elf_symbol *ret,
		   struct module **module_ret);

/* Calls @visit for every defined symbol (.dynsym and .symtab) until it returns false. */
struct error *module_each_symbol(struct target *target, struct module *module,
				 bool (*visit)(const char *name, const struct elf_symbol *symbol,
					       void *data),
				 void *data);

/* Calls @visit for every name that the module asks others for (undefined in .dynsym), until it
 * returns false. */
struct error *module_each_import(struct target *target, struct module *module,
				 bool (*visit)(const char *name, void *data), void *data);

/* Program header @index in Elf64 form; false past the end. */
bool module_program_header(struct target *target, struct module *module, unsigned index,
			   Elf64_Phdr *ret);

/* NT_GNU_BUILD_ID as lower-case hex into @text; "" if there is none. */
void module_build_id(struct target *target, struct module *module, char text[65]);

/* The libc that the target runs on. */
enum libc_kind { LIBC_NONE, LIBC_GLIBC, LIBC_MUSL, LIBC_OTHER };

struct libc {
	enum libc_kind kind;
	unsigned major, minor; /* 0, 0: unknown */
	struct module *module; /* the executable, if linked statically; NULL with LIBC_NONE */
};

/* By the version string in libc's read-only data, the file's name, or for static programs their
 * symbols. */
struct error *target_libc(struct target *target, struct libc *ret);

#endif
