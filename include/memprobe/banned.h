/*
 * banned.h - calls that this code base does not use, turned into errors.
 *
 * Included on the compiler's command line for every file of src/.
 */
#ifndef MEMPROBE_BANNED_H
#define MEMPROBE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A macro of <stdlib.h>, or a builtin without it. */
#undef alloca

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol atoll gets alloca

#endif
