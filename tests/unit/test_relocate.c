/* Moving the beginnings of functions: by hand, on every allocator that is installed, on garbage. */
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "record/agent/relocate.h"
#include "record/x86_decode.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void lengths(void **state)
{
	static const struct {
		uint8_t bytes[16];
		unsigned length;
	} rows[] = {
		{ { 0x55 }, 1 },
		{ { 0x48, 0x89, 0xe5 }, 3 },
		{ { 0xf3, 0x0f, 0x1e, 0xfa }, 4 },
		{ { 0x80, 0x3d, 1, 2, 3, 4, 5 }, 7 },		/* cmpb $5, 0x4030201(%rip) */
		{ { 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8 }, 10 }, /* movabs */
		{ { 0x66, 0xb8, 1, 2 }, 4 },
		{ { 0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0 }, 9 }, /* mov %fs:0x28, %rax */
		{ { 0xf7, 0xc7, 1, 2, 3, 4 }, 6 },			/* test $imm, %edi */
		{ { 0xf7, 0xdf }, 2 },					/* neg %edi */
		{ { 0xc5, 0xf9, 0x6f, 0x07 }, 4 },			/* vmovdqa */
		{ { 0xc4, 0xe3, 0x79, 0x0f, 0xc1, 8 }, 6 },		/* vpalignr */
		{ { 0x62, 0xf1, 0xfd, 0x48, 0x6f, 0x47, 1 }, 7 },	/* vmovdqa64 */
		{ { 0x0f, 0x84, 1, 2, 3, 4 }, 6 },
		{ { 0x66, 0x66, 0x48, 0xe8, 1, 2, 3, 4 }, 8 },
		{ { 0xc8, 1, 2, 3 }, 4 },
		{ { 0x8f, 0xc0 }, 2 },			 /* pop %rax */
		{ { 0x8f, 0xe9, 0x78, 0xc7, 0xdb }, 0 }, /* vphaddwq, of AMD's XOP */
		{ { 0x06 }, 0 },
		{ { 0x66, 0xe9, 1, 2, 3, 4 }, 0 },
		{ { 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
		    0x66, 0x66, 0x90 },
		  0 },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct x86_instruction insn = { 0 };
		bool understood = x86_decode(rows[i].bytes, sizeof(rows[i].bytes), &insn);

		if (understood != (rows[i].length > 0) || insn.length != rows[i].length)
			fail_msg("row %zu: %d, length %u", i, understood, insn.length);
		/* One byte less is not enough. */
		if (understood)
			assert_false(x86_decode(rows[i].bytes, insn.length - 1u, &insn));
	}
}

static void relocates(void **state)
{
	/* cmpb $0, 0x1000(%rip); je +2; nop; ret */
	static const uint8_t code[] = {
		0x80, 0x3d, 0, 0x10, 0, 0, 0, 0x74, 0x02, 0x90, 0x90, 0xc3
	};
	static const uint8_t moved[] = { 0x80, 0x3d, 0, 0x10 - 0x10, 0, 0, 0 };
	struct relocated result;
	int32_t jump;

	assert_null(relocate_function(code, sizeof(code), 0x10000, 0x11000, 0, &result));
	assert_int_equal(result.moved_end, 7);
	assert_int_equal(result.patch_offset, 0);
	assert_int_equal(result.size, 7 + 5);
	assert_memory_equal(result.code, moved, 7);
	assert_int_equal(result.code[7], 0xe9);
	memcpy(&jump, result.code + 8, 4);
	assert_int_equal(0x11000 + 12 + jump, 0x10000 + 7);
	/* What it refers to is beyond the reach of 32 bits. */
	assert_non_null(relocate_function(code, sizeof(code), 0x10000, 0x180011000, 0, &result));
}

static void makes_short_jumps_long(void **state)
{
	/* test %rdi,%rdi; je +8; ... */
	static const uint8_t code[16] = { 0x48, 0x85, 0xff, 0x74, 8,	0x90, 0x90, 0x90,
					  0x90, 0x90, 0x90, 0x90, 0x90, 0xc3, 0x90, 0x90 };
	struct relocated result;
	int32_t offset;

	assert_null(relocate_function(code, sizeof(code), 0x10000, 0x20000, 0, &result));
	assert_int_equal(result.patch_offset, 3);
	assert_int_equal(result.moved_end, 8);
	assert_int_equal(result.code[3], 0x0f);
	assert_int_equal(result.code[4], 0x84);
	memcpy(&offset, result.code + 5, 4);
	assert_int_equal(0x20000 + 9 + offset, 0x10000 + 5 + 8);
}

static void refuses(void **state)
{
	static const struct {
		uint8_t code[16];
		size_t size;
		uint64_t from;
		const char *part;
	} rows[] = {
		{ { 0xcc, 0x90, 0x90, 0x90, 0x90, 0xc3 }, 6, 0x10000, "breakpoint" },
		{ { 0x90, 0x90, 0xcc, 0x90, 0x90, 0xc3 }, 6, 0x10000, "breakpoint" },
		{ { 0x31, 0xc0, 0xc3 }, 3, 0x10000, "short" },
		{ { 0x31, 0xc0, 0xc3, 0x90, 0x90, 0x90 }, 6, 0x10000, "short" },
		{ { 0xe8, 0, 0, 0, 0, 0xc3 }, 6, 0x10000, "call" },
		{ { 0xe3, 0x05, 0x90, 0x90, 0x90, 0x90, 0x90, 0xc3 }, 8, 0x10000, "loop" },
		{ { 0x06, 0x90, 0x90, 0x90, 0x90, 0xc3 }, 6, 0x10000, "not understood" },
		/* push; push; push; push; push; jmp to the second */
		{ { 0x55, 0x55, 0x55, 0x55, 0x55, 0xeb, 0xfa }, 7, 0x10000, "back" },
		/* push; jo to itself */
		{ { 0x55, 0x70, 0xfe, 0x90, 0x90, 0xc3 }, 6, 0x10000, "back" },
		{ { 0x55, 0x55, 0x55, 0x55, 0x55, 0xc3 }, 6, 0x10ffd, "two pages" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct relocated result;
		const char *reason = relocate_function(rows[i].code, rows[i].size, rows[i].from,
						       0x20000, 0, &result);

		if (!reason || !strstr(reason, rows[i].part))
			fail_msg("row %zu: %s", i, reason ? reason : "moved");
	}
}

static void keeps_endbr(void **state)
{
	static const uint8_t code[] = { 0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0x00, 0x01, 0, 0 };
	struct relocated result;
	int32_t offset;

	assert_null(relocate_function(code, sizeof(code), 0x10000, 0x20000, 0, &result));
	assert_int_equal(result.patch_offset, 4);
	assert_int_equal(result.moved_start, 4);
	assert_int_equal(result.moved_end, 9);
	assert_int_equal(result.size, 5); /* a tail jump: nothing to go back to */
	memcpy(&offset, result.code + 1, 4);
	assert_int_equal(0x20000 + 5 + offset, 0x10000 + 9 + 0x100);
}

/* ---- real ones ---- */

static const char *const names[] = {
	"malloc",
	"calloc",
	"realloc",
	"reallocarray",
	"free",
	"cfree",
	"memalign",
	"aligned_alloc",
	"posix_memalign",
	"valloc",
	"pvalloc",
	"mallocx",
	"rallocx",
	"xallocx",
	"dallocx",
	"sdallocx",
	"_Znwm",
	"_Znam",
	"_ZdlPv",
	"_ZdaPv",
	"_ZdlPvm",
	"_ZdaPvm",
	"tc_malloc",
	"mi_malloc",
	"_ZnwmRKSt9nothrow_t",
	"_ZnwmSt11align_val_t",
	"_ZdlPvSt11align_val_t",
	"_ZdlPvmSt11align_val_t",
	"_ZnamSt11align_val_t",
	"malloc_usable_size",
};

static const char *const libraries[] = {
	"libc.so.6",	    "libjemalloc.so.2", "libtcmalloc.so.4", "libtcmalloc_minimal.so.4",
	"libmimalloc.so.2", "libstdc++.so.6",
};

/* What a child that looks at a library ends with: how many functions were found, or this. */
#define WRONG 255

static _Noreturn __attribute__((format(printf, 1, 2))) void wrong(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(WRONG);
}

/* The instructions of [@start, @start + @size) of the file @path, as objdump sees them. */
static void compare_with_objdump(const char *path, const char *name, const uint8_t *code,
				 uint64_t start, size_t size)
{
	char command[512], line[512];
	size_t at = 0, seen = 0;
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "objdump -dw --no-show-raw-insn --start-address=0x%llx --stop-address=0x%llx %s",
		 (unsigned long long)start, (unsigned long long)(start + size), path);
	pipe = popen(command, "r");
	if (!pipe)
		wrong("cannot start objdump: %m");
	while (fgets(line, sizeof(line), pipe)) {
		struct x86_instruction insn;
		char *end;
		uint64_t address = strtoull(line, &end, 16);

		if (end == line || *end != ':' || address < start)
			continue;
		seen++;
		if (address != start + at)
			wrong("%s in %s: 0x%zx is no instruction: %s", name, path, at, line);
		if (!x86_decode(code + at, size - at, &insn))
			wrong("%s in %s: not understood: %s", name, path, line);
		at += insn.length;
	}
	pclose(pipe);
	if (at != size || !seen)
		wrong("%s in %s: %zu of %zu bytes seen", name, path, at, size);
}

static unsigned relocate_library(void *handle)
{
	unsigned found = 0;

	for (size_t i = 0; i < COUNT(names); i++) {
		void *function = dlsym(handle, names[i]);
		struct link_map *map = NULL, *of = NULL;
		const ElfW(Sym) *symbol = NULL;
		struct relocated result;
		const char *reason;
		uint64_t address = (uint64_t)function;
		Dl_info info;

		if (!function || !dladdr1(function, &info, (void **)&symbol, RTLD_DL_SYMENT) ||
		    !symbol || dlinfo(handle, RTLD_DI_LINKMAP, &map) ||
		    !dladdr1(function, &info, (void **)&of, RTLD_DL_LINKMAP) || of != map)
			continue;
		found++;
		reason = relocate_function(function, symbol->st_size, address,
					   (address & ~4095ull) - (64 << 20), 1, &result);
		/* Not in one of an allocator that is hooked. */
		if (reason && strcmp(names[i], "malloc_usable_size") &&
		    !(strstr(info.dli_fname, "libstdc++") && strstr(reason, "a call")))
			wrong("%s in %s: %s", names[i], info.dli_fname, reason);
		compare_with_objdump(info.dli_fname, names[i], function, address - map->l_addr,
				     symbol->st_size);
	}
	return found;
}

/*
 * In a child: the constructors of an allocator may trip over another one that was loaded before,
 * and what they allocate is their own affair.
 */
static unsigned look_at(const char *library)
{
	static const int signals[] = { SIGILL, SIGBUS, SIGSEGV, SIGFPE };
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (!child) {
		unsigned found;
		void *handle;

		/* cmocka's handlers would go on with the next test. */
		for (size_t i = 0; i < COUNT(signals); i++)
			signal(signals[i], SIG_DFL);
		handle = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
		found = handle ? relocate_library(handle) : 0;
		if (handle && !found)
			wrong("%s has none of the functions", library);
		_exit(found);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (!WIFEXITED(status) || WEXITSTATUS(status) == WRONG)
		fail_msg("%s: wait status 0x%x", library, status);
	return WEXITSTATUS(status);
}

static void real_allocators(void **state)
{
	unsigned count = 0;

	for (size_t i = 0; i < COUNT(libraries); i++)
		count += look_at(libraries[i]);
	assert_true(count >= 9);
}

/* Every byte that is read is inside: the code ends where the memory does. */
static void garbage(void **state)
{
	uint8_t *pages =
		mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t random = 12345;

	assert_true(pages != MAP_FAILED);
	assert_int_equal(mprotect(pages + 4096, 4096, PROT_NONE), 0);
	for (unsigned round = 0; round < 300000; round++) {
		size_t size = round % 48;
		uint8_t *code = pages + 4096 - size;
		struct relocated result;
		struct x86_instruction insn;

		for (size_t i = 0; i < size; i++) {
			random = random * 1664525 + 1013904223;
			code[i] = random >> 24;
		}
		if (x86_decode(code, size, &insn))
			assert_true(insn.length >= 1 && insn.length <= size && insn.length <= 15);
		if (!relocate_function(code, size, 0x10000 + round % 4096, 0x20000, 0, &result)) {
			assert_true(result.moved_end >= result.patch_offset + RELOCATE_JUMP);
			assert_true(result.moved_end <= size);
			assert_true(result.size <= sizeof(result.code));
		}
	}
	munmap(pages, 8192);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths),
		cmocka_unit_test(relocates),
		cmocka_unit_test(makes_short_jumps_long),
		cmocka_unit_test(refuses),
		cmocka_unit_test(keeps_endbr),
		cmocka_unit_test(real_allocators),
		cmocka_unit_test(garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
