#include "bpf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "memprobe/log.h"
#include "probe_section.h"

#define LOG_SIZE 4096

/* Linux 6.6 (linux/bpf.h): enum bpf_attach_type, and union bpf_attr's link_create.uprobe_multi. */
#define TRACE_UPROBE_MULTI 48

struct link_create {
	uint32_t program, target, attach_type, flags;
	uint64_t path, offsets, reference_offsets, cookies;
	uint32_t count, probe_flags, pid, padding;
};

#define PROBE_RETURNS 1u

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static struct error *explain(int errnum, const char *what)
{
	if (errnum == EPERM)
		return error_errno(ERROR_PERMISSION, errnum, "cannot make %s", what);
	if (errnum == ENOMEM)
		return &error_no_memory;
	return error_errno(ERROR_UNSUPPORTED, errnum, "cannot make %s", what);
}

/* ---- what programs write to ---- */

struct error *bpf_ring_create(struct bpf_ring *ring, size_t size)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_RINGBUF,
		.max_entries = (uint32_t)size,
	};
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *reader, *writer;

	*ring = (struct bpf_ring){ .fd = bpf(BPF_MAP_CREATE, &attr), .size = size };
	if (ring->fd < 0)
		return explain(errno, "a ring of records");
	/* The reader's position can be written, the rest only read (kernel/bpf/ringbuf.c). */
	ring->map_size = 2 * page + 2 * size;
	ring->map = mmap(NULL, ring->map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ring->map == MAP_FAILED) {
		ring->map = NULL;
		return &error_no_memory;
	}
	reader = mmap(ring->map, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ring->fd, 0);
	writer = mmap((uint8_t *)ring->map + page, page + 2 * size, PROT_READ,
		      MAP_SHARED | MAP_FIXED, ring->fd, (off_t)page);
	if (reader == MAP_FAILED || writer == MAP_FAILED)
		return explain(errno, "a ring of records");
	ring->consumed = reader;
	ring->produced = writer;
	ring->data = (const uint8_t *)writer + page;
	return NULL;
}

void bpf_ring_destroy(struct bpf_ring *ring)
{
	if (ring->map)
		munmap(ring->map, ring->map_size);
	if (ring->fd >= 0)
		close(ring->fd);
	*ring = (struct bpf_ring){ .fd = -1 };
}

uint64_t bpf_ring_end(const struct bpf_ring *ring)
{
	return __atomic_load_n(ring->produced, __ATOMIC_ACQUIRE);
}

/* Its first word: the length of what follows behind 8 bytes, and the flags. */
static uint32_t head_at(const struct bpf_ring *ring, uint64_t at)
{
	const void *head = ring->data + (at & (ring->size - 1));

	return __atomic_load_n((const uint32_t *)head, __ATOMIC_ACQUIRE);
}

static uint64_t behind(uint64_t at, uint32_t head)
{
	uint64_t size = head & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);

	return at + ((size + BPF_RINGBUF_HDR_SZ + 7) & ~7ull);
}

const void *bpf_ring_record(struct bpf_ring *ring, uint64_t end, size_t *size_ret)
{
	uint64_t at = *ring->consumed;
	uint32_t head;

	for (; at < end; at = behind(at, head)) {
		head = head_at(ring, at);
		if (head & BPF_RINGBUF_BUSY_BIT || behind(at, head) - at > ring->size)
			return NULL;
		if (!(head & BPF_RINGBUF_DISCARD_BIT)) {
			*size_ret = head;
			return ring->data + (at & (ring->size - 1)) + BPF_RINGBUF_HDR_SZ;
		}
		__atomic_store_n(ring->consumed, behind(at, head), __ATOMIC_RELEASE);
	}
	return NULL;
}

void bpf_ring_next(struct bpf_ring *ring)
{
	uint64_t at = *ring->consumed;

	__atomic_store_n(ring->consumed, behind(at, head_at(ring, at)), __ATOMIC_RELEASE);
}

bool bpf_ring_is_taken(const struct bpf_ring *ring, uint64_t end)
{
	return *ring->consumed >= end;
}

struct error *bpf_value_create(size_t size, int *fd_ret, void **map_ret)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = sizeof(uint32_t),
		.value_size = (uint32_t)size,
		.max_entries = 1,
		.map_flags = BPF_F_MMAPABLE,
	};
	int fd = bpf(BPF_MAP_CREATE, &attr);
	void *map;

	if (fd < 0)
		return explain(errno, "an array of values");
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		close(fd);
		return explain(errno, "an array of values");
	}
	*fd_ret = fd;
	*map_ret = map;
	return NULL;
}

/* ---- programs ---- */

void bpf_emit(struct bpf_program *program, uint8_t code, uint8_t to, uint8_t from, int16_t offset,
	      int32_t immediate)
{
	if (program->size == BPF_INSTRUCTIONS_MAX) {
		program->full = true;
		return;
	}
	program->code[program->size++] = (struct bpf_insn){
		.code = code, .dst_reg = to, .src_reg = from, .off = offset, .imm = immediate
	};
}

void bpf_move(struct bpf_program *program, uint8_t to, uint8_t from)
{
	bpf_emit(program, BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0);
}

void bpf_set(struct bpf_program *program, uint8_t to, int32_t immediate)
{
	bpf_emit(program, BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, immediate);
}

void bpf_get(struct bpf_program *program, uint8_t to, uint8_t from, int16_t offset)
{
	bpf_emit(program, BPF_LDX | BPF_MEM | BPF_DW, to, from, offset, 0);
}

void bpf_put(struct bpf_program *program, uint8_t to, int16_t offset, uint8_t from)
{
	bpf_emit(program, BPF_STX | BPF_MEM | BPF_DW, to, from, offset, 0);
}

/* 64 bits of immediate: two instructions. */
void bpf_set_map(struct bpf_program *program, uint8_t to, int map_fd)
{
	bpf_emit(program, BPF_LD | BPF_IMM | BPF_DW, to, BPF_PSEUDO_MAP_FD, 0, map_fd);
	bpf_emit(program, 0, 0, 0, 0, 0);
}

void bpf_set_value(struct bpf_program *program, uint8_t to, int map_fd, uint32_t offset)
{
	bpf_emit(program, BPF_LD | BPF_IMM | BPF_DW, to, BPF_PSEUDO_MAP_VALUE, 0, map_fd);
	bpf_emit(program, 0, 0, 0, 0, (int32_t)offset);
}

void bpf_call(struct bpf_program *program, int32_t helper)
{
	bpf_emit(program, BPF_JMP | BPF_CALL, 0, 0, 0, helper);
}

unsigned bpf_jump(struct bpf_program *program, uint8_t condition, uint8_t reg, int32_t immediate)
{
	bpf_emit(program, BPF_JMP | BPF_K | condition, reg, 0, 0, immediate);
	return program->size - 1;
}

void bpf_land(struct bpf_program *program, unsigned jump)
{
	program->code[jump].off = (int16_t)(program->size - jump - 1);
}

/* Once more, to hear what the kernel has against it. */
static void log_verdict(union bpf_attr *attr)
{
	char log[LOG_SIZE] = "";
	int fd;

	attr->log_buf = (uintptr_t)log;
	attr->log_size = sizeof(log);
	attr->log_level = 4;
	fd = bpf(BPF_PROG_LOAD, attr);
	if (fd >= 0)
		close(fd);
	log_debug("a program for a probe was refused: %s", log);
}

static struct error *load(const struct bpf_program *program, uint32_t type, uint32_t attach_type,
			  int *fd_ret)
{
	union bpf_attr attr = {
		.prog_type = type,
		.insns = (uintptr_t)program->code,
		.insn_cnt = program->size,
		/* What the kernel calls so: it calls helpers that are for free programs only. */
		.license = (uintptr_t) "GPL",
		.expected_attach_type = attach_type,
	};
	int errnum;

	if (program->full)
		return error_create(ERROR_UNSUPPORTED, "a program for a probe is too long");
	*fd_ret = bpf(BPF_PROG_LOAD, &attr);
	if (*fd_ret >= 0)
		return NULL;
	errnum = errno;
	if (errnum == EINVAL || errnum == EACCES)
		log_verdict(&attr);
	return explain(errnum, "a program for a probe");
}

struct error *bpf_load(const struct bpf_program *program, bool for_many, int *fd_ret)
{
	return load(program, BPF_PROG_TYPE_KPROBE, for_many ? TRACE_UPROBE_MULTI : 0, fd_ret);
}

/*
 * Before Linux 6.10 (and some later releases of those before) the process is taken for its first
 * thread, and what the others do is left out without a word; before 6.12 for all that shares its
 * memory.
 */
static bool kernel_knows_processes(void)
{
	unsigned major, minor;
	struct utsname name;

	return !uname(&name) && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 12));
}

struct error *bpf_probe(int program_fd, pid_t pid, const struct bpf_places *places, int *fd_ret)
{
	struct link_create create = {
		.program = (uint32_t)program_fd,
		.attach_type = TRACE_UPROBE_MULTI,
		.path = (uintptr_t)places->path,
		.offsets = (uintptr_t)places->offsets,
		.cookies = (uintptr_t)places->cookies,
		.count = places->count,
		.probe_flags = places->returns ? PROBE_RETURNS : 0,
		.pid = (uint32_t)pid,
	};
	int fd;

	if (!kernel_knows_processes())
		return error_create(ERROR_UNSUPPORTED, "cannot make probes of all threads at once: "
						       "that takes Linux 6.12");
	fd = PROBE_MAKE(syscall(SYS_bpf, BPF_LINK_CREATE, &create, sizeof(create)));
	if (fd < 0)
		return explain(errno, "probes");
	*fd_ret = fd;
	return NULL;
}

struct error *bpf_load_for(const struct bpf_program *program, const char *name, int *fd_ret)
{
	union bpf_attr attr = { .raw_tracepoint.name = (uintptr_t)name };
	int fd;
	struct error *error = load(program, BPF_PROG_TYPE_RAW_TRACEPOINT, 0, &fd);

	if (error)
		return error;
	attr.raw_tracepoint.prog_fd = (uint32_t)fd;
	*fd_ret = bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
	if (*fd_ret < 0)
		error = explain(errno, "a program run at a tracepoint");
	/* The tracepoint has its own reference. */
	close(fd);
	return error;
}
