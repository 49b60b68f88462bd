#include "memprobe/pause.h"

#include "memprobe/num.h"

/*
 * Measured: 22 to 29 ms a GiB of 4 KiB pages for a fork; 0.9 to 1.5 s a GiB for
 * reading a heap and looking for its leaks. A busy machine is slower.
 */
#define FORK_US_PER_GIB	   35000u
#define READING_US_PER_GIB 1500000u
/* Each page of what is mapped is asked for where the kernel cannot pass over those that are not
 * there: measured, 27 s for 9 TiB. */
#define RESERVE_US_PER_GIB 3000u
/* A snapshot of hardly any memory, from the first stop on. */
#define BASE_US 2000u
/* Measured with 3,000 threads on two CPUs: 13 us for each on an idle machine, 25 to 30 us on a busy
 * one. A fork copies the mappings of its stack, too. */
#define STOP_BASE_US  500u
#define STOP_US	      40u
#define FORK_STACK_US 15u
/* Reading memory that is there. */
#define STACK_US_PER_GIB 500000u

static uint64_t scaled(uint64_t bytes, uint64_t us_per_gib)
{
	return (bytes >> 10) * us_per_gib >> 20;
}

uint64_t pause_of_stop(size_t threads, uint64_t stack_bytes)
{
	return STOP_BASE_US + threads * STOP_US + scaled(stack_bytes, STACK_US_PER_GIB);
}

uint64_t pause_of_fork(const struct process_status *status)
{
	return BASE_US + (uint64_t)status->threads * (STOP_US + FORK_STACK_US) +
	       scaled(status->rss_anon + status->vm_swap, FORK_US_PER_GIB);
}

uint64_t pause_of_reading(const struct process_status *status, bool can_scan)
{
	uint64_t pause = BASE_US + (uint64_t)status->threads * STOP_US +
			 scaled(status->vm_rss + status->vm_swap, READING_US_PER_GIB);

	return can_scan ? pause : pause + (status->vm_size >> 30) * RESERVE_US_PER_GIB;
}

struct error *pause_check(pid_t pid, const char *what, uint64_t expected_us, uint64_t max_us)
{
	char expected[TIME_TEXT_MAX], limit[TIME_TEXT_MAX];
	uint64_t enough_ms = expected_us / 1000 + expected_us / 4000 + 1;

	if (!max_us || expected_us <= max_us)
		return NULL;
	return error_hint(
		error_create(ERROR_BUSY,
			     "cannot stop %d for %s: that takes about %s, and "
			     "--max-pause is %s",
			     (int)pid, what, format_time(expected_us, expected),
			     format_time(max_us, limit)),
		"--max-pause %llu%s allows it",
		(unsigned long long)(enough_ms < 1000 ? enough_ms : (enough_ms + 999) / 1000),
		enough_ms < 1000 ? "ms" : "s");
}
