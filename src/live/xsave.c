#include "xsave.h"

#include <string.h>

#if defined(__x86_64__) || defined(__i386__)

#include <cpuid.h>

/* Intel SDM volume 1, 13.4 and 13.5; the components up to PKRU. */
static const struct {
	uint32_t offset, size;
} usual[] = {
	[2] = { 576, 256 },  [3] = { 960, 64 },	   [4] = { 1024, 64 }, [5] = { 1088, 64 },
	[6] = { 1152, 512 }, [7] = { 1664, 1024 }, [9] = { 2688, 8 },
};

#define COMPONENTS (sizeof(usual) / sizeof(*usual))
#define AREA_MAX   2696u
#define LEGACY	   576u /* FXSAVE area and header, the same everywhere */
#define XCR0	   464u /* where Linux notes the components */

size_t xsave_to_usual(uint8_t *area, size_t size, size_t capacity)
{
	uint8_t moved[AREA_MAX] = { 0 };
	size_t end = LEGACY;
	uint64_t mask;
	int differs = 0;

	if (size < LEGACY)
		return size;
	memcpy(&mask, area + XCR0, sizeof(mask));
	memcpy(moved, area, LEGACY);
	for (unsigned i = 2; i < 64; i++) {
		unsigned length, offset, unused_c, unused_d;

		if (!(mask >> i & 1))
			continue;
		if (i >= COMPONENTS || !usual[i].size ||
		    !__get_cpuid_count(0xd, i, &length, &offset, &unused_c, &unused_d) ||
		    length > usual[i].size || offset > size || length > size - offset)
			return size;
		differs |= offset != usual[i].offset;
		memcpy(moved + usual[i].offset, area + offset, length);
		if (usual[i].offset + usual[i].size > end)
			end = usual[i].offset + usual[i].size;
	}
	if (!differs || end > capacity)
		return size;
	memcpy(area, moved, end);
	return end;
}

#else

size_t xsave_to_usual(uint8_t *area, size_t size, size_t capacity)
{
	return size;
}

#endif
