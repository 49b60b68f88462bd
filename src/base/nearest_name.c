#include "memprobe/nearest_name.h"

#include <string.h>

/* Longer ones are no names that anybody types. */
#define NAME_LONGEST 32

/* A beginning is as good as one mistyped letter. */
#define BEGINNING_LEAST 3

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* Optimal string alignment: Levenshtein's distance, a swap of neighbours counting once. */
static unsigned distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
	unsigned rows[3][NAME_LONGEST + 1];

	for (size_t j = 0; j <= b_size; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= a_size; i++) {
		const unsigned *before = rows[(i + 1) % 3], *above = rows[(i - 1) % 3];
		unsigned *row = rows[i % 3];

		row[0] = i;
		for (size_t j = 1; j <= b_size; j++) {
			row[j] = least(above[j - 1] + (a[i - 1] != b[j - 1]),
				       least(above[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = least(row[j], before[j - 2] + 1);
		}
	}
	return rows[a_size % 3][b_size];
}

void nearest_name_try(struct nearest_name *nearest, const char *name)
{
	size_t word_size = strlen(nearest->word), name_size = strlen(name);
	unsigned apart;

	if (word_size > NAME_LONGEST || name_size > NAME_LONGEST)
		return;
	apart = distance(nearest->word, word_size, name, name_size);
	if (word_size >= BEGINNING_LEAST && !strncmp(nearest->word, name, word_size))
		apart = least(apart, 1);
	if (apart > (word_size + 1) / 3 || (nearest->name && apart >= nearest->distance))
		return;
	nearest->name = name;
	nearest->distance = apart;
}
