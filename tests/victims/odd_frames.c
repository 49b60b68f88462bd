/*
 * `odd_frames`: threads in frames that unwinders stumble over: code without call frame information,
 * with frame pointers (`pointers`) and without (`nothing`), behind a tail call (`tail`), after a
 * call to where no code is (`nowhere`), and in the vdso now and then (`vdso`). The main thread
 * takes commands.
 *
 * Truth: a line `thread TID NAME FUNCTION...` for each: what is on its stack, innermost first,
 * without the functions of libc; of `nothing` no more can be known.
 *
 * variants: static
 * cflags: -fomit-frame-pointer
 */
#include "victim.h"

#include <poll.h>
#include <pthread.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))
#define NO_TAIL	 __attribute__((optimize("no-optimize-sibling-calls")))

static volatile int sink;
static atomic_ulong arrived;
static pid_t tids[16];

NOINLINE NO_TAIL void wait_poll(void);
NOINLINE NO_TAIL void wait_poll(void)
{
	arrived++;
	poll(NULL, 0, -1);
	sink++;
}

/* Assemblers describe nothing unless they are asked to. */
void with_pointer(void);
void with_nothing(void);
__asm__(".text\n"
	".type with_pointer,@function\n"
	"with_pointer:\n"
	"	push %rbp\n"
	"	mov %rsp,%rbp\n"
	"	sub $96,%rsp\n"
	"	call wait_poll\n"
	"	leave\n"
	"	ret\n"
	".size with_pointer,.-with_pointer\n"
	".type with_nothing,@function\n"
	"with_nothing:\n"
	"	push %rbp\n"
	"	xor %ebp,%ebp\n"
	"	sub $96,%rsp\n"
	"	call wait_poll\n"
	"	add $96,%rsp\n"
	"	pop %rbp\n"
	"	ret\n"
	".size with_nothing,.-with_nothing\n");

NOINLINE static void in_the_end(int value)
{
	wait_poll();
	sink += value;
}

/* Is gone when in_the_end() runs. */
NOINLINE static void passes_on(int value)
{
	in_the_end(value + sink);
}

NOINLINE NO_TAIL static void tail(void)
{
	passes_on(1);
	sink++;
}

static void (*volatile no_code)(void) = (void (*)(void))8;

NOINLINE NO_TAIL static void nowhere(void)
{
	no_code();
	sink++;
}

static void on_fault(int signal)
{
	wait_poll();
	sink++;
}

NOINLINE NO_TAIL static void vdso(void)
{
	struct timespec now;

	arrived++;
	for (;;)
		clock_gettime(CLOCK_MONOTONIC, &now);
}

static const struct kind {
	const char *name;
	void (*run)(void);
	const char *functions;
} kinds[] = {
	{ "pointers", with_pointer, "wait_poll with_pointer work thread_main" },
	{ "nothing", with_nothing, "wait_poll with_nothing" },
	{ "tail", tail, "wait_poll in_the_end tail work thread_main" },
	{ "nowhere", nowhere, "wait_poll on_fault nowhere work thread_main" },
	{ "vdso", vdso, "vdso work thread_main" },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

NOINLINE NO_TAIL static void work(unsigned kind)
{
	kinds[kind].run();
	sink++;
}

NO_TAIL static void *thread_main(void *data)
{
	unsigned kind = (unsigned)(uintptr_t)data;

	tids[kind] = victim_tid();
	work(kind);
	sink++;
	return NULL;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_fault };
	pthread_t thread;

	victim_init();
	check_that(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
	for (uintptr_t i = 0; i < KINDS; i++)
		check_that(pthread_create(&thread, NULL, thread_main, (void *)i) == 0,
			   "pthread_create");
	while (arrived < KINDS)
		usleep(1000);
	for (unsigned i = 0; i < KINDS; i++) {
		if (strcmp(kinds[i].name, "vdso"))
			await_sleep(tids[i]);
		say("thread %d %s %s", (int)tids[i], kinds[i].name, kinds[i].functions);
	}
	victim_ready();
	victim_serve(NULL);
	return 0;
}
