/* The text of maps and smaps: every form the kernel writes, and garbage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#include "memprobe/maps.h"

static const char smaps[] =
	"55d0c0a00000-55d0c0a28000 r--p 00001000 fe:01 1234567                    /usr/bin/a b\\012c\n"
	"Size:                160 kB\n"
	"KernelPageSize:        4 kB\n"
	"MMUPageSize:           4 kB\n"
	"Rss:                 156 kB\n"
	"Pss:                  78 kB\n"
	"Pss_Dirty:             3 kB\n"
	"Shared_Clean:         11 kB\n"
	"Shared_Dirty:          2 kB\n"
	"Private_Clean:        12 kB\n"
	"Private_Dirty:        13 kB\n"
	"Referenced:          156 kB\n"
	"Anonymous:            14 kB\n"
	"KSM:                   0 kB\n"
	"LazyFree:              0 kB\n"
	"AnonHugePages:      2048 kB\n"
	"ShmemPmdMapped:     4096 kB\n"
	"FilePmdMapped:         0 kB\n"
	"Shared_Hugetlb:        0 kB\n"
	"Private_Hugetlb:       8 kB\n"
	"Swap:                 15 kB\n"
	"SwapPss:              99 kB\n"
	"Locked:                0 kB\n"
	"THPeligible:           0\n"
	"ProtectionKey:         0\n"
	"VmFlags: rd mr mw me dc sd \n"
	"55d0c0b00000-55d0c0b01000 rw-s 00000000 00:01 5                          /dev/zero (deleted)\n"
	"Size:                  4 kB\n"
	"Rss:           123456789012 kB\n"
	"VmFlags: rd wr sh mr mw me ms sd dd \n";

static void assert_ok(struct error *error)
{
	if (error)
		fail_msg("%s", error->message);
}

static void assert_failed(struct error *error)
{
	assert_true(error_is(error, ERROR_FAILED));
	error_destroy(error);
}

static void test_smaps(void **state)
{
	struct mapping_vec maps = { 0 };
	const struct mapping *mapping;

	assert_ok(maps_parse(smaps, strlen(smaps), &maps));
	assert_int_equal(maps.size, 2);
	mapping = &maps.data[0];
	assert_int_equal(mapping->start, 0x55d0c0a00000);
	assert_int_equal(mapping->end, 0x55d0c0a28000);
	assert_int_equal(mapping->offset, 0x1000);
	assert_int_equal(mapping->inode, 1234567);
	assert_int_equal(mapping->device, makedev(0xfe, 1));
	assert_int_equal(mapping->perms, PERM_READ);
	assert_string_equal(mapping->path, "/usr/bin/a b\nc");
	assert_true(mapping->usage_known);
	assert_true(mapping->no_fork);
	assert_false(mapping->deleted);
	assert_int_equal(mapping->usage.rss, 156 << 10);
	assert_int_equal(mapping->usage.pss, 78 << 10);
	assert_int_equal(mapping->usage.shared_clean, 11 << 10);
	assert_int_equal(mapping->usage.shared_dirty, 2 << 10);
	assert_int_equal(mapping->usage.private_clean, 12 << 10);
	assert_int_equal(mapping->usage.private_dirty, 13 << 10);
	assert_int_equal(mapping->usage.anonymous, 14 << 10);
	assert_int_equal(mapping->usage.swap, 15 << 10);
	assert_int_equal(mapping->usage.huge, (2048 + 4096 + 8) << 10);
	mapping = &maps.data[1];
	assert_int_equal(mapping->perms, PERM_READ | PERM_WRITE | PERM_SHARED);
	assert_string_equal(mapping->path, "/dev/zero");
	assert_true(mapping->deleted);
	assert_false(mapping->no_fork);
	assert_int_equal(mapping->usage.rss, UINT64_C(123456789012) << 10);
	mappings_deinit(&maps);
}

static void test_forms(void **state)
{
	static const struct {
		const char *line, *path;
		unsigned perms;
		bool deleted;
	} rows[] = {
		{ "1000-2000 ---p 00000000 00:00 0 ", "", 0, false },
		{ "1000-2000 ---p 00000000 00:00 0", "", 0, false },
		{ "1000-2000 rwxp 00000000 00:00 0   [heap]", "[heap]", 7, false },
		{ "1000-2000 rw-p 00000000 00:00 0   [anon:glibc: malloc arena]",
		  "[anon:glibc: malloc arena]", 3, false },
		{ "1000-2000 rw-s 00000000 00:01 7   /memfd:a b (deleted)", "/memfd:a b", 11,
		  true },
		{ "1000-2000 rw-s 00000000 00:01 7   /SYSV00000000 (deleted)", "/SYSV00000000", 11,
		  true },
		{ "1000-2000 rw-s 00000000 00:01 7   anon_inode:[io_uring]",
		  "anon_inode:[io_uring]", 11, false },
		{ "1000-2000 r--p 00000000 fe:00 7   /tmp/x (deleted) (deleted)",
		  "/tmp/x (deleted)", 1, true },
		{ "1000-2000 r--p 00000000 fe:00 7   /tmp/\303\244\\134 \\01",
		  "/tmp/\303\244\\134 \\01", 1, false },
		{ "1000-2000 r--p 00000000 fe:00 7   /tmp/two  blanks ", "/tmp/two  blanks ", 1,
		  false },
		{ "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]",
		  "[vsyscall]", 4, false },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct mapping_vec maps = { 0 };

		assert_ok(maps_parse(rows[i].line, strlen(rows[i].line), &maps));
		assert_int_equal(maps.size, 1);
		assert_string_equal(maps.data[0].path, rows[i].path);
		assert_int_equal(maps.data[0].perms, rows[i].perms);
		assert_int_equal(maps.data[0].deleted, rows[i].deleted);
		assert_false(maps.data[0].usage_known);
		mappings_deinit(&maps);
	}
}

static void test_refused(void **state)
{
	static const char *const lines[] = {
		"\n",
		"x\n",
		"Rss:                   4 kB\n",
		"Rss:                   0 kB\n",
		"2000-1000 rw-p 00000000 00:00 0 \n",
		"1000-1000 rw-p 00000000 00:00 0 \n",
		"1000-2000 rw-q 00000000 00:00 0 \n",
		"1000-2000 wr-p 00000000 00:00 0 \n",
		"1000-2000 rw-p 00000000 00:00 \n",
		"1000-2000 rw-p 00000000 00:00 18446744073709551616\n",
		"1000-2000 rw-p 00000000 00:00 0x\n",
		"10000000000001000-2000 rw-p 00000000 00:00 0 \n",
		"1000-2000 rw-p 00000000 1ffffffff:00 0 \n",
		"1000-2000 rw-p 00000000 00:00 0 \nRss: 4 MB\n",
		"1000-2000 rw-p 00000000 00:00 0 \nRss: -4 kB\n",
		"1000-2000 rw-p 00000000 00:00 0 \nNoColon\n",
		"1000-2000 rw-p 00000000 00:00 0 \nRss: 99999999999999999999 kB\n",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct mapping_vec maps = { 0 };

		assert_failed(maps_parse(lines[i], strlen(lines[i]), &maps));
		mappings_deinit(&maps);
	}
}

/* Neither cut short nor with any byte changed does it crash, overlap or fail to end. */
static void test_garbage(void **state)
{
	static const unsigned char values[] = { 0, '\n', ' ', '-', '9', 'f', 'A', ':', '\\', 0xff };
	const size_t size = strlen(smaps);

	for (size_t cut = 0; cut < size; cut++) {
		/* Exactly sized, so that a read beyond the end shows under a sanitizer. */
		char *text = malloc(cut ? cut : 1);
		struct mapping_vec maps = { 0 };

		memcpy(text, smaps, cut);
		error_destroy(maps_parse(text, cut, &maps));
		mappings_deinit(&maps);
		free(text);
	}
	for (size_t at = 0; at < size; at++) {
		for (size_t i = 0; i < sizeof(values); i++) {
			char *text = malloc(size);
			struct mapping_vec maps = { 0 };

			memcpy(text, smaps, size);
			text[at] = (char)values[i];
			error_destroy(maps_parse(text, size, &maps));
			for (size_t m = 0; m < maps.size; m++) {
				assert_true(maps.data[m].start < maps.data[m].end);
				assert_true(!m || maps.data[m - 1].end <= maps.data[m].start);
			}
			mappings_deinit(&maps);
			free(text);
		}
	}
}

/* The process changed between two reads: what is shown again is cut off. */
static void test_overlap(void **state)
{
	static const char text[] = "1000-3000 rw-p 00000000 fe:00 7 /a\n"
				   "2000-5000 rw-p 00001000 fe:00 7 /a\n"
				   "4000-5000 rw-p 00000000 00:00 0 \n"
				   "4000-6000 rw-p 00000000 00:00 0 \n";
	struct mapping_vec maps = { 0 };

	assert_ok(maps_parse(text, strlen(text), &maps));
	assert_int_equal(maps.size, 3);
	assert_int_equal(maps.data[1].start, 0x3000);
	assert_int_equal(maps.data[1].offset, 0x2000);
	assert_int_equal(maps.data[1].end, 0x5000);
	assert_int_equal(maps.data[2].start, 0x5000);
	assert_int_equal(maps.data[2].end, 0x6000);
	mappings_deinit(&maps);
}

static void test_find(void **state)
{
	static const char text[] = "1000-2000 rw-p 00000000 00:00 0\n"
				   "2000-3000 rw-p 00000000 00:00 0\n"
				   "5000-6000 rw-p 00000000 00:00 0\n";
	struct mapping_vec maps = { 0 };

	assert_ok(maps_parse(text, strlen(text), &maps));
	assert_null(mappings_find(&maps, 0xfff));
	assert_ptr_equal(mappings_find(&maps, 0x1000), &maps.data[0]);
	assert_ptr_equal(mappings_find(&maps, 0x1fff), &maps.data[0]);
	assert_ptr_equal(mappings_find(&maps, 0x2000), &maps.data[1]);
	assert_null(mappings_find(&maps, 0x3000));
	assert_ptr_equal(mappings_find(&maps, 0x5fff), &maps.data[2]);
	assert_null(mappings_find(&maps, UINT64_MAX));
	mappings_deinit(&maps);
	assert_null(mappings_find(&maps, 0x1000));
}

/* Streaming gives what parsing the whole gives, also across the edges of its buffer. */
static void test_read(void **state)
{
	struct mapping_vec whole = { 0 }, streamed = { 0 };
	int fd = memfd_create("maps", MFD_CLOEXEC);
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	for (uint64_t i = 0; i < 20000; i++)
		fprintf(out,
			"%08llx-%08llx rw-p 00000000 fe:00 %llu %*s/file%llu\nRss: %18llu kB\n",
			(unsigned long long)(i << 12), (unsigned long long)((i + 1) << 12),
			(unsigned long long)i, (int)(i % 97), "", (unsigned long long)i,
			(unsigned long long)i);
	fclose(out);
	assert_int_equal(write(fd, text, size), size);
	lseek(fd, 0, SEEK_SET);
	assert_ok(maps_parse(text, size, &whole));
	assert_ok(maps_read(fd, "maps", &streamed));
	assert_int_equal(whole.size, 20000);
	assert_int_equal(streamed.size, 20000);
	for (size_t i = 0; i < whole.size; i++) {
		assert_string_equal(whole.data[i].path, streamed.data[i].path);
		assert_int_equal(whole.data[i].start, streamed.data[i].start);
		assert_int_equal(streamed.data[i].usage.rss, i << 10);
	}
	mappings_deinit(&whole);
	mappings_deinit(&streamed);
	/* A line without end is refused, not collected. */
	lseek(fd, 0, SEEK_SET);
	for (int i = 0; i < 300; i++) {
		memset(text, 'a', 1024);
		assert_int_equal(write(fd, text, 1024), 1024);
	}
	lseek(fd, 0, SEEK_SET);
	assert_failed(maps_read(fd, "maps", &streamed));
	mappings_deinit(&streamed);
	free(text);
	close(fd);
}

static void test_names(void **state)
{
	char text[5];

	for (unsigned type = 0; type < MAPPING_TYPES; type++) {
		enum mapping_type parsed;

		assert_true(mapping_type_parse(mapping_type_name(type), &parsed));
		assert_int_equal(parsed, type);
	}
	assert_false(mapping_type_parse("nonsense", &(enum mapping_type){ 0 }));
	mapping_perms_text(PERM_READ | PERM_EXEC | PERM_SHARED, text);
	assert_string_equal(text, "r-xs");
	mapping_perms_text(PERM_WRITE, text);
	assert_string_equal(text, "-w-p");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_smaps),	cmocka_unit_test(test_forms),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_overlap), cmocka_unit_test(test_find),
		cmocka_unit_test(test_read),	cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
