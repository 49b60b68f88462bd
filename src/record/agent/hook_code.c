#include "hook_code.h"

#include <string.h>

#define INT3 0xcc

static const struct agent_header *header(void)
{
	return (const struct agent_header *)agent_image;
}

/* Adds to the operand at @at; 0: there is none. */
static void add(struct hook_code *hook, uint16_t at, uint64_t value)
{
	uint64_t operand;

	if (!at || at + sizeof(operand) > hook->size)
		return;
	memcpy(&operand, hook->bytes + at, sizeof(operand));
	operand += value;
	memcpy(hook->bytes + at, &operand, sizeof(operand));
}

/* movabs $slot, %r11; jmp *0(%rip); entry */
static void make_plain(struct hook_code *hook, uint64_t slot, uint64_t entry)
{
	static const uint8_t load[] = { 0x49, 0xbb }, jump[] = { 0xff, 0x25, 0, 0, 0, 0 };
	uint8_t *start = hook->bytes + AGENT_UNDO_MAX;

	hook->begin = AGENT_UNDO_MAX;
	hook->size = AGENT_UNDO_MAX + 24;
	memset(hook->bytes, INT3, AGENT_UNDO_MAX);
	memcpy(start, load, 2);
	memcpy(start + 2, &slot, 8);
	memcpy(start + 10, jump, 6);
	memcpy(start + 16, &entry, 8);
}

void hook_code_make(struct hook_code *hook, uint64_t image, unsigned slot, enum agent_entry entry,
		    uint32_t mode)
{
	const struct agent_template *template = &header()->template[entry];
	uint64_t slot_address = image + header()->config_offset +
				offsetof(struct agent_config, slots) +
				slot * sizeof(struct agent_slot);
	uint64_t entry_address = image + header()->entry[entry];

	if (mode != AGENT_SAMPLING || !template->start || template->size > HOOK_CODE_MAX) {
		make_plain(hook, slot_address, entry_address);
		return;
	}
	hook->size = template->size;
	hook->begin = template->begin;
	memcpy(hook->bytes, (const uint8_t *)header()->template + template->start, template->size);
	for (int i = 0; i < 2; i++) {
		add(hook, template->slot[i], slot_address);
		add(hook, template->ctl[i], image + header()->ctl_offset);
	}
	add(hook, template->entry, entry_address);
	add(hook, template->counted, image + header()->counted);
}

void hook_code_undo(struct hook_code *hook, const struct undo *undo)
{
	hook->begin -= undo->size;
	memcpy(hook->bytes + hook->begin, undo->bytes, undo->size);
}
