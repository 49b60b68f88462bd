/* Symbol tables: from sections, or where those are stripped from the dynamic section. */
#include "elf_private.h"

#include <string.h>

#include "memprobe/num.h"

#define DYNAMIC_MAX 4096
#define SYMBOL_MAX  (1u << 26)
#define HIDDEN	    0x8000 /* in .gnu.version: not the default version */

void symbol_table_deinit(struct symbol_table *table)
{
	free(table->symbols);
	free(table->names);
	free(table->versions);
	*table = (struct symbol_table){ 0 };
}

static uint64_t symbol_size(const struct elf_file *elf)
{
	return elf->is_64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
}

/* Takes over @bytes, symbols of the file's class. */
static bool take_symbols(struct symbol_table *table, const struct elf_file *elf, void *bytes,
			 size_t count)
{
	const Elf32_Sym *narrow = bytes;

	table->count = count;
	if (elf->is_64 || !bytes) {
		table->symbols = bytes;
		return bytes != NULL;
	}
	table->symbols = calloc(count + 1, sizeof(*table->symbols));
	for (size_t i = 0; table->symbols && i < count; i++)
		table->symbols[i] = (Elf64_Sym){
			.st_name = narrow[i].st_name,
			.st_info = narrow[i].st_info,
			.st_other = narrow[i].st_other,
			.st_shndx = narrow[i].st_shndx,
			.st_value = narrow[i].st_value,
			.st_size = narrow[i].st_size,
		};
	free(bytes);
	return table->symbols != NULL;
}

static void check_table(struct symbol_table *table)
{
	if (!table->symbols || !table->names)
		symbol_table_deinit(table);
	table->known = true;
}

/* ---- by sections ---- */

static void load_versions(const struct elf_reader *reader, struct symbol_table *table,
			  unsigned symbols_index)
{
	Elf64_Shdr section;

	for (unsigned i = 0; elf_section(reader, reader->module->elf, i, &section); i++) {
		if (section.sh_type != SHT_GNU_versym || section.sh_link != symbols_index ||
		    section.sh_size / sizeof(*table->versions) < table->count)
			continue;
		table->versions = elf_copy(reader, section.sh_offset, section.sh_size);
		break;
	}
}

static void load_by_section(const struct elf_reader *reader, struct symbol_table *table,
			    uint32_t type)
{
	const struct elf_file *elf = reader->module->elf;
	const uint64_t entry = symbol_size(elf);
	Elf64_Shdr section, names;

	for (unsigned i = 0; elf_section(reader, elf, i, &section); i++) {
		if (section.sh_type != type || section.sh_entsize != entry ||
		    section.sh_size / entry > SYMBOL_MAX ||
		    !elf_section(reader, elf, section.sh_link, &names) ||
		    names.sh_type != SHT_STRTAB)
			continue;
		if (!take_symbols(table, elf, elf_copy(reader, section.sh_offset, section.sh_size),
				  section.sh_size / entry))
			break;
		table->names = elf_copy(reader, names.sh_offset, names.sh_size);
		table->names_size = names.sh_size;
		load_versions(reader, table, i);
		break;
	}
	check_table(table);
}

/* ---- by the dynamic section ---- */

struct dynamic {
	uint64_t symbols, names, names_size, versions, hash, gnu_hash;
};

static bool in_segments(const struct elf_file *elf, uint64_t address)
{
	for (unsigned i = 0; i < elf->segment_count; i++) {
		const Elf64_Phdr *segment = &elf->segments[i];

		if (segment->p_type == PT_LOAD && address >= segment->p_vaddr &&
		    address - segment->p_vaddr < segment->p_memsz)
			return true;
	}
	return false;
}

/* In memory, glibc has added the bias to the pointers; elsewhere nobody has. */
static uint64_t without_bias(const struct elf_reader *reader, uint64_t pointer)
{
	const struct module *module = reader->module;

	if (reader->fd < 0 && pointer >= module->start && pointer < module->end &&
	    in_segments(module->elf, pointer - module->bias))
		return pointer - module->bias;
	return pointer;
}

static void take_dynamic(const struct elf_reader *reader, struct dynamic *dynamic, uint64_t tag,
			 uint64_t value)
{
	switch (tag) {
	case DT_SYMTAB:
		dynamic->symbols = without_bias(reader, value);
		break;
	case DT_STRTAB:
		dynamic->names = without_bias(reader, value);
		break;
	case DT_STRSZ:
		dynamic->names_size = value;
		break;
	case DT_VERSYM:
		dynamic->versions = without_bias(reader, value);
		break;
	case DT_HASH:
		dynamic->hash = without_bias(reader, value);
		break;
	case DT_GNU_HASH:
		dynamic->gnu_hash = without_bias(reader, value);
		break;
	}
}

static bool read_dynamic(const struct elf_reader *reader, struct dynamic *dynamic)
{
	const struct elf_file *elf = reader->module->elf;
	const unsigned word = elf->is_64 ? 8 : 4;

	for (unsigned i = 0; i < elf->segment_count; i++) {
		uint64_t address = elf->segments[i].p_vaddr;

		if (elf->segments[i].p_type != PT_DYNAMIC)
			continue;
		for (unsigned entry = 0; entry < DYNAMIC_MAX; entry++, address += 2 * word) {
			char bytes[16];
			uint64_t tag;

			if (!elf_read_address(reader, address, bytes, 2 * word))
				return false;
			tag = load_word(bytes, word);
			if (tag == DT_NULL)
				return dynamic->symbols && dynamic->names && dynamic->names_size;
			take_dynamic(reader, dynamic, tag, load_word(bytes + word, word));
		}
		/* There is one, and hostile files do not get more. */
		break;
	}
	return false;
}

/* The end of the last chain. The layout: four words, the bloom filter, buckets, chains. */
static uint64_t count_by_gnu_hash(const struct elf_reader *reader, uint64_t hash)
{
	const unsigned word = reader->module->elf->is_64 ? 8 : 4;
	cleanup(free) uint32_t *buckets = NULL;
	uint32_t header[4], chain, last = 0;
	uint64_t at;

	if (!elf_read_address(reader, hash, header, sizeof(header)) || header[0] > SYMBOL_MAX ||
	    header[2] > SYMBOL_MAX)
		return 0;
	at = hash + sizeof(header) + (uint64_t)header[2] * word;
	buckets = elf_copy_address(reader, at, (uint64_t)header[0] * sizeof(*buckets));
	if (!buckets)
		return 0;
	for (uint32_t i = 0; i < header[0]; i++)
		last = buckets[i] > last ? buckets[i] : last;
	if (last < header[1])
		return header[1] <= SYMBOL_MAX ? header[1] : 0;
	at += (uint64_t)header[0] * sizeof(*buckets);
	do {
		if (last > SYMBOL_MAX ||
		    !elf_read_address(reader, at + (uint64_t)(last - header[1]) * sizeof(chain),
				      &chain, sizeof(chain)))
			return 0;
		last++;
	} while (!(chain & 1));
	return last;
}

static uint64_t count_symbols(const struct elf_reader *reader, const struct dynamic *dynamic)
{
	uint32_t hash[2];

	if (dynamic->hash && elf_read_address(reader, dynamic->hash, hash, sizeof(hash)))
		return hash[1] <= SYMBOL_MAX ? hash[1] : 0;
	return dynamic->gnu_hash ? count_by_gnu_hash(reader, dynamic->gnu_hash) : 0;
}

static void load_by_dynamic(const struct elf_reader *reader, struct symbol_table *table)
{
	const struct elf_file *elf = reader->module->elf;
	struct dynamic dynamic = { 0 };
	uint64_t count;
	void *bytes;

	if (!read_dynamic(reader, &dynamic))
		return;
	count = count_symbols(reader, &dynamic);
	if (!count)
		return;
	bytes = elf_copy_address(reader, dynamic.symbols, count * symbol_size(elf));
	if (!take_symbols(table, elf, bytes, count)) {
		symbol_table_deinit(table);
		return;
	}
	table->names = elf_copy_address(reader, dynamic.names, dynamic.names_size);
	table->names_size = dynamic.names_size;
	if (dynamic.versions)
		table->versions = elf_copy_address(reader, dynamic.versions,
						   count * sizeof(*table->versions));
	check_table(table);
}

static bool is_open(struct target *target, struct module *module)
{
	struct error *error = elf_open(target, module);

	if (!error)
		return true;
	error_destroy(error);
	return false;
}

static void load_tables(struct target *target, struct module *module, struct symbol_table *table,
			uint32_t type)
{
	struct elf_reader reader;

	elf_reader_open(&reader, target, module);
	load_by_section(&reader, table, type);
	if (!table->count && type == SHT_DYNSYM) {
		/* A section may be there, and empty. */
		symbol_table_deinit(table);
		load_by_dynamic(&reader, table);
	}
	elf_reader_close(&reader);
	table->known = true;
}

struct symbol_table *elf_dynsym(struct target *target, struct module *module)
{
	if (!is_open(target, module))
		return NULL;
	if (!module->elf->dynsym.known)
		load_tables(target, module, &module->elf->dynsym, SHT_DYNSYM);
	return &module->elf->dynsym;
}

struct symbol_table *elf_symtab(struct target *target, struct module *module)
{
	if (!is_open(target, module))
		return NULL;
	if (!module->elf->symtab.known)
		load_tables(target, module, &module->elf->symtab, SHT_SYMTAB);
	return &module->elf->symtab;
}

/* ---- looking up ---- */

static const char *symbol_name(const struct symbol_table *table, const Elf64_Sym *symbol)
{
	return symbol->st_name < table->names_size ? table->names + symbol->st_name : "";
}

static bool is_defined(const Elf64_Sym *symbol)
{
	const unsigned type = ELF64_ST_TYPE(symbol->st_info);

	return symbol->st_shndx != SHN_UNDEF &&
	       (type == STT_NOTYPE || type == STT_FUNC || type == STT_OBJECT || type == STT_TLS ||
		type == STT_GNU_IFUNC);
}

static struct elf_symbol symbol_in_target(const struct target *target, const struct module *module,
					  const Elf64_Sym *symbol)
{
	struct elf_symbol result = {
		.address = symbol->st_value,
		.size = symbol->st_size,
		.type = ELF64_ST_TYPE(symbol->st_info),
	};

	if (result.type == STT_TLS || symbol->st_shndx == SHN_ABS)
		return result;
	result.address += module->bias;
	if (target->arch->word_size == 4)
		result.address = (uint32_t)result.address;
	return result;
}

bool elf_find_symbol(struct target *target, const struct module *module,
		     const struct symbol_table *table, const char *name, struct elf_symbol *ret)
{
	const Elf64_Sym *found = NULL;

	for (size_t i = 0; table && i < table->count; i++) {
		const Elf64_Sym *symbol = &table->symbols[i];
		const char *other = symbol_name(table, symbol);

		if (other[0] != name[0] || !is_defined(symbol) || strcmp(other, name))
			continue;
		if (!found)
			found = symbol;
		if (!table->versions || !(table->versions[i] & HIDDEN)) {
			found = symbol;
			break;
		}
	}
	if (!found || !name[0])
		return false;
	*ret = symbol_in_target(target, module, found);
	return true;
}

bool module_symbol(struct target *target, struct module *module, const char *name,
		   struct elf_symbol *ret)
{
	return elf_find_symbol(target, module, elf_dynsym(target, module), name, ret) ||
	       elf_find_symbol(target, module, elf_symtab(target, module), name, ret);
}

bool target_symbol(struct target *target, const char *name, struct elf_symbol *ret,
		   struct module **module_ret)
{
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	if (error) {
		error_destroy(error);
		return false;
	}
	vec_for_each (module, modules) {
		/* The vdso is in the link map, but not in the scope that is searched. */
		if (module->is_vdso ||
		    !elf_find_symbol(target, module, elf_dynsym(target, module), name, ret))
			continue;
		if (module_ret)
			*module_ret = module;
		return true;
	}
	vec_for_each (module, modules) {
		if (!module->is_exe ||
		    !elf_find_symbol(target, module, elf_symtab(target, module), name, ret))
			continue;
		if (module_ret)
			*module_ret = module;
		return true;
	}
	return false;
}

struct error *module_each_symbol(struct target *target, struct module *module,
				 bool (*visit)(const char *name, const struct elf_symbol *symbol,
					       void *data),
				 void *data)
{
	struct error *error = elf_open(target, module);
	const struct symbol_table *tables[2];

	if (error)
		return error;
	tables[0] = elf_dynsym(target, module);
	tables[1] = elf_symtab(target, module);
	for (unsigned t = 0; t < 2; t++) {
		for (size_t i = 0; i < tables[t]->count; i++) {
			const Elf64_Sym *symbol = &tables[t]->symbols[i];
			const char *name = symbol_name(tables[t], symbol);
			struct elf_symbol result;

			if (!name[0] || !is_defined(symbol))
				continue;
			result = symbol_in_target(target, module, symbol);
			if (!visit(name, &result, data))
				return NULL;
		}
	}
	return NULL;
}

struct error *module_each_import(struct target *target, struct module *module,
				 bool (*visit)(const char *name, void *data), void *data)
{
	struct error *error = elf_open(target, module);
	const struct symbol_table *table;

	if (error)
		return error;
	table = elf_dynsym(target, module);
	for (size_t i = 0; i < table->count; i++) {
		const char *name = symbol_name(table, &table->symbols[i]);

		if (table->symbols[i].st_shndx == SHN_UNDEF && name[0] && !visit(name, data))
			break;
	}
	return NULL;
}
