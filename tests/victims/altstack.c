/*
 * `altstack`: threads in a signal handler that runs on an alternate stack, and what it interrupted:
 * code that computed (`busy`) or crashed (`fault`), a stack that overflowed (`overflow`), a handler
 * that already ran there (`nested`) or on the thread's own stack (`twice`), a coroutine on a stack
 * of malloc() (`coroutine`). The main thread takes commands.
 * Two have a guard inside the mapping of their stack (MADV_GUARD_INSTALL, as glibc 2.42 makes
 * them): one fell deep into it (`guarded`), with its alternate stack right below; one stands just
 * above it
 * (`edge`).
 *
 * Truth: a line `thread TID NAME FUNCTION...` for each: what is on its stack, innermost first,
 * without the functions of libc.
 *
 * variants: 32 static
 * cflags: -fomit-frame-pointer -fno-optimize-sibling-calls
 */
#include "victim.h"

#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

#define NOINLINE  __attribute__((noinline, noclone))
#define INLINE	  inline __attribute__((always_inline))
#define ALT_SIZE  (64u << 10)
#define STACK	  (256u << 10)
#define FRAME	  2000
#define DEPTH_MAX 100000
#define PAGE	  4096u
#define GUARD	  (8 * PAGE)
#define PLUNGE	  (3 * PAGE)

static volatile int sink, depth_limit = DEPTH_MAX;
static int *volatile nowhere;
static atomic_ulong begun, handled;
static pid_t tids[16];

NOINLINE static void wait_poll(void)
{
	poll(NULL, 0, -1);
	sink++;
}

static void on_last(int signal)
{
	handled++;
	wait_poll();
	sink++;
}

/* Is interrupted once more. */
static void on_first(int signal)
{
	begun++;
	for (;;)
		sink++;
}

/* Interrupts itself, from the stack that it runs on. */
NOINLINE static void raise_inside(void)
{
	pthread_kill(pthread_self(), SIGUSR2);
	sink++;
}

static void on_raising(int signal)
{
	raise_inside();
	sink++;
}

NOINLINE static void compute(void)
{
	begun++;
	for (;;)
		sink++;
}

NOINLINE static void crash(void)
{
	begun++;
	*nowhere = 1;
	sink++;
}

NOINLINE static void recurse(int depth)
{
	volatile char room[FRAME];

	room[depth % FRAME] = 1;
	if (depth < depth_limit)
		recurse(depth + 1);
	sink += room[depth % FRAME];
}

NOINLINE static void overflow(void)
{
	begun++;
	recurse(0);
	sink++;
}

NOINLINE static void plunge(int depth)
{
	volatile char room[PLUNGE];

	room[depth % PLUNGE] = 1;
	if (depth < depth_limit)
		plunge(depth + 1);
	sink += room[depth % PLUNGE];
}

NOINLINE static void guarded(void)
{
	begun++;
	plunge(0);
	sink++;
}

INLINE static uintptr_t stack_pointer(void)
{
	uintptr_t sp;

#ifdef __x86_64__
	__asm__ volatile("mov %%rsp, %0" : "=r"(sp));
#else
	__asm__ volatile("mov %%esp, %0" : "=r"(sp));
#endif
	return sp;
}

/* What the red zone is below the stack pointer is partly guard then. */
NOINLINE static void edge(void)
{
	volatile char *room = alloca(stack_pointer() % PAGE + PAGE - 112);
	char *guard = (char *)(stack_pointer() & -(uintptr_t)PAGE) - PAGE;

	room[0] = 1;
	make_guard(guard, PAGE);
	compute();
	sink += room[0];
}

static __thread ucontext_t outside, inside;

static void coroutine_main(void)
{
	compute();
	sink++;
}

NOINLINE static void coroutine(void)
{
	getcontext(&inside);
	inside.uc_stack.ss_sp = malloc(STACK);
	inside.uc_stack.ss_size = STACK;
	inside.uc_link = &outside;
	makecontext(&inside, coroutine_main, 0);
	swapcontext(&outside, &inside);
	sink++;
}

static const struct kind {
	const char *name;
	void (*run)(void);
	int first, second; /* signals that it gets; 0: none */
	const char *functions;
} kinds[] = {
	{ "busy", compute, SIGUSR2, 0, "wait_poll on_last compute work thread_main" },
	{ "fault", crash, 0, 0, "wait_poll on_last crash work thread_main" },
	{ "overflow", overflow, 0, 0, "wait_poll on_last recurse recurse recurse recurse" },
	{ "nested", compute, SIGWINCH, 0,
	  "wait_poll on_last raise_inside on_raising compute work thread_main" },
	{ "twice", compute, SIGURG, SIGUSR2,
	  "wait_poll on_last on_first compute work thread_main" },
	{ "coroutine", coroutine, SIGUSR2, 0, "wait_poll on_last compute coroutine_main" },
	{ "guarded", guarded, 0, 0, "wait_poll on_last plunge plunge plunge plunge" },
	{ "edge", edge, SIGUSR2, 0, "wait_poll on_last compute edge work thread_main" },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

NOINLINE static void work(unsigned kind)
{
	kinds[kind].run();
	sink++;
}

static char *map(size_t size)
{
	char *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check_that(start != MAP_FAILED, "mmap");
	return start;
}

static char *given_altstack;

/* The alternate stack, a guard and the stack, in one mapping. */
static void give_stacks(pthread_attr_t *attributes)
{
	given_altstack = map(ALT_SIZE + GUARD + STACK);
	make_guard(given_altstack + ALT_SIZE, GUARD);
	pthread_attr_setstack(attributes, given_altstack + ALT_SIZE + GUARD, STACK);
}

static void *thread_main(void *data)
{
	unsigned kind = (unsigned)(uintptr_t)data;
	stack_t stack = { .ss_size = ALT_SIZE, .ss_sp = given_altstack };

	/* Some from malloc(), with other things above them. */
	if (!stack.ss_sp)
		stack.ss_sp = kind % 2 ? malloc(ALT_SIZE) : map(ALT_SIZE);
	check_that(sigaltstack(&stack, NULL) == 0, "sigaltstack");
	tids[kind] = victim_tid();
	work(kind);
	return NULL;
}

static void handle(int signal, void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	check_that(sigaction(signal, &action, NULL) == 0, "sigaction");
}

static void await(atomic_ulong *count, unsigned long least)
{
	while (*count < least)
		usleep(1000);
}

/* @count is raised by each that has come as far as is needed; one starts after the other. */
static void start(unsigned kind)
{
	const struct kind *is = &kinds[kind];
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	given_altstack = NULL;
	if (is->run == guarded)
		give_stacks(&attributes);
	check_that(pthread_create(&thread, &attributes, thread_main, (void *)(uintptr_t)kind) == 0,
		   "pthread_create");
	await(&begun, 1);
	begun = 0;
	if (is->first)
		pthread_kill(thread, is->first);
	if (is->second) {
		await(&begun, 1);
		begun = 0;
		pthread_kill(thread, is->second);
	}
	await(&handled, kind + 1);
	await_sleep(tids[kind]);
	say("thread %d %s %s", (int)tids[kind], is->name, is->functions);
}

int main(void)
{
	victim_init();
	handle(SIGSEGV, on_last, SA_ONSTACK);
	handle(SIGUSR2, on_last, SA_ONSTACK | SA_NODEFER);
	handle(SIGWINCH, on_raising, SA_ONSTACK);
	handle(SIGURG, on_first, 0);
	for (unsigned i = 0; i < KINDS; i++)
		start(i);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
