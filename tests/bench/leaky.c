/*
 * leaky SHAPE [BLOCKS [LEAKS]]: a heap of BLOCKS (default 4200000) blocks in use and LEAKS leaked
 * ones (default 100000, half of them in lists of five), of 264 bytes.
 *
 * SHAPE says how what is in use hangs together, blocks of 16 to 505 bytes if not said otherwise:
 *	flat	a table of all; a tenth is free, a third of the rest points to another one
 *	list	one list of all, in random order
 *	tree	each hangs on a random older one (first child, next sibling)
 *	wide	blocks of 16 pointers to random others, 272 bytes
 *	tiny	a list of blocks of 24 bytes, as they were allocated
 *
 * Truth: `leaked COUNT BYTES` (what malloc_usable_size says). Commands: those of beat.h, after
 * `pulse`; with LeakSanitizer, `check` prints `check MICROSECONDS FOUND`.
 */
#include "beat.h"

#include <malloc.h>

#ifdef WITH_LSAN
#include <sanitizer/lsan_interface.h>
#endif

#define LEAK_SIZE   264
#define LIST_LENGTH 5
#define WIDE	    16

struct block {
	struct block *next, *child;
};

static struct block **volatile keep;
static struct block *volatile root;
static uint64_t state = 88172645463325252u;

static uint64_t random_number(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void *block_new(size_t size)
{
	void *block = malloc(size);

	check_that(block != NULL, "malloc");
	memset(block, 0x11, size);
	((struct block *)block)->next = NULL;
	((struct block *)block)->child = NULL;
	return block;
}

static struct block **fill(size_t count, size_t size)
{
	struct block **table = calloc(count, sizeof(*table));

	for (size_t i = 0; i < count; i++)
		table[i] = block_new(size ? size : 16 + random_number() % 490);
	return table;
}

static void make_flat(size_t count)
{
	struct block **table = fill(count, 0);

	for (size_t i = 0; i < count / 10; i++) {
		size_t k = random_number() % count;

		free(table[k]);
		table[k] = NULL;
	}
	for (size_t i = 0; i < count; i++)
		if (table[i] && random_number() % 3 == 0)
			table[i]->next = table[random_number() % count];
	keep = table;
}

static void make_list(size_t count)
{
	struct block **table = fill(count, 0);

	for (size_t i = count - 1; i > 0; i--) {
		size_t k = random_number() % (i + 1);
		struct block *other = table[i];

		table[i] = table[k];
		table[k] = other;
	}
	for (size_t i = 0; i + 1 < count; i++)
		table[i]->next = table[i + 1];
	root = table[0];
	memset(table, 0, count * sizeof(*table));
	free(table);
}

static void make_tree(size_t count)
{
	struct block **table = fill(count, 0);

	for (size_t i = 1; i < count; i++) {
		struct block *parent = table[random_number() % i];

		table[i]->next = parent->child;
		parent->child = table[i];
	}
	root = table[0];
	memset(table, 0, count * sizeof(*table));
	free(table);
}

static void make_wide(size_t count)
{
	struct block **table = fill(count, WIDE * sizeof(void *) + 144);

	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < WIDE; k++)
			((struct block **)table[i])[k] = table[random_number() % count];
	keep = table;
}

static void make_tiny(size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct block *block = block_new(24);

		block->next = root;
		root = block;
	}
}

static const struct shape {
	const char *name;
	void (*make)(size_t count);
} shapes[] = {
	{ "flat", make_flat }, { "list", make_list }, { "tree", make_tree },
	{ "wide", make_wide }, { "tiny", make_tiny },
};

__attribute__((noinline)) static void leak(size_t count)
{
	struct block *head = NULL;
	size_t bytes = 0;

	for (size_t i = 0; i < count; i++) {
		struct block *block = block_new(LEAK_SIZE);

		bytes += malloc_usable_size(block);
		if (i % 2) {
			block->next = head;
			head = i / 2 % LIST_LENGTH == LIST_LENGTH - 1 ? NULL : block;
		}
	}
	say("leaked %zu %zu", count, bytes);
}

/* What calls have left below the stack pointer. */
__attribute__((noinline)) static void clean_stack(void)
{
	char bytes[1 << 15];

	memset(bytes, 0, sizeof(bytes));
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

static bool command(const char *line)
{
	pthread_t thread;

	if (!strcmp(line, "pulse")) {
		pthread_create(&thread, NULL, beat, NULL);
		say("pulse");
#ifdef WITH_LSAN
	} else if (!strcmp(line, "check")) {
		uint64_t since = now_ns();
		int found = __lsan_do_recoverable_leak_check();

		say("check %llu %d", (unsigned long long)(now_ns() - since) / 1000, found);
#endif
	} else {
		return beat_command(line);
	}
	return true;
}

int main(int argc, char **argv)
{
	size_t count = victim_number(argc, argv, 2, 4200000);
	const struct shape *shape = shapes;

	victim_init();
	while (argc > 1 && shape < shapes + 5 && strcmp(shape->name, argv[1]))
		shape++;
	check_that(shape < shapes + 5, "the shape");
	shape->make(count);
	leak(victim_number(argc, argv, 3, 100000));
	clean_stack();
	victim_ready();
	victim_serve(command);
	return 0;
}
