#include "memprobe/parameters.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <stdio.h>
#include <string.h>

#include "symbolizer.h"

#define REGISTERS      6
#define PARAMETERS_MAX 64

/* ---- types ---- */

enum passing { IN_REGISTER, IN_VECTOR, IN_MEMORY };

/* Of the psABI only what functions that allocate have: numbers, pointers, doubles. */
static enum passing passing_of(Dwarf_Die *die)
{
	Dwarf_Attribute attribute;
	Dwarf_Die type;
	Dwarf_Word encoding, size;

	if (!dwarf_formref_die(dwarf_attr_integrate(die, DW_AT_type, &attribute), &type) ||
	    dwarf_peel_type(&type, &type))
		return IN_MEMORY;
	switch (dwarf_tag(&type)) {
	case DW_TAG_pointer_type:
	case DW_TAG_reference_type:
	case DW_TAG_rvalue_reference_type:
	case DW_TAG_enumeration_type:
	case DW_TAG_array_type:
	case DW_TAG_unspecified_type:
		return IN_REGISTER;
	case DW_TAG_base_type:
		break;
	default:
		return IN_MEMORY;
	}
	if (dwarf_formudata(dwarf_attr_integrate(&type, DW_AT_encoding, &attribute), &encoding) ||
	    dwarf_aggregate_size(&type, &size))
		return IN_MEMORY;
	if (encoding == DW_ATE_float)
		return size <= 8 ? IN_VECTOR : IN_MEMORY;
	return size <= 8 ? IN_REGISTER : IN_MEMORY;
}

/* A structure that is returned in memory shifts all arguments. */
static bool returns_plainly(Dwarf_Die *function)
{
	Dwarf_Attribute attribute;

	return !dwarf_attr_integrate(function, DW_AT_type, &attribute) ||
	       passing_of(function) != IN_MEMORY;
}

/* ---- the function ---- */

static bool find_function(struct symbolizer *symbolizer, uint64_t address, Dwarf_Die *ret)
{
	Dwfl_Module *module = dwfl_addrmodule(symbolizer->dwfl, address);
	Dwarf_Addr bias;
	Dwarf_Die *unit = module ? dwfl_module_addrdie(module, address, &bias) : NULL;
	cleanup(free) Dwarf_Die *scopes = NULL;
	int count = unit ? dwarf_getscopes(unit, address - bias, &scopes) : 0;

	for (int i = 0; i < count; i++) {
		if (dwarf_tag(&scopes[i]) != DW_TAG_subprogram)
			continue;
		*ret = scopes[i];
		return true;
	}
	return false;
}

/* Concrete instances of functions that are also inlined name their parameters abstractly. */
static const char *name_of(Dwarf_Die *die)
{
	Dwarf_Attribute attribute;

	return dwarf_formstring(dwarf_attr_integrate(die, DW_AT_name, &attribute));
}

struct error *symbolizer_parameter(struct symbolizer *symbolizer, uint64_t address,
				   const char *name, unsigned *ret)
{
	Dwarf_Die function, child;
	unsigned registers = 0, seen = 0;
	char names[200] = "";

	if (!find_function(symbolizer, address, &function))
		return error_hint(error_create(ERROR_UNSUPPORTED,
					       "no debug information tells where '%s' is", name),
				  "name the argument by its number: arg0, arg1 ...");
	if (dwarf_child(&function, &child) || !returns_plainly(&function))
		return error_create(ERROR_UNSUPPORTED, "where '%s' is cannot be told", name);
	do {
		const char *found;
		enum passing passing;
		size_t length = strlen(names);

		if (dwarf_tag(&child) != DW_TAG_formal_parameter)
			continue;
		found = name_of(&child);
		passing = passing_of(&child);
		if (found && !strcmp(found, name)) {
			if (passing != IN_REGISTER || registers >= REGISTERS)
				return error_create(ERROR_UNSUPPORTED,
						    "'%s' is not in an integer register", name);
			*ret = registers;
			return NULL;
		}
		registers += passing == IN_REGISTER;
		snprintf(names + length, sizeof(names) - length, "%s%s", length ? ", " : "",
			 found ? found : "?");
	} while (++seen < PARAMETERS_MAX && !dwarf_siblingof(&child, &child));
	return error_create(ERROR_USAGE, "it has no parameter '%s', but %s", name,
			    *names ? names : "none");
}
