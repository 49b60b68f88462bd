/* glibc's malloc. */
#include <string.h>

#include "memprobe/elf_file.h"
#include "ptmalloc_calls.h"
#include "ptmalloc_walk.h"

static const char *const code_marks[] = { "_int_malloc", NULL };

static const char *const code_prefixes[] = {
	"malloc",    "__malloc", "__libc_malloc",  "__libc_free",   "__libc_calloc",
	"_int_",     "ptmalloc", "__libc_realloc", "_mid_memalign", "__posix_memalign",
	"sysmalloc", "systrim",	 "mtrim",	   "munmap_chunk",  "mremap_chunk",
	"arena_get", "new_heap", "heap_trim",	   "detach_arena",  "unlink_chunk",
	"tcache_",   NULL,
};

/* What MALLOC_CHECK_, mcheck() and mtrace() need is preloaded from 2.34 on; it exports what libc
 * does. */
static bool is_debug_library(const struct module *module)
{
	const char *name = strrchr(module->path, '/');

	return !strncmp(name ? name + 1 : module->path, "libc_malloc_debug.", 18);
}

const struct allocator_ops allocator_ptmalloc = {
	.name = "ptmalloc",
	.title = "glibc's malloc",
	.libc = LIBC_GLIBC,
	.is_module = is_debug_library,
	/* Of malloc.o, which has 20 KiB of text. */
	.code = { code_marks, code_prefixes, 32 << 10 },
	.walk = ptmalloc_walk,
	.add_threads = ptmalloc_add_threads,
	.stats = ptmalloc_stats,
	.text = ptmalloc_text,
	.xml = ptmalloc_xml,
	.trim = ptmalloc_trim,
	.trim_has_pad = true,
	.trim_is_foretold = true,
};
