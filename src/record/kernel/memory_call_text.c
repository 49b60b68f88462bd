/*
 * Memory calls as C writes them.
 */
#include "memprobe/memory_calls.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

const char *memory_call_name(enum memory_call call)
{
	static const char *const names[] = { "mmap", "munmap",	"mremap",
					     "brk",  "madvise", "mprotect" };

	return names[call];
}

struct flag_name {
	uint32_t flag;
	const char *name;
};

static const struct flag_name prot_names[] = { { PROT_READ, "PROT_READ" },
					       { PROT_WRITE, "PROT_WRITE" },
					       { PROT_EXEC, "PROT_EXEC" },
					       { PROT_GROWSDOWN, "PROT_GROWSDOWN" },
					       { 0, "PROT_NONE" } };

static const struct flag_name map_names[] = {
	{ MAP_SHARED, "MAP_SHARED" },	     { MAP_PRIVATE, "MAP_PRIVATE" },
	{ MAP_FIXED, "MAP_FIXED" },	     { MAP_ANONYMOUS, "MAP_ANONYMOUS" },
	{ MAP_GROWSDOWN, "MAP_GROWSDOWN" },  { MAP_DENYWRITE, "MAP_DENYWRITE" },
	{ MAP_LOCKED, "MAP_LOCKED" },	     { MAP_NORESERVE, "MAP_NORESERVE" },
	{ MAP_POPULATE, "MAP_POPULATE" },    { MAP_NONBLOCK, "MAP_NONBLOCK" },
	{ MAP_STACK, "MAP_STACK" },	     { MAP_HUGETLB, "MAP_HUGETLB" },
	{ 0x100000, "MAP_FIXED_NOREPLACE" }, { 0, "0" }
};

static const struct flag_name mremap_names[] = {
	{ 1, "MREMAP_MAYMOVE" }, { 2, "MREMAP_FIXED" }, { 4, "MREMAP_DONTUNMAP" }, { 0, "0" }
};

/* asm-generic/mman-common.h */
static const struct flag_name advice_names[] = {
	{ 0, "MADV_NORMAL" },		{ 1, "MADV_RANDOM" },	      { 2, "MADV_SEQUENTIAL" },
	{ 3, "MADV_WILLNEED" },		{ 4, "MADV_DONTNEED" },	      { 8, "MADV_FREE" },
	{ 9, "MADV_REMOVE" },		{ 10, "MADV_DONTFORK" },      { 11, "MADV_DOFORK" },
	{ 12, "MADV_MERGEABLE" },	{ 13, "MADV_UNMERGEABLE" },   { 14, "MADV_HUGEPAGE" },
	{ 15, "MADV_NOHUGEPAGE" },	{ 16, "MADV_DONTDUMP" },      { 17, "MADV_DODUMP" },
	{ 18, "MADV_WIPEONFORK" },	{ 19, "MADV_KEEPONFORK" },    { 20, "MADV_COLD" },
	{ 21, "MADV_PAGEOUT" },		{ 22, "MADV_POPULATE_READ" }, { 23, "MADV_POPULATE_WRITE" },
	{ 24, "MADV_DONTNEED_LOCKED" }, { 25, "MADV_COLLAPSE" }
};

static void append(char *text, size_t size, const char *more)
{
	size_t length = strlen(text);

	snprintf(text + length, size - length, "%s", more);
}

/* @names ends with what no flag at all is called. */
static void append_flags(char *text, size_t size, const struct flag_name *names, uint32_t flags)
{
	bool any = false;
	char rest[16];

	for (; names->flag; names++) {
		if ((flags & names->flag) != names->flag)
			continue;
		append(text, size, any ? "|" : "");
		append(text, size, names->name);
		flags &= ~names->flag;
		any = true;
	}
	if (flags) {
		snprintf(rest, sizeof(rest), "%s0x%x", any ? "|" : "", flags);
		append(text, size, rest);
	} else if (!any) {
		append(text, size, names->name);
	}
}

static void append_advice(char *text, size_t size, uint32_t advice)
{
	char number[16];

	for (size_t i = 0; i < sizeof(advice_names) / sizeof(advice_names[0]); i++)
		if (advice_names[i].flag == advice) {
			append(text, size, advice_names[i].name);
			return;
		}
	snprintf(number, sizeof(number), "%u", advice);
	append(text, size, number);
}

void memory_call_text(const struct memory_call_site *site, char *text, size_t size)
{
	snprintf(text, size, "%s(", memory_call_name(site->call));
	switch (site->call) {
	case MEMORY_CALL_MMAP:
		append_flags(text, size, prot_names, site->mode);
		append(text, size, ", ");
		append_flags(text, size, map_names, site->flags);
		break;
	case MEMORY_CALL_MREMAP:
		append_flags(text, size, mremap_names, site->flags);
		break;
	case MEMORY_CALL_MADVISE:
		append_advice(text, size, site->mode);
		break;
	case MEMORY_CALL_MPROTECT:
		append_flags(text, size, prot_names, site->mode);
		break;
	default:
		break;
	}
	append(text, size, ")");
}
