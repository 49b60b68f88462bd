/*
 * `jitted`: calls through code that it makes itself, and names in /tmp/perf-PID.map. The code is
 * moved once: the same address was another function's before. A second thread waits below it.
 *
 * Commands: `allocate COUNT` (blocks of 1000 bytes, all kept, answered by `allocated`), `map SIZE`
 * (a mapping, answered by `mapped`), `touch SIZE` (memory, answered by `touched`).
 */
#include "victim.h"

#include <pthread.h>
#include <sys/mman.h>

typedef void (*made_fn)(void *argument);

static made_fn made_allocate, made_wait;
static void *volatile *kept;
static unsigned long kept_count;

__attribute__((noinline)) static void allocate(void *count)
{
	for (unsigned long i = 0; i < (unsigned long)count; i++) {
		kept[kept_count] = malloc(1000);
		check_that(kept[kept_count++] != NULL, "malloc");
	}
}

__attribute__((noinline)) static void map(void *size)
{
	check_that(mmap(NULL, (unsigned long)size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
			   MAP_FAILED,
		   "mmap");
}

__attribute__((noinline)) static void touch(void *size)
{
	memset(mmap(NULL, (unsigned long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0),
	       1, (unsigned long)size);
}

__attribute__((noinline)) static void wait_for_ever(void *unused)
{
	for (;;)
		pause();
}

/* push %rbp; mov %rsp,%rbp; movabs $function,%rax; call *%rax; pop %rbp; ret */
static made_fn make(unsigned char *at, made_fn function)
{
	unsigned char code[] = { 0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8, 0,	   0,	 0,
				 0,    0,    0,	   0,	 0,    0xff, 0xd0, 0x5d, 0xc3 };

	memcpy(code + 6, &function, sizeof(function));
	memcpy(at, code, sizeof(code));
	return (made_fn)(void *)at;
}

static made_fn made_map, made_touch;

static void write_map(unsigned char *code)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	file = fopen(path, "w");
	check_that(file != NULL, path);
	if (!file)
		return;
	fprintf(file, "%lx 200 stale code\n", (unsigned long)code);
	fprintf(file, "%lx 20 JS:*allocate jitted.js:1\n", (unsigned long)made_allocate);
	fprintf(file, "%lx 20 JS:*wait jitted.js:2\n", (unsigned long)made_wait);
	fprintf(file, "%lx 20 JS:*map jitted.js:3\n", (unsigned long)made_map);
	fprintf(file, "%lx 20 JS:*touch jitted.js:4\n", (unsigned long)made_touch);
	fclose(file);
}

static void *wait_below(void *unused)
{
	made_wait(NULL);
	return NULL;
}

static bool command(const char *line)
{
	unsigned long number;

	if (sscanf(line, "allocate %lu", &number) == 1) {
		made_allocate((void *)number);
		say("allocated");
	} else if (sscanf(line, "map %lu", &number) == 1) {
		made_map((void *)number);
		say("mapped");
	} else if (sscanf(line, "touch %lu", &number) == 1) {
		made_touch((void *)number);
		say("touched");
	} else {
		return false;
	}
	return true;
}

int main(void)
{
	unsigned char *code =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	victim_init();
	kept = calloc(100000, sizeof(*kept));
	made_allocate = make(code, allocate);
	made_wait = make(code + 64, wait_for_ever);
	made_map = make(code + 128, map);
	made_touch = make(code + 192, touch);
	check_that(!mprotect(code, 4096, PROT_READ | PROT_EXEC), "mprotect");
	write_map(code);
	check_that(!pthread_create(&thread, NULL, wait_below, NULL), "pthread_create");
	victim_ready();
	victim_serve(command);
	return 0;
}
