/* Which functions were inlined at an address, by the scopes of its DWARF. */
#include "symbolizer.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <string.h>

#define INLINED_MAX 64

static const char *die_name(Dwarf_Die *die)
{
	static const unsigned names[] = { DW_AT_linkage_name, DW_AT_MIPS_linkage_name, DW_AT_name };
	Dwarf_Attribute attribute;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *name =
			dwarf_formstring(dwarf_attr_integrate(die, names[i], &attribute));

		if (name)
			return name;
	}
	return NULL;
}

/* Where the inlined function was called, into @symbol. */
static struct error *call_site(Dwarf_Die *unit, Dwarf_Die *die, struct symbol *symbol)
{
	Dwarf_Attribute attribute;
	Dwarf_Word file = 0, line = 0;
	Dwarf_Files *files;
	const char *name = NULL;
	size_t count;

	symbol->file = NULL;
	symbol->line = 0;
	if (!dwarf_formudata(dwarf_attr(die, DW_AT_call_file, &attribute), &file) &&
	    !dwarf_getsrcfiles(unit, &files, &count) && file < count)
		name = dwarf_filesrc(files, file, NULL, NULL);
	if (!name)
		return NULL;
	if (!dwarf_formudata(dwarf_attr(die, DW_AT_call_line, &attribute), &line))
		symbol->line = (unsigned)line;
	symbol->file = strdup(name);
	return symbol->file ? NULL : &error_no_memory;
}

static struct error *append_one(Dwarf_Die *die, const struct symbol *outer,
				struct symbol_vec *symbols)
{
	struct symbol inlined = *outer;
	const char *name = die_name(die);
	struct error *error;

	inlined.inlined = true;
	inlined.offset = 0;
	inlined.function = demangle(name ? name : "?");
	if (!inlined.function)
		return &error_no_memory;
	error = symbol_vec_append(symbols, &inlined);
	if (error)
		free(inlined.function);
	return error;
}

struct error *append_inlined(Dwfl_Module *module, uint64_t address, struct symbol_vec *symbols,
			     struct symbol *outer)
{
	cleanup(free) Dwarf_Die *innermost = NULL;
	cleanup(free) Dwarf_Die *scopes = NULL;
	Dwarf_Addr bias;
	Dwarf_Die *unit = dwfl_module_addrdie(module, address, &bias);
	int count;

	/* The first call goes on with the scopes of the inlined function's own definition, the
	 * second with those of the code it was inlined into. */
	if (!unit || dwarf_getscopes(unit, address - bias, &innermost) <= 0)
		return NULL;
	count = dwarf_getscopes_die(&innermost[0], &scopes);
	for (int i = 0; i < count && i < INLINED_MAX; i++) {
		struct error *error;

		if (dwarf_tag(&scopes[i]) == DW_TAG_subprogram)
			break;
		if (dwarf_tag(&scopes[i]) != DW_TAG_inlined_subroutine)
			continue;
		error = append_one(&scopes[i], outer, symbols);
		if (!error)
			error = call_site(unit, &scopes[i], outer);
		if (error)
			return error;
	}
	return NULL;
}
