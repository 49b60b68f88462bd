/* The unwind table of whole targets: modules that come and go, copies of it, broken ELF files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <elf.h>
#include <pthread.h>
#include <unistd.h>

#include "agent/unwind_walk.h"
#include "memprobe/elf_file.h"
#include "fake.h"
#include "memprobe/unwind_table.h"

/* Of glibc itself, and not loaded by anything here. */
#define LIBRARY "libnss_compat.so.2"
#define SYMBOL	"_nss_compat_getpwnam_r"

static void assert_ok(struct error *error)
{
	if (error)
		fail_msg("%s", error->message);
}

static uint32_t look_up(const void *image, uint64_t address)
{
	struct unwind_view view = unwind_view(image);

	return unwind_lookup(&view, address);
}

/* ---- modules that come and go ---- */

static void *region;
static size_t copied;

/* Sees this process as it is now. */
static void update(struct unwind_table *table, bool expected)
{
	struct target *target;
	bool changed, removed;

	assert_ok(target_open_live(getpid(), &target));
	assert_ok(unwind_table_update(table, target, &changed, &removed));
	assert_int_equal(changed, expected);
	assert_int_equal(removed, expected);
	assert_ok(unwind_table_publish(table, region, 64 << 20, &copied));
	target_destroy(target);
}

static struct unwind_table *own_table(void)
{
	struct unwind_table *table;
	struct target *target;

	assert_ok(target_open_live(getpid(), &target));
	assert_ok(unwind_table_create(target, &table));
	target_destroy(target);
	copied = 0;
	free(region);
	region = calloc(64, 1 << 20);
	assert_non_null(region);
	assert_ok(unwind_table_publish(table, region, 64 << 20, &copied));
	return table;
}

static void *load(uint64_t *address)
{
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (!library) {
		print_message("%s\n", dlerror());
		skip();
	}
	*address = (uint64_t)dlsym(library, SYMBOL);
	assert_int_not_equal(*address, 0);
	return library;
}

static void test_update(void **state)
{
	struct unwind_table *table = own_table();
	struct unwind_table_stats before, stats;
	uint64_t address, own = (uint64_t)test_update;
	uint32_t rule = look_up(region, own);
	void *library;

	unwind_table_stats(table, &before);
	assert_true(before.modules >= 3);
	assert_true(before.entries > 1000);
	assert_int_equal(before.left_out, 0);
	assert_int_not_equal(rule, UNWIND_RULE_NO_CFI);
	update(table, false);
	library = load(&address);
	assert_int_equal(look_up(region, address), UNWIND_RULE_NO_CFI);
	update(table, true);
	assert_int_equal(look_up(region, address), UNWIND_RULE(UNWIND_SP, 1, 0, 0));
	assert_int_equal(look_up(region, own), rule);
	unwind_table_stats(table, &stats);
	assert_true(stats.modules > before.modules);
	update(table, false);
	dlclose(library);
	update(table, true);
	assert_int_equal(look_up(region, address), UNWIND_RULE_NO_CFI);
	assert_int_equal(look_up(region, own), rule);
	unwind_table_stats(table, &stats);
	assert_int_equal(stats.modules, before.modules);
	unwind_table_destroy(table);
}

/* What was compiled once is not compiled again when it comes back, wherever that is. */
static void test_again(void **state)
{
	struct unwind_table *table = own_table();
	uint64_t address;
	size_t once = 0, size;

	for (unsigned i = 0; i < 5; i++) {
		void *library = load(&address);

		update(table, true);
		assert_int_equal(look_up(region, address), UNWIND_RULE(UNWIND_SP, 1, 0, 0));
		dlclose(library);
		update(table, true);
		unwind_table_image(table, &size);
		if (i)
			assert_true(size - once < 8192); /* lists of modules only */
		once = size;
	}
	unwind_table_destroy(table);
}

static void test_publish(void **state)
{
	struct unwind_table *table = own_table();
	struct unwind_header *small = calloc(1, 4096);
	size_t done = 0, size;
	struct error *error;

	assert_non_null(small);
	unwind_table_image(table, &size);
	error = unwind_table_publish(table, small, 4096, &done);
	assert_true(error_is(error, ERROR_FAILED));
	error_destroy(error);
	assert_int_equal(done, 0);
	assert_int_equal(small->magic, 0);
	assert_int_equal(copied, size);
	assert_memory_equal(region, unwind_table_image(table, NULL), size);
	free(small);
	unwind_table_destroy(table);
}

static bool stop_reading;
static uint64_t library_address;

static void *read_all_the_time(void *data)
{
	uint64_t own = (uint64_t)test_update, wrong = 0;
	uint32_t rule = look_up(region, own);

	while (!__atomic_load_n(&stop_reading, __ATOMIC_RELAXED)) {
		uint64_t address = __atomic_load_n(&library_address, __ATOMIC_SEQ_CST);
		uint32_t there = look_up(region, address);

		wrong += look_up(region, own) != rule;
		/* Elsewhere by now, it may have other code where this was. */
		wrong += address == __atomic_load_n(&library_address, __ATOMIC_SEQ_CST) &&
			 there != UNWIND_RULE_NO_CFI && there != UNWIND_RULE(UNWIND_SP, 1, 0, 0);
	}
	return (void *)wrong;
}

static void test_readers(void **state)
{
	struct unwind_table *table = own_table();
	pthread_t reader;
	void *wrong;

	dlclose(load(&library_address));
	stop_reading = false;
	assert_int_equal(pthread_create(&reader, NULL, read_all_the_time, NULL), 0);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t address;
		void *library = load(&address);

		__atomic_store_n(&library_address, address, __ATOMIC_SEQ_CST);
		update(table, true);
		dlclose(library);
		update(table, true);
	}
	__atomic_store_n(&stop_reading, true, __ATOMIC_RELAXED);
	pthread_join(reader, &wrong);
	assert_null(wrong);
	unwind_table_destroy(table);
}

/* ---- other targets ---- */

static void test_other_architecture(void **state)
{
	struct unwind_table *table;
	struct target *target;
	struct error *error;

	assert_ok(fake_target_create(&arch_i386, &target));
	error = unwind_table_create(target, &table);
	assert_true(error_is(error, ERROR_UNSUPPORTED));
	error_destroy(error);
	target_destroy(target);
}

static void test_no_modules(void **state)
{
	struct unwind_table_stats stats;
	struct unwind_table *table;
	struct target *target;

	assert_ok(fake_target_create(&arch_x86_64, &target));
	assert_ok(unwind_table_create(target, &table));
	unwind_table_stats(table, &stats);
	assert_int_equal(stats.modules, 0);
	assert_int_equal(look_up(unwind_table_image(table, NULL), 0x10000), UNWIND_RULE_NO_CFI);
	unwind_table_destroy(table);
	target_destroy(target);
}

/* The vdso is a small whole ELF file. */
static size_t sample(unsigned char bytes[65536])
{
	const struct module_vec *modules;
	struct target *target;
	size_t size = 0;

	assert_ok(target_open_live(getpid(), &target));
	assert_ok(target_modules(target, &modules));
	for (size_t i = 0; i < modules->size; i++) {
		struct module *module = &modules->data[i];

		if (!module->is_vdso)
			continue;
		assert_ok(module_load(target, module));
		size = module->image_size;
		assert_true(size <= 65536);
		memcpy(bytes, module->image, size);
	}
	target_destroy(target);
	assert_true(size > 0);
	return size;
}

static void build(const unsigned char *bytes, size_t size, bool by_file,
		  struct unwind_table_stats *stats)
{
	struct unwind_table *table;
	struct target *target;
	struct error *error;

	assert_ok(fake_target_create(&arch_x86_64, &target));
	assert_ok(fake_target_add_segment(target, &(struct fake_segment){
							  .start = 0x10000,
							  .size = 0x10000,
							  .bytes = bytes,
							  .bytes_size = size,
							  .perms = PERM_READ | PERM_EXEC,
							  .path = "/lib/libc.so",
							  .inode = 7,
						  }));
	if (by_file)
		assert_ok(fake_target_add_file(target, "/lib/libc.so", bytes, size));
	error = unwind_table_create(target, &table);
	if (!error)
		unwind_table_stats(table, stats);
	if (!error)
		unwind_table_destroy(table);
	error_destroy(error);
	target_destroy(target);
}

/* .eh_frame is found by section, and by .eh_frame_hdr; in the file, and in memory. */
static void test_ways(void **state)
{
	unsigned char bytes[65536];
	struct unwind_table_stats first = { 0 };
	size_t size = sample(bytes);

	build(bytes, size, true, &first);
	assert_true(first.entries > 3);
	assert_int_equal(first.bad_entries, 0);
	assert_true(first.rows > 10);
	for (unsigned way = 1; way < 4; way++) {
		struct unwind_table_stats stats = { 0 };

		if (way == 2)
			memset(bytes + offsetof(Elf64_Ehdr, e_shoff), 0, 8);
		build(bytes, size, way % 2 == 0, &stats);
		assert_int_equal(stats.entries, first.entries);
		assert_int_equal(stats.rows, first.rows);
	}
}

static void test_broken(void **state)
{
	static const unsigned char values[] = { 0, 0x7f, 0xff };
	struct unwind_table_stats stats;
	unsigned char bytes[65536];
	size_t size = sample(bytes);

	for (size_t cut = 0; cut < size; cut += cut < 1024 ? 16 : 256)
		build(bytes, cut, cut % 32, &stats);
	for (size_t i = SELFMAG; i < 1024; i++) {
		unsigned char byte = bytes[i];

		for (size_t j = 0; j < sizeof(values); j++) {
			bytes[i] = values[j];
			build(bytes, size, i % 2, &stats);
		}
		bytes[i] = byte;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_update),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_publish),
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_other_architecture),
		cmocka_unit_test(test_no_modules),
		cmocka_unit_test(test_ways),
		cmocka_unit_test(test_broken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
