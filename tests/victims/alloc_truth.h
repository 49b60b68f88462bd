/* alloc_truth.h - the program of alloc_truth.c, in C and in C++. */
#include "victim.h"

#include <malloc.h>
#include <pthread.h>

#ifdef __cplusplus
#include <new>
#endif

#define PATHS	  64
#define DEPTH_MAX 12

struct head {
	unsigned path;
	unsigned mark;
	size_t size;
};

static unsigned long thread_count, slot_count, size_max, pause_us;
static struct head **slots; /* changed by exchange */
static atomic_ulong running, resting;

/* The calls are not to be tail calls: their leaves would not be on the stack. */
#define KEEP(pointer) __asm__ volatile("" : "+r"(pointer)::"memory")

static void *allocate(unsigned path, size_t size, void *old) __attribute__((always_inline));

static inline void *allocate(unsigned path, size_t size, void *old)
{
	void *block = NULL;

	switch (path % 8) {
	case 0:
		block = malloc(size);
		break;
	case 1:
		block = calloc(1, size);
		break;
	case 2:
		block = realloc(NULL, size);
		break;
	case 3:
		block = realloc(old, size);
		break;
#ifdef __cplusplus
	case 4:
		block = ::operator new(size);
		break;
	case 5:
		block = ::operator new[](size, std::nothrow);
		break;
	case 6:
		block = ::operator new(size, std::align_val_t(64));
		break;
	default:
		block = ::operator new[](size);
		break;
#else
	case 4:
		if (posix_memalign(&block, 64, size))
			block = NULL;
		break;
	case 5:
		block = aligned_alloc(32, size);
		break;
	case 6:
		block = memalign(128, size);
		break;
	default:
		block = malloc(size / 2);
		KEEP(block);
		block = realloc(block, size);
		break;
#endif
	}
	KEEP(block);
	return block;
}

#define PATH(n)                                                                          \
	__attribute__((noinline, section("path" #n))) static void *path_##n(size_t size, \
									    void *old)   \
	{                                                                                \
		return allocate(n, size, old);                                           \
	}                                                                                \
	extern char __start_path##n[], __stop_path##n[];

#define EIGHT(f, n) f(n##0) f(n##1) f(n##2) f(n##3) f(n##4) f(n##5) f(n##6) f(n##7)
/* Octal, but for the compiler only names: 00 to 077. */
#define ALL(f)       \
	EIGHT(f, 00) \
	EIGHT(f, 01) EIGHT(f, 02) EIGHT(f, 03) EIGHT(f, 04) EIGHT(f, 05) EIGHT(f, 06) EIGHT(f, 07)

ALL(PATH)

static const struct path {
	void *(*function)(size_t size, void *old);
	const char *start, *end;
} paths[PATHS] = {
#define ROW(n) { path_##n, __start_path##n, __stop_path##n },
	ALL(ROW)
};

__attribute__((noinline)) static void *descend(unsigned depth, unsigned path, size_t size,
					       void *old)
{
	void *block = depth ? descend(depth - 1, path, size, old) : paths[path].function(size, old);

	KEEP(block);
	return block;
}

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

static void check_head(const struct head *head)
{
	if (head && (head->path >= PATHS || head->mark != (unsigned)head->size * 31 + head->path))
		say("WRONG block %p: path %u size %zu", (const void *)head, head->path, head->size);
}

static void release(struct head *head)
{
	check_head(head);
#ifdef __cplusplus
	if (head)
		switch (head->path % 8) {
		case 4:
			::operator delete(head);
			return;
		case 5:
		case 7:
			::operator delete[](head);
			return;
		case 6:
			::operator delete(head, std::align_val_t(64));
			return;
		}
#endif
	free(head);
}

/* Of those that may be given to realloc(). */
static bool is_plain(const struct head *head)
{
#ifdef __cplusplus
	return head->path % 8 < 4;
#else
	return true;
#endif
}

static void round_of(uint32_t *random)
{
	unsigned long slot = next_random(random) % slot_count;
	unsigned path = next_random(random) % PATHS;
	size_t size = sizeof(struct head) + next_random(random) % size_max;
	struct head *old = __atomic_exchange_n(&slots[slot], NULL, __ATOMIC_ACQ_REL), *head;
	void *reused = NULL;

	if (old && path % 8 == 3 && is_plain(old)) {
		check_head(old);
		reused = old;
	} else {
		release(old);
	}
	if (next_random(random) % 4 == 0 && !reused)
		return;
	/* aligned_alloc() wants a multiple, and libstdc++ asks it for one of 64. */
	size = (size + 63) & ~(size_t)63;
	head = (struct head *)descend(next_random(random) % DEPTH_MAX, path, size, reused);
	if (!head) {
		say("WRONG no memory");
		return;
	}
	head->path = path;
	head->size = size;
	head->mark = (unsigned)size * 31 + path;
	release(__atomic_exchange_n(&slots[slot], head, __ATOMIC_ACQ_REL));
}

static void *work(void *data)
{
	uint32_t random = 2463534242u + 7919u * (uint32_t)(uintptr_t)data;

	for (;;) {
		if (!running) {
			resting++;
			while (!running)
				usleep(500);
			resting--;
			/* It may have been stopped again before this was no longer counted. */
			continue;
		}
		for (unsigned i = 0; i < 64; i++)
			round_of(&random);
		victim_progress++;
		if (pause_us)
			usleep(pause_us);
	}
	return NULL;
}

static void tell(void)
{
	unsigned long counts[PATHS] = { 0 }, bytes[PATHS] = { 0 };

	for (unsigned long i = 0; i < slot_count; i++) {
		check_head(slots[i]);
		if (!slots[i])
			continue;
		counts[slots[i]->path]++;
		bytes[slots[i]->path] += slots[i]->size;
	}
	for (unsigned i = 0; i < PATHS; i++)
		say("path %lx %lx %lu %lu", (unsigned long)paths[i].start,
		    (unsigned long)paths[i].end, counts[i], bytes[i]);
	say("stopped %lu", (unsigned long)victim_progress);
}

static bool command(const char *line)
{
	if (!strcmp(line, "go")) {
		running = 1;
		say("going");
	} else if (!strcmp(line, "stop")) {
		running = 0;
		while (resting < thread_count)
			usleep(500);
		tell();
	} else {
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	thread_count = victim_number(argc, argv, 1, 2);
	slot_count = victim_number(argc, argv, 2, 20000);
	size_max = victim_number(argc, argv, 3, 1000);
	pause_us = victim_number(argc, argv, 4, 0);
	victim_init();
	slots = (struct head **)calloc(slot_count, sizeof(*slots));
	if (!slots)
		return 2;
	for (unsigned long i = 0; i < thread_count; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, work, (void *)i))
			return 2;
	}
	while (resting < thread_count)
		usleep(500);
	victim_ready();
	victim_serve(command);
	return 0;
}
