/* Memory in order around its holes, and as a hex dump. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake.h"
#include "memprobe/hexdump.h"
#include "memprobe/memory_walk.h"

#define PAGE 0x1000u
#define RW   (PERM_READ | PERM_WRITE)

/* What was visited, as text: `b START SIZE`, `z ...`, `m ...`; neighbours of a kind are one. */
struct visited {
	char text[512], kind;
	uint64_t start, end;
};

static void finish(struct visited *visited)
{
	size_t length = strlen(visited->text);

	if (visited->kind)
		snprintf(visited->text + length, sizeof(visited->text) - length, "%c %llx %llx\n",
			 visited->kind, (unsigned long long)visited->start,
			 (unsigned long long)(visited->end - visited->start));
	visited->kind = '\0';
}

static struct error *note(struct visited *visited, char kind, uint64_t address, uint64_t size)
{
	if (visited->end)
		assert_int_equal(visited->end, address);
	if (visited->kind != kind) {
		finish(visited);
		visited->kind = kind;
		visited->start = address;
	}
	visited->end = address + size;
	return NULL;
}

static struct error *on_bytes(void *data, uint64_t address, const void *bytes, size_t size)
{
	/* The fixture's memory holds the low byte of its page's number. */
	for (size_t i = 0; i < size; i++)
		assert_int_equal(((const unsigned char *)bytes)[i],
				 (unsigned char)((address + i) / PAGE));
	return note(data, 'b', address, size);
}

static struct error *on_zeros(void *data, uint64_t address, uint64_t size)
{
	return note(data, 'z', address, size);
}

static struct error *on_missing(void *data, uint64_t address, uint64_t size)
{
	return note(data, 'm', address, size);
}

static void add(struct target *target, uint64_t start, unsigned pages, unsigned present,
		unsigned perms, const char *path, uint64_t inode)
{
	unsigned char *bytes = malloc(pages * PAGE);
	struct fake_segment segment = {
		.start = start,
		.size = pages * PAGE,
		.bytes = bytes,
		.bytes_size = present * PAGE,
		.perms = perms,
		.path = path,
		.inode = inode,
	};

	for (size_t i = 0; i < pages * PAGE; i++)
		bytes[i] = (unsigned char)((start + i) / PAGE);
	assert_null(fake_target_add_segment(target, &segment));
	free(bytes);
}

static struct target *make_target(void)
{
	struct target *target;

	assert_null(fake_target_create(&arch_x86_64, &target));
	add(target, 0x10000, 4, 2, RW, "", 0);
	add(target, 0x14000, 1, 1, PERM_READ, "/file", 3);
	add(target, 0x18000, 2, 2, 0, "/file", 3); /* not readable */
	add(target, 0x1a000, 600, 600, RW, "[heap]", 0);
	return target;
}

static void assert_walk(uint64_t start, uint64_t end, const char *expected)
{
	struct target *target = make_target();
	struct mapping_vec maps = { 0 };
	struct visited visited = { 0 };
	struct memory_visitor visitor = { on_bytes, on_zeros, on_missing, &visited };

	assert_null(target_read_maps(target, MAPS_PLAIN, &maps));
	assert_null(memory_walk(target, &maps, start, end, &visitor));
	assert_int_equal(visited.end, end);
	finish(&visited);
	assert_string_equal(visited.text, expected);
	mappings_deinit(&maps);
	target_destroy(target);
}

static void untouched_pages_are_zeros(void **state)
{
	assert_walk(0x10000, 0x14000, "b 10000 2000\nz 12000 2000\n");
	assert_walk(0x11ffe, 0x12003, "b 11ffe 2\nz 12000 3\n");
	assert_walk(0x12345, 0x12346, "z 12345 1\n");
}

static void gaps_and_the_unreadable_are_missing(void **state)
{
	assert_walk(0xf000, 0x10001, "m f000 1000\nb 10000 1\n");
	assert_walk(0x14000, 0x1a010, "b 14000 1000\nm 15000 5000\nb 1a000 10\n");
	assert_walk(0x272000, 0x300000, "m 272000 8e000\n");
	assert_walk(UINT64_MAX - 1, UINT64_MAX, "m fffffffffffffffe 1\n");
}

static void large_mappings_come_in_order(void **state)
{
	assert_walk(0x1a123, 0x272000, "b 1a123 257edd\n");
}

static void mapped_or_not(void **state)
{
	struct target *target = make_target();
	struct mapping_vec maps = { 0 };

	assert_null(target_read_maps(target, MAPS_PLAIN, &maps));
	assert_true(memory_is_mapped(&maps, 0, UINT64_MAX));
	assert_true(memory_is_mapped(&maps, 0x14fff, 0x15000));
	assert_false(memory_is_mapped(&maps, 0x15000, 0x18000));
	assert_false(memory_is_mapped(&maps, 0, 0x10000));
	assert_false(memory_is_mapped(&maps, 0x272000, UINT64_MAX));
	mappings_deinit(&maps);
	target_destroy(target);
}

/* ---- hex dumps ---- */

static void assert_hex(void (*feed)(struct hexdump *hex), unsigned bits, const char *expected)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	struct hexdump hex = { .out = out, .bits = bits };

	feed(&hex);
	hexdump_end(&hex);
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
}

static void feed_text(struct hexdump *hex)
{
	hexdump_bytes(hex, 0x1000, "Hello, wor", 10);
	hexdump_bytes(hex, 0x100a, "ld\n\x7f\xff\x01tail", 10);
}

static void feed_odd(struct hexdump *hex)
{
	hexdump_bytes(hex, 0x100e, "abcd", 4);
}

static void feed_repeats(struct hexdump *hex)
{
	static const unsigned char zeros[64];

	hexdump_bytes(hex, 0x2000, zeros, 64);
	hexdump_bytes(hex, 0x2040, "x", 1);
}

static void feed_holes(struct hexdump *hex)
{
	hexdump_zeros(hex, 0x1008, 1 << 20);
	hexdump_missing(hex, 0x101008, 0x2000);
	hexdump_bytes(hex, 0x103008, "y", 1);
}

static void bytes_stand_at_their_addresses(void **state)
{
	assert_hex(
		feed_text, 32,
		"00001000  48 65 6c 6c 6f 2c 20 77  6f 72 6c 64 0a 7f ff 01  |Hello, world....|\n"
		"00001010  74 61 69 6c                                       |tail            |\n"
		"00001014\n");
	assert_hex(
		feed_odd, 64,
		"0000000000001000                                             61 62  |              ab|\n"
		"0000000000001010  63 64                                             |cd              |\n"
		"0000000000001012\n");
}

static void repeats_and_gaps_are_short(void **state)
{
	assert_hex(
		feed_repeats, 32,
		"00002000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n"
		"*\n"
		"00002040  78                                                |x               |\n"
		"00002041\n");
	assert_hex(
		feed_holes, 32,
		"00001000                           00 00 00 00 00 00 00 00  |        ........|\n"
		"00001010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n"
		"*\n"
		"00101000  00 00 00 00 00 00 00 00                           |........        |\n"
		"00101008  (8.0K not mapped or not readable)\n"
		"00103000                           79                       |        y       |\n"
		"00103009\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(untouched_pages_are_zeros),
		cmocka_unit_test(gaps_and_the_unreadable_are_missing),
		cmocka_unit_test(large_mappings_come_in_order),
		cmocka_unit_test(mapped_or_not),
		cmocka_unit_test(bytes_stand_at_their_addresses),
		cmocka_unit_test(repeats_and_gaps_are_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
