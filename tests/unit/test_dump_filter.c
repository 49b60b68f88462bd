/* What a core takes of each kind of mapping, against the table of core(5). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "memprobe/dump_filter.h"
#include "fake.h"

#define START 0x10000ull
#define SIZE  (8 * PAGE_SIZE)

static struct target *target;

static int setup(void **state)
{
	struct fake_segment segment = {
		.start = START,
		.size = SIZE,
		.bytes = "\177ELF",
		.bytes_size = 4,
		.perms = PERM_READ,
		.path = "/lib/x",
		.inode = 1,
	};

	return fake_target_create(&arch_x86_64, &target) ||
	       fake_target_add_segment(target, &segment);
}

static int teardown(void **state)
{
	target_destroy(target);
	return 0;
}

static struct mapping anonymous(unsigned perms)
{
	return (struct mapping){ .start = START,
				 .end = START + SIZE,
				 .perms = perms,
				 .usage_known = true,
				 .path = (char *)"" };
}

static struct mapping file(unsigned perms)
{
	struct mapping mapping = anonymous(perms);

	mapping.inode = 1;
	mapping.path = (char *)"/lib/x";
	return mapping;
}

static uint64_t size_of(struct mapping mapping, unsigned filter)
{
	return dump_filter_size(target, &mapping, filter);
}

/* Exactly the filters that have @bit take all of it. */
static void taken_by(struct mapping mapping, unsigned bit)
{
	for (unsigned filter = 0; filter < 128; filter++) {
		uint64_t size = size_of(mapping, filter & ~DUMP_ELF_HEADERS);

		assert_int_equal(size, filter & ~DUMP_ELF_HEADERS & bit ? SIZE : 0);
	}
}

static void private_memory(void **state)
{
	struct mapping reserved = anonymous(0), swapped = anonymous(0);

	taken_by(anonymous(PERM_READ | PERM_WRITE), DUMP_ANON_PRIVATE);
	/* Reserved without access: only what was touched before. */
	taken_by(reserved, 0);
	swapped.usage.swap = PAGE_SIZE;
	taken_by(swapped, DUMP_ANON_PRIVATE);
}

static void shared_memory(void **state)
{
	struct mapping memfd = file(PERM_READ | PERM_WRITE | PERM_SHARED);

	taken_by(memfd, DUMP_FILE_SHARED);
	memfd.deleted = true;
	taken_by(memfd, DUMP_ANON_SHARED);
}

static void files(void **state)
{
	struct mapping data = file(PERM_READ | PERM_WRITE);

	data.offset = PAGE_SIZE;
	taken_by(data, DUMP_FILE_PRIVATE);
	data.usage.anonymous = PAGE_SIZE;
	taken_by(data, DUMP_FILE_PRIVATE | DUMP_ANON_PRIVATE);
	/* Nothing known of its pages: written to, for all we know. */
	data.usage = (struct mapping_usage){ 0 };
	data.usage_known = false;
	taken_by(data, DUMP_FILE_PRIVATE | DUMP_ANON_PRIVATE);
}

static void headers(void **state)
{
	struct mapping text = file(PERM_READ | PERM_EXEC), other = text;

	assert_int_equal(size_of(text, DUMP_ELF_HEADERS), PAGE_SIZE);
	assert_int_equal(size_of(text, DUMP_DEFAULT), PAGE_SIZE);
	text.offset = PAGE_SIZE;
	assert_int_equal(size_of(text, DUMP_DEFAULT), 0);
	other.perms = PERM_EXEC;
	assert_int_equal(size_of(other, DUMP_DEFAULT), 0);
	other.perms = PERM_READ;
	assert_null(fake_target_write(target, START, "text", 4));
	assert_int_equal(size_of(other, DUMP_DEFAULT), 0);
}

static void huge_pages(void **state)
{
	struct mapping mapping = file(PERM_READ | PERM_WRITE);

	mapping.is_huge = true;
	taken_by(mapping, DUMP_HUGE_PRIVATE);
	mapping.perms |= PERM_SHARED;
	taken_by(mapping, DUMP_HUGE_SHARED);
}

static void special_and_excluded(void **state)
{
	struct mapping mapping = anonymous(PERM_READ | PERM_WRITE);

	mapping.no_dump = true;
	taken_by(mapping, 0);
	assert_int_equal(size_of(mapping, DUMP_ALL), SIZE);
	mapping = anonymous(PERM_READ | PERM_EXEC);
	mapping.path = (char *)"[vdso]";
	assert_int_equal(size_of(mapping, 0), SIZE);
	mapping.path = (char *)"[vvar]";
	assert_int_equal(size_of(mapping, DUMP_ALL), 0);
	mapping.path = (char *)"[vvar_vclock]";
	assert_int_equal(size_of(mapping, DUMP_ALL), 0);
	assert_int_equal(size_of(file(PERM_READ | PERM_EXEC), DUMP_ALL), SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(private_memory),
		cmocka_unit_test(shared_memory),
		cmocka_unit_test(files),
		cmocka_unit_test(huge_pages),
		cmocka_unit_test(special_and_excluded),
		cmocka_unit_test(headers),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
