/*
 * What memory was used for, out of the figures of a cgroup (memory.stat) or of the machine.
 */
#include <string.h>

#include "memprobe/num.h"
#include "oom_parser.h"

static const struct {
	const char *key;
	enum oom_figure figure;
} group_keys[] = {
	{ "anon", FIGURE_ANON },	   { "rss", FIGURE_ANON },
	{ "total_rss", FIGURE_ANON },	   { "file", FIGURE_FILE },
	{ "cache", FIGURE_FILE },	   { "total_cache", FIGURE_FILE },
	{ "shmem", FIGURE_SHMEM },	   { "total_shmem", FIGURE_SHMEM },
	{ "kernel", FIGURE_KERNEL },	   { "slab", FIGURE_SLAB },
	{ "kernel_stack", FIGURE_STACKS }, { "pagetables", FIGURE_PAGE_TABLES },
	{ "percpu", FIGURE_PERCPU },	   { "swap", FIGURE_SWAP },
	{ "total_swap", FIGURE_SWAP },
};

static const struct {
	const char *key;
	enum oom_figure figure;
	unsigned unit;
} machine_keys[] = {
	{ "active_anon", MACHINE_ACTIVE_ANON, OOM_PAGE_SIZE },
	{ "inactive_anon", MACHINE_INACTIVE_ANON, OOM_PAGE_SIZE },
	{ "active_file", MACHINE_ACTIVE_FILE, OOM_PAGE_SIZE },
	{ "inactive_file", MACHINE_INACTIVE_FILE, OOM_PAGE_SIZE },
	{ "shmem", MACHINE_SHMEM, OOM_PAGE_SIZE },
	{ "slab_reclaimable", MACHINE_SLAB_RECLAIMABLE, OOM_PAGE_SIZE },
	{ "slab_unreclaimable", MACHINE_SLAB_UNRECLAIMABLE, OOM_PAGE_SIZE },
	{ "pagetables", MACHINE_PAGE_TABLES, OOM_PAGE_SIZE },
	{ "free swap", MACHINE_FREE_SWAP, 1 },
	{ "total swap", MACHINE_TOTAL_SWAP, 1 },
	{ "ram", MACHINE_RAM, OOM_PAGE_SIZE },
	{ "reserved", MACHINE_RESERVED, OOM_PAGE_SIZE },
};

static uint64_t times(uint64_t value, unsigned unit)
{
	return value > OOM_LARGEST / unit ? OOM_LARGEST : value * unit;
}

/* Unknown is nothing, but for unknown and unknown. */
static uint64_t plus(uint64_t a, uint64_t b)
{
	if (a == OOM_UNKNOWN || b == OOM_UNKNOWN)
		return a == OOM_UNKNOWN ? b : a;
	return min_u64(a + b, OOM_LARGEST);
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	if (a == OOM_UNKNOWN || b == OOM_UNKNOWN)
		return a;
	return a > b ? a - b : 0;
}

struct error *oom_report_statistics_of(struct oom_parser *parser, const char *start,
				       const char *end)
{
	struct oom_current *now = &parser->now;
	struct oom_report *report = &parser->log.reports.data[parser->log.reports.size - 1];
	cleanup(free) char *path = NULL;
	struct error *error = oom_set_path(&path, start, end);

	if (error)
		return error;
	/* The report once more, by another logger: not to be added up. */
	if (now->statistics_path && path && !strcmp(path, now->statistics_path))
		for (size_t i = 0; i <= FIGURE_SWAP; i++)
			now->figures[i] = OOM_UNKNOWN;
	if (!report->cgroup && path)
		error = oom_set_path(&report->cgroup, start, end);
	if (!now->statistics_path)
		now->statistics_path = take_pointer(path);
	return error;
}

void oom_report_statistic(struct oom_parser *parser, const char *key, uint64_t value, bool is_kib)
{
	for (size_t i = 0; i < sizeof(group_keys) / sizeof(*group_keys); i++) {
		uint64_t *figure = &parser->now.figures[group_keys[i].figure];

		if (strcmp(key, group_keys[i].key))
			continue;
		*figure = is_kib ? plus(*figure, times(value, 1024)) : value;
		return;
	}
}

void oom_report_machine(struct oom_parser *parser, const char *key, uint64_t value)
{
	for (size_t i = 0; i < sizeof(machine_keys) / sizeof(*machine_keys); i++) {
		uint64_t *figure = &parser->now.figures[machine_keys[i].figure];

		if (!strcmp(key, machine_keys[i].key) && *figure == OOM_UNKNOWN)
			*figure = times(value, machine_keys[i].unit);
	}
}

static void sum_up_group(const struct oom_report *report, const uint64_t *figures,
			 struct oom_memory *ret)
{
	const struct oom_counter *kmem = &report->counters[OOM_COUNTER_KMEM];
	const struct oom_counter *swap = &report->counters[OOM_COUNTER_SWAP];
	const struct oom_counter *both = &report->counters[OOM_COUNTER_MEMORY_SWAP];
	const struct oom_counter *memory = &report->counters[OOM_COUNTER_MEMORY];

	ret->anon = figures[FIGURE_ANON];
	ret->shmem = figures[FIGURE_SHMEM];
	ret->file = minus(figures[FIGURE_FILE], ret->shmem);
	ret->kernel = figures[FIGURE_KERNEL];
	if (ret->kernel == OOM_UNKNOWN)
		ret->kernel = kmem->usage;
	if (ret->kernel == OOM_UNKNOWN && figures[FIGURE_SLAB] != OOM_UNKNOWN)
		ret->kernel = plus(plus(figures[FIGURE_SLAB], figures[FIGURE_STACKS]),
				   plus(figures[FIGURE_PAGE_TABLES], figures[FIGURE_PERCPU]));
	ret->swap = figures[FIGURE_SWAP] == OOM_UNKNOWN ? swap->usage : figures[FIGURE_SWAP];
	/* Without accounting of swap, both together are 0. */
	if (ret->swap == OOM_UNKNOWN && both->usage != OOM_UNKNOWN &&
	    memory->usage != OOM_UNKNOWN && both->usage >= memory->usage)
		ret->swap = both->usage - memory->usage;
}

static void sum_up_machine(const uint64_t *figures, struct oom_memory *ret)
{
	ret->shmem = figures[MACHINE_SHMEM];
	ret->anon = minus(plus(figures[MACHINE_ACTIVE_ANON], figures[MACHINE_INACTIVE_ANON]),
			  ret->shmem);
	ret->file = plus(figures[MACHINE_ACTIVE_FILE], figures[MACHINE_INACTIVE_FILE]);
	ret->kernel =
		plus(plus(figures[MACHINE_SLAB_RECLAIMABLE], figures[MACHINE_SLAB_UNRECLAIMABLE]),
		     figures[MACHINE_PAGE_TABLES]);
}

void oom_sum_up(const struct oom_current *now, struct oom_report *report)
{
	struct oom_memory *memory = &report->memory;

	if (report->constraint == OOM_CONSTRAINT_MEMCG)
		sum_up_group(report, now->figures, memory);
	else
		sum_up_machine(now->figures, memory);
	memory->swap_total = now->figures[MACHINE_TOTAL_SWAP];
	memory->swap_free = now->figures[MACHINE_FREE_SWAP];
	memory->ram = minus(now->figures[MACHINE_RAM], now->figures[MACHINE_RESERVED]);
}
