/*
 * content.h - what a block begins with, so that those that begin alike can be counted together.
 */
#ifndef MEMPROBE_CONTENT_H
#define MEMPROBE_CONTENT_H

#include "memprobe/heap.h"

#define CONTENT_PREFIX 128u /* bytes of a block that are looked at */
#define CONTENT_TEXT   48u  /* bytes of a text that count */
#define CONTENT_RUNS   8u   /* numbers in a text that are told apart */
#define CONTENT_NAME   (CONTENT_TEXT + 64)

enum content_kind {
	CONTENT_ZEROS, /* all that is looked at */
	CONTENT_LINE,  /* a text at @offset */
	CONTENT_WORDS, /* the first 16 bytes, without what is skipped */
};

struct content {
	enum content_kind kind;
	uint64_t hash;	 /* the same for those that are alike */
	unsigned offset; /* of the text, or of the words */
	unsigned length; /* of the text; bytes that the words have */
	bool is_cut;	 /* the text goes on */
	/* Hashes of the first numbers in the text, which are no part of @hash. */
	uint16_t runs[CONTENT_RUNS];
	unsigned run_count; /* of all */
};

/* @bytes: the first @size of a block, at most CONTENT_PREFIX, of which the first @skip are known
 * otherwise. */
void content_describe(const struct heap *heap, const uint8_t *bytes, size_t size, size_t skip,
		      struct content *ret);

/* In words. @varying: a bit for each of the first numbers in the text: it differs and shows as #;
 * numbers beyond those do, too. */
void content_name(const struct heap *heap, const struct content *content, const uint8_t *bytes,
		  unsigned varying, char name[CONTENT_NAME]);

#endif
