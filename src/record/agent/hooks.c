/* What stands at the entries of hooked functions, and how it comes and goes. */
#include "agent_recorder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hook_code.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "relocate.h"

_Static_assert(HOOK_CODE_MAX + RELOCATE_CODE_MAX <= NEAR_SLOT,
	       "the hook, and the function as it was, have room");

static struct error *plan_one(struct hooks *hooks, struct function *function, uint64_t image,
			      uint32_t mode, struct agent_config *config)
{
	const struct function_spec *spec = function->spec;
	uint64_t near = hooks->near + hooks->count * NEAR_SLOT;
	uint8_t *bytes = hooks->near_bytes + hooks->count * NEAR_SLOT;
	struct agent_slot *slot = &config->slots[hooks->count];
	struct hook_code hook;
	struct relocated moved;
	uint64_t patched;

	hook_code_make(&hook, image, hooks->count, spec->entry, mode);
	function->refused =
		relocate_function(function->code, function->code_size, function->address,
				  near + hook.size, spec->arguments, &moved);
	if (!function->refused && function->has_breakpoint && !moved.patch_offset)
		function->refused = "a breakpoint stands at its beginning";
	if (function->refused)
		return NULL;
	if (!moved.patch_offset)
		log_debug("%s is hooked at its first byte", function->name);
	patched = function->address + moved.patch_offset;
	hook_code_undo(&hook, &moved.undo);
	*slot = (struct agent_slot){
		.original = near + hook.size,
		.kind = spec->kind,
		.flags = (spec->swap ? AGENT_SLOT_SWAP : 0) | function->flags,
		.arg_pointer = spec->pointer,
		.arg_size = spec->size,
		.arg_count = spec->count,
		.arg_context = function->context,
		.context_form = function->context_form,
		.size_form = function->size_form,
		.context_word = function->context_word,
		.size_word = function->size_word,
		.function = patched,
		.hook = near + hook.begin,
		.saved_size = RELOCATE_JUMP,
	};
	if (!relocate_jump(patched, slot->hook, slot->patch)) {
		function->refused = "it is too far from any free room";
		return NULL;
	}
	memcpy(slot->saved, function->code + moved.patch_offset, RELOCATE_JUMP);
	memcpy(bytes, hook.bytes, hook.size);
	memcpy(bytes + hook.size, moved.code, moved.size);
	function->slot = ++hooks->count;
	return NULL;
}

/* The function that new is to be replaced by: the original one if that is hooked itself. */
static uint64_t direct_of(const struct hooks *hooks, const struct agent_config *config,
			  bool aligned)
{
	static const char *const plain[] = { "malloc", NULL };
	static const char *const with_alignment[] = { "memalign", "aligned_alloc", NULL };

	for (const char *const *name = aligned ? with_alignment : plain; *name; name++) {
		vec_for_each (function, &hooks->functions) {
			if (strcmp(function->spec->name, *name))
				continue;
			return function->slot ? config->slots[function->slot - 1].original
					      : function->address;
		}
	}
	return 0;
}

struct error *hooks_plan(struct hooks *hooks, uint64_t image, uint32_t mode,
			 struct agent_config *config)
{
	struct error *error = NULL;

	vec_for_each (function, &hooks->functions) {
		if (!error && !function->refused && hooks->count == AGENT_SLOTS)
			function->refused = "there are too many";
		if (!error && !function->refused)
			error = plan_one(hooks, function, image, mode, config);
	}
	for (unsigned i = 0; !error && i < hooks->count; i++) {
		struct agent_slot *slot = &config->slots[i];

		if (slot->kind == AGENT_KIND_NEW)
			slot->direct = direct_of(hooks, config, slot->flags & AGENT_SLOT_SWAP);
		/* With nothing to replace it: recorded only if it does not throw. */
		if (slot->kind == AGENT_KIND_NEW && !slot->direct)
			slot->kind = AGENT_KIND_NONE;
	}
	return error;
}

void hooks_deinit(struct hooks *hooks)
{
	functions_deinit(&hooks->functions);
	free(hooks->near_bytes);
	*hooks = (struct hooks){ 0 };
}

/* ---- coming and going ---- */

static uint64_t slot_address(const struct hooks_change *change, unsigned i)
{
	return change->image + AGENT_CONFIG_OFFSET + offsetof(struct agent_config, slots) +
	       i * sizeof(struct agent_slot);
}

static bool set_patched(const struct hooks_change *change, unsigned i, uint32_t value)
{
	struct agent_slot *slot = &change->config->slots[i];

	slot->patched = value;
	return pwrite(change->memory, &value, sizeof(value),
		      (off_t)(slot_address(change, i) + offsetof(struct agent_slot, patched))) ==
	       sizeof(value);
}

static bool reads_as(const struct hooks_change *change, const struct agent_slot *slot,
		     const uint8_t *bytes)
{
	uint8_t now[sizeof(slot->saved)];

	return slot->saved_size <= sizeof(now) &&
	       pread(change->memory, now, slot->saved_size, (off_t)slot->function) ==
		       (ssize_t)slot->saved_size &&
	       !memcmp(now, bytes, slot->saved_size);
}

/* One write within a page: it is done, or not. */
static bool write_code(const struct hooks_change *change, const struct agent_slot *slot,
		       const uint8_t *bytes)
{
	return pwrite(change->memory, bytes, slot->saved_size, (off_t)slot->function) ==
	       (ssize_t)slot->saved_size;
}

struct error *hooks_set(void *data)
{
	struct hooks_change *change = data;

	for (unsigned i = 0; i < AGENT_SLOTS; i++) {
		struct agent_slot *slot = &change->config->slots[i];

		if (slot->kind == AGENT_KIND_NONE || !slot->hook)
			continue;
		if (!reads_as(change, slot, slot->saved)) {
			change->foreign++;
			continue;
		}
		if (!set_patched(change, i, AGENT_PATCHED) ||
		    !write_code(change, slot, slot->patch))
			return error_errno(ERROR_PERMISSION, errno,
					   "the code of the target cannot be written");
	}
	return NULL;
}

struct error *hooks_clear(void *data)
{
	struct hooks_change *change = data;

	change->foreign = 0;
	for (unsigned i = 0; i < AGENT_SLOTS; i++) {
		struct agent_slot *slot = &change->config->slots[i];

		if (slot->patched != AGENT_PATCHED || !slot->saved_size)
			continue;
		if (reads_as(change, slot, slot->patch)) {
			if (!write_code(change, slot, slot->saved))
				return error_errno(ERROR_PERMISSION, errno,
						   "the code of the target cannot be written");
		} else if (!reads_as(change, slot, slot->saved)) {
			uint8_t byte;

			/* A library that was unloaded needs no repair. */
			if (pread(change->memory, &byte, 1, (off_t)slot->function) == 1) {
				change->foreign++;
				continue;
			}
		}
		set_patched(change, i, AGENT_WAS_PATCHED);
	}
	return NULL;
}
