/* libFuzzer: any bytes as call frame information, and as the stack that is walked by it. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/unwind_walk.h"
#include "memprobe/eh_frame.h"

#define ADDRESS	   0x100000
#define TEXT	   0x1000
#define TEXT_SIZE  0x80000
#define ROWS_MAX   8192
#define BLOCKS	   (TEXT_SIZE / UNWIND_BLOCK)
#define FRAMES_MAX 256

struct image {
	struct unwind_header header;
	struct unwind_module module;
	uint32_t index[BLOCKS + 1];
	struct unwind_row rows[ROWS_MAX];
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_rows(const struct image *image, size_t count)
{
	assert(count && image->rows[0].offset == 0);
	for (size_t i = 0; i < count; i++) {
		assert(image->rows[i].rule && image->rows[i].rule >> 30 == 0);
		assert(image->rows[i].offset < TEXT_SIZE);
		if (i) {
			assert(image->rows[i].offset > image->rows[i - 1].offset);
			assert(image->rows[i].rule != image->rows[i - 1].rule);
		}
	}
}

static void make_image(struct image *image, size_t count)
{
	size_t row = 0;

	for (size_t block = 0; block < BLOCKS; block++) {
		while (row + 1 < count && image->rows[row + 1].offset <= block * UNWIND_BLOCK)
			row++;
		image->index[block] = row;
	}
	image->index[BLOCKS] = count - 1;
	image->module = (struct unwind_module){
		.start = TEXT,
		.end = TEXT + TEXT_SIZE,
		.rows = offsetof(struct image, rows),
		.index = offsetof(struct image, index),
		.row_count = count,
	};
	image->header.modules = offsetof(struct image, module) << UNWIND_COUNT_BITS | 1;
}

/* From wherever a row begins, with registers that point into the stack. */
static void walk_all(const struct image *image, size_t count, const uint8_t *stack, size_t size)
{
	uint64_t pcs[FRAMES_MAX], registers[16];
	struct unwind_memory memory = { .low = 1 << 30, .high = (1 << 30) + size };

	memory.shift = (uint64_t)stack - memory.low;
	for (size_t i = 0; i < 16; i++)
		registers[i] = memory.low + size / 16 * i;
	for (size_t i = 0; i < count && i < 64; i++) {
		struct unwind_frames frames = { pcs, NULL, FRAMES_MAX, 0 };
		struct unwind_start start = {
			.pc = TEXT + image->rows[i].offset,
			.sp = memory.low + i * 8 % size,
			.bp = registers[i % 16],
			.bx = registers[3],
			.has_bx = i % 2,
			.registers = i % 4 ? registers : NULL,
		};

		unwind_walk(&image->header, NULL, &start, &memory, &frames);
		assert(frames.count <= FRAMES_MAX);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct image *image = calloc(1, sizeof(*image));
	struct eh_frame eh_frame = {
		.bytes = bytes,
		.size = size,
		.address = ADDRESS,
		.data_base = ADDRESS,
		.text_start = TEXT,
		.text_end = TEXT + TEXT_SIZE,
	};
	struct eh_frame_counts counts;
	struct error *error;
	size_t count;

	if (!image)
		return 0;
	error = eh_frame_compile(&eh_frame, image->rows, ROWS_MAX, &count, &counts);
	if (!error) {
		check_rows(image, count);
		make_image(image, count);
		if (size >= 64)
			walk_all(image, count, bytes, size);
	}
	error_destroy(error);
	free(image);
	return 0;
}
