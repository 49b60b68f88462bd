/*
 * `alloc_truth THREADS [SLOTS [SIZE [PAUSE]]]`: from `go` on, threads allocate in every way, on 64
 * paths, up to SIZE bytes, and free each other's blocks; each pauses for PAUSE us after some
 *hundred calls. After `stop`: the truth, for each path a line
 *
 *	path FIRST-ADDRESS END-ADDRESS COUNT BYTES	the code of its leaf; what is live of it
 *
 * and `stopped ROUNDS`. `go` goes on from there.
 *
 * variants: 32 static musl
 * cflags: -O1
 */
#include "alloc_truth.h"
