/* libFuzzer: any bytes as a perf map. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/perf_map.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct perf_map *map;

	if (perf_map_parse((const char *)bytes, size, &map))
		abort();
	for (size_t i = 0; i + 8 <= size; i += 8) {
		uint64_t address, offset;
		const char *name;

		memcpy(&address, bytes + i, sizeof(address));
		/* Small ones, too, as short lines have them. */
		name = perf_map_find(map, i % 16 ? address : address & 0xffff, &offset);
		assert(!name || (strlen(name) && strlen(name) <= 1024));
	}
	perf_map_destroy(map);
	return 0;
}
