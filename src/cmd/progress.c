#include "progress.h"

#include <poll.h>
#include <stdatomic.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"

#define FIRST_US 1000000u
#define NEXT_US	 200000u
#define WIDTH	 30u

/* The one run's, for the sink, which has no argument of its own. */
static struct {
	atomic_flag busy;
	const char *command;
	uint64_t begin_us, shown_us; /* of this work */
	double share;
	bool is_shown;
} bar = { .busy = ATOMIC_FLAG_INIT };

/* Ctrl-S must not hold up the work: it may be holding the target. */
static bool would_block(void)
{
	struct pollfd terminal = { .fd = STDERR_FILENO, .events = POLLOUT };

	return poll(&terminal, 1, 0) != 1 || !(terminal.revents & POLLOUT);
}

static void draw(void)
{
	unsigned filled = (unsigned)(bar.share * WIDTH);
	char text[WIDTH + 1];

	for (unsigned i = 0; i < WIDTH; i++)
		text[i] = i < filled ? '=' : i == filled ? '>' : ' ';
	text[WIDTH] = '\0';
	fprintf(stderr, "\r\033[Kmemprobe %s [%s] %3.0f %%", bar.command, text, bar.share * 100);
	fflush(stderr);
	bar.is_shown = true;
}

/* By any thread: who comes while another one is at it has nothing newer to say. */
static void show(uint64_t done, uint64_t total)
{
	double share = total ? (double)(done < total ? done : total) / (double)total : 0;
	uint64_t now;

	if (atomic_flag_test_and_set(&bar.busy))
		return;
	now = clock_us();
	/* A work that begins anew is another one; threads may be out of step. */
	if (share + 0.5 < bar.share) {
		bar.begin_us = now;
		bar.share = 0;
	}
	if (now >= bar.begin_us + FIRST_US && now >= bar.shown_us + NEXT_US) {
		bar.share = share > bar.share ? share : bar.share;
		bar.shown_us = now;
		if (!would_block())
			draw();
	}
	atomic_flag_clear(&bar.busy);
}

void progress_begin(const struct command_context *context)
{
	if (context->quiet || !isatty(STDERR_FILENO))
		return;
	bar.command = context->command->name;
	bar.begin_us = clock_us();
	log_set_progress(show);
}

void progress_clear(void)
{
	if (bar.is_shown)
		fputs("\r\033[K", stderr);
	bar.is_shown = false;
}

void progress_end(void)
{
	log_set_progress(NULL);
	progress_clear();
}
