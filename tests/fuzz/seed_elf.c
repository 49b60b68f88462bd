/* Writes the seeds of fuzz_elf into a directory: small libraries of both classes. */
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define VDSO_MAX 8192u

/* Addresses are offsets. Sections: none, dynsym, dynstr, versym, symtab with the same contents. */
enum place {
	AT_NOTE = 0x200,
	AT_DYNAMIC = 0x240,
	AT_SYMBOLS = 0x400,
	AT_NAMES = 0x480,
	AT_VERSIONS = 0x4c0,
	AT_HASH = 0x500,
	AT_SECTIONS = 0x600,
	SIZE = 0x800
};

/* What there is of sections: all, none, all but symbols in the dynamic ones. */
enum sections { WHOLE, STRIPPED, EMPTY, VARIANTS };

static const char names[] = "\0malloc\0free\0_rtld_global";
static const uint32_t gnu_hash[] = { 1, 1, 1, 0, 0, 0, 1, 2, 4, 7 };

static void save(const char *directory, const char *name, uint8_t choice, const void *bytes,
		 size_t size)
{
	const uint8_t head[3] = { choice, 1, 0 };
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s-%u", directory, name, choice);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, head, 3) != 3 || write(fd, bytes, size) != (ssize_t)size) {
		perror(path);
		exit(1);
	}
	close(fd);
}

static void put_common(uint8_t *file)
{
	const uint16_t versions[] = { 0, 2, 0x8002, 1 };
	const uint32_t note[] = { 4, 8, NT_GNU_BUILD_ID, 0x554e47, 0x12345678, 0x9abcdef0 };

	memcpy(file + AT_NOTE, note, sizeof(note));
	memcpy(file + AT_NAMES, names, sizeof(names));
	memcpy(file + AT_VERSIONS, versions, sizeof(versions));
	memcpy(file + AT_HASH, gnu_hash, sizeof(gnu_hash));
}

/* The same for both classes but for the types' names. */
#define MAKE_FILE(bits, class, machine)                                                          \
	static void make_##bits(uint8_t *file, enum sections variant)                            \
	{                                                                                        \
		Elf##bits##_Ehdr header = {                                                      \
			.e_ident = { 0x7f, 'E', 'L', 'F', class, ELFDATA2LSB, EV_CURRENT },      \
			.e_type = ET_DYN,                                                        \
			.e_machine = machine,                                                    \
			.e_version = EV_CURRENT,                                                 \
			.e_phoff = sizeof(header),                                               \
			.e_ehsize = sizeof(header),                                              \
			.e_phentsize = sizeof(Elf##bits##_Phdr),                                 \
			.e_phnum = 3,                                                            \
			.e_shoff = variant == STRIPPED ? 0 : AT_SECTIONS,                        \
			.e_shentsize = sizeof(Elf##bits##_Shdr),                                 \
			.e_shnum = variant == STRIPPED ? 0 : 5,                                  \
		};                                                                               \
		const Elf##bits##_Phdr segments[] = {                                            \
			{ .p_type = PT_LOAD, .p_filesz = SIZE, .p_memsz = SIZE, .p_flags = 5 },  \
			{ .p_type = PT_DYNAMIC,                                                  \
			  .p_offset = AT_DYNAMIC,                                                \
			  .p_vaddr = AT_DYNAMIC,                                                 \
			  .p_filesz = 0x80 },                                                    \
			{ .p_type = PT_NOTE,                                                     \
			  .p_offset = AT_NOTE,                                                   \
			  .p_vaddr = AT_NOTE,                                                    \
			  .p_filesz = 24 },                                                      \
		};                                                                               \
		const Elf##bits##_Dyn dynamic[] = {                                              \
			{ DT_SYMTAB, { AT_SYMBOLS } },	 { DT_STRTAB, { AT_NAMES } },            \
			{ DT_STRSZ, { sizeof(names) } }, { DT_VERSYM, { AT_VERSIONS } },         \
			{ DT_GNU_HASH, { AT_HASH } },	 { DT_NULL, { 0 } },                     \
		};                                                                               \
		const Elf##bits##_Sym symbols[] = {                                              \
			{ 0 },                                                                   \
			{ .st_name = 1, .st_info = STT_FUNC, .st_shndx = 1, .st_value = 0x100 }, \
			{ .st_name = 8, .st_info = STT_FUNC, .st_shndx = 1, .st_value = 0x110 }, \
			{ .st_name = 13, .st_info = STT_OBJECT, .st_shndx = 1, .st_value = 8 },  \
		};                                                                               \
		const Elf##bits##_Shdr table = { .sh_type = SHT_DYNSYM,                          \
						 .sh_offset = AT_SYMBOLS,                        \
						 .sh_size = sizeof(symbols),                     \
						 .sh_link = 2,                                   \
						 .sh_entsize = sizeof(symbols[0]) };             \
		Elf##bits##_Shdr sections[5] = {                                                 \
			{ 0 },                                                                   \
			table,                                                                   \
			{ .sh_type = SHT_STRTAB,                                                 \
			  .sh_offset = AT_NAMES,                                                 \
			  .sh_size = sizeof(names) },                                            \
			{ .sh_type = SHT_GNU_versym,                                             \
			  .sh_offset = AT_VERSIONS,                                              \
			  .sh_size = 8,                                                          \
			  .sh_link = 1 },                                                        \
			table,                                                                   \
		};                                                                               \
                                                                                                 \
		if (variant == EMPTY)                                                            \
			sections[1].sh_size = 0;                                                 \
		sections[4].sh_type = SHT_SYMTAB;                                                \
		memset(file, 0, SIZE);                                                           \
		put_common(file);                                                                \
		memcpy(file, &header, sizeof(header));                                           \
		memcpy(file + sizeof(header), segments, sizeof(segments));                       \
		memcpy(file + AT_DYNAMIC, dynamic, sizeof(dynamic));                             \
		memcpy(file + AT_SYMBOLS, symbols, sizeof(symbols));                             \
		memcpy(file + AT_SECTIONS, sections, sizeof(sections));                          \
	}

MAKE_FILE(64, ELFCLASS64, EM_X86_64)
MAKE_FILE(32, ELFCLASS32, EM_386)

int main(int argc, char **argv)
{
	static const char *const names_of_64[VARIANTS] = { "whole64", "stripped64", "empty64" };
	static const char *const names_of_32[VARIANTS] = { "whole32", "stripped32", "empty32" };
	const void *vdso = (const void *)getauxval(AT_SYSINFO_EHDR);
	uint8_t file[SIZE];

	if (argc != 2)
		return 2;
	for (uint8_t choice = 0; choice < 8; choice += 2) {
		for (enum sections variant = WHOLE; variant < VARIANTS; variant++) {
			make_64(file, variant);
			save(argv[1], names_of_64[variant], choice, file, SIZE);
			make_32(file, variant);
			save(argv[1], names_of_32[variant], choice | 1, file, SIZE);
		}
		if (vdso)
			save(argv[1], "vdso", choice, vdso, VDSO_MAX);
	}
	return 0;
}
