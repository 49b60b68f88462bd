/*
 * bpf.h - the little of bpf(2) that record/ needs: a ring and an array of values that the kernel's
 * programs write, and the programs. Private to record/.
 *
 * A program is built by emitting instructions; the kernel proves it harmless before it takes it.
 * All of it goes with memprobe's descriptors.
 */
#ifndef RECORD_BPF_H
#define RECORD_BPF_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "memprobe/error.h"

#define BPF_INSTRUCTIONS_MAX 1024

/* ---- what programs write to ---- */

struct bpf_ring {
	int fd; /* of the map */
	size_t size;
	uint64_t *consumed, *produced; /* positions, of bytes; mapped pages */
	const uint8_t *data;	       /* mapped twice in a row: no record goes around the end */
	void *map;
	size_t map_size;
};

/* @size: a power of two, at least a page. ERROR_PERMISSION: CAP_BPF is missing; ERROR_UNSUPPORTED:
 * the kernel has none of it (before Linux 5.8). */
struct error *bpf_ring_create(struct bpf_ring *ring, size_t size);
void bpf_ring_destroy(struct bpf_ring *ring);

/* How far it has been written. */
uint64_t bpf_ring_end(const struct bpf_ring *ring);
/* The next record that lies before @end; NULL: there is none, or it is still being written.
 * bpf_ring_next() makes room of it. */
const void *bpf_ring_record(struct bpf_ring *ring, uint64_t end, size_t *size_ret);
void bpf_ring_next(struct bpf_ring *ring);
/* All that lies before @end has been taken. */
bool bpf_ring_is_taken(const struct bpf_ring *ring, uint64_t end);

/* One value of @size bytes, zeroed, that programs and memprobe share. */
struct error *bpf_value_create(size_t size, int *fd_ret, void **map_ret);

/* ---- programs ---- */

struct bpf_program {
	struct bpf_insn code[BPF_INSTRUCTIONS_MAX];
	unsigned size;
	bool full; /* something did not fit: bpf_load() refuses it */
};

void bpf_emit(struct bpf_program *program, uint8_t code, uint8_t to, uint8_t from, int16_t offset,
	      int32_t immediate);

/* to = from; to = immediate */
void bpf_move(struct bpf_program *program, uint8_t to, uint8_t from);
void bpf_set(struct bpf_program *program, uint8_t to, int32_t immediate);
/* 64 bits wide: to = *(from + offset); *(to + offset) = from */
void bpf_get(struct bpf_program *program, uint8_t to, uint8_t from, int16_t offset);
void bpf_put(struct bpf_program *program, uint8_t to, int16_t offset, uint8_t from);
/* to = a map; to = the address of a byte of bpf_value_create()'s value */
void bpf_set_map(struct bpf_program *program, uint8_t to, int map_fd);
void bpf_set_value(struct bpf_program *program, uint8_t to, int map_fd, uint32_t offset);
void bpf_call(struct bpf_program *program, int32_t helper);
/* A conditional jump (BPF_JEQ, BPF_JGT...) or BPF_JA that bpf_land() leads to the place where
 * emission stands then; returns its number. */
unsigned bpf_jump(struct bpf_program *program, uint8_t condition, uint8_t reg, int32_t immediate);
void bpf_land(struct bpf_program *program, unsigned jump);

/* A program for the probes of perf events, or of bpf_probe(). ERROR_PERMISSION, ERROR_UNSUPPORTED
 * as above. */
struct error *bpf_load(const struct bpf_program *program, bool for_many, int *fd_ret);

/* Where in a file, and what the program gets by BPF_FUNC_get_attach_cookie there. */
struct bpf_places {
	const char *path;
	const uint64_t *offsets, *cookies;
	unsigned count;
	bool returns; /* of the functions that begin there */
};

/*
 * A program of bpf_load(for_many) at all of these in one process, until the descriptor is closed:
 * which takes as long as one event does. ERROR_UNSUPPORTED: before Linux 6.12.
 */
struct error *bpf_probe(int program_fd, pid_t pid, const struct bpf_places *places, int *fd_ret);

/*
 * A program that runs whenever any process comes by the kernel's tracepoint @name, until the
 * descriptor is closed; its context are the tracepoint's arguments, 64 bits each.
 */
struct error *bpf_load_for(const struct bpf_program *program, const char *name, int *fd_ret);

#endif
