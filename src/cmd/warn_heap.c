#include "memprobe/cmd.h"

#include <inttypes.h>

#include "memprobe/heap.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

#define ISSUES_SHOWN 3u

static void warn_of_issues(const struct heap *heap)
{
	size_t shown = 0;

	vec_for_each (issue, &heap->issues)
		if (shown++ < ISSUES_SHOWN)
			log_warn("%s", issue->text);
	if (shown > ISSUES_SHOWN)
		log_warn("and %zu more of that kind", shown - ISSUES_SHOWN);
}

void command_warn_of_heap(struct command_context *context, const struct heap *heap)
{
	char text[SIZE_TEXT_MAX];

	if (heap->is_changing)
		log_warn("the heap changed while it was read: blocks and figures are approximate");
	else
		warn_of_issues(heap);
	if (heap->is_confirmed)
		log_warn("the heap is corrupt: a second look found the same");
	else if (heap->is_damaged && !heap->is_changing)
		log_warn("the heap is corrupt, or a thread was changing it at that moment");
	if (!heap->missing_bytes)
		return;
	log_warn("%s of the heap (%" PRIu64 " bytes) were not found: blocks there are missing here",
		 format_size(heap->missing_bytes, text), heap->missing_bytes);
	context->status = ERROR_PARTIAL;
}
