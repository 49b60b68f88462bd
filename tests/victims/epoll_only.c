/*
 * One thread, which waits in epoll_wait() for ever, as small servers do: nothing but that thread
 * can be made to call, and no end of its wait may be seen.
 *
 * variants: 32 static
 */
#include "victim.h"

#include <sys/epoll.h>

int main(int argc, char **argv)
{
	struct epoll_event event;
	int epoll;

	victim_init();
	epoll = epoll_create1(0);
	victim_ready();
	for (;;) {
		epoll_wait(epoll, &event, 1, -1);
		say("WRONG epoll_wait: returned");
	}
}
