/* Which functions were inlined at an address, by the scopes of its DWARF. */
#include "symbolizer.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INLINED_MAX 64

static const char *linkage_name(Dwarf_Die *die)
{
	static const unsigned names[] = { DW_AT_linkage_name, DW_AT_MIPS_linkage_name };
	Dwarf_Attribute attribute;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *name =
			dwarf_formstring(dwarf_attr_integrate(die, names[i], &attribute));

		if (name)
			return name;
	}
	return NULL;
}

/* Where the function is declared: within its namespaces and classes. */
static Dwarf_Die declaration_of(Dwarf_Die *die)
{
	static const unsigned ways[] = { DW_AT_abstract_origin, DW_AT_specification };
	Dwarf_Die declaration = *die;

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		Dwarf_Attribute attribute;
		Dwarf_Die next;

		if (dwarf_formref_die(dwarf_attr(&declaration, ways[i], &attribute), &next))
			declaration = next;
	}
	return declaration;
}

/* As libiberty writes what has no name; NULL: no part of a name. */
static const char *scope_name(Dwarf_Die *die, bool is_call_operator)
{
	const char *name = dwarf_diename(die);

	switch (dwarf_tag(die)) {
	case DW_TAG_namespace:
		return name ? name : "(anonymous namespace)";
	case DW_TAG_class_type:
	case DW_TAG_structure_type:
	case DW_TAG_union_type:
		if (!name)
			return is_call_operator ? "{lambda}" : "{unnamed type}";
		return name;
	case DW_TAG_subprogram:
		return name;
	default:
		return NULL;
	}
}

/* What has no linkage name, since some type of its has none outside of the file: @name with the
 * scopes before it, functions that it is local to included. The caller frees it; NULL: out of
 * memory. */
static char *scoped_name(Dwarf_Die *die, const char *name)
{
	Dwarf_Die declaration = declaration_of(die);
	cleanup(free) Dwarf_Die *scopes = NULL;
	int count = dwarf_getscopes_die(&declaration, &scopes);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	for (int i = count; i-- > 1;) {
		const char *scope = scope_name(&scopes[i], i == 1 && !strcmp(name, "operator()"));

		if (scope)
			fprintf(out, "%s::", scope);
	}
	fputs(name, out);
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}

/* C has no scopes: nothing is looked for. */
static bool has_scopes(Dwarf_Die *unit)
{
	switch (dwarf_srclang(unit)) {
	case DW_LANG_C:
	case DW_LANG_C89:
	case DW_LANG_C99:
	case DW_LANG_C11:
		return false;
	default:
		return true;
	}
}

/* The caller frees it; NULL: out of memory. */
static char *name_of(Dwarf_Die *unit, Dwarf_Die *die)
{
	const char *name = linkage_name(die);
	Dwarf_Attribute attribute;

	if (name)
		return demangle(name);
	name = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_name, &attribute));
	if (!name)
		return strdup("?");
	return has_scopes(unit) ? scoped_name(die, name) : strdup(name);
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

static struct error *append_one(Dwarf_Die *unit, Dwarf_Die *die, const struct symbol *outer,
				struct symbol_vec *symbols)
{
	struct symbol inlined = *outer;
	struct error *error;

	inlined.inlined = true;
	inlined.offset = 0;
	inlined.function = name_of(unit, die);
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
		error = append_one(unit, &scopes[i], outer, symbols);
		if (!error)
			error = call_site(unit, &scopes[i], outer);
		if (error)
			return error;
	}
	return NULL;
}
