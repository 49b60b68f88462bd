/*
 * allocs_record_reach.h - which of the recorded blocks nothing points to any more, by the record.
 *
 * A heap that can be walked tells after the recording which of the blocks are still in use; of a
 * pool, or of another allocator than glibc's, nobody does. So the snapshot is taken while it is
 * recorded: a block that was entered before, and is live when the recording ends behind it, was
 * live in it.
 */
#ifndef ALLOCS_RECORD_REACH_H
#define ALLOCS_RECORD_REACH_H

#include "allocs_reach.h"

/*
 * Ends the recording, and reads what it has. Every recorded block that is older than the snapshot
 * is an object; all other memory but the agent's is searched for pointers to them, blocks that were
 * not recorded included: what only these point to counts as reachable. Also with an error
 * *data_ret may have been set. *ret has to be zeroed.
 */
struct error *allocs_record_reach_find(struct command_context *context,
				       struct trace_session *session,
				       const struct trace_wanted *wanted,
				       struct trace_data **data_ret, struct allocs_reach *ret);

#endif
