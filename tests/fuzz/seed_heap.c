/* Writes the seeds of fuzz_heap into a directory: each layout, unharmed and with a few changes. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../unit/heap_builder.h"

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	for (unsigned shape = 0; shape < heap_shape_count; shape++) {
		uint8_t bytes[2 + 10 * 5] = { shape, shape };
		char path[4096];
		int fd;

		/* One of each kind of place. */
		for (unsigned i = 0; i < 10; i++) {
			bytes[2 + 5 * i] = i + 10 * shape;
			bytes[3 + 5 * i] = 17 * shape + i;
			bytes[5 + 5 * i] = i + shape;
			bytes[6 + 5 * i] = shape * i;
		}
		for (unsigned changes = 0; changes <= 10; changes += 5) {
			ssize_t size = 2 + 5 * changes;

			snprintf(path, sizeof(path), "%s/%u-%u", argv[1], shape, changes);
			fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
			if (fd < 0 || write(fd, bytes, size) != size) {
				perror(path);
				return 1;
			}
			close(fd);
		}
	}
	return 0;
}
