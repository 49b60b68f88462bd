#include "memprobe/symbols.h"

#include <setjmp.h>
#include <stddef.h>
#include <string.h>

/* demangle.h needs nothing of libiberty.h, which uses calls that banned.h forbids. */
#define LIBIBERTY_H
#include <libiberty/demangle.h>

/* A short hostile name can expand without end (substitutions of substitutions): past this much
 * it is shown as it is. */
#define DEMANGLED_MAX 16384
#define MANGLED_MAX   8192

#define DEMANGLE_OPTIONS (DMGL_PARAMS | DMGL_ANSI)

struct demangled {
	jmp_buf give_up;
	size_t size;
	char text[DEMANGLED_MAX];
};

static void add(const char *part, size_t size, void *data)
{
	struct demangled *demangled = data;

	/* The callback variants of the demanglers own no memory, so that leaving them is safe. */
	if (size >= sizeof(demangled->text) - demangled->size)
		longjmp(demangled->give_up, 1);
	memcpy(demangled->text + demangled->size, part, size);
	demangled->size += size;
}

/* Rust's legacy scheme looks like C++ with a hash at the end: the stricter one is tried first. */
static bool demangle_into(const char *name, struct demangled *demangled)
{
	demangled->size = 0;
	if (setjmp(demangled->give_up))
		return false;
	if (rust_demangle_callback(name, DEMANGLE_OPTIONS, add, demangled))
		return true;
	demangled->size = 0;
	return cplus_demangle_v3_callback(name, DEMANGLE_OPTIONS, add, demangled);
}

char *demangle(const char *versioned)
{
	cleanup(free) struct demangled *demangled = NULL;
	size_t length = strcspn(versioned, "@");
	cleanup(free) char *name = NULL;

	/* `pthread_cond_wait@@GLIBC_2.3.2` of a .symtab; a name that begins so is no version. */
	name = length ? strndup(versioned, length) : strdup(versioned);
	if (!name)
		return NULL;
	if (length <= MANGLED_MAX && name[0] == '_' && name[1] == 'D' && name[2] >= '0' &&
	    name[2] <= '9') {
		char *text = dlang_demangle(name, DEMANGLE_OPTIONS);

		if (text)
			return text;
	}
	if (length > MANGLED_MAX || strncmp(name, "_", 1) != 0)
		return take_pointer(name);
	demangled = malloc(sizeof(*demangled));
	if (!demangled)
		return NULL;
	if (!demangle_into(name, demangled) || !demangled->size)
		return take_pointer(name);
	return strndup(demangled->text, demangled->size);
}
