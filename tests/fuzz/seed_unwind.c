/* Writes the seeds of fuzz_unwind into a directory: those of fuzz_eh_frame. */
#include "seed_eh_frame.c"
