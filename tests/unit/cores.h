/* cores.h - small cores for tests, and something that asks a core for all it has. */
#ifndef CORES_H
#define CORES_H

#include "memprobe/core.h"
#include "memprobe/core_writer.h"

#define CORES_CODE 0x400000ull /* a page of `code`, of /nonexistent/program */
#define CORES_DATA 0x403000ull /* two pages, the second one untouched */
#define CORES_HEAP 0x500000ull /* five pages, two of them reserved, without room in the file */
#define CORES_RESERVE \
	((const struct range){ CORES_HEAP + 2 * PAGE_SIZE, CORES_HEAP + 4 * PAGE_SIZE })
#define CORES_STACK 0xbf000000ull
#define CORES_VDSO  0xbf800000ull
#define CORES_TID   4711

/* Writes a core of two threads with these mappings; the file has no name. Its descriptor. */
int cores_write(const struct arch *arch, bool compress);

/* What cores_write() put at @address. */
uint8_t cores_byte(uint64_t address);

/* Takes a file of these bytes, opens it by target_open_core() and asks for everything. */
struct error *cores_open_bytes(const void *bytes, size_t size, struct target **ret);
struct error *cores_open_fd(int fd, struct target **ret);
void cores_ask_all(struct target *target);

#endif
