/*
 * perf_map.h - what a JIT compiler says its code is: /tmp/perf-PID.map.
 *
 * A text file with a line `START SIZE NAME` for each piece of code, hexadecimal
 * (tools/perf/Documentation/jit-interface.txt of Linux): node --perf-basic-prof, java (`jcmd PID
 * Compiler.perfmap`), .NET, LuaJIT, PHP, LLVM and others write it. Where pieces overlap, the later
 * line holds: the code before was given up. The file is the target's: anything may be in it.
 */
#ifndef MEMPROBE_PERF_MAP_H
#define MEMPROBE_PERF_MAP_H

#include <stdint.h>

#include "memprobe/cleanup.h"
#include "memprobe/error.h"
#include "memprobe/target.h"

struct perf_map;

/* Of the bytes of a file. A last line without an end is left out: it may still be written. */
struct error *perf_map_parse(const char *text, size_t size, struct perf_map **ret);

/* The target's own, as far as PERF_MAP_MAX allows: of a larger file its end. ERROR_UNSUPPORTED: it
 * has none. */
#define PERF_MAP_MAX (64u << 20)
struct error *perf_map_open(struct target *target, struct perf_map **ret);

void perf_map_destroy(struct perf_map *map);
CLEANUP_DEFINE(perf_map, struct perf_map *, perf_map_destroy)

/* The name of the code at @address, which the map owns, and the offset into it; NULL: unknown. */
const char *perf_map_find(const struct perf_map *map, uint64_t address, uint64_t *offset_ret);

#endif
