#include <stdlib.h>

#include "uprobe.h"

#define CAPACITY (64u << 10)
#define LATE	 4096u

static uint64_t hash_of(uint64_t address)
{
	uint64_t hash = (address >> 3) * UINT64_C(0x9e3779b97f4a7c15);

	return hash ^ hash >> 29;
}

void uprobe_table_deinit(struct uprobe_table *table)
{
	free(table->blocks);
	free(table->late);
	*table = (struct uprobe_table){ 0 };
}

/* Its place, or the free one where it would be. */
static size_t place_of(const struct uprobe_table *table, uint64_t address)
{
	size_t at = hash_of(address) & (table->capacity - 1);

	while (table->blocks[at].address && table->blocks[at].address != address)
		at = (at + 1) & (table->capacity - 1);
	return at;
}

static struct error *grow(struct uprobe_table *table)
{
	struct uprobe_table grown = *table;

	grown.capacity = table->capacity ? table->capacity * 2 : CAPACITY;
	grown.blocks = calloc(grown.capacity, sizeof(*grown.blocks));
	if (!grown.late)
		grown.late = calloc(LATE, sizeof(*grown.late));
	if (!grown.blocks || !grown.late) {
		free(grown.blocks);
		table->late = grown.late;
		return &error_no_memory;
	}
	for (size_t i = 0; i < table->capacity; i++)
		if (table->blocks[i].address)
			grown.blocks[place_of(&grown, table->blocks[i].address)] = table->blocks[i];
	free(table->blocks);
	*table = grown;
	return NULL;
}

struct error *uprobe_table_put(struct uprobe_table *table, const struct uprobe_block *block,
			       bool *replaced_ret)
{
	struct uprobe_block *late, *to;
	struct error *error;

	*replaced_ret = false;
	if (table->size >= table->capacity / 4 * 3) {
		error = grow(table);
		if (error)
			return error;
	}
	late = &table->late[hash_of(block->address) >> 32 & (LATE - 1)];
	if (late->address == block->address && late->time > block->time) {
		late->address = 0;
		return NULL;
	}
	to = &table->blocks[place_of(table, block->address)];
	*replaced_ret = to->address != 0;
	table->size += !to->address;
	*to = *block;
	return NULL;
}

/* Closes the gap: what was put further on because of it moves back. */
static void remove_at(struct uprobe_table *table, size_t gap)
{
	size_t mask = table->capacity - 1;

	table->blocks[gap].address = 0;
	table->size--;
	for (size_t at = (gap + 1) & mask; table->blocks[at].address; at = (at + 1) & mask) {
		size_t home = hash_of(table->blocks[at].address) & mask;

		if (((at - home) & mask) < ((at - gap) & mask))
			continue;
		table->blocks[gap] = table->blocks[at];
		table->blocks[at].address = 0;
		gap = at;
	}
}

struct uprobe_block *uprobe_table_find(struct uprobe_table *table, uint64_t address)
{
	struct uprobe_block *block;

	if (!table->capacity || !address)
		return NULL;
	block = &table->blocks[place_of(table, address)];
	return block->address ? block : NULL;
}

bool uprobe_table_take(struct uprobe_table *table, uint64_t address, uint64_t time,
		       struct uprobe_block *ret)
{
	struct uprobe_block *block = uprobe_table_find(table, address);

	if (!block && table->late)
		table->late[hash_of(address) >> 32 & (LATE - 1)] =
			(struct uprobe_block){ .address = address, .time = time };
	/* Of a younger block this is not the free: it is that of one before it, come late. */
	if (!block || block->time > time)
		return false;
	if (ret)
		*ret = *block;
	remove_at(table, (size_t)(block - table->blocks));
	return true;
}
