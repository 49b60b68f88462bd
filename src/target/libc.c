/* Which C library, and which version of it, a target runs on. */
#include "elf_private.h"

#include <string.h>

#include "memprobe/num.h"

/* What is searched of a file for a text: .rodata of the largest programs. */
#define SEARCH_MAX (64ULL << 20)

static const char *base_name(const struct module *module)
{
	const char *slash = strrchr(module->path, '/');

	return slash ? slash + 1 : module->path;
}

static bool begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

/* Finds @text in [offset, offset + size) of the file; what follows it goes to @after. */
static bool find_text(const struct elf_reader *reader, uint64_t offset, uint64_t size,
		      const char *text, char after[16])
{
	enum { PART = 256 << 10, MORE = 128 };
	cleanup(free) char *bytes = malloc(PART + MORE + 1);

	for (uint64_t done = 0; bytes && done < size; done += PART) {
		uint64_t part = min_u64(size - done, PART + MORE);
		char *found;

		if (!elf_read(reader, offset + done, bytes, part))
			return false;
		bytes[part] = '\0';
		found = memmem(bytes, part, text, strlen(text));
		if (!found)
			continue;
		found += strlen(text);
		memset(after, 0, 16);
		memcpy(after, found, min_u64(15, bytes + part - found));
		return true;
	}
	return false;
}

/* In the read-only segments; constants stand in one without code, or before binutils 2.31 in that
 * with the code. */
static bool find_constant(struct target *target, struct module *module, const char *text,
			  char after[16])
{
	uint64_t budget = SEARCH_MAX;
	struct elf_reader reader;
	bool found = false;
	Elf64_Phdr segment;

	elf_reader_open(&reader, target, module);
	for (unsigned pass = 0; pass < 2 && !found; pass++) {
		for (unsigned i = 0; !found && module_program_header(target, module, i, &segment);
		     i++) {
			uint64_t size = min_u64(segment.p_filesz, budget);

			if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) ||
			    !(segment.p_flags & PF_X) != (pass == 0))
				continue;
			found = find_text(&reader, segment.p_offset, size, text, after);
			budget -= size;
		}
	}
	elf_reader_close(&reader);
	return found;
}

static void take_version(const char *text, struct libc *libc)
{
	unsigned long major, minor;
	char *end;

	major = strtoul(text, &end, 10);
	if (end == text || *end != '.' || major > 99)
		return;
	text = end + 1;
	minor = strtoul(text, &end, 10);
	if (end == text || minor > 999)
		return;
	libc->major = major;
	libc->minor = minor;
}

/* glibc csu/version.c: `GNU C Library (Debian ...) stable release version 2.36.` */
static void glibc_version(struct target *target, struct libc *libc)
{
	char after[16];

	if (find_constant(target, libc->module, "release version ", after))
		take_version(after, libc);
}

static bool has_symbol(struct target *target, struct module *module, const char *const *names)
{
	struct elf_symbol symbol;

	for (; *names; names++)
		if (module_symbol(target, module, *names, &symbol))
			return true;
	return false;
}

/*
 * By symbols; a stripped one betrays itself by a text: glibc by the name of the dynamic linker's
 * cache, musl by its message for the error 0 (src/errno/__strerror.h).
 */
static void static_libc(struct target *target, struct module *exe, struct libc *ret)
{
	static const char *const glibc[] = { "__libc_setup_tls", "__libc_init_secure",
					     "_IO_list_all", NULL };
	static const char *const musl[] = { "__malloc_donate", "__libc_malloc_impl", "__init_libc",
					    "__malloc_context", NULL };
	char after[16];

	if (has_symbol(target, exe, musl) ||
	    find_constant(target, exe, "No error information", after)) {
		*ret = (struct libc){ .kind = LIBC_MUSL, .module = exe };
	} else if (has_symbol(target, exe, glibc) ||
		   find_constant(target, exe, "glibc-ld.so.cache", after)) {
		*ret = (struct libc){ .kind = LIBC_GLIBC, .module = exe };
		if (find_constant(target, exe, "GNU C Library (", after))
			glibc_version(target, ret);
	}
}

static enum libc_kind kind_by_name(const struct module *module)
{
	const char *name = base_name(module);

	if (!strcmp(name, "libc.so.6") || begins(name, "libc-2."))
		return LIBC_GLIBC;
	if (begins(name, "ld-musl-") || begins(name, "libc.musl-"))
		return LIBC_MUSL;
	if (!strcmp(name, "libc.so") || begins(name, "libuClibc"))
		return LIBC_OTHER;
	return LIBC_NONE;
}

struct error *target_libc(struct target *target, struct libc *ret)
{
	struct libc libc = { LIBC_NONE, 0, 0, NULL };
	const struct module_vec *modules;
	struct module *exe = NULL;
	char after[16];
	struct error *error = target_modules(target, &modules);

	if (error)
		return error;
	vec_for_each (module, modules) {
		if (module->is_exe)
			exe = module;
		if (module->is_vdso || libc.module || kind_by_name(module) == LIBC_NONE)
			continue;
		libc.kind = kind_by_name(module);
		libc.module = module;
	}
	if (libc.kind == LIBC_GLIBC)
		glibc_version(target, &libc);
	else if (libc.kind == LIBC_OTHER &&
		 find_constant(target, libc.module, "musl libc (", after))
		libc.kind = LIBC_MUSL;
	else if (libc.kind == LIBC_NONE && exe)
		static_libc(target, exe, &libc);
	*ret = libc;
	return NULL;
}
