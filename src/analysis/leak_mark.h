/*
 * leak_mark.h - which blocks the roots reach.
 */
#ifndef LEAK_MARK_H
#define LEAK_MARK_H

#include "leak_scan.h"

/* Sets scan->reached for all blocks in use that can be reached from scan->from_roots. */
struct error *leak_mark(struct leak_scan *scan);

#endif
