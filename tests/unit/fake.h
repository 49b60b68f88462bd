/*
 * fake.h - a target made of byte arrays, for tests of whatever sees a `struct target`.
 *
 *	fake_target_create(&arch_x86_64, &target);
 *	fake_target_add_segment(target, &(struct fake_segment){
 *		.start = 0x1000, .size = 0x2000, .bytes = words, .bytes_size = sizeof(words),
 *		.perms = PERM_READ | PERM_WRITE, .path = "[heap]" });
 *
 * Everything is copied. name, exe and pid of the target may be set by the test (name and exe are
 * owned by the target). Modules come of themselves from segments with an inode whose bytes begin
 * with an ELF header.
 */
#ifndef FAKE_H
#define FAKE_H

#include "memprobe/target.h"

struct fake_segment {
	uint64_t start, size; /* of the mapping: whole pages */
	const void *bytes;    /* its beginning; pages behind it are zeros and not present */
	size_t bytes_size;
	unsigned perms;	  /* enum mapping_perms; without PERM_READ reading is a fault */
	const char *path; /* NULL: "" */
	uint64_t offset, inode;
	bool deleted;
};

struct error *fake_target_create(const struct arch *arch, struct target **ret);

/* In any order; ERROR_USAGE if it overlaps another or is not made of whole pages. */
struct error *fake_target_add_segment(struct target *target, const struct fake_segment *segment);

/* Changes memory. ERROR_FAULT outside the segments. */
struct error *fake_target_write(struct target *target, uint64_t address, const void *bytes,
				size_t size);

struct error *fake_target_add_thread(struct target *target, const struct thread *thread);

/* The file that modules of that path are read from; without it they are read from memory. */
struct error *fake_target_add_file(struct target *target, const char *path, const void *bytes,
				   size_t size);

struct error *fake_target_set_auxv(struct target *target, const void *bytes, size_t size);

#endif
