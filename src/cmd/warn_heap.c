#include "memprobe/cmd.h"
#include "memprobe/heap.h"
#include "memprobe/log.h"

void command_warn_of_heap(const struct heap *heap)
{
	vec_for_each (issue, &heap->issues)
		log_warn("%s", issue->text);
	if (heap->is_changing)
		log_warn("the heap was changing while it was read: the figures are near the truth");
	else if (heap->is_inconsistent)
		log_warn("the heap is corrupt, or was caught in the midst of a change");
}
