/* Cores written by core_write() and read as targets: whole, cut short, and with lies in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "cores.h"
#include "memprobe/num.h"

static void assert_success(struct error *error)
{
	if (error)
		fail_msg("%s", error->message);
}

static void assert_error(struct error *error, enum error_code code)
{
	assert_non_null(error);
	assert_int_equal(error->code, code);
	assert_non_null(error->message);
	error_destroy(error);
}

static struct target *open_fd(int fd)
{
	struct target *target;

	assert_success(cores_open_fd(fd, &target));
	close(fd);
	return target;
}

static uint8_t *read_all(int fd, size_t *size_ret)
{
	struct stat status;
	uint8_t *bytes;

	assert_int_equal(fstat(fd, &status), 0);
	bytes = malloc(status.st_size);
	assert_int_equal(pread(fd, bytes, status.st_size, 0), status.st_size);
	*size_ret = status.st_size;
	return bytes;
}

/* Notes of memprobe's own get another owner: a core as the kernel writes it. */
static void hide_own_notes(uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i + sizeof(CORE_NOTE_OWNER) <= size; i++)
		if (!memcmp(bytes + i, CORE_NOTE_OWNER, sizeof(CORE_NOTE_OWNER)))
			bytes[i] = 'X';
}

/* ---- what was written is what is read ---- */

static void check_memory(struct target *target)
{
	static const uint64_t starts[] = { CORES_DATA, CORES_HEAP, CORES_STACK };
	uint8_t bytes[2 * PAGE_SIZE];
	struct error *error;

	for (size_t i = 0; i < sizeof(starts) / sizeof(*starts); i++) {
		assert_success(target_read(target, starts[i], bytes, sizeof(bytes)));
		for (size_t at = 0; at < sizeof(bytes); at++)
			assert_int_equal(bytes[at], cores_byte(starts[i] + at));
	}
	/* The second page of code was not dumped, and its file is not there. */
	error = target_read(target, CORES_CODE + 100, bytes, sizeof(bytes));
	assert_true(error_is(error, ERROR_FAULT));
	assert_int_equal(error->address, CORES_CODE + PAGE_SIZE);
	assert_int_equal(bytes[0], cores_byte(CORES_CODE + 100));
	error_destroy(error);
	assert_error(target_read(target, 0x1000, bytes, 1), ERROR_FAULT);
	assert_error(target_read(target, UINT64_MAX - 3, bytes, 3), ERROR_FAULT);
}

static void check_threads(struct target *target, const char *second)
{
	struct thread_state_vec states = { 0 };
	struct thread_vec threads = { 0 };

	assert_success(core_thread_states(target, &states));
	assert_int_equal(states.size, 2);
	assert_int_equal(states.data[0].tid, CORES_TID);
	assert_int_equal(states.data[1].tid, CORES_TID + 1);
	for (size_t i = 0; i < 2; i++) {
		uint64_t sp = target->arch->sp(&states.data[i].regs);

		assert_true(sp >= CORES_STACK + 0x100 * i && sp < CORES_STACK + 0x100 * (i + 1));
	}
	thread_states_deinit(&states);
	assert_success(target_read_threads(target, &threads));
	assert_int_equal(threads.size, 2);
	assert_string_equal(threads.data[1].name, second);
	assert_int_equal(threads.data[0].stack_start, CORES_STACK);
	assert_int_equal(threads.data[0].stack_end, CORES_STACK + 2 * PAGE_SIZE);
	thread_vec_deinit(&threads);
}

static const struct mapping *mapping_named(const struct mapping_vec *maps, const char *path,
					   uint64_t start)
{
	const struct mapping *mapping = mappings_find(maps, start);

	assert_non_null(mapping);
	assert_int_equal(mapping->start, start);
	assert_string_equal(mapping->path, path);
	return mapping;
}

/* @own: with memprobe's own notes. Others split a mapping where its reserve ends. */
static void check_maps(struct target *target, bool own)
{
	struct mapping_vec maps = { 0 };
	const struct mapping *mapping;

	assert_success(target_read_maps(target, MAPS_USAGE, &maps));
	assert_int_equal(maps.size, own ? 5 : 6);
	mapping = mapping_named(&maps, "/nonexistent/program", CORES_CODE);
	assert_int_equal(mapping->perms, PERM_READ | PERM_EXEC);
	assert_int_equal(mapping->usage.rss, PAGE_SIZE);
	mapping = mapping_named(&maps, "/nonexistent/program", CORES_DATA);
	assert_int_equal(mapping->offset, 2 * PAGE_SIZE);
	assert_int_equal(mapping->usage.rss, PAGE_SIZE);
	mapping = mapping_named(&maps, "[heap]", CORES_HEAP);
	assert_int_equal(mapping->usage.rss, (own ? 3 : 2) * PAGE_SIZE);
	mapping_named(&maps, "[stack]", CORES_STACK);
	mapping_named(&maps, "[vdso]", CORES_VDSO);
	mappings_deinit(&maps);
}

/* Without the note, it is what was not dumped. */
static void check_reserve(struct target *target, bool own)
{
	const uint64_t size = CORES_RESERVE.end - CORES_RESERVE.start;
	uint8_t bytes[4 * PAGE_SIZE];
	bool present[5];

	if (!own) {
		assert_error(target_read(target, CORES_RESERVE.start, bytes, 1), ERROR_FAULT);
		return;
	}
	assert_success(target_read(target, CORES_HEAP + PAGE_SIZE, bytes, sizeof(bytes)));
	for (size_t at = 0; at < sizeof(bytes); at++)
		assert_int_equal(bytes[at], cores_byte(CORES_HEAP + PAGE_SIZE + at));
	assert_success(target_page_present(target, CORES_HEAP, 5, present));
	assert_true(present[0] && present[1] && !present[2] && !present[3] && present[4]);
	assert_true(target_next_present(target, CORES_RESERVE.start + PAGE_SIZE,
					CORES_RESERVE.end + 1) == CORES_RESERVE.end);
	assert_true(target_next_present(target, CORES_RESERVE.start, CORES_RESERVE.end) ==
		    CORES_RESERVE.start + size);
}

static void check_all(struct target *target, const char *second_thread)
{
	const bool own = *second_thread;
	bool present[2];

	assert_true(target_is_core(target));
	assert_false(core_is_truncated(target));
	assert_string_equal(target->name, "program");
	assert_string_equal(target->exe, "/nonexistent/program");
	assert_int_equal(target->pid, CORES_TID);
	check_memory(target);
	check_maps(target, own);
	check_reserve(target, own);
	check_threads(target, second_thread);
	assert_success(target_page_present(target, CORES_DATA, 2, present));
	assert_true(present[0] && !present[1]);
}

static void written_and_read(void **state)
{
	static const struct arch *const archs[] = { &arch_x86_64, &arch_i386 };

	for (size_t i = 0; i < 2; i++) {
		struct target *target = open_fd(cores_write(archs[i], false));

		assert_ptr_equal(target->arch, archs[i]);
		check_all(target, "second");
		target_destroy(target);
	}
}

static void compressed(void **state)
{
	struct target *target = open_fd(cores_write(&arch_x86_64, true));

	check_all(target, "second");
	target_destroy(target);
}

/* Also without holes, as gcore writes it. */
static void without_own_notes(void **state)
{
	static const struct arch *const archs[] = { &arch_x86_64, &arch_i386 };

	for (size_t i = 0; i < 2; i++) {
		struct target *target;
		size_t size;
		int fd = cores_write(archs[i], false);
		uint8_t *bytes = read_all(fd, &size);

		close(fd);
		hide_own_notes(bytes, size);
		assert_success(cores_open_bytes(bytes, size, &target));
		check_all(target, "");
		target_destroy(target);
		free(bytes);
	}
}

/* ---- more segments than e_phnum can tell ---- */

static struct error *nothing(void *data, const struct memory_visitor *visitor)
{
	return NULL;
}

static void many_segments(void **state)
{
	enum { COUNT = 70000 };
	struct mapping *mappings = calloc(COUNT, sizeof(*mappings));
	struct thread_state thread = { .tid = 1 };
	struct thread_state_vec threads = { &thread, 1, 1 };
	struct core_image image = {
		.arch = &arch_x86_64, .threads = &threads, .name = "", .arguments = "", .pid = 1
	};
	struct core_output output = { .name = "core", .regular = true, .memory = nothing };
	struct mapping_vec maps = { 0 };
	struct core_written written;
	struct target *target;
	Elf64_Ehdr header;

	for (size_t i = 0; i < COUNT; i++) {
		struct core_piece piece = { &mappings[i], 0 };

		mappings[i] = (struct mapping){ .start = (i + 1) * 2 * PAGE_SIZE,
						.end = (i + 1) * 2 * PAGE_SIZE + PAGE_SIZE,
						.perms = PERM_READ,
						.path = (char *)"" };
		assert_success(core_piece_vec_append(&image.pieces, &piece));
	}
	output.fd = memfd_create("core", MFD_CLOEXEC);
	assert_success(core_write(&image, &output, &written));
	assert_int_equal(pread(output.fd, &header, sizeof(header), 0), sizeof(header));
	assert_int_equal(header.e_phnum, PN_XNUM);
	target = open_fd(output.fd);
	assert_success(target_read_maps(target, MAPS_PLAIN, &maps));
	assert_int_equal(maps.size, COUNT);
	mappings_deinit(&maps);
	target_destroy(target);
	core_piece_vec_deinit(&image.pieces);
	free(mappings);
}

/* ---- damage ---- */

/* Whatever it says, it says it; what it gives is what was written. */
static bool try_bytes(const uint8_t *bytes, size_t size)
{
	struct target *target;
	struct error *error = cores_open_bytes(bytes, size, &target);
	bool truncated;

	if (error) {
		assert_true(error->code == ERROR_NO_TARGET || error->code == ERROR_UNSUPPORTED);
		error_destroy(error);
		return true;
	}
	cores_ask_all(target);
	truncated = core_is_truncated(target);
	target_destroy(target);
	return truncated;
}

/* Unpacked into a buffer that the end of the core fills just so. */
static void compressed_of_round_sizes(void **state)
{
	const size_t room = ZSTD_compressBound(2 << 20);
	char *whole = calloc(1, 2 << 20), *packed = malloc(room);
	int fd = cores_write(&arch_x86_64, false);

	assert_true(pread(fd, whole, 2 << 20, 0) > 0);
	close(fd);
	for (size_t size = 1 << 20; size <= 2 << 20; size += 1 << 19) {
		size_t got = ZSTD_compress(packed, room, whole, size, 1);
		struct target *target;

		assert_false(ZSTD_isError(got));
		assert_success(cores_open_bytes(packed, got, &target));
		assert_false(core_is_truncated(target));
		target_destroy(target);
		assert_success(cores_open_bytes(packed, got - 1, &target));
		assert_true(core_is_truncated(target));
		target_destroy(target);
	}
	free(whole);
	free(packed);
}

static void cut_everywhere(const struct arch *arch, bool compress)
{
	int fd = cores_write(arch, compress);
	size_t size;
	uint8_t *bytes = read_all(fd, &size);
	/* Not page by page within memory: there, every offset is like any other. */
	for (size_t cut = 0; cut<size; cut += cut % PAGE_SIZE> 64 && cut > 3 * PAGE_SIZE ? 61 : 1)
		if (!try_bytes(bytes, cut))
			fail_msg("cut at %zu of %zu: not seen to be cut", cut, size);
	assert_false(try_bytes(bytes, size));
	free(bytes);
	close(fd);
}

static void cut_at_every_offset(void **state)
{
	cut_everywhere(&arch_x86_64, false);
	cut_everywhere(&arch_i386, false);
}

static void cut_compressed(void **state)
{
	cut_everywhere(&arch_x86_64, true);
}

/* A cut within memory: what lies before it is there. */
static void cut_in_memory(void **state)
{
	int fd = cores_write(&arch_x86_64, false);
	struct target *target;
	uint8_t byte;
	off_t size = lseek(fd, 0, SEEK_END);

	/* The last page is the vdso's, before it lie the stack's two. */
	assert_int_equal(ftruncate(fd, size - 2 * PAGE_SIZE + 10), 0);
	target = open_fd(fd);
	assert_true(core_is_truncated(target));
	assert_success(target_read(target, CORES_STACK + PAGE_SIZE + 9, &byte, 1));
	assert_int_equal(byte, cores_byte(CORES_STACK + PAGE_SIZE + 9));
	assert_error(target_read(target, CORES_STACK + PAGE_SIZE + 10, &byte, 1), ERROR_FAULT);
	assert_error(target_read(target, CORES_VDSO, &byte, 1), ERROR_FAULT);
	target_destroy(target);
}

/* The file is cut while it is open. */
static void shrinks_later(void **state)
{
	int fd = cores_write(&arch_x86_64, false);
	struct target *target;
	uint8_t byte;

	assert_success(cores_open_fd(fd, &target));
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_error(target_read(target, CORES_STACK, &byte, 1), ERROR_FAULT);
	cores_ask_all(target);
	target_destroy(target);
	close(fd);
}

/* Each 32-bit word of headers and notes becomes what hurts most. */
static void lying_words(void **state)
{
	static const uint32_t lies[] = { 0, 1, 0x7fffffff, 0xffffffff, 0xfffff000, 0x80000000 };
	static const struct arch *const archs[] = { &arch_x86_64, &arch_i386 };

	for (size_t a = 0; a < 2; a++) {
		int fd = cores_write(archs[a], false);
		size_t size;
		uint8_t *bytes = read_all(fd, &size);

		for (size_t at = 0; at < 2 * PAGE_SIZE && at + 4 <= size; at += 4) {
			uint32_t truth;

			memcpy(&truth, bytes + at, 4);
			for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
				memcpy(bytes + at, &lies[i], 4);
				try_bytes(bytes, size);
			}
			memcpy(bytes + at, &truth, 4);
		}
		free(bytes);
		close(fd);
	}
}

static void no_cores(void **state)
{
	static const char text[] =
		"this is no core, but it is long enough to hold an ELF header and "
		"more";
	struct target *target;
	struct error *error;
	Elf64_Ehdr header = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, 1 },
		.e_type = ET_CORE,
		.e_machine = EM_SPARCV9,
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 1,
		.e_phoff = 1,
	};

	assert_error(cores_open_bytes("", 0, &target), ERROR_NO_TARGET);
	assert_error(cores_open_bytes(text, sizeof(text), &target), ERROR_NO_TARGET);
	assert_error(cores_open_bytes(&header, sizeof(header), &target), ERROR_UNSUPPORTED);
	header.e_machine = EM_X86_64;
	header.e_type = ET_DYN;
	error = cores_open_bytes(&header, sizeof(header), &target);
	assert_non_null(strstr(error->message, "ELF file, but no core"));
	assert_error(error, ERROR_NO_TARGET);
	assert_error(target_open_core("/nonexistent", &target), ERROR_NO_TARGET);
	assert_error(target_open_core("/dev/zero", &target), ERROR_NO_TARGET);
	assert_error(target_open_core("/", &target), ERROR_NO_TARGET);
	assert_false(core_probe("/proc/self/exe"));
	assert_false(core_probe("/nonexistent"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_and_read),
		cmocka_unit_test(compressed),
		cmocka_unit_test(compressed_of_round_sizes),
		cmocka_unit_test(without_own_notes),
		cmocka_unit_test(many_segments),
		cmocka_unit_test(cut_at_every_offset),
		cmocka_unit_test(cut_compressed),
		cmocka_unit_test(cut_in_memory),
		cmocka_unit_test(shrinks_later),
		cmocka_unit_test(lying_words),
		cmocka_unit_test(no_cores),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
