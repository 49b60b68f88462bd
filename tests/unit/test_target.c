/* Reading targets: the fake one, and live ones that end, exec and protect their memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "fake.h"
#include "memprobe/target.h"

static void assert_ok(struct error *error)
{
	if (error)
		fail_msg("%s", error->message);
}

static void assert_code(struct error *error, enum error_code code)
{
	assert_true(error_is(error, code));
	error_destroy(error);
}

static void assert_fault(struct error *error, uint64_t address)
{
	assert_true(error_is(error, ERROR_FAULT));
	assert_int_equal(error->address, address);
	error_destroy(error);
}

/* ---- the fake ---- */

static struct target *make_fake(const struct arch *arch)
{
	static const uint64_t words[] = { 0x1122334455667788, 0xffffffff };
	struct target *target;

	assert_ok(fake_target_create(arch, &target));
	/* The later first: order is the fake's business. */
	assert_ok(fake_target_add_segment(target, &(struct fake_segment){
							  .start = 0x3000,
							  .size = 0x1000,
							  .bytes = "tail",
							  .bytes_size = 5,
							  .perms = PERM_READ,
						  }));
	assert_ok(fake_target_add_segment(target, &(struct fake_segment){
							  .start = 0x1000,
							  .size = 0x2000,
							  .bytes = words,
							  .bytes_size = sizeof(words),
							  .perms = PERM_READ | PERM_WRITE,
							  .path = "[heap]",
						  }));
	return target;
}

static void test_fake(void **state)
{
	struct target *target = make_fake(&arch_x86_64);
	struct mapping_vec maps = { 0 };
	bool present[4];
	uint64_t word;
	uint32_t half;
	char text[16];

	assert_ok(target_read_word(target, 0x1000, &word));
	assert_int_equal(word, 0x1122334455667788);
	assert_ok(target_read_u32(target, 0x1004, &half));
	assert_int_equal(half, 0x11223344);
	/* Across two segments, and to the last byte. */
	assert_ok(target_read(target, 0x2ffc, text, 8));
	assert_memory_equal(text, "\0\0\0\0tail", 8);
	assert_fault(target_read(target, 0x3ffc, text, 5), 0x4000);
	assert_fault(target_read(target, 0xfff, text, 5), 0xfff);
	assert_fault(target_read(target, UINT64_MAX, text, 5), UINT64_MAX);
	assert_ok(target_read(target, UINT64_MAX, text, 0));
	assert_ok(target_read_maps(target, MAPS_USAGE, &maps));
	assert_int_equal(maps.size, 2);
	assert_string_equal(maps.data[0].path, "[heap]");
	assert_int_equal(maps.data[0].usage.rss, PAGE_SIZE);
	mappings_deinit(&maps);
	assert_ok(target_page_present(target, 0x1000, 4, present));
	assert_true(present[0] && !present[1] && present[2] && !present[3]);
	assert_ok(fake_target_write(target, 0x2000, "x", 1));
	assert_ok(target_page_present(target, 0x2000, 1, present));
	assert_true(present[0]);
	assert_code(fake_target_add_segment(
			    target, &(struct fake_segment){ .start = 0x2000, .size = 0x1000 }),
		    ERROR_USAGE);
	target_destroy(target);
	target = make_fake(&arch_i386);
	assert_ok(target_read_word(target, 0x1000, &word));
	assert_int_equal(word, 0x55667788);
	target_destroy(target);
}

static void test_strings(void **state)
{
	struct target *target = make_fake(&arch_x86_64);
	char text[8], page[PAGE_SIZE];

	assert_ok(target_read_string(target, 0x3000, text, sizeof(text)));
	assert_string_equal(text, "tail");
	assert_ok(target_read_string(target, 0x3000, text, 3));
	assert_string_equal(text, "ta");
	assert_ok(target_read_string(target, 0x3000, text, 1));
	assert_string_equal(text, "");
	assert_ok(target_read_string(target, 0x9000, text, sizeof(text)));
	assert_string_equal(text, "");
	memset(page, 'a', sizeof(page));
	assert_ok(fake_target_write(target, 0x3000, page, sizeof(page)));
	assert_ok(target_read_string(target, 0x3ffd, text, sizeof(text)));
	assert_string_equal(text, "aaa");
	assert_ok(target_read_string(target, 0x2fff, page, sizeof(page)));
	assert_string_equal(page, "");
	assert_ok(target_read_string(target, 0x3000, page, sizeof(page)));
	assert_int_equal(strlen(page), PAGE_SIZE - 1);
	target_destroy(target);
}

static void test_auxv(void **state)
{
	struct target *target = make_fake(&arch_i386);
	static const uint32_t auxv[] = { AT_PHDR, 0x8048034, AT_PAGESZ, 4096,
					 AT_NULL, 0,	     AT_ENTRY,	1 };
	uint64_t value;

	assert_false(target_auxv(target, AT_PHDR, &value));
	assert_ok(fake_target_set_auxv(target, auxv, sizeof(auxv)));
	assert_true(target_auxv(target, AT_PHDR, &value));
	assert_int_equal(value, 0x8048034);
	assert_true(target_auxv(target, AT_PAGESZ, &value));
	assert_false(target_auxv(target, AT_ENTRY, &value));
	/* Cut inside an entry. */
	assert_ok(fake_target_set_auxv(target, auxv, 12));
	assert_false(target_auxv(target, AT_PAGESZ, &value));
	target_destroy(target);
}

/* ---- live ---- */

#define PAGES 64

/* PAGES written pages, an unmapped hole, a written page that is then protected; told. */
static void map_pages(void *unused)
{
	char *base = mmap(NULL, (PAGES + 3) * PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (size_t i = 0; i < PAGES * PAGE_SIZE; i++)
		base[i] = (char)(i * 7 + i / PAGE_SIZE);
	memset(base + (PAGES + 1) * PAGE_SIZE, 'p', PAGE_SIZE);
	munmap(base + PAGES * PAGE_SIZE, PAGE_SIZE);
	mprotect(base + (PAGES + 1) * PAGE_SIZE, PAGE_SIZE, PROT_NONE);
	child_tell(&base, sizeof(base));
}

static struct target *open_child(pid_t pid)
{
	struct target *target;

	assert_ok(target_open_live(pid, &target));
	return target;
}

static void test_live_read(void **state)
{
	static const size_t sizes[] = { 1, 8, 4096, 8192, 8193, 65536, PAGES * PAGE_SIZE };
	pid_t pid = child_start(map_pages, NULL);
	struct target *target = open_child(pid);
	uint64_t base, hole;
	char *buffer = malloc((PAGES + 3) * PAGE_SIZE);

	child_hear(&base, sizeof(base));
	hole = base + PAGES * PAGE_SIZE;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		const size_t size = sizes[i];

		/* Up to the last byte before the hole; one more is a fault exactly there. */
		memset(buffer, 0, size);
		assert_ok(target_read(target, hole - size, buffer, size));
		for (size_t at = 0; at < size; at++) {
			size_t from = PAGES * PAGE_SIZE - size + at;

			if (buffer[at] != (char)(from * 7 + from / PAGE_SIZE))
				fail_msg("byte %zu of %zu", at, size);
		}
		memset(buffer, 0, size);
		assert_fault(target_read(target, hole - size, buffer, size + 1), hole);
		assert_int_equal(buffer[size - 1], (char)((PAGES * PAGE_SIZE - 1) * 7 + PAGES - 1));
		assert_fault(target_read(target, hole, buffer, size), hole);
	}
	/* What the process itself may not read. */
	assert_ok(target_read(target, hole + PAGE_SIZE, buffer, PAGE_SIZE));
	assert_int_equal(buffer[17], 'p');
	assert_ok(target_read(target, hole + PAGE_SIZE, buffer, 2 * PAGE_SIZE));
	assert_int_equal(buffer[PAGE_SIZE - 1], 'p');
	assert_fault(target_read(target, 0, buffer, 8), 0);
	assert_fault(target_read(target, UINT64_MAX - 7, buffer, 8), UINT64_MAX - 7);
	assert_fault(target_read(target, UINT64_C(1) << 63, buffer, 65536), UINT64_C(1) << 63);
	child_stop(pid);
	assert_code(target_read(target, base, buffer, 8), ERROR_FAILED);
	assert_code(target_read(target, base, buffer, 65536), ERROR_FAILED);
	assert_code(target_read_maps(target, MAPS_PLAIN, &(struct mapping_vec){ 0 }), ERROR_FAILED);
	assert_code(target_read_threads(target, &(struct thread_vec){ 0 }), ERROR_NO_TARGET);
	target_destroy(target);
	free(buffer);
}

static void map_untouched(void *unused)
{
	char *base = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(base, PAGES * PAGE_SIZE, MADV_NOHUGEPAGE);
	base[3 * PAGE_SIZE] = 1;
	base[(PAGES - 1) * PAGE_SIZE] = 1;
	child_tell(&base, sizeof(base));
}

static void test_live_present(void **state)
{
	pid_t pid = child_start(map_untouched, NULL);
	struct target *target = open_child(pid);
	bool present[PAGES];
	uint64_t base;

	child_hear(&base, sizeof(base));
	assert_ok(target_page_present(target, base, PAGES, present));
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(present[i], i == 3 || i == PAGES - 1);
	/* Above user space there is nothing. */
	assert_ok(target_page_present(target, UINT64_C(1) << 57, 2, present));
	assert_false(present[0] || present[1]);
	child_stop(pid);
	assert_code(target_page_present(target, base, PAGES, present), ERROR_FAILED);
	target_destroy(target);
}

static int exec_pipe[2];

static void exec_later(void *unused)
{
	char byte;

	map_pages(NULL);
	child_ready();
	if (read(exec_pipe[0], &byte, 1) != 1)
		abort();
	execl("/bin/sleep", "sleep", "1000", NULL);
	abort();
}

/* The address space that was opened is gone: nothing of the new one may pass for it. */
static void test_exec(void **state)
{
	struct target *target;
	char buffer[65536];
	uint64_t base;
	pid_t pid;

	assert_int_equal(pipe(exec_pipe), 0);
	pid = child_start(exec_later, NULL);
	child_hear(&base, sizeof(base));
	target = open_child(pid);
	assert_ok(target_read(target, base, buffer, sizeof(buffer)));
	assert_int_equal(write(exec_pipe[1], "", 1), 1);
	for (;;) {
		struct error *error = target_read(target, base, buffer, sizeof(buffer));

		if (!error)
			continue;
		assert_int_equal(error->code, ERROR_FAILED);
		assert_non_null(strstr(error->message, "another program"));
		error_destroy(error);
		break;
	}
	assert_code(target_read(target, base, buffer, 8), ERROR_FAILED);
	target_destroy(target);
	child_stop(pid);
	close(exec_pipe[0]);
	close(exec_pipe[1]);
}

static void exit_at_once(void *unused)
{
	_exit(0);
}

static void test_zombie(void **state)
{
	pid_t pid = child_start(exit_at_once, NULL);
	struct thread_vec threads = { 0 };
	struct target *target;
	siginfo_t info;
	char byte;

	assert_int_equal(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
	target = open_child(pid);
	assert_string_equal(target->exe, "");
	assert_code(target_read(target, 0x1000, &byte, 1), ERROR_UNSUPPORTED);
	assert_code(target_read_maps(target, MAPS_USAGE, &(struct mapping_vec){ 0 }),
		    ERROR_UNSUPPORTED);
	assert_ok(target_read_threads(target, &threads));
	assert_int_equal(threads.size, 1);
	assert_int_equal(threads.data[0].state, 'Z');
	thread_vec_deinit(&threads);
	target_destroy(target);
	waitpid(pid, NULL, 0);
}

static void *outlive_leader(void *unused)
{
	map_pages(NULL);
	child_ready();
	pause();
	return NULL;
}

static void end_leader(void *unused)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, outlive_leader, NULL))
		abort();
	syscall(SYS_exit, 0);
}

/* The first thread has ended: the others have the memory. */
static void test_zombie_leader(void **state)
{
	pid_t pid = child_start(end_leader, NULL);
	struct mapping_vec maps = { 0 };
	struct thread_vec threads = { 0 };
	struct process_status status = { 0 };
	struct target *target;
	char buffer[65536];
	uint64_t base;
	struct process *process;

	child_hear(&base, sizeof(base));
	assert_ok(process_open(pid, &process));
	while (status.state != 'Z')
		assert_ok(process_read_status(process, 0, &status));
	process_close(process);
	target = open_child(pid);
	assert_ok(target_read(target, base, buffer, 8));
	assert_ok(target_read(target, base, buffer, sizeof(buffer)));
	assert_ok(target_read_maps(target, MAPS_USAGE, &maps));
	assert_true(maps.size > 5);
	assert_non_null(mappings_find(&maps, base));
	assert_ok(target_read_threads(target, &threads));
	assert_int_equal(threads.size, 2);
	assert_int_not_equal(target->exe[0], '\0');
	mappings_deinit(&maps);
	thread_vec_deinit(&threads);
	target_destroy(target);
	child_stop(pid);
}

static void test_self(void **state)
{
	static const char text[] = "it is me";
	struct target *target = open_child(getpid());
	char buffer[sizeof(text)];

	assert_ok(target_read(target, (uintptr_t)text, buffer, sizeof(buffer)));
	assert_string_equal(buffer, text);
	assert_ptr_equal(target->arch, arch_native());
	target_destroy(target);
}

/* ---- names of files ---- */

static char directory[] = "/tmp/memprobe-test-XXXXXX";

static void map_file(void *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, (const char *)name);
	fd = open(path, O_CREAT | O_RDWR, 0600);
	if (fd < 0 || ftruncate(fd, PAGE_SIZE) ||
	    mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED)
		abort();
}

static void assert_maps_file(const char *name, bool unlinked)
{
	pid_t pid = child_start(map_file, (void *)name);
	struct target *target = open_child(pid);
	struct mapping_vec maps = { 0 };
	char path[256];
	bool found = false;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	if (unlinked)
		unlink(path);
	assert_ok(target_read_maps(target, MAPS_PLAIN, &maps));
	for (size_t i = 0; i < maps.size; i++) {
		if (strcmp(maps.data[i].path, path))
			continue;
		found = true;
		assert_int_equal(maps.data[i].deleted, unlinked);
	}
	assert_true(found);
	mappings_deinit(&maps);
	target_destroy(target);
	child_stop(pid);
	unlink(path);
}

static void test_file_names(void **state)
{
	static const char *const names[] = { "a b",	    "new\nline",   "\303\244\342\202\254",
					     "back\\slash", "x (deleted)", "(deleted)",
					     "[heap]",	    " lead",	   "trail " };

	assert_non_null(mkdtemp(directory));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_maps_file(names[i], false);
		assert_maps_file(names[i], true);
	}
	rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fake),	     cmocka_unit_test(test_strings),
		cmocka_unit_test(test_auxv),	     cmocka_unit_test(test_live_read),
		cmocka_unit_test(test_live_present), cmocka_unit_test(test_exec),
		cmocka_unit_test(test_zombie),	     cmocka_unit_test(test_zombie_leader),
		cmocka_unit_test(test_self),	     cmocka_unit_test(test_file_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
