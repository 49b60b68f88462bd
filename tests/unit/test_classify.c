/* Which type a mapping gets, on a target made of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <elf.h>

#include "memprobe/classify.h"
#include "fake.h"
#include "memprobe/mmapped.h"

#define PAGE 0x1000u
#define RW   (PERM_READ | PERM_WRITE)

struct fixture {
	struct target *target;
	struct mapping_vec maps;
};

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_null(fake_target_create(&arch_x86_64, &fixture->target));
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	mappings_deinit(&fixture->maps);
	target_destroy(fixture->target);
	free(fixture);
	return 0;
}

static void add(struct fixture *fixture, uint64_t start, uint64_t size, unsigned perms,
		const char *path, uint64_t inode)
{
	struct fake_segment segment = {
		.start = start, .size = size, .perms = perms, .path = path, .inode = inode
	};

	assert_null(fake_target_add_segment(fixture->target, &segment));
}

static void add_bytes(struct fixture *fixture, uint64_t start, uint64_t size, const void *bytes,
		      size_t bytes_size)
{
	struct fake_segment segment = {
		.start = start, .size = size, .perms = RW, .bytes = bytes, .bytes_size = bytes_size
	};

	assert_null(fake_target_add_segment(fixture->target, &segment));
}

static const struct mapping *classified(struct fixture *fixture, uint64_t address)
{
	struct mapping *mapping;

	if (!fixture->maps.size)
		assert_null(target_read_classified(fixture->target, MAPS_PLAIN, &fixture->maps));
	mapping = mappings_find(&fixture->maps, address);
	assert_non_null(mapping);
	return mapping;
}

static void assert_type(struct fixture *fixture, uint64_t address, enum mapping_type type)
{
	assert_string_equal(mapping_type_name(classified(fixture, address)->type),
			    mapping_type_name(type));
}

static void names_decide(void **state)
{
	static const struct {
		const char *path;
		unsigned perms;
		uint64_t inode;
		enum mapping_type type;
	} cases[] = {
		{ "[heap]", RW, 0, MAPPING_HEAP },
		{ "[stack]", RW, 0, MAPPING_STACK },
		{ "[stack:77]", RW, 0, MAPPING_THREAD_STACK },
		{ "[vdso]", PERM_READ | PERM_EXEC, 0, MAPPING_KERNEL },
		{ "[vvar]", PERM_READ, 0, MAPPING_KERNEL },
		{ "[vvar_vclock]", PERM_READ, 0, MAPPING_KERNEL },
		{ "[vsyscall]", PERM_EXEC, 0, MAPPING_KERNEL },
		{ "[anon:my pool]", RW, 0, MAPPING_ANON },
		{ "[anon_shmem:my pool]", RW | PERM_SHARED, 5, MAPPING_SHM },
		{ "", RW, 0, MAPPING_ANON },
		{ "", RW | PERM_SHARED, 0, MAPPING_SHM },
		{ "", 0, 0, MAPPING_GUARD },
		{ "/dev/zero", RW | PERM_SHARED, 6, MAPPING_SHM },
		{ "/dev/zero", RW, 6, MAPPING_ANON },
		{ "/dev/shm/pool", RW | PERM_SHARED, 7, MAPPING_SHM },
		{ "/memfd:pool", RW | PERM_SHARED, 8, MAPPING_SHM },
		{ "/SYSV00001234", RW | PERM_SHARED, 9, MAPPING_SHM },
		{ "/anon_hugepage", RW, 10, MAPPING_ANON },
		{ "/var/lib/data", PERM_READ, 11, MAPPING_FILE },
		{ "/var/lib/data", RW | PERM_SHARED, 11, MAPPING_FILE },
		{ "anon_inode:[io_uring]", RW | PERM_SHARED, 12, MAPPING_FILE },
		{ "/opt/plugin", PERM_READ | PERM_EXEC, 13, MAPPING_LIB },
		{ "/opt/plugin", RW, 13, MAPPING_LIB },
		{ "/memfd:jit", PERM_READ | PERM_EXEC | PERM_SHARED, 14, MAPPING_SHM },
	};
	struct fixture *fixture = *state;
	size_t count = sizeof(cases) / sizeof(cases[0]);

	/* A page between them: what touches is told by its neighbour. */
	for (size_t i = 0; i < count; i++)
		add(fixture, 0x10000 + i * 2 * PAGE, PAGE, cases[i].perms, cases[i].path,
		    cases[i].inode);
	for (size_t i = 0; i < count; i++) {
		const struct mapping *mapping = classified(fixture, 0x10000 + i * 2 * PAGE);

		if (mapping->type != cases[i].type)
			fail_msg("'%s' is %s instead of %s", cases[i].path,
				 mapping_type_name(mapping->type),
				 mapping_type_name(cases[i].type));
	}
}

static void the_program_is_told_from_libraries(void **state)
{
	struct fixture *fixture = *state;

	free(fixture->target->exe);
	fixture->target->exe = strdup("/bin/program");
	add(fixture, 0x400000, PAGE, PERM_READ | PERM_EXEC, "/bin/program", 5);
	add(fixture, 0x500000, PAGE, RW, "/bin/program", 5);
	add(fixture, 0x600000, PAGE, PERM_READ | PERM_EXEC, "/lib/x.so", 6);
	assert_type(fixture, 0x400000, MAPPING_EXE);
	assert_type(fixture, 0x500000, MAPPING_EXE);
	assert_type(fixture, 0x600000, MAPPING_LIB);
}

/* A shared library of one segment, one page of file and @memory_size bytes in all. */
static void make_library(unsigned char image[PAGE], uint64_t memory_size)
{
	Elf64_Ehdr header = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			     EV_CURRENT },
		.e_type = ET_DYN,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 1,
	};
	Elf64_Phdr segment = {
		.p_type = PT_LOAD,
		.p_flags = PF_R | PF_W | PF_X,
		.p_filesz = PAGE,
		.p_memsz = memory_size,
		.p_align = PAGE,
	};

	memset(image, 0, PAGE);
	memcpy(image, &header, sizeof(header));
	memcpy(image + sizeof(header), &segment, sizeof(segment));
}

static void add_library(struct fixture *fixture, uint64_t memory_size)
{
	unsigned char image[PAGE];
	struct fake_segment segment = { .start = 0x7f0000000000,
					.size = PAGE,
					.bytes = image,
					.bytes_size = PAGE,
					.perms = RW | PERM_EXEC,
					.path = "/lib/x.so",
					.inode = 6 };

	make_library(image, memory_size);
	assert_null(fake_target_add_segment(fixture->target, &segment));
}

static void bss_belongs_to_its_module(void **state)
{
	struct fixture *fixture = *state;

	add_library(fixture, 3 * PAGE);
	add(fixture, 0x7f0000001000, 2 * PAGE, RW, "", 0);
	assert_type(fixture, 0x7f0000001000, MAPPING_LIB);
	assert_string_equal(classified(fixture, 0x7f0000001000)->label, ".bss of x.so");
}

static void what_merely_touches_a_module_is_no_bss(void **state)
{
	struct fixture *fixture = *state;

	add_library(fixture, PAGE);
	add(fixture, 0x7f0000001000, 2 * PAGE, RW, "", 0);
	assert_type(fixture, 0x7f0000001000, MAPPING_ANON);
}

static void a_large_neighbour_merged_with_bss_is_no_bss(void **state)
{
	struct fixture *fixture = *state;

	add_library(fixture, 2 * PAGE);
	add(fixture, 0x7f0000001000, 100 * PAGE, RW, "", 0);
	assert_type(fixture, 0x7f0000001000, MAPPING_ANON);
}

static void stacks_are_their_threads(void **state)
{
	struct fixture *fixture = *state;
	struct thread thread = {
		.tid = 42, .name = "worker", .stack_start = 0x20000, .stack_end = 0x30000
	};

	add(fixture, 0x1f000, PAGE, 0, "", 0);
	add(fixture, 0x20000, 16 * PAGE, RW, "", 0);
	assert_null(fake_target_add_thread(fixture->target, &thread));
	assert_type(fixture, 0x1f000, MAPPING_GUARD);
	assert_type(fixture, 0x20000, MAPPING_THREAD_STACK);
	assert_int_equal(classified(fixture, 0x20000)->tid, 42);
	assert_string_equal(classified(fixture, 0x20000)->label, "stack of worker");
}

/* With guards that are no mappings. */
static void merged_stacks_are_stacks(void **state)
{
	struct fixture *fixture = *state;
	struct thread thread = { .tid = 42, .stack_start = 0x21000, .stack_end = 0x30000 };

	add(fixture, 0x20000, 32 * PAGE, RW, "", 0);
	assert_null(fake_target_add_thread(fixture->target, &thread));
	thread = (struct thread){ .tid = 43, .stack_start = 0x31000, .stack_end = 0x40000 };
	assert_null(fake_target_add_thread(fixture->target, &thread));
	assert_type(fixture, 0x20000, MAPPING_THREAD_STACK);
	assert_int_equal(classified(fixture, 0x20000)->tid, 0);
	assert_string_equal(classified(fixture, 0x20000)->label, "stacks of 2 threads");
}

static void a_mapping_of_two_stacks_is_nobodys(void **state)
{
	struct fixture *fixture = *state;
	struct thread thread = { .tid = 42, .stack_start = 0x20000, .stack_end = 0x30000 };

	add(fixture, 0x20000, 16 * PAGE, RW, "", 0);
	assert_null(fake_target_add_thread(fixture->target, &thread));
	thread.tid = 43;
	assert_null(fake_target_add_thread(fixture->target, &thread));
	assert_type(fixture, 0x20000, MAPPING_ANON);
	assert_int_equal(classified(fixture, 0x20000)->tid, 0);
}

/* ---- blocks that malloc mapped ---- */

static void count_chunks(struct fixture *fixture, size_t *count_ret, uint64_t *bytes_ret)
{
	struct mapping_vec maps = { 0 };

	assert_null(target_read_maps(fixture->target, MAPS_PLAIN, &maps));
	assert_null(mmapped_chunks(fixture->target, &maps.data[0], count_ret, bytes_ret));
	mappings_deinit(&maps);
}

static void chunks_are_walked_while_they_fit(void **state)
{
	struct fixture *fixture = *state;
	uint64_t words[12 * PAGE / 8] = { 0 };
	uint64_t bytes;
	size_t count;

	words[1] = 4 * PAGE | 2;
	words[4 * PAGE / 8 + 1] = 2 * PAGE | 2;
	words[6 * PAGE / 8 + 1] = 5 * PAGE | 3; /* in use bit of an ordinary chunk */
	add_bytes(fixture, 0x100000, sizeof(words), words, sizeof(words));
	count_chunks(fixture, &count, &bytes);
	assert_int_equal(count, 2);
	assert_int_equal(bytes, 6 * PAGE);
}

static void headers_that_lie_are_none(void **state)
{
	static const uint64_t sizes[] = {
		20 * PAGE | 2,		   /* beyond the mapping */
		(4 * PAGE + 64) | 2,	   /* no whole pages */
		4 * PAGE | 6,		   /* of another arena */
		2,			   /* nothing */
		UINT64_MAX - PAGE + 1 + 2, /* wraps around */
		UINT64_MAX - 5,
	};
	struct fixture *fixture = *state;
	uint64_t words[8 * PAGE / 8] = { 0 };
	uint64_t bytes;
	size_t count;

	words[1] = 4 * PAGE | 2;
	add_bytes(fixture, 0x100000, sizeof(words), words, sizeof(words));
	count_chunks(fixture, &count, &bytes);
	assert_int_equal(count, 1);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_null(fake_target_write(fixture->target, 0x100008, &sizes[i], 8));
		count_chunks(fixture, &count, &bytes);
		if (count || bytes)
			fail_msg("size 0x%llx was taken for a chunk", (unsigned long long)sizes[i]);
	}
	words[0] = 16; /* offset of an aligned block: not at the start of its mapping */
	assert_null(fake_target_write(fixture->target, 0x100000, words, 16));
	count_chunks(fixture, &count, &bytes);
	assert_int_equal(count, 0);
}

/* 2.43: the size spares a header. i386: the header stands 8 bytes in. */
static void other_versions_have_other_headers(void **state)
{
	struct fixture *fixture = *state;
	uint64_t words[8 * PAGE / 8] = { 0 };
	uint32_t narrow[8 * PAGE / 4] = { 0 };
	struct fixture other = { 0 };
	uint64_t bytes;
	size_t count;

	words[1] = (8 * PAGE - 16) | 2;
	add_bytes(fixture, 0x100000, sizeof(words), words, sizeof(words));
	count_chunks(fixture, &count, &bytes);
	assert_int_equal(count, 1);
	assert_int_equal(bytes, 8 * PAGE);

	assert_null(fake_target_create(&arch_i386, &other.target));
	narrow[2] = 8;
	narrow[3] = (8 * PAGE - 8) | 2;
	add_bytes(&other, 0x100000, sizeof(narrow), narrow, sizeof(narrow));
	count_chunks(&other, &count, &bytes);
	assert_int_equal(count, 1);
	assert_int_equal(bytes, 8 * PAGE);
	target_destroy(other.target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_decide, setup, teardown),
		cmocka_unit_test_setup_teardown(the_program_is_told_from_libraries, setup,
						teardown),
		cmocka_unit_test_setup_teardown(bss_belongs_to_its_module, setup, teardown),
		cmocka_unit_test_setup_teardown(what_merely_touches_a_module_is_no_bss, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_large_neighbour_merged_with_bss_is_no_bss, setup,
						teardown),
		cmocka_unit_test_setup_teardown(stacks_are_their_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(merged_stacks_are_stacks, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mapping_of_two_stacks_is_nobodys, setup,
						teardown),
		cmocka_unit_test_setup_teardown(chunks_are_walked_while_they_fit, setup, teardown),
		cmocka_unit_test_setup_teardown(headers_that_lie_are_none, setup, teardown),
		cmocka_unit_test_setup_teardown(other_versions_have_other_headers, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
