/*
 * test_agent_harm.c - the recording agent among signals, longjmp, fork and threads that come and
 * go; its lease; sampling; stacks by the compiled unwind table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <execinfo.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/unwind_abi.h"
#include "agent_world.h"
#include "memprobe/target.h"
#include "memprobe/unwind_table.h"

typedef void *(*malloc_fn)(size_t);
typedef void *(*two_fn)(size_t, size_t);
typedef void *(*realloc_fn)(void *, size_t);
typedef void (*free_fn)(void *);

#define NONE AGENT_NO_ARG

/* ---- an allocator that may be called, and left, anywhere: each block has an address of its own
 * ---- */

static uint64_t issued;

static void *bump(size_t size)
{
	return (void *)(0x100000000ul + 16 * __atomic_add_fetch(&issued, 1, __ATOMIC_RELAXED));
}

static void *bump_two(size_t a, size_t b)
{
	return bump(a * b);
}

static void *bump_realloc(void *old, size_t size)
{
	return bump(size);
}

static void discard(void *block)
{
}

static struct agent_world *world;
static malloc_fn hook_malloc;
static free_fn hook_free;

static void start(uint32_t mode, uint64_t rate, uint64_t buckets)
{
	issued = 0;
	world = world_create(buckets);
	world->mode = mode;
	hook_malloc = (malloc_fn)world_hook_malloc(world, bump);
	hook_free = (free_fn)world_hook_free(world, discard);
	world_start(world, mode, rate, 3600);
}

static volatile unsigned signals; /* that were handled */
static unsigned armed;

/* Sets the timer for the next signal once the last one was handled: whatever a handler takes, the
 * rest gets on. */
static void next_signal(void)
{
	struct itimerval timer = { .it_value.tv_usec = 100 + signals % 50 };

	if (armed == signals + 1)
		return;
	armed = signals + 1;
	setitimer(ITIMER_REAL, &timer, NULL);
}

static void set_handler(void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	signals = 0;
	armed = 0;
	sigaction(SIGALRM, &action, NULL);
}

/* ---- handlers that allocate ---- */

static volatile uint64_t kept_in_handler;

static void allocating_handler(int signal)
{
	void *blocks[3];

	for (int i = 0; i < 3; i++)
		blocks[i] = hook_malloc(100);
	hook_free(blocks[0]);
	hook_free(blocks[1]);
	kept_in_handler++;
	signals++;
}

static void check_handler(int flags)
{
	uint64_t kept = 0;

	start(AGENT_EXACT, 0, 256);
	kept_in_handler = 0;
	set_handler(allocating_handler, flags);
	for (unsigned i = 0; signals < 500 || i < 10000; i++) {
		if (signals < 500)
			next_signal();
		void *block = hook_malloc(i % 1000);

		if (i % 64 || kept > 10000)
			hook_free(block);
		else
			kept++;
	}
	assert_int_equal(world_count(world, AGENT_COUNT_LOST), 0);
	assert_int_equal(world_live(world, NULL, NULL), kept + kept_in_handler);
	assert_int_equal(world_count(world, AGENT_COUNT_ALLOCS), issued);
	world_destroy(world);
}

static void test_allocating_handler(void **state)
{
	check_handler(0);
}

static void with_alternate_stack(void (*run)(int))
{
	stack_t alternate = { .ss_size = 65536, .ss_sp = malloc(65536) },
		off = { .ss_flags = SS_DISABLE };
	stack_t before;

	assert_int_equal(sigaltstack(&alternate, &before), 0);
	run(SA_ONSTACK);
	assert_int_equal(sigaltstack(&off, NULL), 0);
	if (!(before.ss_flags & SS_DISABLE))
		sigaltstack(&before, NULL);
	free(alternate.ss_sp);
}

static void test_allocating_handler_on_alternate_stack(void **state)
{
	with_alternate_stack(check_handler);
}

/* ---- handlers that do not return ---- */

static sigjmp_buf escape;
static volatile sig_atomic_t may_escape;

static void escaping_handler(int signal)
{
	if (!may_escape)
		return;
	signals++;
	siglongjmp(escape, 1);
}

/* A jump leaves at most one call: its block is recorded, or was not yet issued, or is lost. */
static void check_escapes(int flags)
{
	uint64_t lost, live;

	start(AGENT_EXACT, 0, 4096);
	set_handler(escaping_handler, flags);
	/* Armed anew for each jump: the mask is restored before the stack is left. */
	if (sigsetjmp(escape, 1) == 0)
		may_escape = 1;
	next_signal();
	while (signals < 500)
		hook_free(hook_malloc(50));
	may_escape = 0;

	hook_free(hook_malloc(50));
	live = world_live(world, NULL, NULL);
	lost = world_count(world, AGENT_COUNT_LOST);
	/* The reason is counted after the loss, if nothing comes between. */
	assert_in_range(world_count(world, AGENT_COUNT_ABANDONED), 1, lost);
	assert_in_range(lost, 1, signals);
	assert_in_range(live, 0, signals);
	/* Nothing stays behind: all is recorded as before. */
	for (int i = 0; i < 1000; i++)
		hook_malloc(10);
	assert_int_equal(world_live(world, NULL, NULL), live + 1000);
	assert_int_equal(world_count(world, AGENT_COUNT_LOST), lost);
	world_destroy(world);
}

static void test_escaping_handler(void **state)
{
	check_escapes(0);
}

static void test_escaping_handler_on_alternate_stack(void **state)
{
	with_alternate_stack(check_escapes);
}

/* ---- fork ---- */

static volatile bool is_child;

static void forking_handler(int signal)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		is_child = true;
		return;
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	signals++;
}

static void *calls_in_child(void *unused)
{
	for (int i = 0; i < 1000; i++)
		hook_free(hook_malloc(10));
	return NULL;
}

static void test_fork(void **state)
{
	uint64_t before[AGENT_COUNTERS], live;
	pid_t pid;
	int status;

	start(AGENT_EXACT, 0, 256);
	for (int i = 0; i < 100; i++)
		hook_malloc(10);
	live = world_live(world, NULL, NULL);
	for (int i = 0; i < AGENT_COUNTERS; i++)
		before[i] = world_count(world, i);
	pid = fork();
	if (!pid) {
		pthread_t thread;

		calls_in_child(NULL);
		if (pthread_create(&thread, NULL, calls_in_child, NULL))
			_exit(1);
		pthread_join(thread, NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(world_live(world, NULL, NULL), live);
	for (int i = 0; i < AGENT_COUNTERS; i++)
		assert_int_equal(world_count(world, i), before[i]);
	world_destroy(world);
}

/* Children that begin in the middle of a hook go on, and out of it. */
static void test_fork_inside(void **state)
{
	start(AGENT_EXACT, 0, 256);
	set_handler(forking_handler, 0);
	while (signals < 50) {
		next_signal();
		hook_free(hook_malloc(10));
		if (is_child) {
			calls_in_child(NULL);
			_exit(0);
		}
	}
	assert_int_equal(world->ctl->active, AGENT_EXACT);
	hook_malloc(10);
	/* One instruction too late, a child can do a step of the parent's a second time. */
	assert_in_range(world_live(world, NULL, NULL), 1, 10);
	world_destroy(world);
}

/* ---- the lease ---- */

static void check_lease(uint32_t mode, unsigned most)
{
	unsigned calls = 0;

	start(mode, 1ul << 40, 256);
	for (int i = 0; i < 5000; i++)
		hook_free(hook_malloc(10));
	assert_int_equal(world->ctl->active, mode);
	world->ctl->deadline = world_tsc();
	while (world->ctl->active && calls < 100000) {
		hook_malloc(10);
		calls++;
	}
	assert_in_range(calls, 1, most);
	world_destroy(world);
}

static void test_lease(void **state)
{
	check_lease(AGENT_EXACT, 17);
	check_lease(AGENT_SAMPLING, 257);
}

/* ---- threads that come and go ---- */

#define STACK_SIZE 0x8000

static void *short_life(void *data)
{
	hook_malloc(10);
	hook_free(hook_malloc(20));
	*(uint32_t *)data = (uint32_t)syscall(SYS_gettid);
	return NULL;
}

/* Every thread has a stack, and so a thread pointer, of its own. */
static void run_threads(uint8_t *stacks, unsigned count)
{
	uint32_t tid = 0;

	for (unsigned i = 0; i < count; i++) {
		pthread_attr_t attributes;
		pthread_t thread;

		pthread_attr_init(&attributes);
		assert_int_equal(pthread_attr_setstack(&attributes, stacks + (size_t)i * STACK_SIZE,
						       STACK_SIZE),
				 0);
		assert_int_equal(pthread_create(&thread, &attributes, short_life, &tid), 0);
		pthread_join(thread, NULL);
		pthread_attr_destroy(&attributes);
	}
}

/* As the tracer does, with no wait. */
static void recycle(void)
{
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < AGENT_THREADS; i++) {
			struct agent_thread *thread = &world->ctl->threads[i];

			if (thread->key == AGENT_KEY_EMPTY || thread->key == AGENT_KEY_RECYCLED)
				continue;
			if (!syscall(SYS_tgkill, getpid(), thread->tid, 0))
				continue;
			if (pass == 0)
				thread->doubt = 1;
			else if (thread->doubt)
				thread->key = AGENT_KEY_RECYCLED;
		}
		/* Who is alive after all says so. */
		hook_free(hook_malloc(1));
	}
}

static void test_thread_churn(void **state)
{
	size_t size = 10000ul * STACK_SIZE;
	uint8_t *stacks = mmap(NULL, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t lost, live;

	assert_ptr_not_equal(stacks, MAP_FAILED);
	start(AGENT_EXACT, 0, 1024);
	hook_free(hook_malloc(1));
	/* More than there are slots: what finds none is counted. */
	run_threads(stacks, 5000);
	live = world_live(world, NULL, NULL);
	lost = world_count(world, AGENT_COUNT_LOST_SLOT);
	assert_in_range(lost, 2, 5000);
	assert_int_equal(world_count(world, AGENT_COUNT_LOST), lost);
	assert_int_equal(live + lost / 2, 5000);
	for (unsigned i = 5000; i < 10000; i += 500) {
		recycle();
		run_threads(stacks + (size_t)i * STACK_SIZE, 500);
	}
	assert_int_equal(world_count(world, AGENT_COUNT_LOST), lost);
	assert_int_equal(world_live(world, NULL, NULL), live + 5000);
	world_destroy(world);
	munmap(stacks, size);
}

/* Where libc notes the thread's id; 0: not to be found. */
static uint32_t tid_offset(void)
{
	const uint32_t *words = (const uint32_t *)pthread_self();

	for (uint32_t i = 1; i < 256; i++)
		if (words[i] == (uint32_t)syscall(SYS_gettid))
			return 4 * i;
	return 0;
}

/* A thread that has a dead one's thread pointer keeps its slot when it is in doubt. */
static void test_doubt(void **state)
{
	struct agent_thread *thread = NULL;

	start(AGENT_EXACT, 0, 64);
	world->ctl->tid_offset = tid_offset();
	hook_malloc(1);
	for (int i = 0; i < AGENT_THREADS; i++)
		if (world->ctl->threads[i].key)
			thread = &world->ctl->threads[i];
	assert_non_null(thread);
	assert_int_equal(thread->tid, syscall(SYS_gettid));
	thread->tid = 1;
	thread->doubt = 1;
	hook_malloc(1);
	assert_int_equal(thread->doubt, 0);
	assert_int_equal(thread->tid, syscall(SYS_gettid));
	world_destroy(world);
}

/* ---- sampling ---- */

#define RATE	4096
#define SAMPLED 20000

enum { SIZES = 3, KINDS = 4 };
static const size_t sizes[SIZES] = { 100, 1000, 10000 };

struct estimate {
	double count[KINDS][SIZES];
	uint64_t pcs[KINDS];
	unsigned by_rate[2];
};

static const double rates[2] = { RATE, 4 * RATE };

static void weigh(const struct world_block *block, void *data)
{
	struct estimate *estimate = data;
	double rate = rates[block->block.rate & 1];

	estimate->by_rate[block->block.rate & 1]++;
	for (int k = 0; k < KINDS; k++)
		for (int s = 0; s < SIZES; s++)
			if (block->pc == estimate->pcs[k] && block->block.size == sizes[s])
				estimate->count[k][s] += 1 / -expm1(-(double)sizes[s] / rate);
}

static void sample_kind(int kind, void *path, size_t size)
{
	if (kind == 0)
		((malloc_fn)path)(size);
	else if (kind == 1)
		((two_fn)path)(size / 4, 4);
	else if (kind == 2)
		((realloc_fn)path)(NULL, size);
	else
		((two_fn)path)(64, size);
}

static void *sample_hook(int kind)
{
	struct agent_slot product = { .original = (uint64_t)bump_two,
				      .kind = AGENT_KIND_ALLOC,
				      .arg_pointer = NONE,
				      .arg_size = 0,
				      .arg_count = 1 };
	struct agent_slot second = { .original = (uint64_t)bump_two,
				     .kind = AGENT_KIND_ALLOC,
				     .arg_pointer = NONE,
				     .arg_size = 1,
				     .arg_count = NONE };

	if (kind == 0)
		return (void *)hook_malloc;
	if (kind == 1)
		return world_hook(world, &product, AGENT_ENTRY_PRODUCT);
	if (kind == 2)
		return world_hook_realloc(world, bump_realloc);
	return world_hook(world, &second, AGENT_ENTRY_SIZE_SECOND);
}

/* The bound is 7 standard deviations of each estimate: chance does not reach it. */
static void check_sampling(uint32_t made_for, bool elsewhere, bool changes)
{
	struct estimate estimate = { 0 };
	void *paths[KINDS];

	start(AGENT_SAMPLING, RATE, 1024);
	world->mode = made_for;
	hook_malloc = (malloc_fn)world_hook_malloc(world, bump);
	hook_free = (free_fn)world_hook_free(world, discard);
	/* A thread whose slot is another's finds one further on. */
	if (elsewhere)
		world->ctl->threads[agent_thread_index((uint64_t)pthread_self())].key = 16;
	world->ctl->flags = AGENT_FLAG_TOTALS;
	for (int k = 0; k < KINDS; k++)
		paths[k] = world_path(world, sample_hook(k), &estimate.pcs[k]);
	for (int i = 0; i < SAMPLED; i++) {
		if (i == SAMPLED / 2 && changes)
			world->ctl->rate = (uint64_t)1 << AGENT_RATE_BITS | (uint64_t)rates[1];
		for (int k = 0; k < KINDS; k++)
			for (int s = 0; s < SIZES; s++)
				sample_kind(k, paths[k], sizes[s]);
	}
	world_live(world, weigh, &estimate);
	assert_true(estimate.by_rate[0] > 0);
	assert_int_equal(estimate.by_rate[1] > 0, changes);
	for (int k = 0; k < KINDS; k++) {
		for (int s = 0; s < SIZES; s++) {
			double p = -expm1(-(double)sizes[s] / rates[changes]);
			double deviation = sqrt(SAMPLED * (1 - p) / p);

			assert_true(fabs(estimate.count[k][s] - SAMPLED) < 7 * deviation);
		}
	}
	assert_int_equal(world_count(world, AGENT_COUNT_LOST), 0);
	/* All calls but the last grant were counted by the fast paths, too. */
	assert_in_range(world_count(world, AGENT_COUNT_CALLS), SAMPLED * SIZES * 2, UINT64_MAX);

	for (uint64_t i = 1; i <= issued; i++)
		hook_free((void *)(0x100000000ul + 16 * i));
	assert_int_equal(world_live(world, NULL, NULL), 0);
	for (int i = 0; i < AGENT_FILTER_SIZE; i++)
		assert_int_equal(world->ctl->filter[i], 0);
	for (int i = 0; i < 1 << AGENT_SIEVE_BITS; i++)
		assert_int_equal(world->ctl->sieve[i], 0);
	world_destroy(world);
}

static void test_sampling_is_unbiased(void **state)
{
	check_sampling(AGENT_EXACT, false, false);
	check_sampling(AGENT_SAMPLING, false, false);
	check_sampling(AGENT_SAMPLING, true, false);
	check_sampling(AGENT_SAMPLING, false, true);
}

/* Countdowns of another rate, or of the time in between, are drawn anew. */
static void test_epoch(void **state)
{
	start(AGENT_SAMPLING, 1, 1024);
	for (int i = 0; i < 10; i++)
		hook_malloc(100);
	assert_int_equal(world_live(world, NULL, NULL), 10);
	world_stop(world);
	for (int i = 0; i < 5000; i++)
		hook_malloc(100);
	world->ctl->epoch++;
	world_start(world, AGENT_SAMPLING, 1ul << 40, 3600);
	for (int i = 0; i < 5000; i++)
		hook_malloc(100);
	assert_int_equal(world_live(world, NULL, NULL), 10);
	world_destroy(world);
}

/* A size that no object can have is the original's to refuse, and no sample. */
static void test_sizes_too_large(void **state)
{
	start(AGENT_SAMPLING, 1ul << 40, 1024);
	hook_malloc(10);
	for (int i = 0; i < 100; i++) {
		hook_malloc(SIZE_MAX - (size_t)i);
		hook_malloc((size_t)1 << 63);
	}
	assert_int_equal(world_live(world, NULL, NULL), 0);
	world->ctl->epoch++;
	world->ctl->rate = 1;
	for (int i = 0; i < 2000; i++)
		hook_malloc(10);
	assert_in_range(world_live(world, NULL, NULL), 2000 - 1024, 2000);
	world_destroy(world);
}

/* ---- stacks ---- */

static __attribute__((noinline)) void *deep(unsigned depth, void **frames, int *count)
{
	void *result = depth ? deep(depth - 1, frames, count) : NULL;

	if (!depth) {
		*count = backtrace(frames, 64);
		result = hook_malloc(10);
	}
	__asm__ volatile("" : "+r"(result));
	return result;
}

static void see_block(const struct world_block *block, void *data)
{
	*(struct world_block *)data = *block;
}

/* ---- frame pointers that are none ---- */

#define SMALL_STACK (256u << 10)

/* A compiler that runs in the program may use rbp for what it likes. */
__asm__(".text\n"
	"call_with_rbp:\n"
	"	push %rbp\n"
	"	mov %rdi, %rbp\n"
	"	mov $100, %edi\n"
	"	call *%rsi\n"
	"	pop %rbp\n"
	"	ret\n");
void *call_with_rbp(uint64_t rbp, malloc_fn function);

/* Right above the stack there is other memory, which comes and goes. */
static void *point_above_stack(void *data)
{
	uint64_t *above = (uint64_t *)((char *)data + SMALL_STACK);

	for (int i = 0; i < 100; i++) {
		assert_ptr_equal(mmap(above, 4096, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
				 above);
		hook_free(call_with_rbp((uint64_t)(above + 2), hook_malloc));
		munmap(above, 4096);
		hook_free(call_with_rbp((uint64_t)(above + 2), hook_malloc));
	}
	return NULL;
}

static void test_memory_above_stack(void **state)
{
	char *area = mmap(NULL, SMALL_STACK + 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attributes;
	pthread_t thread;

	assert_true(area != MAP_FAILED);
	start(AGENT_EXACT, 0, 256);
	pthread_attr_init(&attributes);
	assert_int_equal(pthread_attr_setstack(&attributes, area, SMALL_STACK), 0);
	assert_int_equal(pthread_create(&thread, &attributes, point_above_stack, area), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attributes);
	assert_int_equal(world_count(world, AGENT_COUNT_ALLOCS), 200);
	assert_int_equal(world_count(world, AGENT_COUNT_LOST), 0);
	munmap(area, SMALL_STACK + 4096);
	world_destroy(world);
}

/* A coroutine's stack, a guard that is no mapping of its own, and the stack of its thread. */
#define ABOVE_COROUTINE 4096

__asm__(".text\n"
	"call_on_stack:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	mov %rsp, %rbx\n"
	"	mov %rdi, %rsp\n"
	"	mov %rsi, %rbp\n"
	"	mov $100, %edi\n"
	"	call *%rdx\n"
	"	mov %rbx, %rsp\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n");
void *call_on_stack(char *sp, uint64_t rbp, malloc_fn function);

static void *point_into_guard(void *data)
{
	char *guard = (char *)data + SMALL_STACK;

	for (uint64_t at = 0; at < ABOVE_COROUTINE; at += 64)
		hook_free(call_on_stack(guard - 256, (uint64_t)guard + at, hook_malloc));
	/* Its own stack is still known. */
	hook_free(hook_malloc(100));
	return NULL;
}

static void test_guard_above_coroutine(void **state)
{
	char *area = mmap(NULL, 2 * SMALL_STACK + ABOVE_COROUTINE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *own = area + SMALL_STACK + ABOVE_COROUTINE;
	pthread_attr_t attributes;
	pthread_t thread;

	assert_true(area != MAP_FAILED);
	start(AGENT_EXACT, 0, 256);
	/* Linux 6.13; before that the maps tell of it. */
	if (madvise(area + SMALL_STACK, ABOVE_COROUTINE, 102))
		skip();
	world->ctl->guards = 1;
	pthread_attr_init(&attributes);
	assert_int_equal(pthread_attr_setstack(&attributes, own, SMALL_STACK), 0);
	assert_int_equal(pthread_create(&thread, &attributes, point_into_guard, area), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attributes);
	assert_int_not_equal(world->ctl->stack_offset, 0);
	assert_int_equal(world_count(world, AGENT_COUNT_ALLOCS), ABOVE_COROUTINE / 64 + 1);
	assert_int_equal(world_count(world, AGENT_COUNT_LOST), 0);
	munmap(area, 2 * SMALL_STACK + ABOVE_COROUTINE);
	world_destroy(world);
}

/* A value of the program's that lies right above a thread's stack, behind its key's small number:
 * with the empty key after it, it looks like a stack that begins at that number. */
static void *noted_stack(void *data)
{
	const uint64_t *noted;
	pthread_key_t key;

	assert_int_equal(pthread_key_create(&key, NULL), 0);
	pthread_setspecific(key, (char *)data + SMALL_STACK + 64);
	hook_free(hook_malloc(100));
	noted = (const uint64_t *)(pthread_self() + world->ctl->stack_offset);
	pthread_setspecific(key, NULL);
	pthread_key_delete(key);
	return world->ctl->stack_offset ? (void *)noted[0] : NULL;
}

static void test_values_that_look_like_stacks(void **state)
{
	char *area = mmap(NULL, SMALL_STACK + 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attributes;
	pthread_t thread;
	void *noted;

	assert_true(area != MAP_FAILED);
	start(AGENT_EXACT, 0, 256);
	pthread_attr_init(&attributes);
	assert_int_equal(pthread_attr_setstack(&attributes, area, SMALL_STACK), 0);
	assert_int_equal(pthread_create(&thread, &attributes, noted_stack, area), 0);
	pthread_join(thread, &noted);
	pthread_attr_destroy(&attributes);
	assert_ptr_equal(noted, area);
	munmap(area, SMALL_STACK + 4096);
	world_destroy(world);
}

static void test_unwind_table(void **state)
{
	cleanup(target) struct target *target = NULL;
	cleanup(unwind_table) struct unwind_table *table = NULL;
	struct world_block block;
	const struct agent_stack *stack;
	const uint64_t *pcs;
	void *frames[64];
	int count = 0, depth;

	assert_null(target_open_live(getpid(), &target));
	assert_null(unwind_table_create(target, &table));
	start(AGENT_EXACT, 0, 64);
	world->config->unwind = (uint64_t)unwind_table_image(table, &(size_t){ 0 });
	/* Twice: the second time from the cache. */
	for (int i = 0; i < 2; i++) {
		deep(20, frames, &count);
		assert_int_equal(world_live(world, see_block, &block), i + 1);
		stack = world_stack(world, block.block.stack);
		pcs = (const uint64_t *)world->config->frames + (stack->where >> 16);
		assert_false(stack->where & AGENT_STACK_TRUNCATED);
		depth = (int)(stack->where & AGENT_STACK_COUNT);
		/* All but the innermost: of the call itself, and perhaps of an interceptor. */
		assert_in_range(count - depth, 0, 1);
		for (int j = 1; j < depth; j++)
			assert_int_equal(pcs[depth - j], frames[count - j]);
	}
	assert_int_equal(world_count(world, AGENT_COUNT_TRUNCATED), 0);

	/* What is deeper than it may be is cut, and says so. */
	world->ctl->max_frames = 5;
	deep(20, frames, &count);
	assert_int_equal(world_count(world, AGENT_COUNT_TRUNCATED), 1);
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allocating_handler),
		cmocka_unit_test(test_allocating_handler_on_alternate_stack),
		cmocka_unit_test(test_escaping_handler),
		cmocka_unit_test(test_escaping_handler_on_alternate_stack),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_fork_inside),
		cmocka_unit_test(test_lease),
		cmocka_unit_test(test_thread_churn),
		cmocka_unit_test(test_doubt),
		cmocka_unit_test(test_sampling_is_unbiased),
		cmocka_unit_test(test_epoch),
		cmocka_unit_test(test_sizes_too_large),
		cmocka_unit_test(test_memory_above_stack),
		cmocka_unit_test(test_guard_above_coroutine),
		cmocka_unit_test(test_values_that_look_like_stacks),
		cmocka_unit_test(test_unwind_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
