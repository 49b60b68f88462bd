#include "target.h"

#include <sys/mman.h>

/* Stacks that leave no room: a call must not take what lies beyond them. */

#define CANARY	     0x5a
#define CANARY_BYTES 4096

static void check_canary(struct kind *kind, const unsigned char *bytes, const char *where)
{
	for (size_t i = 0; i < CANARY_BYTES; i++)
		if (bytes[i] != CANARY) {
			round_wrong(kind, "byte %zu %s the stack is %02x", i, where, bytes[i]);
			return;
		}
}

/* ---- a signal stack inside malloc's memory ---- */

static __thread unsigned char *signal_stack;
static __thread volatile unsigned signal_sum;

/* Spends about half of its time here, some of it blocked. */
static void on_stack_signal(int signal)
{
	volatile unsigned char local[2048];
	uint32_t random = 77;
	unsigned sum = 0;

	handlers_run++;
	for (size_t i = 0; i < sizeof(local); i++)
		local[i] = (unsigned char)(random_next(&random) % 251);
	sleep_us(300);
	for (volatile unsigned spin = 0; spin < 100000; spin++)
		;
	random = 77;
	for (size_t i = 0; i < sizeof(local); i++)
		sum += local[i] != random_next(&random) % 251;
	signal_sum = sum + 1;
}

void run_signal_stack(struct kind *kind, unsigned index)
{
	struct sigaction action = { .sa_handler = on_stack_signal,
				    .sa_flags = SA_ONSTACK | SA_RESTART };
	size_t size = (size_t)SIGSTKSZ + 4096;
	unsigned char *memory = malloc(size + 2 * CANARY_BYTES);
	stack_t stack = { .ss_sp = memory + CANARY_BYTES, .ss_size = size };

	memset(memory, CANARY, CANARY_BYTES);
	memset(memory + CANARY_BYTES + size, CANARY, CANARY_BYTES);
	signal_stack = memory;
	check_that(sigaltstack(&stack, NULL) == 0, "sigaltstack");
	sigaction(SIGRTMIN + 4, &action, NULL);
	for (;;) {
		stack_t now;

		signal_sum = 0;
		pthread_kill(pthread_self(), SIGRTMIN + 4);
		if (signal_sum != 1)
			round_wrong(kind, "the handler's frame: %u", signal_sum);
		check_canary(kind, memory, "below");
		check_canary(kind, memory + CANARY_BYTES + size, "above");
		if (sigaltstack(NULL, &now) || now.ss_sp != stack.ss_sp || now.ss_size != size ||
		    now.ss_flags)
			round_wrong(kind, "the signal stack changed");
		sleep_us(300);
		round_done(kind);
	}
}

/* ---- a thread's stack that is nearly full ---- */

struct small {
	struct kind *kind;
	unsigned char *canary; /* NULL: a guard instead */
	atomic_bool ended;
};

/* Goes down to some @left bytes above the end, and sleeps there. */
static __attribute__((noinline)) unsigned go_down(const unsigned char *bottom, size_t left,
						  uint64_t ns)
{
	volatile unsigned char frame[256];
	unsigned sum = 0;

	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = (unsigned char)(i ^ 0x33);
	if ((size_t)((unsigned char *)frame - bottom) > left + 512)
		sum = go_down(bottom, left, ns);
	else
		sleep_us((unsigned)(ns / 1000));
	for (size_t i = 0; i < sizeof(frame); i++)
		sum += frame[i] != (unsigned char)(i ^ 0x33);
	return sum;
}

static void *be_small(void *data)
{
	struct small *small = data;
	pthread_attr_t attributes;
	size_t size;
	void *bottom;

	pthread_getattr_np(pthread_self(), &attributes);
	pthread_attr_getstack(&attributes, &bottom, &size);
	pthread_attr_destroy(&attributes);
	for (unsigned i = 0; i < 20; i++) {
		if (go_down(bottom, 1024 + 512 * i, 500000))
			round_wrong(small->kind, "a frame in the small stack");
		if (small->canary)
			check_canary(small->kind, small->canary, "below");
	}
	small->ended = true;
	return NULL;
}

/* Every other thread's stack is cut out of a larger mapping, with a canary instead of a guard. */
void run_small_stack(struct kind *kind, unsigned index)
{
	size_t size = 4 * 16384;
	unsigned char *memory =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check_that(memory != MAP_FAILED, "mmap");
	for (;;) {
		struct small small = { .kind = kind };
		pthread_attr_t attributes;
		pthread_t thread;
		int failed;

		pthread_attr_init(&attributes);
		if (index % 2) {
			small.canary = memory + 2 * 16384 - CANARY_BYTES;
			memset(small.canary, CANARY, CANARY_BYTES);
			failed = pthread_attr_setstack(&attributes, memory + 2 * 16384, 16384);
		} else {
			failed = pthread_attr_setstacksize(&attributes, 16384);
		}
		if (!failed)
			failed = pthread_create(&thread, &attributes, be_small, &small);
		pthread_attr_destroy(&attributes);
		if (failed) {
			round_wrong(kind, "pthread error %d", failed);
			sleep_us(1000);
			continue;
		}
		pthread_join(thread, NULL);
		if (!small.ended)
			round_wrong(kind, "the thread did not come to its end");
		round_done(kind);
	}
}
