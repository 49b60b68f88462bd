#include "cores.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memprobe/elf_file.h"
#include "memprobe/num.h"

/* What cores_ask_all() reads of each mapping. */
#define READ_MAX (64u << 10)

uint8_t cores_byte(uint64_t address)
{
	if (address >= CORES_DATA + PAGE_SIZE && address < CORES_DATA + 2 * PAGE_SIZE)
		return 0;
	if (address >= CORES_RESERVE.start && address < CORES_RESERVE.end)
		return 0;
	/* No page is all zeros. */
	return (uint8_t)(address * 31 >> 3) | 1;
}

static const struct mapping mappings[] = {
	{ .start = CORES_CODE,
	  .end = CORES_CODE + 2 * PAGE_SIZE,
	  .perms = PERM_READ | PERM_EXEC,
	  .inode = 7,
	  .path = (char *)"/nonexistent/program" },
	{ .start = CORES_DATA,
	  .end = CORES_DATA + 2 * PAGE_SIZE,
	  .offset = 2 * PAGE_SIZE,
	  .perms = PERM_READ | PERM_WRITE,
	  .inode = 7,
	  .path = (char *)"/nonexistent/program" },
	{ .start = CORES_HEAP,
	  .end = CORES_HEAP + 5 * PAGE_SIZE,
	  .perms = PERM_READ | PERM_WRITE,
	  .path = (char *)"[heap]" },
	{ .start = CORES_STACK,
	  .end = CORES_STACK + 2 * PAGE_SIZE,
	  .perms = PERM_READ | PERM_WRITE,
	  .path = (char *)"[stack]" },
	{ .start = CORES_VDSO,
	  .end = CORES_VDSO + PAGE_SIZE,
	  .perms = PERM_READ | PERM_EXEC,
	  .path = (char *)"[vdso]" },
};

static struct error *give_memory(void *data, const struct memory_visitor *visitor)
{
	const struct core_image *image = data;
	uint8_t page[PAGE_SIZE];

	vec_for_each (piece, &image->pieces) {
		for (uint64_t at = 0; at < piece->size; at += PAGE_SIZE) {
			uint64_t address = piece->mapping->start + at;
			struct error *error;

			if (address >= CORES_RESERVE.start && address < CORES_RESERVE.end)
				continue;
			for (size_t i = 0; i < PAGE_SIZE; i++)
				page[i] = cores_byte(address + i);
			error = visitor->bytes(visitor->data, address, page, PAGE_SIZE);
			if (error)
				return error;
		}
	}
	return NULL;
}

static struct error *no_missing(void *data, uint64_t address, uint64_t size)
{
	abort();
}

static void set_registers(const struct arch *arch, struct thread_state *state, unsigned number)
{
	uint8_t bytes[512];

	memset(bytes, 0, sizeof(bytes));
	for (unsigned i = 0; i < arch->core.regs_size / arch->word_size; i++) {
		uint64_t value = CORES_STACK + 0x100 * number + 8 * i;

		memcpy(bytes + i * arch->word_size, &value, arch->word_size);
	}
	arch->core.take_regs(bytes, &state->regs);
}

int cores_write(const struct arch *arch, bool compress)
{
	const unsigned word = arch->word_size;
	struct thread_state states[2] = {
		{ .tid = CORES_TID, .name = "first", .state = 'S', .sig_blocked = 0x1234 },
		{ .tid = CORES_TID + 1, .name = "second", .state = 'R' },
	};
	struct thread_state_vec threads = { states, 2, 2 };
	const uint64_t pairs[] = { AT_PHDR,   CORES_CODE + 64,	  AT_SYSINFO_EHDR, CORES_VDSO,
				   AT_RANDOM, CORES_STACK + 4096, AT_NULL,	   0 };
	char auxv[sizeof(pairs)];
	struct core_image image = {
		.arch = arch,
		.threads = &threads,
		.name = "program",
		.arguments = "program --of tests",
		.pid = CORES_TID,
		.ppid = 1,
		.state = 'S',
		.auxv = auxv,
		.auxv_size = sizeof(pairs) / 8 * word,
	};
	struct core_output output = {
		.fd = memfd_create("core", MFD_CLOEXEC),
		.name = "core",
		.regular = true,
		.compress = compress,
		.memory = give_memory,
		.missing = no_missing,
		.data = &image,
	};
	struct core_written written;

	for (size_t i = 0; i < sizeof(pairs) / 8; i++)
		memcpy(auxv + i * word, &pairs[i], word);
	for (unsigned i = 0; i < 2; i++)
		set_registers(arch, &states[i], i);
	for (size_t i = 0; i < sizeof(mappings) / sizeof(*mappings); i++) {
		const struct mapping *mapping = &mappings[i];
		struct core_piece piece = { mapping, mapping->end - mapping->start };

		if (i == 0)
			piece.size = PAGE_SIZE;
		if (core_piece_vec_append(&image.pieces, &piece))
			abort();
	}
	if (range_vec_append(&image.reserves, &CORES_RESERVE))
		abort();
	if (output.fd < 0 || core_write(&image, &output, &written))
		abort();
	core_piece_vec_deinit(&image.pieces);
	range_vec_deinit(&image.reserves);
	return output.fd;
}

struct error *cores_open_fd(int fd, struct target **ret)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return target_open_core(path, ret);
}

struct error *cores_open_bytes(const void *bytes, size_t size, struct target **ret)
{
	int fd = memfd_create("core", MFD_CLOEXEC);
	struct error *error;

	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
		abort();
	error = cores_open_fd(fd, ret);
	close(fd);
	return error;
}

static void ask_memory(struct target *target, const struct mapping_vec *maps)
{
	static uint8_t buffer[READ_MAX];
	bool present[8];

	vec_for_each (mapping, maps) {
		size_t size = min_u64(mapping->end - mapping->start, READ_MAX);

		error_destroy(target_read(target, mapping->start, buffer, size));
		error_destroy(target_read(target, mapping->end - 8, buffer, 16));
		error_destroy(target_page_present(target, mapping->start, 8, present));
	}
}

void cores_ask_all(struct target *target)
{
	struct thread_state_vec states = { 0 };
	struct thread_vec threads = { 0 };
	struct mapping_vec maps = { 0 };
	const struct module_vec *modules;
	struct libc libc;
	uint64_t value;

	error_destroy(target_read_maps(target, MAPS_USAGE, &maps));
	ask_memory(target, &maps);
	error_destroy(target_read_threads(target, &threads));
	error_destroy(core_thread_states(target, &states));
	error_destroy(target_modules(target, &modules));
	error_destroy(target_libc(target, &libc));
	target_auxv(target, AT_RANDOM, &value);
	thread_vec_deinit(&threads);
	thread_states_deinit(&states);
	mappings_deinit(&maps);
}
