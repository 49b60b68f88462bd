/* Verdicts on figures: each of a process that has the trouble, and of one that has not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/diagnose.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* A healthy server: 100 MiB, nearly all of it heap in use. */
static struct diagnose_facts healthy(void)
{
	struct diagnose_facts facts = {
		.target = "42",
		.is_live = true,
		.allocator = "glibc's malloc",
		.heap = 90 * MIB,
		.heap_free = MIB,
		.released = MIB / 2,
		.arenas = 3,
		.leaked = 1000,
		.leaked_count = 3,
		.mappings = 200,
		.mappings_max = 65530,
		.huge_empty = DIAGNOSE_UNKNOWN,
		.group_usage = 300 * MIB,
		.group_limit = GIB,
		.group_shmem = 0,
		.stacks = 4,
		.stacks_size = 32 * MIB,
		.stacks_used = MIB,
	};

	facts.types[MAPPING_HEAP] = 60 * MIB;
	facts.types[MAPPING_ARENA] = 20 * MIB;
	facts.types[MAPPING_MMAP_CHUNK] = 10 * MIB;
	facts.types[MAPPING_STACK] = MIB / 2;
	facts.types[MAPPING_THREAD_STACK] = MIB / 2;
	facts.types[MAPPING_EXE] = MIB;
	facts.types[MAPPING_LIB] = 7 * MIB;
	facts.types[MAPPING_KERNEL] = MIB / 256;
	for (unsigned i = 0; i < MAPPING_TYPES; i++)
		facts.rss += facts.types[i];
	return facts;
}

static void add(struct diagnose_facts *facts, enum mapping_type type, uint64_t bytes)
{
	facts->types[type] += bytes;
	facts->rss += bytes;
}

/* The first verdict has that id and says @text; NULL: anything. */
static void assert_first(const struct diagnose_facts *facts, const char *id, const char *text)
{
	struct diagnosis diagnosis = { 0 };
	uint64_t sum;

	assert_null(diagnose(facts, &diagnosis));
	sum = diagnosis.unexplained;
	vec_for_each (part, &diagnosis.parts)
		sum += part->bytes;
	assert_int_equal(sum, facts->rss);
	assert_true(diagnosis.verdicts.size > 0);
	assert_string_equal(diagnosis.verdicts.data[0].id, id);
	assert_non_null(diagnosis.verdicts.data[0].next[0]);
	if (text && !strstr(diagnosis.verdicts.data[0].text, text))
		fail_msg("%s", diagnosis.verdicts.data[0].text);
	diagnosis_deinit(&diagnosis);
}

static bool has(const struct diagnose_facts *facts, const char *id)
{
	struct diagnosis diagnosis = { 0 };
	bool found = false;

	assert_null(diagnose(facts, &diagnosis));
	vec_for_each (verdict, &diagnosis.verdicts)
		found = found || !strcmp(verdict->id, id);
	diagnosis_deinit(&diagnosis);
	return found;
}

static void health_is_steady(void **state)
{
	struct diagnose_facts facts = healthy();

	assert_first(&facts, "steady",
		     "nothing is conspicuous in 99.0M; most of it is heap in use");
	/* A core of which little is known. */
	facts.is_live = false;
	facts.allocator = NULL;
	facts.heap = facts.heap_free = facts.released = facts.leaked = DIAGNOSE_UNKNOWN;
	facts.group_limit = facts.group_usage = facts.mappings_max = DIAGNOSE_UNKNOWN;
	assert_first(&facts, "steady", NULL);
	memset(&facts.types, 0, sizeof(facts.types));
	facts.rss = 0;
	assert_first(&facts, "steady", "of which anything is known");
}

static void leaks_are_told(void **state)
{
	struct diagnose_facts facts = healthy();

	/* What a healthy program loses at its start. */
	facts.leaked = 200 << 10;
	assert_false(has(&facts, "leak"));
	facts.leaked = MIB / 2;
	assert_false(has(&facts, "leak"));
	facts.leaked = 20 * MIB;
	facts.leaked_count = 20000;
	assert_first(&facts, "leak", "20% of 99.0M is leaked");
	assert_first(&facts, "leak", "20,000 blocks");
	facts.leaked = DIAGNOSE_UNKNOWN;
	assert_false(has(&facts, "leak"));
}

static void free_memory_is_told(void **state)
{
	struct diagnose_facts facts = healthy();

	facts.heap_free = 80 * MIB;
	facts.released = 78 * MIB;
	assert_first(&facts, "allocator-free",
		     "81% of 99.0M is free memory that glibc's malloc keeps; `memprobe trim 42` "
		     "returns 78.0M now");
	assert_false(has(&facts, "fragmentation"));
	assert_false(has(&facts, "arenas"));
	facts.arenas = 32;
	facts.arenas_free = 60 * MIB;
	assert_first(&facts, "allocator-free", "MALLOC_ARENA_MAX=2");
	assert_true(has(&facts, "arenas"));
	/* One whose trim cannot be foretold. */
	facts.released = DIAGNOSE_UNKNOWN;
	assert_first(&facts, "allocator-free", "keeps");
	/* Between blocks in use. */
	facts.released = MIB;
	facts.arenas = 1;
	assert_first(&facts, "fragmentation", "cannot be given back");
	assert_false(has(&facts, "allocator-free"));
}

static void what_may_end_it_comes_first(void **state)
{
	struct diagnose_facts facts = healthy();

	facts.heap_free = 80 * MIB;
	facts.released = 78 * MIB;
	facts.group_usage = facts.group_limit / 10 * 9;
	assert_first(&facts, "limit", "90% of its limit of 1.0G");
	facts.group_limit = DIAGNOSE_UNKNOWN;
	assert_false(has(&facts, "limit"));
	facts.mappings = 60000;
	assert_first(&facts, "map-count", "60,000 mappings of the 65,530");
	facts.mappings = 30000;
	assert_false(has(&facts, "map-count"));
	facts.space = 4 * GIB;
	facts.space_used = 4 * GIB / 10 * 9;
	facts.stacks = 91;
	facts.stacks_size = 91 * 32 * MIB;
	facts.stacks_used = 91 * 20 << 10;
	assert_first(&facts, "address-space", "91 stacks reserve 2.8G (32.0M each)");
	facts.space_used = GIB;
	assert_false(has(&facts, "address-space"));
}

static void commands_are_those_that_work(void **state)
{
	struct diagnose_facts facts = healthy();
	struct diagnosis diagnosis = { 0 };

	assert_null(diagnose(&facts, &diagnosis));
	assert_string_equal(diagnosis.verdicts.data[0].next[0], "memprobe heap 42 --by type");
	diagnosis_deinit(&diagnosis);
	facts.heap = DIAGNOSE_UNKNOWN;
	facts.unread = "jemalloc";
	diagnosis = (struct diagnosis){ 0 };
	assert_null(diagnose(&facts, &diagnosis));
	assert_string_equal(diagnosis.verdicts.data[0].next[0], "memprobe mallinfo 42");
	diagnosis_deinit(&diagnosis);
}

static void limits_are_told(void **state)
{
	struct diagnose_facts facts = healthy();

	memset(&facts.limits, 0xff, sizeof(facts.limits));
	facts.limits.space = 3 * GIB;
	facts.limits.data = GIB;
	assert_false(has(&facts, "limit"));
	facts.limits.space_limit = 10 * GIB;
	facts.limits.data_limit = 2 * GIB;
	assert_false(has(&facts, "limit"));
	facts.limits.space = 9 * GIB;
	assert_first(&facts, "limit", "its mappings use 90% of the 10.0G that `ulimit -v` allows");
	facts.limits.data = 2 * GIB / 100 * 95;
	assert_first(&facts, "limit", "writable mappings use 95% of the 2.0G that `ulimit -d`");
	memset(&facts.limits, 0xff, sizeof(facts.limits));
	facts.limits.commit = 85 * GIB;
	facts.limits.commit_limit = 100 * GIB;
	assert_first(&facts, "limit", "85% of the 100G that vm.overcommit_memory=2 allows");
}

static void other_memory_is_told(void **state)
{
	static const struct {
		enum mapping_type type;
		const char *id;
	} cases[] = {
		{ MAPPING_THREAD_STACK, "thread-stacks" },
		{ MAPPING_FILE, "mapped-files" },
		{ MAPPING_SHM, "shmem" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct diagnose_facts facts = healthy();

		assert_false(has(&facts, cases[i].id));
		add(&facts, cases[i].type, 100 * MIB);
		assert_first(&facts, cases[i].id, "% of 199M is ");
	}
}

static void swap_and_huge_pages_are_told(void **state)
{
	struct diagnose_facts facts = healthy();

	facts.swap = MIB;
	assert_false(has(&facts, "swap"));
	facts.swap = 99 * MIB;
	assert_first(&facts, "swap", "50% of what it holds");
	facts.swap = 0;
	facts.huge = 80 * MIB;
	facts.huge_empty = 2 * MIB;
	assert_false(has(&facts, "huge-pages"));
	facts.huge_empty = 60 * MIB;
	assert_first(&facts, "huge-pages", "of 80.0M in huge pages");
}

/* Files in a tmpfs that nobody maps. */
static void the_groups_shared_memory_is_told(void **state)
{
	struct diagnose_facts facts = healthy();

	facts.group_shmem = 200 * MIB;
	assert_first(&facts, "shmem", "200M of shared memory or tmpfs files");
	facts.group_limit = DIAGNOSE_UNKNOWN;
	assert_false(has(&facts, "shmem"));
}

static void runtimes_are_told(void **state)
{
	static const struct {
		enum diagnose_runtime runtime;
		const char *name, *id;
	} cases[] = {
		{ RUNTIME_JAVA, "java: its heap", "java-heap" },
		{ RUNTIME_PYTHON, "python: pymalloc", "python-heap" },
		{ RUNTIME_GO, "go: its heap", "go-heap" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct diagnose_facts facts = healthy();

		facts.runtime = cases[i].runtime;
		facts.runtime_name = cases[i].name;
		assert_false(has(&facts, cases[i].id));
		add(&facts, MAPPING_ANON, 500 * MIB);
		assert_first(&facts, cases[i].id, cases[i].name);
	}
}

static void native_memory_of_java_is_told(void **state)
{
	struct diagnose_facts facts = healthy();

	facts.runtime = RUNTIME_JAVA;
	facts.runtime_name = "java: its heap";
	assert_first(&facts, "java-native", "90% of 99.0M");
	facts.runtime = RUNTIME_NONE;
	assert_false(has(&facts, "java-native"));
}

/* Figures of different moments: the heap has shrunk since the mappings were read. */
static void figures_that_do_not_agree_still_add_up(void **state)
{
	struct diagnose_facts facts = healthy();

	facts.heap = 900 * MIB;
	facts.heap_free = 800 * MIB;
	assert_first(&facts, "fragmentation", NULL);
	facts.heap = 0;
	assert_first(&facts, "steady", NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(health_is_steady),
		cmocka_unit_test(leaks_are_told),
		cmocka_unit_test(free_memory_is_told),
		cmocka_unit_test(what_may_end_it_comes_first),
		cmocka_unit_test(limits_are_told),
		cmocka_unit_test(commands_are_those_that_work),
		cmocka_unit_test(other_memory_is_told),
		cmocka_unit_test(swap_and_huge_pages_are_told),
		cmocka_unit_test(the_groups_shared_memory_is_told),
		cmocka_unit_test(runtimes_are_told),
		cmocka_unit_test(native_memory_of_java_is_told),
		cmocka_unit_test(figures_that_do_not_agree_still_add_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
