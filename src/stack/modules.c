/* Gives libdwfl the target's modules; each is opened when an address in it is asked for. */
#include "symbolizer.h"

#include <errno.h>
#include <libelf.h>

#include "memprobe/elf_file.h"
#include "memprobe/log.h"

/* The farthest that a module's first mapping may lie above what libdwfl thinks is its start. */
#define ALIGNMENT_MAX (2u << 20)

/*
 * libdwfl takes the address that a module is reported at for that of its first segment, rounded
 * down to the segment's alignment (open_elf(), libdwfl/dwfl_module_getdwarf.c).
 */
static uint64_t reported_start(struct target *target, struct module *module)
{
	Elf64_Phdr header;

	for (unsigned i = 0; module_program_header(target, module, i, &header); i++) {
		uint64_t start = module->bias + (header.p_vaddr & -header.p_align);

		if (header.p_type != PT_LOAD)
			continue;
		if (start <= module->start && module->start - start < ALIGNMENT_MAX)
			return start;
		break;
	}
	return module->start;
}

/* With the part of .bss that is no mapping of the file, as long as no other module begins there. */
static uint64_t reported_end(struct target *target, struct module *module)
{
	uint64_t end = module->end;
	Elf64_Phdr header;

	for (unsigned i = 0; module_program_header(target, module, i, &header); i++) {
		uint64_t segment_end = module->bias + header.p_vaddr + header.p_memsz;

		if (header.p_type == PT_LOAD && segment_end > end)
			end = segment_end;
	}
	vec_for_each (other, &target->modules)
		if (other->start >= module->end && other->start < end)
			end = other->start;
	return end;
}

const struct module *symbolizer_module(Dwfl_Module *dwfl_module)
{
	const struct module_source *source;
	void **userdata;

	if (!dwfl_module_info(dwfl_module, &userdata, NULL, NULL, NULL, NULL, NULL, NULL))
		return NULL;
	source = *userdata;
	return source ? &source->target->modules.data[source->index] : NULL;
}

/* libdwfl ends the Elf; the image stays the target's. */
static int find_elf(Dwfl_Module *dwfl_module, void **userdata, const char *name, Dwarf_Addr base,
		    char **file_name, Elf **elf)
{
	const struct module_source *source = *userdata;
	struct module *module = &source->target->modules.data[source->index];
	struct error *error = module_load(source->target, module);

	if (error) {
		log_debug("no symbols for %s: %s", module->path, error->message);
		error_destroy(error);
		return -1;
	}
	*elf = elf_memory(module->image, module->image_size);
	return -1;
}

/*
 * By build-id only: the name that a target gives its file must not decide which of the host's
 * files are opened. With a @file_name it is an alternate file (dwz) of a debug file of the host's.
 */
static int find_debuginfo(Dwfl_Module *module, void **userdata, const char *name, Dwarf_Addr base,
			  const char *file_name, const char *debuglink_file,
			  GElf_Word debuglink_crc, char **debuginfo_file_name)
{
	return dwfl_standard_find_debuginfo(module, userdata, name, base, file_name,
					    file_name ? debuglink_file : NULL, debuglink_crc,
					    debuginfo_file_name);
}

struct error *symbolizer_open(struct symbolizer *symbolizer)
{
	struct target *target = symbolizer->target;
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	if (error)
		return error;
	elf_version(EV_CURRENT);
	symbolizer->callbacks = (Dwfl_Callbacks){
		.find_elf = find_elf,
		.find_debuginfo = find_debuginfo,
		.section_address = dwfl_offline_section_address,
		.debuginfo_path = &symbolizer->debuginfo_path,
	};
	symbolizer->sources = calloc(modules->size + 1, sizeof(*symbolizer->sources));
	symbolizer->dwfl = dwfl_begin(&symbolizer->callbacks);
	if (!symbolizer->sources || !symbolizer->dwfl)
		return &error_no_memory;
	dwfl_report_begin(symbolizer->dwfl);
	for (size_t i = 0; i < modules->size; i++) {
		struct module *module = &target->modules.data[i];
		struct module_source *source = &symbolizer->sources[i];
		Dwfl_Module *dwfl_module;
		void **userdata;

		*source = (struct module_source){ target, i };
		dwfl_module = dwfl_report_module(symbolizer->dwfl, module->path,
						 reported_start(target, module),
						 reported_end(target, module));
		if (!dwfl_module ||
		    !dwfl_module_info(dwfl_module, &userdata, NULL, NULL, NULL, NULL, NULL, NULL))
			log_debug("no symbols for %s: %s", module->path, dwfl_errmsg(-1));
		else
			*userdata = source;
	}
	if (dwfl_report_end(symbolizer->dwfl, NULL, NULL))
		return error_create(ERROR_FAILED, "cannot list the modules of %s: %s", target->name,
				    dwfl_errmsg(-1));
	return NULL;
}
