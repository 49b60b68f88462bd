/*
 * diagnose_gather.h - reads the figures that `diagnose` judges by, gently: no thread of the target
 * is held for longer than DIAGNOSE_PAUSE_US, and nothing runs in it.
 */
#ifndef DIAGNOSE_GATHER_H
#define DIAGNOSE_GATHER_H

#include "memprobe/cmd.h"
#include "memprobe/diagnose.h"

#define DIAGNOSE_PAUSE_US 50000u

/* @ret borrows from @context; to be freed with diagnose_gathered_deinit(), after failure, too. */
struct diagnose_gathered {
	struct diagnose_facts facts;
	char *no_leaks; /* owned; why there was no search for leaks; NULL: there was one */
};

struct error *diagnose_gather(struct command_context *context, struct diagnose_gathered *ret);
void diagnose_gathered_deinit(struct diagnose_gathered *gathered);

#endif
