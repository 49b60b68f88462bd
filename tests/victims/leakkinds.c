/*
 * `leakkinds [LIBRARY]`: what keeps blocks in real programs, and what loses them, after the test
 * programs of LeakSanitizer and of valgrind's memcheck. With LIBRARY (of leaks.bats) also what a
 * library's data and thread-local storage hold, before and after dlclose().
 *
 * Truth: `lost SIZE COUNT` and `kept SIZE COUNT` by usable size.
 *
 * variants: 32
 * libs: -ldl
 */
#include "victim.h"

#include <dlfcn.h>
#include <malloc.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

struct row {
	size_t size;
	unsigned count;
	bool lost;
};

static struct row rows[128];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void count_block(void *block, bool lost)
{
	size_t size = malloc_usable_size(block);
	struct row *row = rows;

	pthread_mutex_lock(&lock);
	while (row->size && row->size != size)
		row++;
	check_that(!row->count || row->lost == lost, "two kinds of one size");
	row->size = size;
	row->lost = lost;
	row->count++;
	pthread_mutex_unlock(&lock);
}

static void *make(size_t size, bool lost)
{
	void *block = calloc(1, size);

	check_that(block != NULL, "calloc");
	count_block(block, lost);
	return block;
}

static void *keep(size_t size)
{
	return make(size, false);
}

static void *lose(size_t size)
{
	return make(size, true);
}

/* ---- data ---- */

static void *volatile initialized[3] = { &lock, NULL, NULL };
static void *volatile uninitialized[3];
static struct {
	char text[24];
	void *volatile pointer;
} in_struct = { "text", NULL };
void *volatile exported;
static const struct {
	void *volatile *where;
} constant = { &uninitialized[2] };

__attribute__((noinline)) static void use_data(void)
{
	initialized[1] = keep(1032);
	uninitialized[1] = keep(1064);
	in_struct.pointer = keep(1096);
	exported = (char *)keep(1128) + 700;
	*constant.where = keep(1160);
}

/* ---- shapes: what is lost directly, through others, in rings, or at both ends ---- */

__attribute__((noinline)) static void lose_shapes(void)
{
	void **chain = lose(2040), **ring[3], **tree = lose(2104);

	chain[1] = lose(2072);
	((void **)chain[1])[200] = (char *)lose(2136) + 100;
	for (int i = 0; i < 3; i++)
		ring[i] = lose(2168);
	for (int i = 0; i < 3; i++)
		ring[i][3] = ring[(i + 1) % 3];
	tree[0] = lose(2200);
	tree[1] = lose(2232);
	((void **)tree[0])[0] = tree;
	/* A lost block that points to kept ones keeps nothing, and loses nothing. */
	((void **)lose(2264))[0] = initialized[1];
	/* Unaligned, inverted, and in pieces: no pointers. */
	memcpy((char *)exported + 8 - 700 + 1, &(void *){ lose(2296) }, sizeof(void *));
	((uintptr_t *)exported)[8] = ~(uintptr_t)lose(2328);
}

/* ---- threads ---- */

static pthread_key_t low_key, high_keys[100];
static pthread_barrier_t barrier;

/* Its argument is known to glibc only. */
__attribute__((noinline)) static void *wait_for_ever(void *argument)
{
	argument = NULL;
	__asm__ volatile("" : "+r"(argument) : : "memory");
	pthread_setspecific(low_key, keep(3064));
	pthread_setspecific(high_keys[99], keep(3096));
	pthread_barrier_wait(&barrier);
	for (;;)
		pause();
	return NULL;
}

/* Its own are lost with it, but for what a destructor passes on. */
static void *volatile passed_on;

static void pass_on(void *block)
{
	passed_on = block;
}

static void *end(void *argument)
{
	pthread_setspecific(high_keys[98], lose(3128));
	pthread_setspecific(low_key, keep(3160));
	return NULL;
}

static void *churn(void *unused)
{
	void *blocks[50];

	for (int i = 0; i < 50; i++)
		blocks[i] = malloc(100 + i * 7 % 900);
	for (int round = 0; round < 2000; round++) {
		free(blocks[round % 50]);
		blocks[round % 50] = malloc(100 + round * 13 % 900);
	}
	for (int i = 0; i < 50; i++)
		free(blocks[i]);
	for (int i = 0; i < 10; i++)
		lose(3192);
	return NULL;
}

__attribute__((noinline)) static void use_threads(void)
{
	pthread_t threads[8];

	pthread_key_create(&low_key, pass_on);
	for (int i = 0; i < 100; i++)
		pthread_key_create(&high_keys[i], NULL);
	check_that(!pthread_create(&threads[0], NULL, end, NULL), "pthread_create");
	pthread_join(threads[0], NULL);
	pthread_barrier_init(&barrier, NULL, 2);
	check_that(!pthread_create(&threads[0], NULL, wait_for_ever, keep(3032)), "pthread_create");
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 8; i++)
		check_that(!pthread_create(&threads[i], NULL, churn, NULL), "pthread_create");
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	/* The main thread's, in the first block of keys and beyond it. */
	pthread_setspecific(low_key, keep(3224));
	pthread_setspecific(high_keys[97], keep(3256));
}

/* ---- what the C library keeps for the program ---- */

static void at_exit(int status, void *argument)
{
}

__attribute__((noinline)) static void use_libc(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD };
	struct addrinfo *found = NULL, hints = { .ai_flags = AI_NUMERICHOST };
	char *text = keep(4040), name[32];
	FILE *file = fopen("/dev/null", "w");
	timer_t timer;

	/* More than fit into its first table. */
	for (int i = 0; i < 100; i++)
		on_exit(at_exit, keep(4008));
	snprintf(text, 100, "LEAKKINDS=putenv");
	putenv(text);
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "LEAKKINDS_%d", i);
		setenv(name, "a value that is kept by the C library", 1);
	}
	/* A stream that nobody closes is in the list of all. */
	check_that(file != NULL, "fopen");
	setvbuf(file, keep(4072), _IOFBF, 4072);
	fputs("text", file);
	/* The kernel has the pointer's copy, glibc another one. */
	event.sigev_value.sival_ptr = keep(4104);
	event.sigev_notify_function = (void (*)(union sigval))(void *)at_exit;
	check_that(!timer_create(CLOCK_MONOTONIC, &event, &timer), "timer_create");
	check_that(!getaddrinfo("127.0.0.1", "80", &hints, &found), "getaddrinfo");
	for (; found; found = found->ai_next)
		count_block(found, true);
}

/* ---- memory of the program's own ---- */

__attribute__((noinline)) static void use_mappings(void)
{
	void **map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void **constant_map =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void **gone = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void **large = keep(4 << 20);

	map[1023] = keep(5032);
	constant_map[7] = keep(5064);
	mprotect(constant_map, 4096, PROT_READ);
	gone[7] = lose(5096);
	munmap(gone, 4096);
	large[100000] = keep(5128);
	large[2] = NULL;
	initialized[2] = large;
}

/* ---- a library ---- */

__attribute__((noinline)) static void use_library(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);
	void *(*set_all)(void *data, void *tls);

	check_that(library != NULL, "dlopen");
	if (!library)
		return;
	*(void **)&set_all = dlsym(library, "set_all");
	set_all(keep(6032), keep(6064));
}

__attribute__((noinline)) static void lose_library(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);
	void *(*set_all)(void *data, void *tls);

	check_that(library != NULL, "dlopen");
	if (!library)
		return;
	*(void **)&set_all = dlsym(library, "set_all");
	set_all(lose(6096), NULL);
	dlclose(library);
}

__attribute__((noinline)) static void clean_stack(void)
{
	char bytes[1 << 16];

	memset(bytes, 0, sizeof(bytes));
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

int main(int argc, char **argv)
{
	victim_init();
	use_data();
	use_threads();
	use_libc();
	use_mappings();
	if (argc > 1)
		use_library(argv[1]);
	if (argc > 2)
		lose_library(argv[2]);
	lose_shapes();
	clean_stack();
	for (struct row *row = rows; row->size; row++)
		say("%s %zu %u", row->lost ? "lost" : "kept", row->size, row->count);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
