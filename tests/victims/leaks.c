/*
 * `leaks [LIVE [THREADS]]`: a heap with planted leaks, and blocks that one kind of pointer keeps.
 *
 * LIVE (default 20000) blocks are kept in lists and tables; the main thread and each of THREADS
 * (default 2) others, with arenas of their own, plant leaks: flat ones, lists, rings, blocks that
 * are mapped by themselves. Nothing of them stays on a stack that is in use. After `ready` nothing
 * allocates.
 *
 * Truth: `planted COUNT BYTES` (what malloc_usable_size says), `direct COUNT`, `kept KIND ADDRESS`,
 * `flat ADDRESS`, `mapped ADDRESS` and `size SIZE` (its), `member ADDRESS` (a leaked list's second
 * block) and `stale ADDRESS` (what only a word below a thread's stack pointer points to).
 *
 * variants: 32 static
 */
#include "victim.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

#define FLAT	    1000
#define FLAT_SIZE   264
#define LISTS	    10
#define LIST_LENGTH 100
#define RINGS	    20
#define RING_LENGTH 10
#define MAPPED_SIZE (1u << 20)
#define TEXT	    "this block was leaked"

struct node {
	struct node *next, *previous;
	char text[32];
};

static unsigned long planted_count, planted_bytes, direct_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What keeps. */
char *volatile interior;
struct node *volatile list;
void **volatile table;
__thread void *volatile in_tls;
void **volatile in_map, **volatile in_shared;
struct node *volatile chain;

static void *leak(size_t size)
{
	void *block = malloc(size);

	check_that(block != NULL, "malloc");
	memset(block, 0, size);
	planted_count++;
	planted_bytes += malloc_usable_size(block);
	return block;
}

static struct node *leak_node(void)
{
	struct node *node = leak(sizeof(*node));

	strcpy(node->text, "leaked node");
	return node;
}

static void plant_flat(void)
{
	for (int i = 0; i < FLAT; i++) {
		char *block = leak(FLAT_SIZE);

		strcpy(block, TEXT);
		direct_count++;
		if (i == 500)
			say("flat %p", (void *)block);
	}
}

static void plant_lists(void)
{
	for (int i = 0; i < LISTS; i++) {
		struct node *head = NULL;

		for (int j = 0; j < LIST_LENGTH; j++) {
			struct node *node = leak_node();

			node->next = head;
			if (i == 5 && head && j == LIST_LENGTH - 1)
				say("member %p", (void *)head);
			head = node;
		}
		direct_count++;
	}
}

static void plant_rings(void)
{
	for (int i = 0; i < RINGS; i++) {
		struct node *first = leak_node(), *last = first;

		for (int j = 1; j < RING_LENGTH; j++) {
			struct node *node = leak_node();

			last->next = node;
			node->previous = last;
			last = node;
		}
		last->next = first;
		first->previous = last;
		direct_count++;
	}
}

/* One alone, and one that a small leaked block points to. */
static void plant_mapped(void)
{
	struct node *owner = leak_node();
	void *alone = leak(MAPPED_SIZE);

	owner->next = leak(MAPPED_SIZE);
	say("mapped %p", alone);
	say("size %zu", malloc_usable_size(alone));
	direct_count += 2;
}

__attribute__((noinline)) static void plant(void)
{
	pthread_mutex_lock(&lock);
	plant_flat();
	plant_lists();
	plant_rings();
	plant_mapped();
	pthread_mutex_unlock(&lock);
}

/* What calls have left below the stack pointer, and in the registers that they need not keep. */
__attribute__((noinline)) static void clean_stack(void)
{
	char bytes[1 << 15];

	memset(bytes, 0, sizeof(bytes));
	__asm__ volatile("" : : "r"(bytes) : "memory");
#ifdef __x86_64__
	__asm__ volatile("xor %%ecx, %%ecx\n\txor %%edx, %%edx\n\txor %%esi, %%esi\n\t"
			 "xor %%edi, %%edi\n\txor %%r8, %%r8\n\txor %%r9, %%r9\n\t"
			 "xor %%r10, %%r10\n\txor %%r11, %%r11"
			 :
			 :
			 : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc");
#endif
}

__attribute__((noinline)) static void keep_live(unsigned long count)
{
	struct node *head = NULL;

	table = calloc(count / 2 + 1, sizeof(*table));
	for (unsigned long i = 0; i < count; i++) {
		if (i % 2) {
			table[i / 2] = malloc(16 + i % 1000);
		} else {
			struct node *node = calloc(1, sizeof(*node));

			node->next = head;
			head = node;
		}
	}
	list = head;
}

__attribute__((noinline)) static void keep_each(void)
{
	interior = (char *)malloc(300) + 123;
	say("kept interior %p", (void *)(interior - 123));
	in_tls = malloc(301);
	say("kept tls %p", in_tls);
	in_map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	in_map[5] = malloc(302);
	say("kept mmap %p", in_map[5]);
	in_shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	in_shared[7] = malloc(303);
	say("kept shared %p", in_shared[7]);
	chain = calloc(1, sizeof(*chain));
	chain->next = calloc(1, sizeof(*chain));
	chain->next->next = malloc(MAPPED_SIZE);
	say("kept chain %p", (void *)chain->next->next);
}

static sig_atomic_t volatile settled;

/* Only a register of this thread has it, or only its stack. */
static void *holder(void *data)
{
	if (data) {
		void *block = malloc(304);

		say("kept register %p", block);
		clean_stack();
		settled++;
		/* pause(), over and over. */
#ifdef __x86_64__
		__asm__ volatile("mov %0, %%r12\n\txor %0, %0\n1:\tmov $34, %%eax\n\tsyscall\n\t"
				 "jmp 1b"
				 : "+d"(block)
				 :
				 : "rax", "rcx", "r11", "r12", "memory");
#else
		__asm__ volatile("mov %0, %%edi\n\txor %0, %0\n1:\tmov $29, %%eax\n\tint $0x80\n\t"
				 "jmp 1b"
				 : "+d"(block)
				 :
				 : "eax", "edi", "memory");
#endif
	} else {
		void *volatile block[1] = { malloc(305) };

		say("kept stack %p", block[0]);
		clean_stack();
		settled++;
		for (;;)
			pause();
	}
	return NULL;
}

/* A pointer where a function that has returned left it, out of reach of the red zone. */
static void *forgetter(void *data)
{
	void *block;

	pthread_mutex_lock(&lock);
	block = leak(306);
	direct_count++;
	strcpy(block, "stale words leaked");
	say("stale %p", block);
	pthread_mutex_unlock(&lock);
	clean_stack();
	settled++;
	/* No register may have it: this never comes back, so that all can be cleared. */
#ifdef __x86_64__
	__asm__ volatile("mov %0, -4096(%%rsp)\n\txor %%ebx, %%ebx\n\txor %%ebp, %%ebp\n\t"
			 "xor %%edi, %%edi\n\txor %%esi, %%esi\n\txor %%edx, %%edx\n\t"
			 "xor %%r8, %%r8\n\txor %%r9, %%r9\n\txor %%r10, %%r10\n\t"
			 "xor %%r12, %%r12\n\txor %%r13, %%r13\n\txor %%r14, %%r14\n\t"
			 "xor %%r15, %%r15\n1:\tmov $34, %%eax\n\tsyscall\n\tjmp 1b"
			 :
			 : "d"(block)
			 : "memory");
#else
	__asm__ volatile("mov %0, -4096(%%esp)\n\txor %%ebx, %%ebx\n\txor %%ebp, %%ebp\n\t"
			 "xor %%ecx, %%ecx\n\txor %%edx, %%edx\n\txor %%esi, %%esi\n\t"
			 "xor %%edi, %%edi\n1:\tmov $29, %%eax\n\tint $0x80\n\tjmp 1b"
			 :
			 : "d"(block)
			 : "memory");
#endif
	return data;
}

static void *planter(void *data)
{
	plant();
	clean_stack();
	settled++;
	for (;;)
		pause();
	return data;
}

static void start(void *(*function)(void *), void *data)
{
	sig_atomic_t before = settled;
	pthread_t thread;

	check_that(pthread_create(&thread, NULL, function, data) == 0, "pthread_create");
	while (settled == before)
		usleep(500);
}

int main(int argc, char **argv)
{
	unsigned long live = victim_number(argc, argv, 1, 20000);
	unsigned long threads = victim_number(argc, argv, 2, 2);

	victim_init();
	keep_live(live);
	keep_each();
	plant();
	clean_stack();
	for (unsigned long i = 0; i < threads; i++)
		start(planter, NULL);
	start(holder, NULL);
	start(holder, &live);
	start(forgetter, NULL);
	say("planted %lu %lu", planted_count, planted_bytes);
	say("direct %lu", direct_count);
	clean_stack();
	victim_ready();
	victim_serve(NULL);
	return 0;
}
