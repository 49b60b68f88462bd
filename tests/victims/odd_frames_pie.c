/*
 * `odd_frames_pie`: the same as odd_frames, linked statically to run at any address.
 *
 * cflags: -fomit-frame-pointer -fPIE -static-pie
 */
#include "odd_frames.c"
