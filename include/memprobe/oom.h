/*
 * oom.h - the kernel's out-of-memory kills, read from a kernel log.
 *
 *	struct oom_parser *parser;
 *	oom_parser_create(&parser);
 *	oom_parser_feed(parser, bytes, size);	as often as bytes come, in pieces of any size
 *	oom_parser_finish(parser, &log);
 *
 * What is understood are the messages of mm/oom_kill.c and mm/memcontrol.c of Linux 2.6.18 to 6.18,
 * and of Red Hat's kernels, behind the prefixes of dmesg (-T too), /dev/kmsg, syslog and
 * journalctl, or behind none. Blanks and line breaks may be missing, or stand where a terminal or
 * a mailer put them. Everything else is passed over; the bytes may be anything. Memory grows with
 * the kills that are found, within the bounds below, not with the log.
 *
 * Sizes are in bytes. OOM_UNKNOWN is what the log does not say.
 */
#ifndef MEMPROBE_OOM_H
#define MEMPROBE_OOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "memprobe/error.h"
#include "memprobe/vec.h"

#define OOM_UNKNOWN UINT64_MAX
/* Larger numbers, which no kernel prints, are taken for this one. */
#define OOM_LARGEST ((uint64_t)INT64_MAX)

/* The kernel's names of tasks have at most 15 bytes. */
#define OOM_NAME_MAX 16
#define OOM_TIME_MAX 48
/* What is kept of one log at most; the rest is counted. */
#define OOM_KILLS_MAX	  100000
#define OOM_PROCESSES_MAX (1U << 20)

/* The tables of tasks are in pages, and do not say of what size: see page_size. */
#define OOM_PAGE_SIZE 4096U

/* A row of the table of tasks. Foreign bytes in the name; an absent column is OOM_UNKNOWN. */
struct oom_process {
	pid_t pid;
	char name[OOM_NAME_MAX];
	uint64_t uid;
	uint64_t rss, anon, file, shmem;
	uint64_t total_vm, swap, page_tables;
	int oom_score_adj;
	bool has_oom_score_adj; /* Linux 2.6.36 and later */
};

VEC_DEFINE(oom_process_vec, struct oom_process)

enum oom_constraint {
	OOM_CONSTRAINT_UNKNOWN,
	OOM_CONSTRAINT_NONE, /* the whole machine was out of memory */
	OOM_CONSTRAINT_CPUSET,
	OOM_CONSTRAINT_MEMORY_POLICY,
	OOM_CONSTRAINT_MEMCG,
};

/* Not an allocation, but somebody asked for it: SysRq f. */
#define OOM_ORDER_BY_HAND (-1)
#define OOM_ORDER_UNKNOWN (-2)

/* A counter of a memory cgroup; @limit is OOM_UNKNOWN where there is none, too. */
struct oom_counter {
	uint64_t usage, limit, failures;
};

enum oom_counter_kind {
	OOM_COUNTER_MEMORY,
	OOM_COUNTER_MEMORY_SWAP, /* version 1: both together */
	OOM_COUNTER_KMEM,	 /* version 1 */
	OOM_COUNTER_SWAP,	 /* version 2 */
	OOM_COUNTERS,
};

/* What the memory of the cgroup, or of the machine, was. */
struct oom_memory {
	uint64_t anon;	 /* without shared memory */
	uint64_t file;	 /* page cache, without shared memory and tmpfs if @shmem is known */
	uint64_t shmem;	 /* shared memory and tmpfs */
	uint64_t kernel; /* slab, stacks, page tables ... */
	uint64_t swap;	 /* swapped out, of a cgroup */
	uint64_t swap_total, swap_free; /* of the machine */
	uint64_t ram;			/* that the kernel can use, of the machine */
};

/* What the kernel printed at one time; several kills may go with it (memory.oom.group). */
struct oom_report {
	char trigger[OOM_NAME_MAX]; /* whose allocation failed; "" unknown */
	int order;		    /* of 2^order pages; OOM_ORDER_BY_HAND, OOM_ORDER_UNKNOWN */
	enum oom_constraint constraint;
	char *cgroup;	   /* whose limit was reached; NULL: none, or unknown */
	char *task_cgroup; /* of the victim; NULL: unknown */
	struct oom_counter counters[OOM_COUNTERS];
	/* The counter whose limit was reached; OOM_COUNTERS: unknown. */
	enum oom_counter_kind reached;
	struct oom_memory memory;
	/* As the victim's virtual size shows, which is printed in pages and in kB; else
	 * OOM_PAGE_SIZE.
	 */
	unsigned page_size;
	struct oom_process_vec processes; /* largest RSS first */
	uint64_t processes_left_out;	  /* over OOM_PROCESSES_MAX */
	uint64_t rows_unreadable;	  /* their columns run together */
	bool group;
};

VEC_DEFINE(oom_report_vec, struct oom_report)

struct oom_kill {
	char time[OOM_TIME_MAX]; /* as the log has it; "" where it has none */
	pid_t pid;
	char name[OOM_NAME_MAX];
	uint64_t rss; /* anonymous, file and shared memory, as the kernel counted them */
	uint64_t anon, file, shmem, total_vm, page_tables, uid, score;
	int oom_score_adj;
	bool has_oom_score_adj;
	/* The kernel said `Killed process`; else that line is missing: only the choice is known. */
	bool is_certain;
	bool is_reaped; /* the OOM reaper freed its memory at once */
	size_t report;	/* index into reports */
};

VEC_DEFINE(oom_kill_vec, struct oom_kill)

struct oom_log {
	struct oom_report_vec reports;
	struct oom_kill_vec kills; /* in the order of the log */
	uint64_t kills_left_out;   /* over OOM_KILLS_MAX */
	uint64_t without_kill;	   /* times that the OOM killer ran and named no victim */
};

struct oom_parser;

struct error *oom_parser_create(struct oom_parser **ret);
struct error *oom_parser_feed(struct oom_parser *parser, const char *bytes, size_t size);
/* Once, after the last byte. The caller deinits *ret. */
struct error *oom_parser_finish(struct oom_parser *parser, struct oom_log *ret);
void oom_parser_destroy(struct oom_parser *parser);
CLEANUP_DEFINE(oom_parser, struct oom_parser *, oom_parser_destroy)

void oom_log_deinit(struct oom_log *log);

/* `memcg`, `none` ...; NULL: unknown. */
const char *oom_constraint_name(enum oom_constraint constraint);
/* `memory`, `memory+swap` ...; NULL: unknown. */
const char *oom_counter_name(enum oom_counter_kind kind);

#endif
