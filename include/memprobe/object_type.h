/*
 * object_type.h - the C++ type of a block, by the table of virtual functions that it begins with.
 *
 * An object of a class with virtual functions begins with the address of its class's table (Itanium
 * C++ ABI, 2.5.2 "Virtual Table Components and Order"): two words in front of that address is the
 * offset to the object's top, one word in front the address of the type's type_info, whose second
 * word is the address of the mangled name. That serves stripped programs, too. Whether a type_info
 * is one is told by its own type: the name of one of the classes of __cxxabiv1. Without type
 * information (-fno-rtti) the symbol of the table gives the name.
 *
 * All of it is foreign memory: what makes no sense has no type.
 */
#ifndef MEMPROBE_OBJECT_TYPE_H
#define MEMPROBE_OBJECT_TYPE_H

#include "memprobe/symbols.h"
#include "memprobe/target.h"

struct object_type {
	char *name;	/* demangled; of an array (`new T[n]`) `T[]` */
	unsigned index; /* numbers types from 0 in the order of their appearance */
};

struct object_types;

/* @target must outlive it. Reads no memory of the target but the modules' headers. */
struct error *object_types_create(struct target *target, struct object_types **ret);
void object_types_destroy(struct object_types *types);
CLEANUP_DEFINE(object_types, struct object_types *, object_types_destroy)

/*
 * The type whose table has its address point at @vptr; *top_ret: where in the object this vptr is,
 * 0 for the first of its vptrs (bytes). NULL: it is none. What was asked for once is remembered.
 */
struct error *object_types_at(struct object_types *types, uint64_t vptr,
			      const struct object_type **ret, uint64_t *top_ret);

/*
 * The type of a block of @size bytes at @address, of which @bytes has the first @bytes_size: two
 * words at least, unless it is shorter. NULL: none is known. A block that begins with a count and
 * then has as many objects is an array. The types live as long as @types.
 */
struct error *object_types_of_block(struct object_types *types, uint64_t address, uint64_t size,
				    const void *bytes, size_t bytes_size,
				    const struct object_type **ret);

/* Whether memory of modules could not be read when it was asked for, as in a core whose files are
 * not here: types may have gone unknown. */
bool object_types_lack_memory(const struct object_types *types);

/* By its index. */
const struct object_type *object_types_get(const struct object_types *types, unsigned index);

#endif
