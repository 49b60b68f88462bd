#include "memprobe/call.h"

#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/num.h"

/* ---- a place to map ---- */

struct error *call_find_gap(struct target *target, uint64_t size, unsigned attempt, uint64_t *ret)
{
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(target, MAPS_PLAIN, &maps);
	uint64_t from = 1 << 20, best_start = 0, best_size = 0, place;

	for (size_t i = 0; !error && i < maps.size; i++) {
		const struct mapping *mapping = &maps.data[i];

		if (mapping->start > from && mapping->start <= target->arch->address_max &&
		    mapping->start - from > best_size) {
			best_start = from;
			best_size = mapping->start - from;
		}
		from = max_u64(from, mapping->end);
	}
	mappings_deinit(&maps);
	if (error)
		return error;
	/* The middle: the heap grows into a gap from below, new mappings and the stack from above.
	 */
	place = round_down(best_start + best_size / 2, PAGE_SIZE) + attempt * (size + PAGE_SIZE);
	if (best_size < 2 * size || place + size > best_start + best_size)
		return error_create(ERROR_UNSUPPORTED,
				    "the address space of %d has no room for %llu bytes",
				    (int)target->pid, (unsigned long long)size);
	*ret = place;
	return NULL;
}

/* ---- a function by its name ---- */

#define NEAR_MAX 4

struct near_names {
	const char *wanted;
	char names[NEAR_MAX][64];
	unsigned distances[NEAR_MAX];
	unsigned count;
};

/* Levenshtein distance, at most @limit. */
static unsigned distance(const char *a, const char *b, unsigned limit)
{
	size_t length_a = strlen(a), length_b = strlen(b);
	unsigned row[64];

	if (length_b >= sizeof(row) / sizeof(row[0]) || length_a > length_b + limit ||
	    length_b > length_a + limit)
		return limit;
	for (size_t j = 0; j <= length_b; j++)
		row[j] = j;
	for (size_t i = 1; i <= length_a; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= length_b; j++) {
			unsigned above = row[j];
			unsigned cost = diagonal + (a[i - 1] != b[j - 1]);

			row[j] = min_u64(cost, min_u64(above, row[j - 1]) + 1);
			diagonal = above;
		}
	}
	return min_u64(row[length_b], limit);
}

static bool visit_name(const char *name, const struct elf_symbol *symbol, void *data)
{
	struct near_names *near = data;
	unsigned place = near->count, found;

	if (symbol->type != STT_FUNC && symbol->type != STT_GNU_IFUNC)
		return true;
	found = distance(near->wanted, name, 3);
	if (found >= 3)
		return true;
	for (unsigned i = 0; i < near->count; i++)
		if (!strcmp(near->names[i], name))
			return true;
	while (place > 0 && near->distances[place - 1] > found)
		place--;
	if (place == NEAR_MAX)
		return true;
	near->count = min_u64(near->count + 1, NEAR_MAX);
	for (unsigned i = near->count - 1; i > place; i--) {
		memcpy(near->names[i], near->names[i - 1], sizeof(near->names[i]));
		near->distances[i] = near->distances[i - 1];
	}
	snprintf(near->names[place], sizeof(near->names[place]), "%s", name);
	near->distances[place] = found;
	return true;
}

static struct error *no_such_function(struct target *target, const char *name)
{
	struct near_names near = { .wanted = name };
	struct error *error =
		error_create(ERROR_UNSUPPORTED, "%d has no function '%s'", (int)target->pid, name);
	struct module_vec *modules;
	char list[NEAR_MAX * 66] = "";
	size_t length = 0;

	if (target_modules(target, (const struct module_vec **)&modules))
		return error;
	for (size_t i = 0; i < modules->size; i++)
		error_destroy(module_each_symbol(target, &modules->data[i], visit_name, &near));
	for (unsigned i = 0; i < near.count; i++)
		length += snprintf(list + length, sizeof(list) - length, "%s%s", i ? ", " : "",
				   near.names[i]);
	return near.count ? error_hint(error, "there is %s", list) : error;
}

static struct error *run_resolver(struct call_session *session, struct target *target,
				  uint64_t resolver, uint64_t *ret)
{
	struct call_script script;
	struct call_result result;
	struct error *error;
	size_t word;

	call_begin(&script, target->arch);
	word = call_add_function(&script, resolver, 0, NULL);
	call_add_marker(&script);
	error = call_run(session, &script, NULL, &result);
	if (!error)
		*ret = call_result_word(&result, &script, word);
	return error;
}

struct error *call_find_function(struct call_session *session, const char *name, uint64_t *ret)
{
	struct target *target = call_target(session);
	struct elf_symbol symbol;

	if (!target_symbol(target, name, &symbol, NULL) ||
	    (symbol.type != STT_FUNC && symbol.type != STT_GNU_IFUNC))
		return no_such_function(target, name);
	if (symbol.type == STT_GNU_IFUNC)
		return run_resolver(session, target, symbol.address, ret);
	*ret = symbol.address;
	return NULL;
}
