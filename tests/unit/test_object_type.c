/* C++ types by tables of virtual functions, true and lying ones, in a module made of words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <elf.h>

#include "fake.h"
#include "memprobe/object_type.h"

/* The module: headers and code, then constant data, then data that is written. */
#define CODE   0x400000u
#define DATA   0x401000u
#define ZEROED 0x403000u
#define PAGES  4u

#define HEAP 0x800000u

struct image {
	const struct arch *arch;
	unsigned word;
	uint8_t bytes[PAGES * PAGE_SIZE];
	uint32_t end; /* of what is used of the data */
	struct target *target;
	struct object_types *types;
};

static void put(struct image *image, uint64_t address, const void *bytes, size_t size)
{
	assert_true(address >= CODE && address - CODE + size <= sizeof(image->bytes));
	memcpy(image->bytes + (address - CODE), bytes, size);
}

static uint64_t add_text(struct image *image, const char *text)
{
	uint64_t address = image->end;

	put(image, address, text, strlen(text) + 1);
	image->end = (address + strlen(text) + 8) & ~7u;
	return address;
}

static uint64_t add_word(struct image *image, uint64_t value)
{
	uint64_t address = image->end;

	put(image, address, &value, image->word);
	image->end += image->word;
	return address;
}

/* The address point of a table. */
static uint64_t add_table(struct image *image, uint64_t top, uint64_t info)
{
	add_word(image, top);
	add_word(image, info);
	return add_word(image, CODE + 0x800);
}

/* A type_info whose own class has its table at @vptr. */
static uint64_t add_info(struct image *image, uint64_t vptr, const char *name)
{
	uint64_t text = add_text(image, name), info = add_word(image, vptr);

	add_word(image, text);
	return info;
}

/* The table of the class of type_infos; its own type_info is of such a class. */
static uint64_t add_class_table(struct image *image, const char *name)
{
	uint64_t info = add_info(image, 0, name), table = add_table(image, 0, info);

	put(image, info, &table, image->word);
	return table;
}

static void put_headers(struct image *image)
{
	const struct {
		uint32_t address, size, flags;
	} loads[] = { { CODE, 0x1000, PF_R | PF_X },
		      { DATA, 0x2000, PF_R },
		      { ZEROED, 0x1000, PF_R | PF_W } };
	Elf64_Ehdr wide = {
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(wide),
		.e_ehsize = sizeof(wide),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3,
	};
	Elf32_Ehdr narrow = {
		.e_type = ET_EXEC,
		.e_machine = EM_386,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(narrow),
		.e_ehsize = sizeof(narrow),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_phnum = 3,
	};

	memcpy(wide.e_ident, ELFMAG "\2\1\1", SELFMAG + 3);
	memcpy(narrow.e_ident, ELFMAG "\1\1\1", SELFMAG + 3);
	if (image->word == 8)
		put(image, CODE, &wide, sizeof(wide));
	else
		put(image, CODE, &narrow, sizeof(narrow));
	for (unsigned i = 0; i < 3; i++) {
		Elf64_Phdr wide_load = { .p_type = PT_LOAD,
					 .p_flags = loads[i].flags,
					 .p_offset = loads[i].address - CODE,
					 .p_vaddr = loads[i].address,
					 .p_filesz = loads[i].size,
					 .p_memsz = loads[i].size,
					 .p_align = PAGE_SIZE };
		Elf32_Phdr load = { .p_type = PT_LOAD,
				    .p_flags = loads[i].flags,
				    .p_offset = loads[i].address - CODE,
				    .p_vaddr = loads[i].address,
				    .p_filesz = loads[i].size,
				    .p_memsz = loads[i].size,
				    .p_align = PAGE_SIZE };

		if (image->word == 8)
			put(image, CODE + sizeof(wide) + i * sizeof(wide_load), &wide_load,
			    sizeof(wide_load));
		else
			put(image, CODE + sizeof(narrow) + i * sizeof(load), &load, sizeof(load));
	}
}

static void image_init(struct image *image, const struct arch *arch)
{
	memset(image, 0, sizeof(*image));
	image->arch = arch;
	image->word = arch->word_size;
	image->end = DATA;
	put_headers(image);
}

static void add_segment(struct image *image, uint64_t start, uint64_t size, unsigned perms)
{
	assert_null(fake_target_add_segment(image->target,
					    &(struct fake_segment){
						    .start = start,
						    .size = size,
						    .bytes = image->bytes + (start - CODE),
						    .bytes_size = size,
						    .perms = perms,
						    .path = "/bin/program",
						    .offset = start - CODE,
						    .inode = 5,
					    }));
}

static void image_open(struct image *image)
{
	assert_null(fake_target_create(image->arch, &image->target));
	add_segment(image, CODE, 0x1000, PERM_READ | PERM_EXEC);
	add_segment(image, DATA, 0x2000, PERM_READ);
	add_segment(image, ZEROED, 0x1000, PERM_READ | PERM_WRITE);
	assert_null(fake_target_add_segment(image->target, &(struct fake_segment){
								   .start = HEAP,
								   .size = 0x1000,
								   .perms = PERM_READ | PERM_WRITE,
							   }));
	assert_null(object_types_create(image->target, &image->types));
}

static void image_deinit(struct image *image)
{
	object_types_destroy(image->types);
	target_destroy(image->target);
}

/* The type of a block whose first words are these. */
static const char *type_of(struct image *image, uint64_t first, uint64_t second, uint64_t size)
{
	const struct object_type *type;
	uint8_t words[16];

	memcpy(words, &first, image->word);
	memcpy(words + image->word, &second, image->word);
	assert_null(fake_target_write(image->target, HEAP, words, 2 * image->word));
	assert_null(object_types_of_block(image->types, HEAP, size, words, 2 * image->word, &type));
	if (!type)
		return NULL;
	assert_ptr_equal(type, object_types_get(image->types, type->index));
	return type->name;
}

static const struct arch *const archs[] = { &arch_x86_64, &arch_i386 };

static void names(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct image image;
		uint64_t simple, single, multiple, plain, local, nested, second, other;

		image_init(&image, archs[i]);
		simple = add_class_table(&image, "N10__cxxabiv117__class_type_infoE");
		single = add_class_table(&image, "N10__cxxabiv120__si_class_type_infoE");
		multiple = add_class_table(&image, "N10__cxxabiv121__vmi_class_type_infoE");
		plain = add_table(&image, 0, add_info(&image, simple, "11CommItopReq"));
		local = add_table(&image, 0, add_info(&image, single, "*N12_GLOBAL__N_15LocalE"));
		nested = add_info(&image, multiple, "N3net5CacheIiEE");
		second = add_table(&image, -16, nested);
		nested = add_table(&image, 0, nested);
		other = add_table(&image, 0, add_info(&image, simple, "11CommItopReq"));
		image_open(&image);
		assert_string_equal(type_of(&image, plain, 0, 88), "CommItopReq");
		assert_string_equal(type_of(&image, local, 0, 88), "(anonymous namespace)::Local");
		assert_string_equal(type_of(&image, nested, 0, 88), "net::Cache<int>");
		assert_string_equal(type_of(&image, second, 0, 88),
				    "net::Cache<int> (its base at +16)");
		/* Two modules may have a table each: the type is one. */
		assert_ptr_equal(type_of(&image, plain, 0, 88), type_of(&image, other, 0, 88));
		/* Also asked again, out of what is remembered. */
		assert_string_equal(type_of(&image, plain, 0, 88), "CommItopReq");
		assert_null(type_of(&image, plain + image.word, 0, 88));
		assert_null(type_of(&image, plain - image.word, 0, 88));
		assert_null(type_of(&image, plain + 1, 0, 88));
		assert_null(type_of(&image, 0, 0, 88));
		assert_null(type_of(&image, HEAP, 0, 88));
		assert_null(type_of(&image, CODE, DATA, 88));
		image_deinit(&image);
	}
}

static void arrays(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct image image;
		uint64_t table, stride;

		image_init(&image, archs[i]);
		table = add_class_table(&image, "N10__cxxabiv117__class_type_infoE");
		table = add_table(&image, 0, add_info(&image, table, "4Item"));
		image_open(&image);
		stride = 5 * image.word;
		assert_null(fake_target_write(image.target, HEAP + image.word + stride, &table,
					      image.word));
		/* With what the allocator adds. */
		for (uint64_t more = 0; more < 16; more += image.word)
			assert_string_equal(
				type_of(&image, 10, table, image.word + 10 * stride + more),
				"Item[]");
		assert_null(type_of(&image, 1, table, image.word + stride));
		assert_null(type_of(&image, 10, table, image.word + 20 * stride));
		assert_null(type_of(&image, 1000000, table, image.word + 10 * stride));
		assert_null(type_of(&image, (uint64_t)-1, table, image.word + 10 * stride));
		assert_null(type_of(&image, 0, table, image.word + 10 * stride));
		image_deinit(&image);
	}
}

static void lies(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct image image;
		uint64_t good, wrong_class, tops[3], far, text, names[5], no_info, self;
		char name[0x1100];

		image_init(&image, archs[i]);
		good = add_class_table(&image, "N10__cxxabiv117__class_type_infoE");
		wrong_class = add_class_table(&image, "N10__cxxabiv119__pointer_type_infoE");
		wrong_class = add_table(&image, 0, add_info(&image, wrong_class, "3Foo"));
		text = add_info(&image, good, "3Foo");
		tops[0] = add_table(&image, 16, text);
		tops[1] = add_table(&image, -3, text);
		tops[2] = add_table(&image, -(1ull << 30), text);
		far = add_table(&image, 0, 0x10);
		no_info = add_table(&image, 0, 0);
		names[0] = add_table(&image, 0, add_info(&image, good, ""));
		names[1] = add_table(&image, 0, add_info(&image, good, "*"));
		names[2] = add_table(&image, 0, add_info(&image, good, "no name"));
		names[3] = add_table(&image, 0, add_info(&image, good, "9Foo"));
		/* It has no end. */
		memset(name, 'a', sizeof(name) - 1);
		name[sizeof(name) - 1] = '\0';
		names[4] = add_table(&image, 0, add_info(&image, good, name));
		/* A type_info that is its own class's table. */
		self = image.end;
		add_word(&image, 0);
		add_word(&image, self);
		add_word(&image, self + 2 * image.word);
		add_word(&image, self);
		image_open(&image);
		assert_null(type_of(&image, wrong_class, 0, 88));
		for (unsigned j = 0; j < 3; j++)
			assert_null(type_of(&image, tops[j], 0, 88));
		for (unsigned j = 0; j < 5; j++)
			assert_null(type_of(&image, names[j], 0, 88));
		assert_null(type_of(&image, far, 0, 88));
		assert_null(type_of(&image, no_info, 0, 88));
		assert_null(type_of(&image, self + 2 * image.word, 0, 88));
		image_deinit(&image);
	}
}

static uint64_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return *seed >> 33;
}

/* True tables with words overwritten at random: any answer, but one. */
static void garbage(void **state)
{
	uint64_t seed = 7;

	for (unsigned round = 0; round < 200; round++) {
		struct image image;
		uint64_t table;

		image_init(&image, archs[round % 2]);
		table = add_class_table(&image, "N10__cxxabiv117__class_type_infoE");
		for (unsigned i = 0; i < 20; i++)
			add_table(&image, 0, add_info(&image, table, "N1a1bISt6vectorIiSaIiEEEE"));
		for (unsigned i = 0; i < 60; i++) {
			uint64_t at = next_random(&seed) % (image.end - DATA) / image.word;
			uint64_t value = next_random(&seed) % 3
						 ? DATA + next_random(&seed) % (image.end - DATA)
						 : next_random(&seed) << (next_random(&seed) % 40);

			put(&image, DATA + at * image.word, &value, image.word);
		}
		image_open(&image);
		for (uint64_t at = CODE - 64; at < CODE + sizeof(image.bytes) + 64; at += 4) {
			const struct object_type *type;
			uint64_t top;

			assert_null(object_types_at(image.types, at, &type, &top));
			type_of(&image, next_random(&seed) % 20, at, 8 + next_random(&seed) % 2000);
		}
		type_of(&image, table, table, 0);
		image_deinit(&image);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(arrays),
		cmocka_unit_test(lies),
		cmocka_unit_test(garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
