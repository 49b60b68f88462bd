/*
 * One thread that waits for ever. `idle nanosleep` waits in nanosleep(), else in pause().
 *
 * variants: 32 static musl
 */
#include "victim.h"

#include <time.h>

int main(int argc, char **argv)
{
	victim_init();
	victim_ready();
	if (argc > 1 && !strcmp(argv[1], "nanosleep")) {
		struct timespec left = { .tv_sec = 100000 };

		check_that(nanosleep(&left, &left) == 0, "nanosleep");
	}
	for (;;) {
		pause();
		say("WRONG pause: returned");
	}
}
