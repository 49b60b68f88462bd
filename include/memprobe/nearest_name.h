/*
 * nearest_name.h - which of the known names a mistyped word means.
 *
 *	struct nearest_name nearest = { .word = word };
 *
 *	for each name: nearest_name_try(&nearest, name);
 *	if (nearest.name) "did you mean ...?"
 */
#ifndef MEMPROBE_NEAREST_NAME_H
#define MEMPROBE_NEAREST_NAME_H

struct nearest_name {
	const char *word;
	const char *name; /* the nearest so far, as it was given; NULL: none is near */
	unsigned distance;
};

/*
 * A name is near if every third letter or fewer was mistyped (left out, doubled, replaced, swapped
 * with its neighbour), or if it begins with the word. Of equally near ones the first stays.
 */
void nearest_name_try(struct nearest_name *nearest, const char *name);

#endif
