#include "memprobe/search.h"

#include <stdatomic.h>

#include "memprobe/num.h"
#include "search_pattern.h"

struct search {
	const struct search_request *request;
	struct search_result *result;
	_Atomic uint64_t to_list; /* matches that may still be shown */
	uint64_t end;		  /* of the last match */
};

/* ---- pointers ---- */

static inline bool points_into(const struct search_words *words, uint64_t word)
{
	return word - words->lowest < words->highest - words->lowest &&
	       ranges_contain(&words->ranges, word);
}

static struct error *words_search(const struct search_words *words, const struct scan_block *block,
				  uint64_t from, struct hits *hits)
{
	uint64_t address = round_up(from, words->size);
	/* A word that begins here has its end here, but for ranges that end within it. */
	uint64_t end = block->end - block->end % words->size;
	const uint8_t *bytes = block->bytes - block->start;
	struct error *error = NULL;

	if (words->size == 8) {
		for (; !error && address < end; address += 8)
			if (points_into(words, load_word(bytes + address, 8)))
				error = hits_add(hits, address, 8);
	} else {
		for (; !error && address < end; address += 4)
			if (points_into(words, load_word(bytes + address, 4)))
				error = hits_add(hits, address, 4);
	}
	return error;
}

/* ---- blocks ---- */

struct error *search_too_hard(void)
{
	return error_hint(error_create(ERROR_FAILED,
				       "the regular expression takes too long at "
				       "more than %u places",
				       SEARCH_GIVE_UP_MAX),
			  "avoid repeats of repeats, such as (a+)+");
}

struct error *search_block(const struct search_pattern *pattern, const struct scan_block *block,
			   uint64_t from, struct hits *hits)
{
	hits->count = 0;
	hits->list.size = 0;
	hits->gave_up = 0;
	if (from >= block->end)
		return NULL;
	switch (pattern->kind) {
	case SEARCH_FIXED:
		return fixed_search(&pattern->fixed, block, from, hits);
	case SEARCH_REGEX:
		return regex_search(pattern->code, block, from, hits);
	case SEARCH_POINTERS:
		return words_search(&pattern->words, block, max_u64(from, block->start), hits);
	}
	return NULL;
}

static struct error *create_hits(void *data, void **ret)
{
	*ret = calloc(1, sizeof(struct hits));
	return *ret ? NULL : &error_no_memory;
}

static void destroy_hits(void *result)
{
	struct hits *hits = result;

	hit_vec_deinit(&hits->list);
	search_machine_destroy(hits->machine);
	free(hits);
}

static struct error *look(void *data, const struct scan_block *block, void *result)
{
	struct search *search = data;
	const struct search_pattern *pattern = search->request->pattern;
	struct hits *hits = result;
	/* Untouched pages before it: what begins there and reaches into it is of this block. */
	uint64_t from = block->start -
			min_u64(block->untouched, min_u64(pattern->before, SEARCH_MATCH_MAX - 1));

	hits->keep = search->to_list;
	return search_block(pattern, block, from, hits);
}

static struct error *show(struct search *search, const struct scan_block *block,
			  const struct hit *hit)
{
	const struct search_request *request = search->request;
	int64_t offset = (int64_t)(hit->address - block->start);
	int64_t behind = (int64_t)(block->end - block->start + block->after) - offset - hit->size;
	struct search_match match = {
		.address = hit->address,
		.size = hit->size,
		.bytes = block->bytes + offset,
		.before = min_u64(request->context, (int64_t)block->before + offset),
		.after = min_u64(request->context, behind),
	};

	search->to_list--;
	return request->match(request->data, &match);
}

static struct error *commit(void *data, const struct scan_block *block, void *result)
{
	struct search *search = data;
	struct hits *hits = result;
	struct error *error = NULL;

	/* The last match of the block before reaches into the first one of this. */
	if (hits->count && hits->first < search->end)
		error = search_block(search->request->pattern, block, search->end, hits);
	if (error)
		return error;
	search->result->gave_up += hits->gave_up;
	if (search->result->gave_up > SEARCH_GIVE_UP_MAX)
		return search_too_hard();
	if (!hits->count)
		return NULL;
	search->result->count += hits->count;
	search->end = hits->end;
	vec_for_each (hit, &hits->list)
		if (!error && search->to_list)
			error = show(search, block, hit);
	return error;
}

struct error *search_run(const struct search_request *request, struct search_result *ret)
{
	static const struct scan_ops ops = { create_hits, destroy_hits, look, commit };
	const struct search_pattern *pattern = request->pattern;
	struct search search = { .request = request, .result = ret, .to_list = request->list };
	size_t context = request->list ? min_u64(request->context, SEARCH_CONTEXT_MAX) : 0;
	struct scan_request scan = {
		.target = request->target,
		.maps = request->maps,
		.ranges = request->ranges,
		.before = pattern->before + context,
		.after = pattern->after + context,
		.interrupted = request->interrupted,
		.ops = &ops,
		.data = &search,
	};

	return memory_scan(&scan, &ret->scan);
}

void search_result_deinit(struct search_result *result)
{
	scan_result_deinit(&result->scan);
}
