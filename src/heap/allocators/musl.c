/* musl's malloc, oldmalloc or mallocng. */
#include "memprobe/allocator.h"
#include "memprobe/elf_file.h"

const struct allocator_ops allocator_musl = {
	.name = "musl",
	.title = "musl's malloc",
	.libc = LIBC_MUSL,
	.no_figures = "musl's malloc keeps no statistics; `memprobe maps --by-type` shows what it "
		      "mapped",
};
