/*
 * lower_bound.h - binary search in what is sorted.
 */
#ifndef MEMPROBE_LOWER_BOUND_H
#define MEMPROBE_LOWER_BOUND_H

#include <stddef.h>

/*
 * How many of the @count elements at @data come before what is looked for: the index of the first
 * for which @before does not hold, or @count. @before is an expression of the pointer @element,
 * true for the first elements and false for the rest:
 *
 *	lower_bound(maps->data, maps->size, mapping, mapping->end <= address)
 */
#define lower_bound(data, count, element, before)                   \
	({                                                          \
		__auto_type data_ = (data);                         \
		size_t low_ = 0, high_ = (count);                   \
		while (low_ < high_) {                              \
			size_t middle_ = low_ + (high_ - low_) / 2; \
			__auto_type element = data_ + middle_;      \
			if (before)                                 \
				low_ = middle_ + 1;                 \
			else                                        \
				high_ = middle_;                    \
		}                                                   \
		low_;                                               \
	})

#endif
