#include "memprobe/range.h"

#include "memprobe/lower_bound.h"
#include "memprobe/num.h"

static int compare_starts(const void *left, const void *right)
{
	const struct range *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

void ranges_normalise(struct range_vec *ranges)
{
	size_t kept = 0;

	if (!ranges->size)
		return;
	qsort(ranges->data, ranges->size, sizeof(*ranges->data), compare_starts);
	for (size_t i = 0; i < ranges->size; i++) {
		struct range range = ranges->data[i];

		if (range.start >= range.end)
			continue;
		if (kept && range.start <= ranges->data[kept - 1].end)
			ranges->data[kept - 1].end = max_u64(range.end, ranges->data[kept - 1].end);
		else
			ranges->data[kept++] = range;
	}
	ranges->size = kept;
}

const struct range *ranges_find(const struct range_vec *ranges, uint64_t address)
{
	size_t at = lower_bound(ranges->data, ranges->size, range, range->end <= address);

	return at < ranges->size && ranges->data[at].start <= address ? &ranges->data[at] : NULL;
}

struct error *ranges_add(struct range_vec *ranges, uint64_t start, uint64_t end)
{
	struct range *last = ranges->size ? &ranges->data[ranges->size - 1] : NULL;
	struct range range = { start, end };

	if (start >= end)
		return NULL;
	if (last && start <= last->end) {
		last->end = max_u64(last->end, end);
		return NULL;
	}
	return range_vec_append(ranges, &range);
}

uint64_t ranges_size(const struct range_vec *ranges)
{
	uint64_t bytes = 0;

	vec_for_each (range, ranges)
		bytes += range->end - range->start;
	return bytes;
}
