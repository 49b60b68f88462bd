/*
 * `heapodd MODE...`: heaps of glibc's malloc that do not look as most do. Modes are done in turn:
 *
 * blocked  a mapping stands in the break's way: the main arena goes on in pieces from mmap()
 * foreign  the program moves the break itself
 * fill     a few thousand blocks in the main arena, every third one freed, some leaked
 * split    mmapped blocks whose mapping the kernel splits: madvise(), mlock(), mprotect(), names
 * aligned  mmapped blocks at alignments from 32 bytes to 2 MiB, some grown
 * merged   mmapped blocks between anonymous mappings of the program's own
 * wiped    two mmapped blocks that no fork gets (MADV_WIPEONFORK)
 *
 * Truth: `block ADDRESS USABLE` of each odd block, `sized USABLE COUNT` of what fill keeps,
 * `leaked COUNT`, `mallinfo2 FIELD=VALUE ...`. After `ready` nothing allocates.
 *
 * variants: 32 static
 */
#include "mallinfo2.h"
#include "victim.h"

#include <sys/mman.h>

#define KEPT	   3000
#define ODD_MAX	   64
#define LARGE	   (1u << 20)
#define PR_VMA	   0x53564d41
#define SMALL_STEP 16
#define SIZES_MAX  256

static void *volatile kept[2 * KEPT];
static unsigned fills;
static void *volatile odd[ODD_MAX];
static unsigned odds;

static void block_break(void)
{
	uintptr_t end = ((uintptr_t)sbrk(0) + 4095) & ~4095ul;

	check_that(mmap((void *)end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			0) == (void *)end,
		   "mmap");
}

static void move_break(void)
{
	check_that(sbrk(40008) != (void *)-1, "sbrk");
}

__attribute__((noinline)) static void fill(void)
{
	void *volatile *to = kept + KEPT * (fills++ % 2);

	for (unsigned i = 0; i < KEPT; i++) {
		char *block = malloc(3000 + i % 64 * SMALL_STEP);

		check_that(block != NULL, "malloc");
		memset(block, 'k', 3000);
		to[i] = block;
		if (i % 300 == 7) {
			char *volatile leaked = malloc(777);

			memset(leaked, 'L', 777);
			leaked = NULL;
		}
	}
	for (unsigned i = 1; i < KEPT; i += 3) {
		free(to[i]);
		to[i] = NULL;
	}
}

/* By what they have: some keep what was too small to split off. */
static void say_sizes(void)
{
	static struct {
		size_t usable;
		unsigned long count;
	} sizes[SIZES_MAX];

	for (unsigned i = 0; i < 2 * KEPT; i++) {
		size_t usable = kept[i] ? malloc_usable_size(kept[i]) : 0;
		unsigned k = 0;

		while (usable && k < SIZES_MAX && sizes[k].usable && sizes[k].usable != usable)
			k++;
		if (!usable || k == SIZES_MAX)
			continue;
		sizes[k].usable = usable;
		sizes[k].count++;
	}
	for (unsigned k = 0; k < SIZES_MAX && sizes[k].usable; k++)
		say("sized %zu %lu", sizes[k].usable, sizes[k].count);
	say("leaked %u", fills * 10);
}

static char *keep(void *block)
{
	check_that(block != NULL && odds < ODD_MAX, "allocation");
	snprintf(block, 32, "odd block %u", odds);
	odd[odds++] = block;
	return block;
}

static char *page_in(char *block, size_t offset)
{
	return (char *)(((uintptr_t)block + offset) & ~4095ul);
}

/* What fails here (mlock() beyond a limit, an old kernel) splits nothing: no harm. */
static void split(void)
{
	static int done;
	char *block;

	block = keep(malloc(LARGE + 1 * 4096));
	done |= madvise(page_in(block, 8192), LARGE / 2, MADV_HUGEPAGE);
	block = keep(malloc(LARGE + 2 * 4096));
	done |= madvise(page_in(block, 4096), LARGE / 2, MADV_DONTDUMP);
	block = keep(malloc(LARGE + 3 * 4096));
	done |= mprotect(page_in(block, 65536), 4096, PROT_READ);
	block = keep(malloc(LARGE + 4 * 4096));
	done |= mprotect(page_in(block, 65536), 4096, PROT_NONE);
	block = keep(malloc(LARGE + 5 * 4096));
	done |= mlock(page_in(block, 65536), 4096);
	block = keep(malloc(LARGE + 6 * 4096));
	done |= madvise(page_in(block, 0), LARGE, MADV_DONTFORK);
	block = keep(malloc(LARGE + 7 * 4096));
	done |= prctl(PR_VMA, 0, page_in(block, 0), LARGE / 2, "half of it");
	block = keep(malloc(LARGE + 8 * 4096));
	done |= mprotect(page_in(block, 0), LARGE, PROT_READ);
	block = keep(malloc(LARGE + 9 * 4096));
	done |= madvise(page_in(block, 0), 8192, MADV_RANDOM);
	block = keep(aligned_alloc(LARGE, 2 * LARGE));
	done |= madvise(block, 2 * LARGE, MADV_HUGEPAGE);
	say("split %d", done);
}

static void align(void)
{
	unsigned first = odds;

	for (size_t alignment = 32; alignment <= 2 << 20; alignment *= 2)
		keep(memalign(alignment, LARGE / 2 + alignment));
	keep(valloc(LARGE));
	keep(pvalloc(LARGE));
	for (unsigned i = first; i < odds; i += 3) {
		char *grown = realloc(odd[i], malloc_usable_size(odd[i]) + LARGE / 2);

		check_that(grown != NULL, "realloc");
		odd[i] = grown;
	}
}

static void merge(void)
{
	for (unsigned i = 0; i < 6; i++) {
		char *own = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		check_that(own != MAP_FAILED, "mmap");
		memset(own, 'm', 3 * 4096);
		keep(malloc(LARGE + i * 4096));
	}
}

static void wipe(void)
{
	for (unsigned i = 0; i < 2; i++) {
		char *block = keep(malloc(LARGE + 20 * 4096));

		check_that(madvise(page_in(block, 0), LARGE + 20 * 4096, MADV_WIPEONFORK) == 0,
			   "madvise");
		strcpy(block, "no fork gets this");
	}
}

__attribute__((noinline)) static void clean_stack(void)
{
	char bytes[1 << 14];

	memset(bytes, 0, sizeof(bytes));
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} modes[] = {
		{ "blocked", block_break }, { "foreign", move_break }, { "fill", fill },
		{ "split", split },	    { "aligned", align },      { "merged", merge },
		{ "wiped", wipe },
	};
	struct mallinfo2 info;

	victim_init();
	for (int i = 1; i < argc; i++)
		for (size_t k = 0; k < sizeof(modes) / sizeof(modes[0]); k++)
			if (!strcmp(argv[i], modes[k].name))
				modes[k].run();
	for (unsigned i = 0; i < odds; i++)
		say("block %p %zu", odd[i], malloc_usable_size(odd[i]));
	say_sizes();
	/* What registers may still hold is this one. */
	kept[1] = malloc(24);
	clean_stack();
	info = mallinfo2();
	say("mallinfo2 arena=%zu ordblks=%zu smblks=%zu hblks=%zu hblkhd=%zu fsmblks=%zu "
	    "uordblks=%zu fordblks=%zu keepcost=%zu",
	    info.arena, info.ordblks, info.smblks, info.hblks, info.hblkhd, info.fsmblks,
	    info.uordblks, info.fordblks, info.keepcost);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
