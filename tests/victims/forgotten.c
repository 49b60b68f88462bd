/*
 * `forgotten [COUNT]`: COUNT (default 339755) blocks of a server that forgets to free them: each
 * holds an HTTP request, all the same but for every hundredth, which has a number of its own in its
 * first line; and an array that points to them.
 *
 * Truth: `same COUNT`, `numbered COUNT`.
 */
#include "victim.h"

#define SIZE 112

int main(int argc, char **argv)
{
	size_t count = victim_number(argc, argv, 1, 339755), numbered = 0;
	char **blocks;

	victim_init();
	blocks = calloc(count, sizeof(*blocks));
	for (size_t i = 0; i < count; i++) {
		char *block = blocks[i] = malloc(SIZE);
		int length;

		check_that(block != NULL, "malloc");
		memset(block, 0, 16);
		if (i % 100 == 99) {
			length = snprintf(block + 16, SIZE - 16,
					  "POST /comm/order?number=%zu HTTP/1.1", i);
			numbered++;
		} else {
			length = snprintf(block + 16, SIZE - 16,
					  "GET /comm/itop?channelid=%d HTTP/1.1", 4099);
		}
		snprintf(block + 16 + length, SIZE - 16 - length, "\r\nHost: %s\r\n\r\n",
			 "example.com");
	}
	say("same %zu", count - numbered);
	say("numbered %zu", numbered);
	victim_ready();
	victim_serve(NULL);
	return blocks[0] == NULL;
}
