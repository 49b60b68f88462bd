/* From the allocator's functions to perf events, and what speaks against it. */
#include <asm/perf_regs.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "memprobe/elf_file.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "dispatch.h"
#include "uprobe.h"

#define REGISTER(name) (1ull << PERF_REG_X86_##name)

/* The block, and what a walk begins with, beside its memory. */
#define RETURN_REGISTERS (REGISTER(AX) | REGISTER(BX) | REGISTER(BP) | REGISTER(SP) | REGISTER(IP))

/* Of an entry of i386: the return address and six arguments, to a multiple of 8. */
#define ARGUMENTS_BYTES 32u

/* The bit of perf_event_attr.config (uprobe PMU's format/retprobe). */
#define RETURN_PROBE 1u

static bool returns_block(const struct function *function)
{
	switch (function->spec->kind) {
	case AGENT_KIND_ALLOC:
	case AGENT_KIND_ALLOC_AT:
	case AGENT_KIND_REALLOC:
	case AGENT_KIND_RESIZE:
		return true;
	default:
		return false;
	}
}

static bool file_offset(const struct module *module, uint64_t address, uint64_t *ret)
{
	vec_for_each (segment, &module->segments) {
		if (address < segment->start || address >= segment->end)
			continue;
		*ret = segment->offset + (address - segment->start);
		return true;
	}
	return false;
}

/* Bits of those that count. */
static unsigned arguments_of(const struct function *function)
{
	const uint8_t wanted[] = { function->spec->pointer, function->spec->size,
				   function->spec->count };
	unsigned arguments = 0;

	for (size_t i = 0; i < sizeof(wanted); i++)
		if (wanted[i] != AGENT_NO_ARG)
			arguments |= 1u << wanted[i];
	return arguments;
}

/* Of them, and the stack pointer, by which its return is known. */
static uint64_t entry_registers(const struct uprobe_engine *engine, unsigned number)
{
	static const uint64_t registers[] = { REGISTER(AX),  REGISTER(CX),  REGISTER(DX),
					      REGISTER(BX),  REGISTER(SP),  REGISTER(BP),
					      REGISTER(SI),  REGISTER(DI),  REGISTER(R8),
					      REGISTER(R9),  REGISTER(R10), REGISTER(R11),
					      REGISTER(R12), REGISTER(R13), REGISTER(R14),
					      REGISTER(R15) };
	const struct function *function = &engine->functions.data[number];
	bool returns = returns_block(function) || function->spec->kind == AGENT_KIND_NEW;
	uint64_t wanted = returns ? REGISTER(SP) : 0;

	for (unsigned i = 0; i < UPROBE_ARGUMENTS; i++)
		if (arguments_of(function) >> i & 1)
			wanted |= registers[engine->arguments[number][i] & 15];
	return wanted;
}

/* Arguments are on the stack, and libdwfl unwinds by all that a function keeps. */
static void fit_i386(struct perf_spec *spec, bool is_entry)
{
	spec->registers = REGISTER(SP);
	if (is_entry)
		spec->stack_bytes = ARGUMENTS_BYTES;
	else
		spec->registers = RETURN_REGISTERS | REGISTER(SI) | REGISTER(DI);
	spec->no_stack = false;
}

static void add_spec(struct uprobe_engine *engine, uint32_t type, struct uprobe_event event,
		     uint64_t offset)
{
	unsigned number = engine->spec_count++;
	bool is_entry = event.kind == UPROBE_ENTRY;
	struct perf_spec *spec = &engine->specs[number];

	engine->events[number] = event;
	*spec = (struct perf_spec){
		.type = type,
		.config = event.kind == UPROBE_RETURN ? RETURN_PROBE : 0,
		.config2 = offset,
		.no_stack = is_entry,
		.registers = is_entry ? entry_registers(engine, event.function) : RETURN_REGISTERS,
	};
	if (engine->target->arch == &arch_i386)
		fit_i386(spec, is_entry);
}

static bool has_ret(const struct uprobe_engine *engine, uint64_t offset)
{
	for (unsigned i = 0; i < engine->spec_count; i++)
		if (engine->events[i].kind == UPROBE_RET && engine->specs[i].config2 == offset)
			return true;
	return false;
}

/* An exception does not find its way past the return address that the kernel's return probe puts in
 * the place of the caller's. */
static struct error *add_rets(struct uprobe_engine *engine, uint32_t type, unsigned number)
{
	struct function *function = &engine->functions.data[number];
	struct uprobe_returns returns;
	struct error *error = uprobe_find_returns(engine->target, function, &returns);

	if (error)
		return error;
	for (unsigned i = 0; i < returns.count; i++) {
		uint64_t offset;

		if (!file_offset(function->module, returns.addresses[i], &offset) ||
		    engine->spec_count == PERF_SPECS_MAX)
			returns.all = false;
		else if (!has_ret(engine, offset))
			add_spec(engine, type, (struct uprobe_event){ number, UPROBE_RET }, offset);
	}
	engine->exits[number] = !returns.count ? UPROBE_NO_EXIT
				: returns.all  ? UPROBE_ALL_EXITS
					       : UPROBE_SOME_EXITS;
	if (!returns.count) {
		function->refused = "where it returns was not found";
		function->is_optional = true;
	}
	log_debug("%s returns in %u places%s", function->name, returns.count,
		  returns.all ? "" : " and elsewhere");
	return NULL;
}

static struct error *add_specs(struct uprobe_engine *engine, uint32_t type)
{
	struct error *error = NULL;

	for (unsigned i = 0; i < engine->functions.size && !error; i++) {
		struct function *function = &engine->functions.data[i];
		uint64_t offset;

		if (function->refused || engine->spec_count + 2 > PERF_SPECS_MAX)
			continue;
		if (!file_offset(function->module, function->address, &offset)) {
			function->refused = "its code is in no file";
			continue;
		}
		if (engine->target->arch == &arch_x86_64)
			offset += uprobe_place(function->code, function->code_size,
					       arguments_of(function), engine->arguments[i]);
		add_spec(engine, type, (struct uprobe_event){ i, UPROBE_ENTRY }, offset);
		if (returns_block(function))
			add_spec(engine, type, (struct uprobe_event){ i, UPROBE_RETURN }, offset);
		else if (function->spec->kind == AGENT_KIND_NEW &&
			 engine->target->arch == &arch_x86_64)
			error = add_rets(engine, type, i);
	}
	return error;
}

static struct error *check_functions(const struct uprobe_engine *engine)
{
	bool allocates = false, frees = false;

	vec_for_each (function, &engine->functions) {
		allocates |= !function->refused && returns_block(function);
		frees |= !function->refused && function->spec->kind == AGENT_KIND_FREE;
	}
	if (allocates && frees)
		return NULL;
	return error_create(ERROR_UNSUPPORTED,
			    "the functions that allocate and free cannot be found in %d",
			    (int)engine->target->pid);
}

/* Its runtime moves stacks and walks them: a return address that is not its own ends it. */
static bool is_go(struct target *target)
{
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);
	struct elf_symbol symbol;
	Elf64_Shdr section;
	bool found = false;

	for (size_t i = 0; !error && i < modules->size && !found; i++) {
		struct module *module = &target->modules.data[i];

		found = module->is_exe &&
			(module_section(target, module, ".gopclntab", &section) ||
			 module_section(target, module, ".go.buildinfo", &section) ||
			 module_symbol(target, module, "runtime.mallocgc", &symbol));
	}
	error_destroy(error);
	return found;
}

/*
 * From Linux 6.11 on a return probe is left by a system call of its own, which seccomp's filters
 * did not know (and so killed the process for it) until 6.14 let it pass.
 */
static bool kernel_breaks_seccomp(void)
{
	unsigned major, minor;
	struct utsname name;

	if (uname(&name) || sscanf(name.release, "%u.%u", &major, &minor) != 2)
		return true;
	return major == 6 && minor >= 11 && minor < 14;
}

static struct error *check_target(struct target *target, uint64_t timeout_us,
				  struct trace_report *report)
{
	struct process_status status;
	struct error *error;

	if (target->arch != &arch_x86_64 && target->arch != &arch_i386)
		return error_create(ERROR_UNSUPPORTED,
				    "allocations of %s processes cannot be recorded",
				    target->arch->name);
	if (is_go(target))
		return error_create(ERROR_UNSUPPORTED,
				    "%d is a Go program: its runtime does not bear return probes",
				    (int)target->pid);
	error = process_read_status(target->process, 0, &status);
	if (error)
		return error;
	if (status.shadow_stack)
		return error_create(ERROR_UNSUPPORTED,
				    "%d has a shadow stack, which return probes would break",
				    (int)target->pid);
	if (status.seccomp > 0 && kernel_breaks_seccomp())
		return error_create(
			ERROR_UNSUPPORTED,
			"%d uses seccomp, and this kernel would kill it at a return probe "
			"(fixed in Linux 6.14)",
			(int)target->pid);
	/* A return probe is left by a system call. */
	return filters_find_dispatch(target, timeout_us, &report->attach_stopped_us);
}

static struct error *explain(const struct uprobe_engine *engine, struct error *error)
{
	struct error *better;

	if (error_is(error, ERROR_PERMISSION))
		better = error_hint(error_create(ERROR_PERMISSION, "cannot probe %d: not permitted",
						 (int)engine->target->pid),
				    "uprobes need CAP_SYS_ADMIN and bpf(2): run as root, or setcap "
				    "cap_sys_admin,cap_sys_ptrace+ep memprobe; in a container its "
				    "seccomp profile has to allow bpf");
	else if (error_is(error, ERROR_UNSUPPORTED))
		better = error_hint(
			error_create(ERROR_UNSUPPORTED, "cannot probe %d: %s",
				     (int)engine->target->pid, error->message),
			"uprobes need BPF programs with a ring buffer (Linux 5.8); without them "
			"work allocs --engine=agent, and, for what is in memory, faults and leaks");
	else
		return error;
	error_destroy(error);
	return better;
}

/* The kernel takes the file by a path; the descriptor's leads to the very one that is mapped, were
 * it deleted or in a container. */
static struct error *open_events(struct uprobe_engine *engine, struct module *module)
{
	struct target *target = engine->target;
	struct error *error;

	if (!target->ops->open_module)
		return error_create(ERROR_UNSUPPORTED, "there is no file to probe");
	error = target->ops->open_module(target, module, &engine->file);
	if (error)
		return error;
	snprintf(engine->path, sizeof(engine->path), "/proc/self/fd/%d", engine->file);
	for (unsigned i = 0; i < engine->spec_count; i++)
		engine->specs[i].config1 = (uintptr_t)engine->path;
	stack_size_init(&engine->stack, engine->options->stack_bytes & ~7u);
	error = bpf_probes_open(target, engine->specs, engine->spec_count,
				engine->options->stack_bytes, &engine->probes);
	if (error)
		return explain(engine, error);
	bpf_probes_want_stack(engine->probes, engine->stack.bytes);
	return NULL;
}

struct error *uprobe_open(struct uprobe_engine *engine, struct trace_report *report)
{
	struct allocator allocator;
	uint32_t type = 0;
	struct error *error = check_target(engine->target, engine->options->timeout_us, report);

	if (!error)
		error = perf_pmu_type("uprobe", &type);
	if (!error)
		error = allocator_detect(engine->target, &allocator);
	if (error)
		return error;
	report->allocator = allocator.name;
	engine->word = engine->target->arch == &arch_i386 ? 4 : 8;
	error = functions_find(engine->target, NULL, &allocator, &engine->functions,
			       &engine->text_start, &engine->text_end);
	if (error)
		return error;
	/* The kernel would take a debugger's for its own, and take it away in the end. */
	vec_for_each (function, &engine->functions)
		if (function->has_breakpoint && !function->refused)
			function->refused = "a breakpoint stands at its beginning";
	error = uprobe_refuse_unwanted(engine->target, allocator.module, &engine->functions);
	if (error)
		return error;
	error = add_specs(engine, type);
	if (!error)
		error = functions_tell(&engine->functions, engine->target, "probed",
				       &report->hooks);
	if (!error)
		error = check_functions(engine);
	return error ? error : open_events(engine, allocator.module);
}
