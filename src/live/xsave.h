/* xsave.h - the register area of x86's XSAVE. Private to live/. */
#ifndef XSAVE_H
#define XSAVE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Puts the components of an NT_X86_XSTATE area to the offsets of Intel's processors, which gdb
 * before 14 takes for granted and later ones recognise; AMD's have AVX-512 elsewhere. In place;
 * @size of the area with room for @capacity bytes; gives the new size. An area that is as it should
 * be, or holds what has no such offset, is left alone.
 */
size_t xsave_to_usual(uint8_t *area, size_t size, size_t capacity);

#endif
