/*
 * clock.h - what time it is.
 */
#ifndef MEMPROBE_CLOCK_H
#define MEMPROBE_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC, for what lasts how long. */
uint64_t clock_us(void);
uint64_t clock_ns(void);

/* CLOCK_REALTIME, for what is shown or written down: since 1970. */
uint64_t clock_real_us(void);

#endif
