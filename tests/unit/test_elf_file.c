/* Modules and symbols: of this program, of others' address spaces, and of broken ELF files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "memprobe/elf_file.h"
#include "fake.h"
#include "memprobe/io.h"

int exported_marker = 42;

static void assert_ok(struct error *error)
{
	if (error)
		fail_msg("%s", error->message);
}

static struct target *open_child(pid_t pid)
{
	struct target *target;

	assert_ok(target_open_live(pid, &target));
	return target;
}

static struct module *module_by_path(struct target *target, const char *part)
{
	const struct module_vec *modules;

	assert_ok(target_modules(target, &modules));
	for (size_t i = 0; i < modules->size; i++)
		if (strstr(modules->data[i].path, part))
			return &modules->data[i];
	return NULL;
}

/* Before glibc 2.34 its file has the release in its name. */
static struct module *libc_of(struct target *target)
{
	struct module *module = module_by_path(target, "/libc.so.6");

	return module ? module : module_by_path(target, "/libc-2.");
}

static uint64_t address_of(struct target *target, const char *name)
{
	struct elf_symbol symbol;

	return target_symbol(target, name, &symbol, NULL) ? symbol.address : 0;
}

/* ---- this program ---- */

static void nothing(void *unused)
{
}

static void check_own_modules(struct target *target)
{
	const struct module_vec *modules;
	struct elf_symbol symbol;
	struct module *module;
	char id[65];

	assert_ok(target_modules(target, &modules));
	assert_true(modules->data[0].is_exe);
	assert_true(module_symbol(target, &modules->data[0], "exported_marker", &symbol));
	assert_int_equal(symbol.address, (uintptr_t)&exported_marker);
	assert_int_equal(symbol.size, sizeof(exported_marker));
	assert_int_equal(symbol.type, STT_OBJECT);
	assert_false(module_symbol(target, &modules->data[0], "no_such_symbol", &symbol));
	assert_false(module_symbol(target, &modules->data[0], "", &symbol));
	assert_int_equal(address_of(target, "getpid"), (uintptr_t)dlsym(RTLD_DEFAULT, "getpid"));
	/* Several versions: the default one, as for a program linked now. */
	assert_int_equal(address_of(target, "pthread_cond_wait"),
			 (uintptr_t)dlsym(RTLD_DEFAULT, "pthread_cond_wait"));
	assert_int_equal(address_of(target, "__vdso_gettimeofday"), 0);
	module = target_module_at(target, (uintptr_t)dlsym(RTLD_DEFAULT, "getpid"));
	assert_non_null(module);
	assert_ptr_equal(module, libc_of(target));
	module_build_id(target, module, id);
	assert_int_equal(strlen(id), 40);
	assert_null(target_module_at(target, 0x1000));
	assert_true(module_symbol(target, module, "memcpy", &symbol));
	assert_int_equal(symbol.type, STT_GNU_IFUNC);
	assert_true(module_symbol(target, module, "errno", &symbol));
	assert_int_equal(symbol.type, STT_TLS);
	assert_true(symbol.address < 0x10000);
}

static void test_own(void **state)
{
	pid_t pid = child_start(nothing, NULL);
	struct target *target = open_child(pid);
	struct module *vdso = module_by_path(target, "[vdso]");
	struct elf_symbol symbol;
	struct libc libc;
	char version[32];

	check_own_modules(target);
	assert_ok(target_libc(target, &libc));
	assert_int_equal(libc.kind, LIBC_GLIBC);
	snprintf(version, sizeof(version), "%u.%u", libc.major, libc.minor);
	assert_string_equal(version, gnu_get_libc_version());
	assert_non_null(vdso);
	assert_true(vdso->is_vdso);
	assert_true(module_symbol(target, vdso, "__vdso_clock_gettime", &symbol));
	assert_true(symbol.address > vdso->start && symbol.address < vdso->end);
	assert_ok(module_load(target, vdso));
	assert_memory_equal(vdso->image, (void *)getauxval(AT_SYSINFO_EHDR), vdso->image_size);
	child_stop(pid);
	/* What was read stays readable; what was not fails quietly. */
	assert_int_equal(address_of(target, "exported_marker"), (uintptr_t)&exported_marker);
	target_destroy(target);
}

static bool count_symbol(const char *name, const struct elf_symbol *symbol, void *data)
{
	unsigned *count = data;

	assert_true(name[0]);
	return ++*count < 100;
}

static void test_each(void **state)
{
	struct target *target = open_child(getpid());
	unsigned count = 0;

	assert_ok(module_each_symbol(target, libc_of(target), count_symbol, &count));
	assert_int_equal(count, 100);
	target_destroy(target);
}

/* ---- other address spaces ---- */

static void copy_file(const char *from, const char *to)
{
	char *bytes;
	size_t size;
	int fd;

	assert_ok(read_file_at(AT_FDCWD, from, &bytes, &size));
	fd = open(to, O_CREAT | O_TRUNC | O_WRONLY, 0700);
	assert_true(fd >= 0);
	assert_ok(write_all(fd, bytes, size, to));
	close(fd);
	free(bytes);
}

static void run_program(void *path)
{
	child_ready();
	execl(path, path, "1000", NULL);
	abort();
}

/* Waits until the child has become @path and sleeps in it. */
static struct target *open_program(pid_t pid, const char *path)
{
	for (;;) {
		struct target *target = open_child(pid);
		struct process_syscall syscall;
		const struct module_vec *modules;
		struct error *error;

		error = process_read_syscall(target->process, 0, &syscall);
		if (!error && !strcmp(target->exe, path) && !syscall.running &&
		    !target_modules(target, &modules) && libc_of(target) &&
		    address_of(target, "getpid"))
			return target;
		error_destroy(error);
		target_destroy(target);
		usleep(1000);
	}
}

static void test_deleted(void **state)
{
	char path[64];
	struct target *target;
	struct elf_symbol symbol;
	struct module *module;
	pid_t pid;

	snprintf(path, sizeof(path), "/tmp/memprobe-test-%d", (int)getpid());
	copy_file("/bin/sleep", path);
	pid = child_start(run_program, path);
	target = open_program(pid, path);
	target_destroy(target);
	unlink(path);
	/* Another file has taken the name. */
	copy_file("/bin/true", path);
	target = open_child(pid);
	assert_string_equal(target->exe, path);
	module = module_by_path(target, path);
	assert_non_null(module);
	assert_true(module->is_exe);
	assert_true(module->deleted);
	assert_ok(module_load(target, module));
	assert_true(module_symbol(target, module, "stdout", &symbol));
	assert_true(symbol.address >= module->start && symbol.address < module->end);
	target_destroy(target);
	child_stop(pid);
	unlink(path);
}

/* ---- broken files ---- */

/* A small complete ELF file: the vdso, with sections and hash tables, 8 KiB. */
static const unsigned char *sample(size_t *size)
{
	struct target *target = open_child(getpid());
	struct module *vdso = module_by_path(target, "[vdso]");
	static unsigned char bytes[65536];

	assert_ok(module_load(target, vdso));
	*size = vdso->image_size;
	assert_true(*size <= sizeof(bytes));
	memcpy(bytes, vdso->image, *size);
	target_destroy(target);
	return bytes;
}

enum backing { BY_FILE, BY_MEMORY };

static struct target *fake_with(const unsigned char *bytes, size_t size, size_t mapped,
				enum backing backing)
{
	struct target *target;

	assert_ok(fake_target_create(arch_native(), &target));
	assert_ok(fake_target_add_segment(target, &(struct fake_segment){
							  .start = 0x10000,
							  .size = mapped,
							  .bytes = bytes,
							  .bytes_size = size,
							  .perms = PERM_READ | PERM_EXEC,
							  .path = "/lib/sample.so",
							  .inode = 7,
						  }));
	if (backing == BY_FILE)
		assert_ok(fake_target_add_file(target, "/lib/sample.so", bytes, size));
	return target;
}

/* Calls everything; whatever it answers, it must come back. */
static void use_all(struct target *target)
{
	const struct module_vec *modules;
	struct elf_symbol symbol;
	unsigned count = 0;
	struct libc libc;
	Elf64_Phdr header;
	char id[65];

	assert_ok(target_modules(target, &modules));
	for (size_t i = 0; i < modules->size; i++) {
		struct module *module = &modules->data[i];

		module_symbol(target, module, "__vdso_time", &symbol);
		module_symbol(target, module, "absent", &symbol);
		module_program_header(target, module, 2, &header);
		module_build_id(target, module, id);
		error_destroy(module_each_symbol(target, module, count_symbol, &count));
		error_destroy(module_load(target, module));
	}
	target_symbol(target, "time", &symbol, NULL);
	error_destroy(target_libc(target, &libc));
}

static bool sample_symbol(struct target *target, uint64_t *ret)
{
	struct elf_symbol symbol = { 0 };
	struct module *module = module_by_path(target, "sample");
	bool found = module && module_symbol(target, module, "__vdso_time", &symbol);

	*ret = symbol.address;
	return found;
}

/* The same symbol from sections and from the dynamic section, from file and from memory. */
static void test_ways(void **state)
{
	size_t size;
	const unsigned char *bytes = sample(&size);
	unsigned char *copy = malloc(size);
	uint64_t whole, stripped;

	for (enum backing backing = BY_FILE; backing <= BY_MEMORY; backing++) {
		struct target *target = fake_with(bytes, size, 0x10000, backing);

		assert_true(sample_symbol(target, &whole));
		target_destroy(target);
		memcpy(copy, bytes, size);
		((Elf64_Ehdr *)copy)->e_shoff = 0;
		((Elf64_Ehdr *)copy)->e_shnum = 0;
		target = fake_with(copy, size, 0x10000, backing);
		assert_true(sample_symbol(target, &stripped));
		assert_int_equal(whole, stripped);
		assert_true(whole > 0x10000 && whole < 0x10000 + size);
		target_destroy(target);
	}
	free(copy);
}

static void test_cut(void **state)
{
	size_t size;
	const unsigned char *bytes = sample(&size);

	for (size_t cut = 0; cut < size; cut += cut < 1024 ? 1 : 13) {
		struct target *target = fake_with(bytes, cut, 0x10000, BY_FILE);

		use_all(target);
		target_destroy(target);
		target = fake_with(bytes, cut, (cut + PAGE_SIZE) & -PAGE_SIZE, BY_MEMORY);
		use_all(target);
		target_destroy(target);
	}
}

static void test_mutated(void **state)
{
	size_t size;
	const unsigned char *bytes = sample(&size);
	unsigned char *copy = malloc(size);
	uint64_t random = 88172645463325252;

	for (unsigned round = 0; round < 3000; round++) {
		struct target *target;

		memcpy(copy, bytes, size);
		for (unsigned i = 0; i < 1 + round % 8; i++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			/* Mostly where the headers and tables are. */
			copy[(random >> 8) % (random & 1 ? 1024 : size)] =
				(unsigned char)(random >> 40);
			if (random & 2)
				memset(copy + (random >> 8) % (size - 8), random & 4 ? 0xff : 0x7f,
				       8);
		}
		memcpy(copy, bytes, 5);
		target = fake_with(copy, size, 0x10000, round & 1 ? BY_FILE : BY_MEMORY);
		use_all(target);
		target_destroy(target);
	}
	free(copy);
}

/* What says where the pieces of a file lie may lie itself. */
static void test_wild_offsets(void **state)
{
	static const uint64_t offsets[] = {
		PAGE_SIZE,
		1ull << 40,
		UINT64_MAX & -(uint64_t)PAGE_SIZE,
		UINT64_MAX & -(uint64_t)(4 * PAGE_SIZE),
		INT64_MAX & -(uint64_t)PAGE_SIZE,
	};
	size_t size;
	const unsigned char *bytes = sample(&size);

	for (size_t i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
		struct target *target = fake_with(bytes, PAGE_SIZE, PAGE_SIZE, BY_MEMORY);

		assert_ok(fake_target_add_segment(target, &(struct fake_segment){
								  .start = 0x10000 + PAGE_SIZE,
								  .size = 2 * PAGE_SIZE,
								  .bytes = bytes + PAGE_SIZE,
								  .bytes_size = size - PAGE_SIZE,
								  .perms = PERM_READ | PERM_WRITE,
								  .path = "/lib/sample.so",
								  .inode = 7,
								  .offset = offsets[i],
							  }));
		use_all(target);
		target_destroy(target);
	}
}

/* Thousands of segments that each have the same work to offer. */
static void test_repeated_segments(void **state)
{
	static const uint32_t types[] = { PT_DYNAMIC, PT_NOTE };
	const size_t count = 60000, notes_at = 8 << 20, size = notes_at + (1 << 20);
	unsigned char *bytes = calloc(1, size);
	Elf64_Ehdr *header = (Elf64_Ehdr *)bytes;
	Elf64_Phdr *segments = (Elf64_Phdr *)(header + 1);

	assert_true(sizeof(*header) + count * sizeof(*segments) < notes_at);
	memcpy(header->e_ident, ELFMAG, SELFMAG);
	header->e_ident[EI_CLASS] = ELFCLASS64;
	header->e_ident[EI_DATA] = ELFDATA2LSB;
	header->e_phoff = sizeof(*header);
	header->e_phentsize = sizeof(*segments);
	header->e_phnum = count;
	/* No DT_NULL in it, no end of the notes. */
	memset(bytes + notes_at, 1, 1 << 20);
	for (unsigned type = 0; type < 2; type++) {
		struct target *target;

		for (size_t i = 0; i < count; i++)
			segments[i] = (Elf64_Phdr){
				.p_type = i ? types[type] : PT_LOAD,
				.p_offset = i ? notes_at : 0,
				.p_vaddr = i ? notes_at : 0,
				.p_filesz = i ? 1 << 20 : size,
				.p_memsz = i ? 1 << 20 : size,
			};
		target = fake_with(bytes, size, size, BY_FILE);
		use_all(target);
		target_destroy(target);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own),	     cmocka_unit_test(test_each),
		cmocka_unit_test(test_deleted),	     cmocka_unit_test(test_ways),
		cmocka_unit_test(test_cut),	     cmocka_unit_test(test_mutated),
		cmocka_unit_test(test_wild_offsets), cmocka_unit_test(test_repeated_segments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
