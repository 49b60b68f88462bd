/* Finds the description of the function that an address of the target lies in. */
#include <stdlib.h>
#include <string.h>

#include "memprobe/eh_frame.h"
#include "memprobe/log.h"
#include "memprobe/lower_bound.h"
#include "memprobe/num.h"
#include "unwind_compile.h"
#include "unwinder.h"

/* Addresses that were lately asked for. */
#define KNOWN_BITS 12

struct cfi_module {
	uint64_t start, end; /* of its text in the target */
	size_t index;	     /* into target->modules */
	uint64_t bias;
	bool is_read;
	uint8_t *bytes;
	uint64_t address, size;	       /* of the bytes, in the target */
	struct eh_frame_index *lookup; /* NULL: it has no call frame information */
};

VEC_DEFINE(cfi_module_vec, struct cfi_module)

struct known {
	uint64_t pc; /* 0: none */
	const struct cfi_module *module;
	bool found;
	struct cfi_function function;
};

struct cfi_finder {
	struct target *target;
	struct cfi_module_vec modules; /* sorted by address */
	const struct cfi_module *last;
	struct known known[1 << KNOWN_BITS];
};

static int compare_modules(const void *a, const void *b)
{
	const struct cfi_module *left = a, *right = b;

	return left->start < right->start ? -1 : left->start > right->start;
}

struct error *cfi_finder_create(struct target *target, struct cfi_finder **ret)
{
	struct cfi_finder *finder = calloc(1, sizeof(*finder));
	const struct module_vec *modules;
	struct error *error = finder ? target_modules(target, &modules) : &error_no_memory;

	for (size_t i = 0; !error && i < modules->size; i++) {
		const struct module *module = &modules->data[i];
		struct cfi_module cfi = { .index = i, .bias = module->bias };

		if (module_text(module, &cfi.start, &cfi.end))
			error = cfi_module_vec_append(&finder->modules, &cfi);
	}
	if (error) {
		cfi_finder_destroy(finder);
		return error;
	}
	if (finder->modules.size)
		qsort(finder->modules.data, finder->modules.size, sizeof(*finder->modules.data),
		      compare_modules);
	finder->target = target;
	*ret = finder;
	return NULL;
}

void cfi_finder_destroy(struct cfi_finder *finder)
{
	if (!finder)
		return;
	vec_for_each (module, &finder->modules) {
		eh_frame_index_destroy(module->lookup);
		free(module->bytes);
	}
	cfi_module_vec_deinit(&finder->modules);
	free(finder);
}

static void read_module(struct cfi_finder *finder, struct cfi_module *cfi)
{
	struct module *module = &finder->target->modules.data[cfi->index];
	struct eh_frame eh_frame;
	struct error *error;

	cfi->is_read = true;
	if (!unwind_read_eh_frame(finder->target, module, &eh_frame, &cfi->bytes) || !cfi->bytes)
		return;
	cfi->address = cfi->bias + eh_frame.address;
	cfi->size = eh_frame.size;
	error = eh_frame_index_create(&eh_frame, &cfi->lookup);
	if (error)
		log_debug("no call frame information of %s: %s", module->path, error->message);
	error_destroy(error);
}

/* The last one that begins at @pc or below. */
static struct cfi_module *module_at(struct cfi_finder *finder, uint64_t pc)
{
	struct cfi_module *modules = finder->modules.data;
	size_t low = lower_bound(modules, finder->modules.size, module, module->start <= pc);

	return low && pc < modules[low - 1].end ? &modules[low - 1] : NULL;
}

static void look_up(struct cfi_finder *finder, struct known *known)
{
	struct cfi_module *module = module_at(finder, known->pc);
	struct eh_frame_function function;

	if (module && !module->is_read)
		read_module(finder, module);
	known->module = module;
	known->found = module && module->lookup &&
		       eh_frame_index_find(module->lookup, known->pc - module->bias, &function);
	if (!known->found)
		return;
	known->function = (struct cfi_function){
		.start = module->bias + function.start,
		.end = module->bias + function.end,
		.fde = module->address + function.position,
		.is_signal = function.is_signal,
		.is_usual = function.is_usual,
	};
}

bool cfi_find(struct cfi_finder *finder, uint64_t pc, struct cfi_function *ret)
{
	size_t slot = pc * UINT64_C(0x9e3779b97f4a7c15) >> (64 - KNOWN_BITS);
	struct known *known = &finder->known[slot];

	if (!pc)
		return false;
	if (known->pc != pc) {
		known->pc = pc;
		look_up(finder, known);
	}
	finder->last = known->module;
	if (known->found)
		*ret = known->function;
	return known->found;
}

bool cfi_is_described(const struct cfi_finder *finder)
{
	return finder->last && finder->last->lookup;
}

bool cfi_read(const struct cfi_finder *finder, uint64_t address, uint64_t *ret)
{
	const struct cfi_module *module = finder->last;
	uint8_t word[8] = { 0 };
	uint64_t offset;

	if (!module || !module->bytes)
		return false;
	offset = address - module->address;
	if (offset < module->size && module->size - offset >= sizeof(word)) {
		*ret = load_word(module->bytes + offset, sizeof(word));
		return true;
	}
	/* Whoever reads aligned words reads some bytes too many at either end. */
	if (offset >= module->size && offset < -sizeof(word) + 1)
		return false;
	for (unsigned i = 0; i < sizeof(word); i++)
		if (offset + i < module->size)
			word[i] = module->bytes[offset + i];
	*ret = load_word(word, sizeof(word));
	return true;
}
