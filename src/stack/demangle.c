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
/* Each back reference of a D name can double it, and its demangler cannot be left midway. */
#define D_REFERENCES_MAX 12

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

static char *demangle_d(const char *name)
{
	unsigned references = 0;

	if (strncmp(name, "_D", 2) != 0 || name[2] < '0' || name[2] > '9')
		return NULL;
	for (const char *c = name; *c; c++)
		if (*c == 'Q' && ++references > D_REFERENCES_MAX)
			return NULL;
	return dlang_demangle(name, DEMANGLE_OPTIONS);
}

char *demangle(const char *versioned)
{
	cleanup(free) struct demangled *demangled = NULL;
	size_t length = strcspn(versioned, "@");
	cleanup(free) char *name = NULL;
	char *text;

	/* `pthread_cond_wait@@GLIBC_2.3.2` of a .symtab; a name that begins so is no version. */
	name = length ? strndup(versioned, length) : strdup(versioned);
	if (!name)
		return NULL;
	if (length > MANGLED_MAX || name[0] != '_')
		return take_pointer(name);
	text = demangle_d(name);
	if (text)
		return text;
	demangled = malloc(sizeof(*demangled));
	if (!demangled)
		return NULL;
	if (!demangle_into(name, demangled) || !demangled->size)
		return take_pointer(name);
	return strndup(demangled->text, demangled->size);
}
