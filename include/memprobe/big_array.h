/*
 * big_array.h - large arrays that are read in no order: zeroed memory straight from the kernel, in
 * huge pages where it gives them, since each small one would cost a look into the page tables.
 */
#ifndef MEMPROBE_BIG_ARRAY_H
#define MEMPROBE_BIG_ARRAY_H

#include <stddef.h>

/*
 * @size bytes of zeros that take memory as they are written to, in pieces of 2 MiB if @size is
 * large enough for these not to matter. NULL: out of memory. To be given back with the same @size.
 */
void *big_array_create(size_t size);
void big_array_destroy(void *array, size_t size);

#endif
