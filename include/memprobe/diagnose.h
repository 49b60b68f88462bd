/*
 * diagnose.h - from figures to the answer: what holds a process's memory, and what to type next.
 *
 * Pure: whoever has the figures fills `struct diagnose_facts`; nothing is read here.
 *
 * To add a verdict: a function and its row in `rules` of src/analysis/diagnose.c, with the figures
 * that it needs in `struct diagnose_facts`. Its id is a contract: add, never rename.
 */
#ifndef MEMPROBE_DIAGNOSE_H
#define MEMPROBE_DIAGNOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/process_usage.h"
#include "memprobe/maps.h"
#include "memprobe/vec.h"

#define DIAGNOSE_UNKNOWN UINT64_MAX

/* A language runtime whose memory is no malloc's. */
enum diagnose_runtime {
	RUNTIME_NONE,
	RUNTIME_JAVA,
	RUNTIME_PYTHON,
	RUNTIME_GO,
	RUNTIME_OTHER, /* one without a verdict of its own */
};

/* Bytes, unless the name says otherwise; DIAGNOSE_UNKNOWN: not known. */
struct diagnose_facts {
	const char *target; /* as the user typed it, for commands; lent */
	bool is_live;
	uint64_t rss; /* the sum of the next; of a core: what it holds of them */
	uint64_t types[MAPPING_TYPES];
	uint64_t swap, page_tables; /* beside rss */

	/* The heap, if it could be read: of an allocator with that title. Resident bytes. */
	const char *allocator; /* lent; NULL: not read */
	const char *unread;    /* lent; the title of the one that could not be read; NULL */
	uint64_t heap;	       /* pages of the allocator's */
	uint64_t heap_free;    /* of it: in free blocks */
	uint64_t released;     /* of that: what a trim would return now */
	size_t arenas;
	uint64_t arenas_free; /* of heap_free: in all but the main arena */

	/* Unknown: nobody looked. */
	uint64_t leaked, leaked_count;

	enum diagnose_runtime runtime;
	const char *runtime_name; /* lent, e.g. `python: pymalloc` */

	size_t stacks; /* whose figures are known */
	uint64_t stacks_size, stacks_used;
	uint64_t space,
		space_used; /* addresses that a 32-bit process has, and uses; 0: of 64 bits */
	size_t mappings;
	uint64_t mappings_max; /* vm.max_map_count */

	uint64_t huge;	     /* in transparent huge pages */
	uint64_t huge_empty; /* of that: 4 KiB parts that hold only zeros, as a sample says */

	/* Of its control group; see cgroup.h. */
	uint64_t group_usage, group_limit, group_shmem;
	struct usage_limits limits;
};

struct diagnose_part {
	const char *name; /* static, or lent by the facts */
	uint64_t bytes;
};

VEC_DEFINE(diagnose_part_vec, struct diagnose_part)

#define DIAGNOSE_NEXT_MAX 2u

struct diagnose_verdict {
	const char *id; /* static; as in the JSON */
	uint64_t bytes; /* that it is about */
	double share;	/* of RSS, or of the limit that is near: 0..1 */
	bool is_urgent; /* it may end the process: before what is merely large */
	char *text;	/* owned; a sentence without a full stop, the number in front */
	char *next[DIAGNOSE_NEXT_MAX]; /* owned; command lines; NULL: no more */
};

VEC_DEFINE(diagnose_verdict_vec, struct diagnose_verdict)

struct diagnosis {
	struct diagnose_part_vec parts; /* with @unexplained they add up to facts->rss */
	uint64_t unexplained;
	struct diagnose_verdict_vec verdicts; /* worst first; at least one */
};

/* *ret has to be zeroed. Fails for lack of memory only. Borrows names of @facts. */
struct error *diagnose(const struct diagnose_facts *facts, struct diagnosis *ret);
void diagnosis_deinit(struct diagnosis *diagnosis);

#endif
