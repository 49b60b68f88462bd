/*
 * oom_messages.h - the messages of the OOM killer: a function reads one, behind its phrase.
 */
#ifndef MEMPROBE_OOM_MESSAGES_H
#define MEMPROBE_OOM_MESSAGES_H

#include "oom_parser.h"

/* How far before a phrase its message may begin. */
#define OOM_LOOK_BACK 80U

struct oom_record {
	struct oom_parser *parser;
	struct scan scan;   /* what follows the phrase; moved behind the message */
	const char *phrase; /* where it begins */
	const char *before; /* what is not part of another message begins here */
};

/* What is no such message after all is passed over: the phrase may stand in any text. */
typedef struct error *oom_read_message(struct oom_record *record);

oom_read_message oom_on_invoked;
oom_read_message oom_on_task_in;
oom_read_message oom_on_memory;
oom_read_message oom_on_memory_swap;
oom_read_message oom_on_kmem;
oom_read_message oom_on_swap;
oom_read_message oom_on_statistics;
oom_read_message oom_on_heading;
oom_read_message oom_on_constraint;
oom_read_message oom_on_choice;
oom_read_message oom_on_exiting;
oom_read_message oom_on_group;
oom_read_message oom_on_killed;
oom_read_message oom_on_reaped;
oom_read_message oom_on_mem_info;
oom_read_message oom_on_pages;
oom_read_message oom_on_free_swap;
oom_read_message oom_on_total_swap;
oom_read_message oom_on_ram;
oom_read_message oom_on_reserved;

/* `anon 4194304`, `cache:108KB` and so on; false: there is none. Passes them. */
bool oom_read_statistics(struct oom_record *record, struct scan *scan);

#endif
