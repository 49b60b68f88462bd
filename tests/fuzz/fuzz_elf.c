/*
 * libFuzzer: any bytes as an ELF file that is mapped, read from the file or from memory.
 *
 * The first byte chooses: bit 0 i386 instead of x86-64, bit 1 a file beside the memory, bit 2
 * mapped in two pieces. The next two say where the second piece begins (pages), and shift its
 * offset: what the kernel or a core's NT_FILE says of it may be anything. The rest is the file.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/allocator.h"
#include "memprobe/elf_file.h"
#include "../unit/fake.h"
#include "memprobe/num.h"

#define HEAD  3u
#define PLACE 0x10000ull
#define PATH  "/lib/libc-2.31.so"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const uint64_t offsets[] = { 0,
				    PAGE_SIZE,
				    1u << 20,
				    1ull << 40,
				    INT64_MAX & -(uint64_t)PAGE_SIZE,
				    UINT64_MAX & -(uint64_t)PAGE_SIZE,
				    UINT64_MAX & -(uint64_t)(4 * PAGE_SIZE) };

static void must(struct error *error)
{
	if (error)
		abort();
}

static void add_piece(struct target *target, uint64_t at, const uint8_t *bytes, size_t size,
		      uint64_t offset, unsigned perms)
{
	must(fake_target_add_segment(target, &(struct fake_segment){
						     .start = PLACE + at,
						     .size = round_up(size + 1, PAGE_SIZE),
						     .bytes = bytes,
						     .bytes_size = size,
						     .perms = PERM_READ | perms,
						     .path = PATH,
						     .inode = 7,
						     .offset = offset,
					     }));
}

static struct target *make_target(const uint8_t *head, const uint8_t *bytes, size_t size)
{
	size_t cut = min_u64(size, (uint64_t)head[1] % 16 * PAGE_SIZE);
	struct target *target;

	must(fake_target_create(head[0] & 1 ? &arch_i386 : &arch_x86_64, &target));
	if (!(head[0] & 4) || !cut) {
		add_piece(target, 0, bytes, size, 0, PERM_EXEC);
	} else {
		uint64_t behind = round_up(cut + 1, PAGE_SIZE);

		add_piece(target, 0, bytes, cut, 0, PERM_EXEC);
		add_piece(target, behind, bytes + cut, size - cut,
			  head[2] & 0x80 ? offsets[head[2] % (sizeof(offsets) / sizeof(*offsets))]
					 : (uint64_t)cut,
			  PERM_WRITE);
	}
	if (head[0] & 2)
		must(fake_target_add_file(target, PATH, bytes, size));
	return target;
}

static bool visit(const char *name, const struct elf_symbol *symbol, void *data)
{
	*(size_t *)data += strlen(name);
	return true;
}

static void ask_module(struct target *target, struct module *module)
{
	struct elf_symbol symbol;
	Elf64_Phdr header;
	size_t length = 0;
	char id[65], byte;

	module_symbol(target, module, "malloc", &symbol);
	for (unsigned i = 0; module_program_header(target, module, i, &header); i++)
		length += header.p_type;
	module_build_id(target, module, id);
	if (strlen(id) > 64)
		abort();
	error_destroy(module_each_symbol(target, module, visit, &length));
	error_destroy(module_read(target, module, 100, &byte, 1));
	error_destroy(module_read(target, module, UINT64_MAX, &byte, 1));
	error_destroy(module_load(target, module));
	if (module->image)
		length += ((char *)module->image)[module->image_size - 1];
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	const struct module_vec *modules;
	struct allocator allocator;
	struct elf_symbol symbol;
	struct target *target;
	struct error *error;
	struct libc libc;

	if (size < HEAD)
		return 0;
	target = make_target(bytes, bytes + HEAD, size - HEAD);
	error = target_modules(target, &modules);
	for (size_t i = 0; !error && i < modules->size; i++)
		ask_module(target, &modules->data[i]);
	error_destroy(error);
	target_symbol(target, "free", &symbol, NULL);
	error_destroy(target_libc(target, &libc));
	error_destroy(allocator_detect(target, &allocator));
	target_destroy(target);
	return 0;
}
