/*
 * classify.h - what each mapping of a target is for.
 */
#ifndef MEMPROBE_CLASSIFY_H
#define MEMPROBE_CLASSIFY_H

#include "memprobe/target.h"

/*
 * Fills in type, tid and label of every mapping of a vector sorted by address. Names and
 * permissions decide where they can; glibc's arenas and mmapped chunks are known by their headers
 * in the target's memory, of which only pages that are present are read, so that nothing is faulted
 * in. Where memory may not be read, such mappings stay `anon`. @threads may be NULL: no thread
 * stacks and no arena users then. Time grows linearly with the mappings (but for sorting threads
 * and modules). Fails for lack of memory only.
 */
struct error *mappings_classify(struct target *target, struct mapping_vec *maps,
				const struct thread_vec *threads);

/* The three steps that most commands need: maps, threads, classification. */
struct error *target_read_classified(struct target *target, enum maps_detail detail,
				     struct mapping_vec *ret);

#endif
