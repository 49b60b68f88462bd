#include "memprobe/diagnose.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "memprobe/num.h"

/* Less than this, or less than a tenth of RSS, is no verdict. */
#define MUCH	   (8u << 20)
#define MUCH_SHARE 0.10
/* Leaks grow: a small one is a verdict, too. Healthy programs lose some blocks at their start. */
#define LEAK_MUCH	(256u << 10)
#define LEAK_MUCH_SHARE 0.01
/* glibc makes up to eight arenas a CPU. */
#define ARENAS_MANY 8u
/* Of a limit. */
#define NEAR_SHARE 0.80

static uint64_t known(uint64_t bytes)
{
	return bytes == DIAGNOSE_UNKNOWN ? 0 : bytes;
}

static double share_of(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : 0;
}

static bool is_much(const struct diagnose_facts *facts, uint64_t bytes)
{
	return bytes != DIAGNOSE_UNKNOWN && bytes >= MUCH &&
	       share_of(bytes, facts->rss) >= MUCH_SHARE;
}

/* ---- the parts ---- */

static struct error *add_part(struct diagnosis *diagnosis, const char *name, uint64_t bytes)
{
	const struct diagnose_part part = { name, bytes };

	diagnosis->unexplained -= min_u64(diagnosis->unexplained, bytes);
	return bytes ? diagnose_part_vec_append(&diagnosis->parts, &part) : NULL;
}

/* All that is anonymous and no stack: the heap is somewhere in it. */
static uint64_t anonymous_of(const struct diagnose_facts *facts)
{
	return facts->types[MAPPING_HEAP] + facts->types[MAPPING_ARENA] +
	       facts->types[MAPPING_MMAP_CHUNK] + facts->types[MAPPING_ANON];
}

static uint64_t heap_of(const struct diagnose_facts *facts)
{
	return min_u64(known(facts->heap), anonymous_of(facts));
}

static uint64_t heap_free_of(const struct diagnose_facts *facts)
{
	return min_u64(known(facts->heap_free), heap_of(facts));
}

static uint64_t stacks_of(const struct diagnose_facts *facts)
{
	return facts->types[MAPPING_STACK] + facts->types[MAPPING_THREAD_STACK];
}

static const char *rest_name(const struct diagnose_facts *facts)
{
	if (facts->runtime_name)
		return facts->runtime_name;
	return facts->unread ? facts->unread : "other anonymous memory";
}

static struct error *fill_parts(const struct diagnose_facts *facts, struct diagnosis *ret)
{
	const struct diagnose_part parts[] = {
		{ "heap in use", heap_of(facts) - heap_free_of(facts) },
		{ "heap free", heap_free_of(facts) },
		{ rest_name(facts), anonymous_of(facts) - heap_of(facts) },
		{ "thread stacks", stacks_of(facts) },
		{ "shared memory", facts->types[MAPPING_SHM] },
		{ "mapped files", facts->types[MAPPING_FILE] },
		{ "program and libraries", facts->types[MAPPING_EXE] + facts->types[MAPPING_LIB] },
	};
	struct error *error = NULL;

	ret->unexplained = facts->rss;
	for (size_t i = 0; !error && i < sizeof(parts) / sizeof(parts[0]); i++)
		error = add_part(ret, parts[i].name, parts[i].bytes);
	return error;
}

/* ---- a verdict ---- */

static void print_text(char **ret, const char *format, va_list arguments)
{
	if (vasprintf(ret, format, arguments) < 0)
		*ret = NULL;
}

static struct diagnose_verdict *say(struct diagnose_verdict *verdict, const char *id,
				    uint64_t bytes, double share, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

static struct diagnose_verdict *say(struct diagnose_verdict *verdict, const char *id,
				    uint64_t bytes, double share, const char *format, ...)
{
	va_list arguments;

	*verdict = (struct diagnose_verdict){ .id = id, .bytes = bytes, .share = share };
	va_start(arguments, format);
	print_text(&verdict->text, format, arguments);
	va_end(arguments);
	return verdict;
}

static void then(struct diagnose_verdict *verdict, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void then(struct diagnose_verdict *verdict, const char *format, ...)
{
	unsigned i = verdict->next[0] != NULL;
	va_list arguments;

	va_start(arguments, format);
	print_text(&verdict->next[i], format, arguments);
	va_end(arguments);
}

/* A heap that cannot be read has figures all the same. */
static void then_what_fills_it(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	then(ret, facts->unread ? "memprobe mallinfo %s" : "memprobe heap %s --by type",
	     facts->target);
}

/* What most verdicts say: `94% of 40.1G is`. */
#define SHARE_TEXT_MAX (SIZE_TEXT_MAX + 16)
static const char *share_text(const struct diagnose_facts *facts, uint64_t bytes,
			      char buffer[SHARE_TEXT_MAX])
{
	char size[SIZE_TEXT_MAX];

	snprintf(buffer, SHARE_TEXT_MAX, "%.0f%% of %s", 100 * share_of(bytes, facts->rss),
		 format_size(facts->rss, size));
	return buffer;
}

/* ---- what may end the process soon ---- */

static bool judge_limit(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	double share = share_of(known(facts->group_usage), facts->group_limit);
	char size[2][SIZE_TEXT_MAX];

	if (facts->group_limit == DIAGNOSE_UNKNOWN || facts->group_usage == DIAGNOSE_UNKNOWN ||
	    share < NEAR_SHARE)
		return false;
	say(ret, "limit", facts->group_usage, share,
	    "its control group uses %.0f%% of its limit of %s: the kernel kills when %s more are "
	    "used",
	    100 * share, format_size(facts->group_limit, size[0]),
	    format_size(facts->group_limit - min_u64(facts->group_limit, facts->group_usage),
			size[1]));
	ret->is_urgent = true;
	then_what_fills_it(facts, ret);
	then(ret, "memprobe allocs %s -d 60 -o unfreed.svg", facts->target);
	return true;
}

static bool judge_ulimit(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	const struct usage_limits *limits = &facts->limits;
	double space =
		limits->space == USAGE_UNKNOWN ? 0 : share_of(limits->space, limits->space_limit);
	double data =
		limits->data == USAGE_UNKNOWN ? 0 : share_of(limits->data, limits->data_limit);
	bool is_space = space >= data;
	char size[SIZE_TEXT_MAX];

	if (fmax(space, data) < NEAR_SHARE)
		return false;
	say(ret, "limit", is_space ? limits->space : limits->data, fmax(space, data),
	    "%s use %.0f%% of the %s that `ulimit -%c` allows: mmap() and malloc() fail beyond",
	    is_space ? "its mappings" : "its private writable mappings", 100 * fmax(space, data),
	    format_size(is_space ? limits->space_limit : limits->data_limit, size),
	    is_space ? 'v' : 'd');
	ret->is_urgent = true;
	then(ret, "memprobe maps %s --by-size", facts->target);
	then(ret, "memprobe syscalls %s -d 60", facts->target);
	return true;
}

static bool judge_commit(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	const struct usage_limits *limits = &facts->limits;
	double share = limits->commit == USAGE_UNKNOWN
			       ? 0
			       : share_of(limits->commit, limits->commit_limit);
	char size[SIZE_TEXT_MAX];

	if (share < NEAR_SHARE)
		return false;
	say(ret, "limit", limits->commit, share,
	    "the machine has promised %.0f%% of the %s that vm.overcommit_memory=2 allows: mmap(), "
	    "malloc() and fork() fail beyond",
	    100 * share, format_size(limits->commit_limit, size));
	ret->is_urgent = true;
	then(ret, "memprobe top --by rss");
	then(ret, "memprobe maps %s --by-size", facts->target);
	return true;
}

static bool judge_address_space(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	double share = share_of(facts->space_used, facts->space);
	char size[4][SIZE_TEXT_MAX];

	if (!facts->space || share < 0.75)
		return false;
	if (facts->stacks && facts->stacks_size > facts->space / 4)
		say(ret, "address-space", facts->space_used, share,
		    "%.0f%% of the %s of addresses that a 32-bit process has are used up: %zu "
		    "stacks reserve %s (%s each) and have used %s; `ulimit -s` before the start "
		    "or pthread_attr_setstacksize() makes them smaller",
		    100 * share, format_size(facts->space, size[0]), facts->stacks,
		    format_size(facts->stacks_size, size[1]),
		    format_size(facts->stacks_size / facts->stacks, size[2]),
		    format_size(facts->stacks_used, size[3]));
	else
		say(ret, "address-space", facts->space_used, share,
		    "%.0f%% of the %s of addresses that a 32-bit process has are used up",
		    100 * share, format_size(facts->space, size[0]));
	ret->is_urgent = true;
	then(ret, "memprobe threads %s --by-size", facts->target);
	then(ret, "memprobe maps %s --by-size", facts->target);
	return true;
}

static bool judge_map_count(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	double share = share_of(facts->mappings, facts->mappings_max);
	char count[2][COUNT_TEXT_MAX];

	if (facts->mappings_max == DIAGNOSE_UNKNOWN || share < NEAR_SHARE)
		return false;
	say(ret, "map-count", facts->mappings, share,
	    "%s mappings of the %s that vm.max_map_count allows: mmap() and pthread_create() fail "
	    "beyond",
	    format_count(facts->mappings, count[0]), format_count(facts->mappings_max, count[1]));
	ret->is_urgent = true;
	then(ret, "memprobe maps %s --by-size", facts->target);
	then(ret, "memprobe syscalls %s -d 60", facts->target);
	return true;
}

/* ---- the heap ---- */

static bool judge_leak(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	char share[SHARE_TEXT_MAX], size[SIZE_TEXT_MAX], count[COUNT_TEXT_MAX];
	uint64_t least = max_u64(LEAK_MUCH, (uint64_t)(LEAK_MUCH_SHARE * (double)facts->rss));

	if (facts->leaked == DIAGNOSE_UNKNOWN || facts->leaked < least)
		return false;
	say(ret, "leak", facts->leaked, share_of(facts->leaked, facts->rss),
	    "%s is leaked: nothing points to these %s blocks (%s) any more",
	    share_text(facts, facts->leaked, share), format_count(facts->leaked_count, count),
	    format_size(facts->leaked, size));
	then(ret, "memprobe leaks %s", facts->target);
	if (facts->is_live)
		then(ret, "memprobe allocs %s -d 60 --reachable -o unfreed.svg", facts->target);
	return true;
}

/* Of glibc, whose trim can be foretold: it has a setting for them. */
static bool has_many_arenas(const struct diagnose_facts *facts)
{
	return facts->allocator && facts->released != DIAGNOSE_UNKNOWN &&
	       facts->arenas >= ARENAS_MANY;
}

static bool judge_free(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	char share[SHARE_TEXT_MAX], size[SIZE_TEXT_MAX];
	uint64_t free = facts->allocator ? heap_free_of(facts) : 0;

	if (!is_much(facts, free))
		return false;
	if (facts->released != DIAGNOSE_UNKNOWN && !is_much(facts, facts->released))
		return false;
	say(ret, "allocator-free", free, share_of(free, facts->rss),
	    facts->released == DIAGNOSE_UNKNOWN || !facts->is_live
		    ? "%s is free memory that %s keeps"
		    : "%s is free memory that %s keeps; `memprobe trim %s` returns %s now%s",
	    share_text(facts, free, share), facts->allocator, facts->target,
	    format_size(known(facts->released), size),
	    has_many_arenas(facts) && facts->arenas_free > free / 2
		    ? "; MALLOC_ARENA_MAX=2 avoids it"
		    : "");
	if (facts->is_live)
		then(ret, "memprobe trim %s", facts->target);
	then(ret, "memprobe mallinfo %s", facts->target);
	return true;
}

static bool judge_fragmentation(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	char share[SHARE_TEXT_MAX];
	uint64_t stays;

	if (!facts->allocator || facts->released == DIAGNOSE_UNKNOWN)
		return false;
	stays = heap_free_of(facts) - min_u64(heap_free_of(facts), facts->released);
	if (!is_much(facts, stays))
		return false;
	say(ret, "fragmentation", stays, share_of(stays, facts->rss),
	    "%s is free memory between blocks in use, which cannot be given back",
	    share_text(facts, stays, share));
	then(ret, "memprobe trim %s --dry-run", facts->target);
	then(ret, "memprobe heap %s --by size", facts->target);
	return true;
}

static bool judge_arenas(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	char size[SIZE_TEXT_MAX];

	if (!has_many_arenas(facts) || !is_much(facts, facts->arenas_free))
		return false;
	say(ret, "arenas", facts->arenas_free, share_of(facts->arenas_free, facts->rss),
	    "%s of free memory is in the %zu arenas of threads that %s has; MALLOC_ARENA_MAX=2 "
	    "limits them",
	    format_size(facts->arenas_free, size), facts->arenas - 1, facts->allocator);
	then(ret, "memprobe mallinfo %s", facts->target);
	return true;
}

/* ---- other memory ---- */

static bool judge_runtime(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	static const char *const ids[] = {
		[RUNTIME_JAVA] = "java-heap",
		[RUNTIME_PYTHON] = "python-heap",
		[RUNTIME_GO] = "go-heap",
		[RUNTIME_OTHER] = NULL,
	};
	uint64_t bytes = anonymous_of(facts) - heap_of(facts);
	char share[SHARE_TEXT_MAX];

	if (facts->runtime == RUNTIME_NONE || !ids[facts->runtime] || !is_much(facts, bytes))
		return false;
	say(ret, ids[facts->runtime], bytes, share_of(bytes, facts->rss),
	    "%s is memory of the runtime (%s), not malloc's", share_text(facts, bytes, share),
	    facts->runtime_name);
	then(ret, "memprobe maps %s --by-size", facts->target);
	if (facts->is_live)
		then(ret, "memprobe faults %s -d 60 -o faults.svg", facts->target);
	return true;
}

/* What malloc has in a Java process: the JVM's own and its libraries'. */
static bool judge_java_native(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	uint64_t bytes = heap_of(facts) - heap_free_of(facts);
	char share[SHARE_TEXT_MAX];

	if (facts->runtime != RUNTIME_JAVA || !is_much(facts, bytes) ||
	    share_of(bytes, facts->rss) < 0.25)
		return false;
	say(ret, "java-native", bytes, share_of(bytes, facts->rss),
	    "%s is native memory of malloc's, outside of the Java heap",
	    share_text(facts, bytes, share));
	then(ret, "memprobe allocs %s -d 60 -o unfreed.svg", facts->target);
	then(ret, "memprobe heap %s --by size", facts->target);
	return true;
}

static bool judge_stacks(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	uint64_t bytes = stacks_of(facts);
	char share[SHARE_TEXT_MAX];

	if (!is_much(facts, bytes))
		return false;
	say(ret, "thread-stacks", bytes, share_of(bytes, facts->rss), "%s is stacks of %zu threads",
	    share_text(facts, bytes, share), facts->stacks);
	then(ret, "memprobe threads %s --by-size", facts->target);
	then(ret, "memprobe stack %s", facts->target);
	return true;
}

static bool judge_files(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	uint64_t bytes = facts->types[MAPPING_FILE];
	char share[SHARE_TEXT_MAX];

	if (!is_much(facts, bytes) || share_of(bytes, facts->rss) < 0.25)
		return false;
	say(ret, "mapped-files", bytes, share_of(bytes, facts->rss),
	    "%s is pages of mapped files, which the kernel takes back when memory is short",
	    share_text(facts, bytes, share));
	then(ret, "memprobe maps %s --by-file", facts->target);
	return true;
}

static bool judge_shmem(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	uint64_t bytes = facts->types[MAPPING_SHM], group = known(facts->group_shmem);
	char share[SHARE_TEXT_MAX], size[SIZE_TEXT_MAX];

	if (is_much(facts, bytes)) {
		say(ret, "shmem", bytes, share_of(bytes, facts->rss),
		    "%s is shared memory, which other processes may have, too",
		    share_text(facts, bytes, share));
		then(ret, "memprobe maps %s --by-file", facts->target);
		return true;
	}
	/* Files of a tmpfs and memfds that nobody maps count against the limit all the same. */
	if (facts->group_limit == DIAGNOSE_UNKNOWN || group < MUCH + bytes ||
	    share_of(group - bytes, facts->group_limit) < MUCH_SHARE)
		return false;
	say(ret, "shmem", group - bytes, share_of(group - bytes, facts->group_limit),
	    "%s of shared memory or tmpfs files count against the limit of its control group, and "
	    "this process does not map them",
	    format_size(group - bytes, size));
	then(ret, "memprobe maps %s --by-file", facts->target);
	return true;
}

static bool judge_huge(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	char share[SHARE_TEXT_MAX], size[SIZE_TEXT_MAX];

	if (!is_much(facts, facts->huge_empty))
		return false;
	say(ret, "huge-pages", facts->huge_empty, share_of(facts->huge_empty, facts->rss),
	    "%s is parts of huge pages that hold only zeros (of %s in huge pages, by a sample)",
	    share_text(facts, facts->huge_empty, share), format_size(facts->huge, size));
	then(ret, "memprobe maps %s --by-type", facts->target);
	then(ret, "cat /sys/kernel/mm/transparent_hugepage/enabled");
	return true;
}

static bool judge_swap(const struct diagnose_facts *facts, struct diagnose_verdict *ret)
{
	double share = share_of(known(facts->swap), facts->rss + known(facts->swap));
	char size[SIZE_TEXT_MAX];

	if (known(facts->swap) < MUCH || share < MUCH_SHARE)
		return false;
	say(ret, "swap", facts->swap, share, "%s is swapped out: %.0f%% of what it holds",
	    format_size(facts->swap, size), 100 * share);
	then(ret, "memprobe maps %s --by-type", facts->target);
	return true;
}

/* ---- nothing of that ---- */

static void judge_steady(const struct diagnose_facts *facts, const struct diagnosis *diagnosis,
			 struct diagnose_verdict *ret)
{
	const struct diagnose_part *largest = NULL;
	char size[2][SIZE_TEXT_MAX];

	vec_for_each (part, &diagnosis->parts)
		if (!largest || part->bytes > largest->bytes)
			largest = part;
	if (largest)
		say(ret, "steady", largest->bytes, share_of(largest->bytes, facts->rss),
		    "nothing is conspicuous in %s; most of it is %s: %s (%.0f%%)",
		    format_size(facts->rss, size[0]), largest->name,
		    format_size(largest->bytes, size[1]),
		    100 * share_of(largest->bytes, facts->rss));
	else
		say(ret, "steady", 0, 0, "it holds no memory of which anything is known");
	then_what_fills_it(facts, ret);
	if (facts->is_live)
		then(ret, "memprobe allocs %s -d 60 -o unfreed.svg", facts->target);
}

/* ---- all of it ---- */

static bool (*const rules[])(const struct diagnose_facts *facts, struct diagnose_verdict *ret) = {
	judge_limit,	 judge_ulimit,	judge_commit,	   judge_address_space,
	judge_map_count, judge_leak,	judge_free,	   judge_fragmentation,
	judge_arenas,	 judge_runtime, judge_java_native, judge_stacks,
	judge_files,	 judge_shmem,	judge_huge,	   judge_swap,
};

static int compare(const void *left, const void *right)
{
	const struct diagnose_verdict *a = left, *b = right;

	if (a->is_urgent != b->is_urgent)
		return a->is_urgent ? -1 : 1;
	return a->share > b->share ? -1 : a->share < b->share;
}

static void verdict_deinit(struct diagnose_verdict *verdict)
{
	free(verdict->text);
	for (unsigned i = 0; i < DIAGNOSE_NEXT_MAX; i++)
		free(verdict->next[i]);
}

static struct error *add_verdict(struct diagnosis *diagnosis, struct diagnose_verdict *verdict)
{
	struct error *error = verdict->text && verdict->next[0]
				      ? diagnose_verdict_vec_append(&diagnosis->verdicts, verdict)
				      : &error_no_memory;

	if (error)
		verdict_deinit(verdict);
	return error;
}

struct error *diagnose(const struct diagnose_facts *facts, struct diagnosis *ret)
{
	struct error *error = fill_parts(facts, ret);
	struct diagnose_verdict verdict;

	for (size_t i = 0; !error && i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i](facts, &verdict))
			error = add_verdict(ret, &verdict);
	if (error)
		return error;
	if (!ret->verdicts.size) {
		judge_steady(facts, ret, &verdict);
		return add_verdict(ret, &verdict);
	}
	qsort(ret->verdicts.data, ret->verdicts.size, sizeof(*ret->verdicts.data), compare);
	return NULL;
}

void diagnosis_deinit(struct diagnosis *diagnosis)
{
	vec_for_each (verdict, &diagnosis->verdicts)
		verdict_deinit(verdict);
	diagnose_verdict_vec_deinit(&diagnosis->verdicts);
	diagnose_part_vec_deinit(&diagnosis->parts);
}
