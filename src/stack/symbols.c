#include "memprobe/symbols.h"

#include <elfutils/libdw.h>
#include <string.h>

#include "memprobe/log.h"
#include "symbolizer.h"

/* Addresses whose symbols are kept. */
#define KNOWN_MAX 65536

void symbols_deinit(struct symbol_vec *symbols)
{
	vec_for_each (symbol, symbols) {
		free(symbol->function);
		free(symbol->file);
	}
	symbol_vec_deinit(symbols);
}

struct error *symbolizer_create(struct target *target, struct symbolizer **ret)
{
	cleanup(symbolizer) struct symbolizer *symbolizer = calloc(1, sizeof(*symbolizer));
	struct error *error;

	if (!symbolizer)
		return &error_no_memory;
	symbolizer->target = target;
	error = symbolizer_open(symbolizer);
	if (error)
		return error;
	*ret = take_pointer(symbolizer);
	return NULL;
}

void symbolizer_destroy(struct symbolizer *symbolizer)
{
	if (!symbolizer)
		return;
	if (symbolizer->dwfl)
		dwfl_end(symbolizer->dwfl);
	free(symbolizer->sources);
	vec_for_each (symbols, &symbolizer->found)
		symbols_deinit(symbols);
	symbols_vec_deinit(&symbolizer->found);
	map64_deinit(&symbolizer->known);
	perf_map_destroy(symbolizer->jit);
	free(symbolizer);
}

static struct error *find_line(Dwfl_Module *module, uint64_t address, struct symbol *symbol)
{
	Dwfl_Line *line = dwfl_module_getsrc(module, address);
	Dwarf_Addr bias;
	const char *file;
	bool is_end;
	int number;

	/* Behind the last instruction that has a line, libdwfl gives the end marker. */
	if (!line || dwarf_lineendsequence(dwfl_dwarf_line(line, &bias), &is_end) || is_end)
		return NULL;
	file = dwfl_lineinfo(line, NULL, &number, NULL, NULL, NULL);
	if (!file)
		return NULL;
	symbol->line = number > 0 ? (unsigned)number : 0;
	symbol->file = strdup(file);
	return symbol->file ? NULL : &error_no_memory;
}

static struct error *find_function(Dwfl_Module *dwfl_module, uint64_t pc, uint64_t address,
				   struct symbol *symbol)
{
	const struct module *module = symbolizer_module(dwfl_module);
	GElf_Off offset = 0;
	GElf_Sym sym;
	const char *name =
		dwfl_module_addrinfo(dwfl_module, address, &offset, &sym, NULL, NULL, NULL);

	if (module) {
		symbol->module = module->path;
		symbol->offset = pc - module->bias;
	}
	if (!name)
		return NULL;
	symbol->offset = offset + (pc - address);
	symbol->function = demangle(name);
	return symbol->function ? NULL : &error_no_memory;
}

/* Code of no module: what a JIT compiler has made, if it says so. */
static struct error *find_jit(struct symbolizer *symbolizer, uint64_t pc, uint64_t address,
			      struct symbol *symbol)
{
	const char *name;
	uint64_t offset;

	if (!symbolizer->jit_known) {
		struct error *error = perf_map_open(symbolizer->target, &symbolizer->jit);

		if (error == &error_no_memory)
			return error;
		if (error)
			log_debug("no names of JIT code: %s", error->message);
		error_destroy(error);
		symbolizer->jit_known = true;
	}
	name = symbolizer->jit ? perf_map_find(symbolizer->jit, address, &offset) : NULL;
	if (!name)
		return NULL;
	symbol->offset = offset + (pc - address);
	symbol->function = demangle(name);
	return symbol->function ? NULL : &error_no_memory;
}

static struct error *look_up(struct symbolizer *symbolizer, uint64_t pc, bool is_return,
			     struct symbol_vec *symbols)
{
	uint64_t address = is_return ? pc - 1 : pc;
	struct symbol symbol = { .offset = pc };
	Dwfl_Module *module = dwfl_addrmodule(symbolizer->dwfl, address);
	struct error *error = NULL;

	if (module) {
		error = find_function(module, pc, address, &symbol);
		if (!error)
			error = find_line(module, address, &symbol);
		if (!error && symbol.file)
			error = append_inlined(module, address, symbols, &symbol);
	} else {
		error = find_jit(symbolizer, pc, address, &symbol);
	}
	if (!error)
		error = symbol_vec_append(symbols, &symbol);
	if (error) {
		free(symbol.function);
		free(symbol.file);
	}
	return error;
}

static struct error *append_copies(struct symbol_vec *symbols, const struct symbol_vec *from)
{
	vec_for_each (symbol, from) {
		struct symbol copy = *symbol;
		struct error *error = symbol_vec_reserve(symbols, symbols->size + 1);

		if (error)
			return error;
		copy.function = symbol->function ? strdup(symbol->function) : NULL;
		copy.file = symbol->file ? strdup(symbol->file) : NULL;
		symbols->data[symbols->size++] = copy;
		if ((symbol->function && !copy.function) || (symbol->file && !copy.file))
			return &error_no_memory;
	}
	return NULL;
}

/* Takes over @symbols, whatever it returns. */
static struct error *keep(struct symbolizer *symbolizer, uint64_t key, struct symbol_vec *symbols)
{
	struct error *error = symbols_vec_append(&symbolizer->found, symbols);

	if (error) {
		symbols_deinit(symbols);
		return error;
	}
	return map64_put(&symbolizer->known, key, symbolizer->found.size - 1);
}

struct error *symbolize(struct symbolizer *symbolizer, uint64_t pc, bool is_return,
			struct symbol_vec *symbols)
{
	uint64_t key = pc << 1 | is_return;
	uint64_t place = map64_get(&symbolizer->known, key);
	struct symbol_vec found = { 0 };
	struct error *error;

	if (place != MAP64_NONE)
		return append_copies(symbols, &symbolizer->found.data[place]);
	if (symbolizer->found.size == KNOWN_MAX)
		return look_up(symbolizer, pc, is_return, symbols);
	error = look_up(symbolizer, pc, is_return, &found);
	if (error) {
		symbols_deinit(&found);
		return error;
	}
	error = append_copies(symbols, &found);
	if (error) {
		symbols_deinit(&found);
		return error;
	}
	return keep(symbolizer, key, &found);
}

struct error *symbolizer_name(struct symbolizer *symbolizer, uint64_t address, char **ret,
			      uint64_t *offset_ret)
{
	Dwfl_Module *module = dwfl_addrmodule(symbolizer->dwfl, address);
	GElf_Off offset = 0;
	GElf_Sym sym;
	const char *name = NULL;

	if (module)
		name = dwfl_module_addrinfo(module, address, &offset, &sym, NULL, NULL, NULL);
	*ret = name ? strdup(name) : NULL;
	*offset_ret = offset;
	return name && !*ret ? &error_no_memory : NULL;
}

static struct error *find_section(Dwfl_Module *module, uint64_t address, char **ret)
{
	Dwarf_Addr in_section = address, bias;
	Elf_Scn *section = dwfl_module_address_section(module, &in_section, &bias);
	Elf *elf = section ? dwfl_module_getelf(module, &bias) : NULL;
	const char *name = NULL;
	GElf_Shdr header;
	size_t names;

	if (elf && !elf_getshdrstrndx(elf, &names) && gelf_getshdr(section, &header))
		name = elf_strptr(elf, names, header.sh_name);
	*ret = name ? strdup(name) : NULL;
	return name && !*ret ? &error_no_memory : NULL;
}

struct error *symbolizer_data(struct symbolizer *symbolizer, uint64_t address,
			      struct data_symbol *ret)
{
	Dwfl_Module *dwfl_module = dwfl_addrmodule(symbolizer->dwfl, address);
	const struct module *module = dwfl_module ? symbolizer_module(dwfl_module) : NULL;
	const char *name;
	GElf_Off offset = 0;
	GElf_Sym sym;
	struct error *error;

	*ret = (struct data_symbol){ 0 };
	if (!module)
		return NULL;
	ret->module = module->path;
	name = dwfl_module_addrinfo(dwfl_module, address, &offset, &sym, NULL, NULL, NULL);
	/* Behind the nearest variable's end is nobody's, or a local one's without a symbol. */
	if (name && *name && offset < sym.st_size) {
		ret->offset = offset;
		ret->name = demangle(name);
		if (!ret->name)
			return &error_no_memory;
	}
	error = find_section(dwfl_module, address, &ret->section);
	if (error)
		data_symbol_deinit(ret);
	return error;
}

void data_symbol_deinit(struct data_symbol *symbol)
{
	free(symbol->name);
	free(symbol->section);
	*symbol = (struct data_symbol){ 0 };
}
