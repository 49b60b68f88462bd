/* Names of functions: which of them only allocate, and how to shorten those of C++ and Rust. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/sites_table.h"

/* ---- shortening ---- */

/* How many bytes an operator's own symbols take at @at, which follows `operator`. */
static size_t operator_length(const char *at)
{
	static const char *const symbols[] = { "<=>", "<<=", ">>=", "->*", "()", "<<", ">>",
					       "<=",  ">=",  "->",  "<",   ">",	 NULL };

	for (const char *const *symbol = symbols; *symbol; symbol++)
		if (!strncmp(at, *symbol, strlen(*symbol)))
			return strlen(*symbol);
	return 0;
}

static bool is_word(char byte)
{
	return isalnum((unsigned char)byte) || byte == '_' || byte == '$';
}

/* Whether `operator` ends right before @at. */
static bool after_operator(const char *name, const char *at)
{
	static const char word[] = "operator";
	size_t length = sizeof(word) - 1;

	return (size_t)(at - name) >= length && !memcmp(at - length, word, length) &&
	       ((size_t)(at - name) == length || !is_word(at[-(ptrdiff_t)length - 1]));
}

/* The end of what begins at @at with @open, or of the string. */
static const char *skip_nested(const char *at, char open, char close)
{
	size_t depth = 0;

	for (; *at; at++) {
		if (*at == open)
			depth++;
		else if (*at == close && at[-1] != '-' && --depth == 0)
			return at + 1;
	}
	return at;
}

/* `(anonymous namespace)` is a part of the name, `(int)` is not. */
static bool is_argument_list(const char *at)
{
	return strncmp(at, "(anonymous", 10) != 0 && strncmp(at, "({lambda", 8) != 0;
}

/* Writes @name to @out (as long as it) without its arguments and, if so wanted, without template
 * arguments. */
static void strip(const char *name, bool templates, char *out)
{
	const char *at = name;

	while (*at) {
		size_t symbols = after_operator(name, at) ? operator_length(at) : 0;

		if (symbols) {
			memcpy(out, at, symbols);
			out += symbols;
			at += symbols;
		} else if (*at == '(' && is_argument_list(at)) {
			at = skip_nested(at, '(', ')');
			/* What follows is `::` of a local class, or const, [clone .part.0] ... */
			if (*at == ' ')
				break;
		} else if (*at == '<' && templates && at > name) {
			at = skip_nested(at, '<', '>');
			*out++ = '<';
			*out++ = '>';
		} else {
			*out++ = *at++;
		}
	}
	*out = '\0';
}

/* A template function's name begins with its return type, and a blank is in no name but after
 * `operator` and in `(anonymous namespace)`. */
static void drop_return_type(char *name)
{
	char *begin = name;
	size_t depth = 0;

	for (char *at = name; *at; at++) {
		if (*at == '(' || *at == '<')
			depth++;
		else if ((*at == ')' || *at == '>') && depth)
			depth--;
		else if (*at == ' ' && !depth && !after_operator(name, at))
			begin = at + 1;
		if (after_operator(name, at + 1))
			break;
	}
	memmove(name, begin, strlen(begin) + 1);
}

/* Without namespaces and classes, as many as it takes for @columns; the last name stays. */
static const char *without_scopes(const char *name, size_t columns)
{
	const char *at = name;
	size_t depth = 0;

	while (strlen(name) > columns && *at) {
		if (*at == '(' || *at == '<')
			depth++;
		else if ((*at == ')' || *at == '>') && depth)
			depth--;
		if (after_operator(name, at))
			break;
		if (!depth && at[0] == ':' && at[1] == ':' && at[2])
			name = at + 2;
		at = at < name ? name : at + 1;
	}
	return name;
}

static char *cut_end(const char *name, size_t columns)
{
	size_t length, mark = strlen("...");
	char *cut;

	name = without_scopes(name, columns);
	length = strlen(name);
	if (length <= columns || columns <= mark)
		return strdup(name);
	length = columns - mark;
	while (length && (name[length] & 0xc0) == 0x80)
		length--;
	return asprintf(&cut, "%.*s...", (int)length, name) < 0 ? NULL : cut;
}

char *function_name_fit(const char *name, size_t columns)
{
	cleanup(free) char *stripped = NULL;

	if (columns && strlen(name) <= columns)
		return strdup(name);
	/* `<>` may be longer than the `<` of broken names. */
	stripped = malloc(2 * strlen(name) + 1);
	if (!stripped)
		return NULL;
	for (unsigned templates = 0; templates < 2; templates++) {
		strip(name, templates, stripped);
		if (columns && strlen(stripped) <= columns && *stripped)
			return take_pointer(stripped);
	}
	drop_return_type(stripped);
	if (!*stripped)
		return cut_end(name, columns ? columns : strlen(name));
	return columns ? cut_end(stripped, columns) : take_pointer(stripped);
}

/* ---- what only allocates ---- */

/* Lists end with NULL. Names come without arguments and template arguments. */
static const char *const plumbing_names[] = {
	"mmap",
	"mmap64",
	"munmap",
	"mremap",
	"brk",
	"sbrk",
	"madvise",
	"memcpy",
	"memmove",
	"memset",
	"mempcpy",
	"strdup",
	"strndup",
	"sysmalloc",
	"sysmmap",
	"new_heap",
	"grow_heap",
	"arena_get",
	"arena_get2",
	"tc_new",
	"mi_new",
	"tc_newarray",
	"palloc",
	"palloc0",
	"palloc_extended",
	"repalloc",
	"pstrdup",
	"free",
	"cfree",
	"_int_free",
	"mprotect",
	"munmap_chunk",
	"alloc_slot",
	"alloc_group",
	"try_avail",
	"shrink_heap",
	"__kernel_vsyscall",
	"__default_morecore",
	"__glibc_morecore",
	/* Not a function at all. */
	"[truncated]",
	NULL,
};

static const char *const plumbing_prefixes[] = {
	/* C++'s library, and boost's containers and handlers. */
	"std::",
	"__gnu_cxx::",
	"operator new",
	"boost::",
	/* Rust's. */
	"__rust_",
	"__rdl_",
	"__rg_",
	"<alloc::",
	"<core::",
	"alloc::alloc::",
	"alloc::boxed::",
	"alloc::raw_vec::",
	"alloc::string::",
	"alloc::vec::",
	"hashbrown::",
	"core::ops::",
	"core::ptr::",
	/* libc's, with its variants for each processor (__memset_avx2_unaligned). */
	"__libc_",
	"__GI_",
	"__mem",
	"__strdup",
	"__strndup",
	"__mmap",
	"__munmap",
	"__brk",
	"__sbrk",
	"__mprotect",
	"__madvise",
	"systrim",
	"heap_trim",
	"tcache_",
	/* Allocators' own. */
	"je_",
	"_mi_",
	"tcmalloc::",
	"AllocSet",
	"MemoryContextAlloc",
	NULL,
};

/* Wherever they stand in a name: xmalloc, g_malloc0, zcalloc, PyObject_Malloc. */
static const char *const plumbing_parts[] = {
	"malloc",  "Malloc",   "calloc",	"Calloc", "realloc",
	"Realloc", "memalign", "aligned_alloc", NULL,
};

static bool is_plumbing(const struct profile_frame *frame)
{
	cleanup(free) char *name = NULL;

	if (frame->kernel)
		return true;
	if (!frame->function)
		return false;
	name = function_name_fit(frame->function, 0);
	if (!name)
		return false;
	for (const char *const *known = plumbing_names; *known; known++)
		if (!strcmp(name, *known))
			return true;
	for (const char *const *prefix = plumbing_prefixes; *prefix; prefix++)
		if (!strncmp(name, *prefix, strlen(*prefix)))
			return true;
	for (const char *const *part = plumbing_parts; *part; part++)
		if (strstr(name, *part))
			return true;
	return false;
}

size_t site_frame_of_interest(const struct profile *profile, const uint32_t *frames, size_t depth)
{
	for (size_t i = depth; i-- > 0;)
		if (!is_plumbing(&profile->frames.data[frames[i]]))
			return i;
	return depth - 1;
}
