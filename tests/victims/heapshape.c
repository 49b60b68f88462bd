/*
 * `heapshape [THREADS [XML_FILE]]`: a heap of known shape, and what glibc itself says about it.
 *
 * The main thread and each of THREADS (default 2) threads, one after the other, fill an arena of
 * their own; then every fourth block is kept and the rest freed, so that there are chunks in use,
 * in tcache, in fastbins and in bins, and whole pages that malloc_trim() can give back. After
 * `ready` nothing allocates any more.
 *
 * Truth: `kept COUNT BYTES` (requested), `mallinfo2 FIELD=VALUE ...`, `tid TID ARENA_INDEX`, and in
 * XML_FILE the output of malloc_info().
 *
 * Commands: `again` prints the truth once more (e.g. after a trim).
 *
 * variants: 32 static
 */
#include "mallinfo2.h"
#include "victim.h"

#include <pthread.h>

#define BLOCKS 4000

static const size_t sizes[] = { 24, 40, 100, 250, 1000, 1032, 3000, 5000, 20000, 70000 };
#define SIZE_COUNT (sizeof(sizes) / sizeof(sizes[0]))

static unsigned long kept_count, kept_bytes;
static const char *xml_path;
static FILE *xml;
static char xml_buffer[1 << 16];
static void *large[3];

static void fill_and_thin(void)
{
	static void *blocks[BLOCKS];

	for (size_t i = 0; i < BLOCKS; i++) {
		blocks[i] = malloc(sizes[i % SIZE_COUNT]);
		check_that(blocks[i] != NULL, "malloc");
		memset(blocks[i], 0x5a, sizes[i % SIZE_COUNT]);
	}
	for (size_t i = 0; i < BLOCKS; i++) {
		/* Whole stretches go, so that free chunks merge to more than a page. */
		if (i / 40 % 4) {
			free(blocks[i]);
			continue;
		}
		kept_count++;
		kept_bytes += sizes[i % SIZE_COUNT];
	}
}

static sig_atomic_t volatile filled;

static void *thread_main(void *data)
{
	fill_and_thin();
	say("tid %d %lu", victim_tid(), (unsigned long)data);
	filled++;
	for (;;)
		pause();
	return NULL;
}

static void tell_truth(void)
{
	struct mallinfo2 info;

	if (xml) {
		rewind(xml);
		check_that(ftruncate(fileno(xml), 0) == 0, "ftruncate");
		check_that(malloc_info(0, xml) == 0, "malloc_info");
		fflush(xml);
	}
	info = mallinfo2();
	say("mallinfo2 arena=%zu ordblks=%zu smblks=%zu hblks=%zu hblkhd=%zu fsmblks=%zu "
	    "uordblks=%zu fordblks=%zu keepcost=%zu",
	    info.arena, info.ordblks, info.smblks, info.hblks, info.hblkhd, info.fsmblks,
	    info.uordblks, info.fordblks, info.keepcost);
}

static bool command(const char *line)
{
	if (strcmp(line, "again"))
		return false;
	tell_truth();
	return true;
}

int main(int argc, char **argv)
{
	unsigned long threads = victim_number(argc, argv, 1, 2);

	victim_init();
	if (argc > 2) {
		xml_path = argv[2];
		xml = fopen(xml_path, "w+");
		check_that(xml != NULL, xml_path);
		setvbuf(xml, xml_buffer, _IOFBF, sizeof(xml_buffer));
	}
	for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
		large[i] = malloc((i + 1) << 20);
		memset(large[i], 1, (i + 1) << 20);
		kept_count++;
		kept_bytes += (i + 1) << 20;
	}
	fill_and_thin();
	for (unsigned long i = 0; i < threads; i++) {
		pthread_t thread;

		check_that(pthread_create(&thread, NULL, thread_main, (void *)(i + 1)) == 0,
			   "pthread_create");
		while ((unsigned long)filled == i)
			usleep(500);
	}
	say("kept %lu %lu", kept_count, kept_bytes);
	tell_truth();
	victim_ready();
	victim_serve(command);
	return 0;
}
