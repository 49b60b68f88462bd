/*
 * Byte patterns, with or without bits that may be anything. Two bytes of the pattern, rare ones,
 * are compared at 64 places at once; the rest only where both agree.
 */
#include <string.h>

#include "memprobe/num.h"
#include "search_pattern.h"

typedef uint8_t lane __attribute__((vector_size(16)));
typedef uint64_t lane_halves __attribute__((vector_size(16)));

#define LANE  ((ptrdiff_t)sizeof(lane))
#define STEPS 4 /* lanes at once */

static inline lane load_lane(const uint8_t *bytes)
{
	lane value;

	memcpy(&value, bytes, sizeof(value));
	return value;
}

static inline lane fill_lane(uint8_t byte)
{
	return (lane){ 0 } + byte;
}

struct probe {
	const struct search_fixed *fixed;
	lane value[2], mask[2];
};

/* All ones where both bytes agree with a match that begins there. */
static inline lane candidates(const struct probe *probe, const uint8_t *at)
{
	lane first = load_lane(at + probe->fixed->first);
	lane second = load_lane(at + probe->fixed->second);

	return (lane)((first & probe->mask[0]) == probe->value[0]) &
	       (lane)((second & probe->mask[1]) == probe->value[1]);
}

static inline bool any(lane value)
{
	lane_halves halves = (lane_halves)value;

	return (halves[0] | halves[1]) != 0;
}

static inline bool is_match(const struct search_fixed *fixed, const uint8_t *at)
{
	if (fixed->is_exact)
		return !memcmp(at, fixed->value, fixed->size);
	for (size_t i = 0; i < fixed->size; i++)
		if ((at[i] & fixed->mask[i]) != fixed->value[i])
			return false;
	return true;
}

/* The first match in a lane of candidates, or NULL. */
static const uint8_t *match_in_lane(const struct search_fixed *fixed, const uint8_t *at, lane found)
{
	lane_halves halves = (lane_halves)found;

	for (unsigned half = 0; half < 2; half++) {
		uint64_t left = halves[half];

		while (left) {
			unsigned byte = (unsigned)__builtin_ctzll(left) / 8;
			const uint8_t *place = at + 8 * half + byte;

			if (is_match(fixed, place))
				return place;
			left &= ~(0xffull << 8 * byte);
		}
	}
	return NULL;
}

/* The first match that begins in [at, end), or NULL; the bytes of all of them may be read. */
static const uint8_t *next_match(const struct probe *probe, const uint8_t *at, const uint8_t *end)
{
	const struct search_fixed *fixed = probe->fixed;

	while (end - at >= STEPS * LANE) {
		lane found[STEPS];
		const uint8_t *match;

		for (unsigned i = 0; i < STEPS; i++)
			found[i] = candidates(probe, at + i * LANE);
		if (any((found[0] | found[1]) | (found[2] | found[3]))) {
			for (unsigned i = 0; i < STEPS; i++) {
				match = match_in_lane(fixed, at + i * LANE, found[i]);
				if (match)
					return match;
			}
		}
		at += STEPS * LANE;
	}
	for (; at < end; at++)
		if ((at[fixed->first] & fixed->mask[fixed->first]) == fixed->value[fixed->first] &&
		    is_match(fixed, at))
			return at;
	return NULL;
}

struct error *fixed_search(const struct search_fixed *fixed, const struct scan_block *block,
			   uint64_t from, struct hits *hits)
{
	struct probe probe = {
		.fixed = fixed,
		.value = { fill_lane(fixed->value[fixed->first]),
			   fill_lane(fixed->value[fixed->second]) },
		.mask = { fill_lane(fixed->mask[fixed->first]),
			  fill_lane(fixed->mask[fixed->second]) },
	};
	size_t size = block->end - block->start;
	const uint8_t *at = block->bytes + (int64_t)(from - block->start), *end;

	/* Where the last match may begin. */
	if (size + block->after < fixed->size)
		size = 0;
	else
		size = min_u64(size, size + block->after - fixed->size + 1);
	end = block->bytes + size;
	while (at < end && (at = next_match(&probe, at, end))) {
		uint64_t address = block->start + (uint64_t)(at - block->bytes);
		struct error *error = hits_add(hits, address, fixed->size);

		if (error)
			return error;
		at += fixed->size;
	}
	return NULL;
}
