/* history.h - the modules that a target had at some time of a recording. Private to record/. */
#ifndef RECORD_HISTORY_H
#define RECORD_HISTORY_H

#include "memprobe/target.h"

struct history;

/* Learns what @target has now. */
struct error *history_create(struct target *target, struct history **ret);
struct error *history_add(struct history *history, struct target *now);
/*
 * Learns what the target has now if code has come or gone since the last time, by its @maps.
 * *now_ret is then the target as it is, for the caller to destroy, else NULL.
 */
struct error *history_learn(struct history *history, const struct mapping_vec *maps,
			    struct target **now_ret);
/* The next history_learn() learns in any case. */
void history_learn_again(struct history *history);
/* The target as symbolizer_create() wants it, with all of them. */
struct target *history_target(struct history *history);
void history_destroy(struct history *history);

#endif
