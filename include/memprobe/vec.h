/*
 * vec.h - a growable array, typed by a macro.
 *
 *	VEC_DEFINE(tid_vec, pid_t)
 *
 * defines `struct tid_vec { pid_t *data; size_t size; ... }` with tid_vec_append() (which copies
 * the element and can fail with error_no_memory), tid_vec_reserve() and tid_vec_deinit(). A zeroed
 * struct is an empty vector. Elements that own memory are the caller's to release before deinit.
 */
#ifndef MEMPROBE_VEC_H
#define MEMPROBE_VEC_H

#include <stddef.h>

#include "memprobe/error.h"

#define VEC_DEFINE(name, type)                                                                 \
	struct name {                                                                          \
		type *data;                                                                    \
		size_t size;                                                                   \
		size_t capacity;                                                               \
	};                                                                                     \
                                                                                               \
	static inline __attribute__((unused)) struct error *name##_reserve(struct name *vec,   \
									   size_t capacity)    \
	{                                                                                      \
		type *data;                                                                    \
                                                                                               \
		if (capacity <= vec->capacity)                                                 \
			return NULL;                                                           \
		data = reallocarray(vec->data, capacity, sizeof(*data));                       \
		if (!data)                                                                     \
			return &error_no_memory;                                               \
		vec->data = data;                                                              \
		vec->capacity = capacity;                                                      \
		return NULL;                                                                   \
	}                                                                                      \
                                                                                               \
	static inline __attribute__((unused)) struct error *name##_append(struct name *vec,    \
									  const type *element) \
	{                                                                                      \
		if (vec->size == vec->capacity) {                                              \
			struct error *error =                                                  \
				name##_reserve(vec, vec->capacity ? vec->capacity * 2 : 16);   \
			if (error)                                                             \
				return error;                                                  \
		}                                                                              \
		vec->data[vec->size++] = *element;                                             \
		return NULL;                                                                   \
	}                                                                                      \
                                                                                               \
	static inline __attribute__((unused)) void name##_deinit(struct name *vec)             \
	{                                                                                      \
		free(vec->data);                                                               \
		*vec = (struct name){ 0 };                                                     \
	}

/* An empty vector may have no data: nothing is added to a null pointer. */
#define vec_for_each(element, vec)                            \
	for (__typeof__(*(vec)->data) *element = (vec)->data; \
	     (vec)->size && (element) < (vec)->data + (vec)->size; (element)++)

#endif
