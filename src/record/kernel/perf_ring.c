/*
 * Reads the rings of all CPUs as one stream in the order of time. The layout of records is that of
 * linux/perf_event.h (perf_event_mmap_page, PERF_RECORD_*), for the sample type of perf_events.h.
 * The kernel writes them, but every length is checked: a ring that was overrun is no reason to
 * crash.
 */
#include "perf_session.h"

#include <asm/perf_regs.h>
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

/* A sample that is younger may still be overtaken by one of another CPU. */
#define SETTLED_NS 1000000u

#define AT(field) offsetof(struct user_regs_struct, field)

const struct perf_place perf_places[PERF_PLACES] = {
	{ PERF_REG_X86_AX, AT(rax) },  { PERF_REG_X86_BX, AT(rbx) },
	{ PERF_REG_X86_CX, AT(rcx) },  { PERF_REG_X86_DX, AT(rdx) },
	{ PERF_REG_X86_SI, AT(rsi) },  { PERF_REG_X86_DI, AT(rdi) },
	{ PERF_REG_X86_BP, AT(rbp) },  { PERF_REG_X86_SP, AT(rsp) },
	{ PERF_REG_X86_IP, AT(rip) },  { PERF_REG_X86_FLAGS, AT(eflags) },
	{ PERF_REG_X86_CS, AT(cs) },   { PERF_REG_X86_SS, AT(ss) },
	{ PERF_REG_X86_R8, AT(r8) },   { PERF_REG_X86_R9, AT(r9) },
	{ PERF_REG_X86_R10, AT(r10) }, { PERF_REG_X86_R11, AT(r11) },
	{ PERF_REG_X86_R12, AT(r12) }, { PERF_REG_X86_R13, AT(r13) },
	{ PERF_REG_X86_R14, AT(r14) }, { PERF_REG_X86_R15, AT(r15) },
};

int perf_ring_map(struct perf_ring *ring, int fd, size_t size)
{
	void *map = mmap(NULL, size + (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE,
			 MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return errno;
	ring->map = map;
	ring->size = size;
	ring->fd = fd;
	return 0;
}

void perf_ring_unmap(struct perf_ring *ring)
{
	if (ring->map)
		munmap(ring->map, ring->size + (size_t)sysconf(_SC_PAGESIZE));
	ring->map = NULL;
}

/* ---- a record ---- */

static const uint8_t *ring_data(const struct perf_ring *ring)
{
	return (const uint8_t *)ring->map + sysconf(_SC_PAGESIZE);
}

static void ring_copy(const struct perf_ring *ring, uint64_t at, void *to, size_t size)
{
	size_t offset = at & (ring->size - 1);
	size_t first = size < ring->size - offset ? size : ring->size - offset;

	memcpy(to, ring_data(ring) + offset, first);
	memcpy((uint8_t *)to + first, ring_data(ring), size - first);
}

/* The record at the tail, whole; NULL: none, or the ring makes no sense any more. */
static const struct perf_event_header *ring_record(struct perf_session *session,
						   struct perf_ring *ring)
{
	struct perf_event_header header;
	size_t offset = ring->tail & (ring->size - 1);

	if (ring->head - ring->tail < sizeof(header))
		return NULL;
	ring_copy(ring, ring->tail, &header, sizeof(header));
	if (header.size < sizeof(header) || header.size > ring->head - ring->tail) {
		log_debug("ring of CPU %d: a record of %u bytes", ring->cpu, header.size);
		ring->tail = ring->head;
		return NULL;
	}
	if (header.size <= ring->size - offset)
		return (const void *)(ring_data(ring) + offset);
	ring_copy(ring, ring->tail, session->scratch, header.size);
	return (const void *)session->scratch;
}

static uint64_t load_u64(const uint8_t *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof(value));
	return value;
}

/* IDENTIFIER, IP if not lean, TID, TIME begin a sample; TID, TIME, IDENTIFIER end other records. */
static uint64_t record_time(const struct perf_session *session,
			    const struct perf_event_header *header)
{
	size_t at = sizeof(*header) + (session->lean ? 16 : 24);

	if (header->type != PERF_RECORD_SAMPLE)
		at = header->size - min_u64(header->size, 16);
	if (at < sizeof(*header) || at + sizeof(uint64_t) > header->size)
		return 1;
	return load_u64((const uint8_t *)header + at);
}

/* ---- a sample ---- */

struct reader {
	const uint8_t *at;
	size_t left;
	bool failed;
};

static const uint8_t *take(struct reader *reader, uint64_t size)
{
	const uint8_t *at = reader->at;

	if (size > reader->left) {
		reader->failed = true;
		return NULL;
	}
	reader->at += size;
	reader->left -= size;
	return at;
}

static uint64_t take_u64(struct reader *reader)
{
	const uint8_t *bytes = take(reader, sizeof(uint64_t));

	return bytes ? load_u64(bytes) : 0;
}

static uint32_t take_u32(struct reader *reader)
{
	const uint8_t *bytes = take(reader, sizeof(uint32_t));
	uint32_t value = 0;

	if (bytes)
		memcpy(&value, bytes, sizeof(value));
	return value;
}

static void take_regs(struct reader *reader, uint64_t wanted, struct perf_sample *sample)
{
	uint64_t abi = take_u64(reader);

	if (abi == PERF_SAMPLE_REGS_ABI_NONE)
		return;
	for (size_t i = 0; i < PERF_PLACES; i++) {
		uint64_t value;

		if (!(wanted >> perf_places[i].bit & 1))
			continue;
		value = take_u64(reader);
		memcpy((uint8_t *)&sample->regs + perf_places[i].offset, &value, sizeof(value));
	}
	sample->has_regs = !reader->failed;
}

static void take_stack(struct reader *reader, struct perf_sample *sample)
{
	uint64_t size = take_u64(reader), copied;
	const uint8_t *bytes = take(reader, size);

	if (!size || !bytes)
		return;
	copied = take_u64(reader);
	sample->stack = bytes;
	sample->stack_size = copied < size ? copied : size;
}

/* False: its layout makes no sense, or it is a double. */
static bool parse_sample(const struct perf_session *session, const struct perf_event_header *header,
			 struct perf_sample *sample)
{
	struct reader reader = { (const uint8_t *)(header + 1), header->size - sizeof(*header),
				 false };
	const struct perf_event *event = perf_event_of(session, take_u64(&reader));

	if (!event)
		return false;
	*sample = (struct perf_sample){ .spec = event->spec };
	if (!session->lean)
		sample->ip = take_u64(&reader);
	sample->pid = (pid_t)take_u32(&reader);
	sample->tid = (pid_t)take_u32(&reader);
	sample->time = take_u64(&reader);
	if (!session->lean)
		sample->address = take_u64(&reader);
	take_regs(&reader, perf_registers(session, event->spec), sample);
	if (perf_stack_bytes(session, event->spec))
		take_stack(&reader, sample);
	if (reader.failed)
		return false;
	if (event->tid == sample->tid)
		return true;
	vec_for_each (own, &session->own)
		if (*own == sample->tid)
			return false;
	return true;
}

/* PERF_RECORD_EXIT: pid, ppid, tid, ptid, time. A thread's id may be given out again. */
static void note_exit(struct perf_session *session, const struct perf_event_header *header)
{
	struct reader reader = { (const uint8_t *)(header + 1), header->size - sizeof(*header),
				 false };
	pid_t pid = (pid_t)take_u32(&reader), tid;

	take_u32(&reader);
	tid = (pid_t)take_u32(&reader);
	if (reader.failed)
		return;
	for (size_t i = 0; i < session->own.size; i++)
		if (session->own.data[i] == tid)
			session->own.data[i--] = session->own.data[--session->own.size];
	if (pid == session->target->pid && process_has_ended(session->target->process))
		session->exited = true;
}

/* PERF_RECORD_LOST: id, lost. */
static void note_lost(struct perf_session *session, const struct perf_event_header *header)
{
	struct reader reader = { (const uint8_t *)(header + 1), header->size - sizeof(*header),
				 false };

	take_u64(&reader);
	session->lost_records += take_u64(&reader);
}

static void note_exec(struct perf_session *session, const struct perf_event_header *header)
{
	if (!session->exec_time)
		session->exec_time = record_time(session, header);
}

static struct error *visit_record(struct perf_session *session,
				  const struct perf_event_header *header, perf_visit *visit,
				  void *data)
{
	struct perf_sample sample;

	switch (header->type) {
	case PERF_RECORD_SAMPLE:
		return parse_sample(session, header, &sample) ? visit(data, &sample) : NULL;
	case PERF_RECORD_LOST:
		note_lost(session, header);
		break;
	case PERF_RECORD_EXIT:
		note_exit(session, header);
		break;
	case PERF_RECORD_COMM:
		if (header->misc & PERF_RECORD_MISC_COMM_EXEC)
			note_exec(session, header);
		break;
	}
	return NULL;
}

/* ---- all rings ---- */

/* What has been read up to ring->tail may be written again. */
static void give_back(struct perf_ring *ring)
{
	struct perf_event_mmap_page *page = ring->map;

	if (page)
		__atomic_store_n(&page->data_tail, ring->tail, __ATOMIC_RELEASE);
}

static void look(struct perf_session *session, struct perf_ring *ring)
{
	const struct perf_event_header *header = ring->map ? ring_record(session, ring) : NULL;

	ring->next_time = header ? record_time(session, header) : UINT64_MAX;
}

static struct perf_ring *earliest(struct perf_session *session)
{
	struct perf_ring *found = &session->rings[0];

	for (unsigned i = 1; i < session->ring_count; i++)
		if (session->rings[i].next_time < found->next_time)
			found = &session->rings[i];
	return found;
}

static struct error *drain(struct perf_session *session, uint64_t until, perf_visit *visit,
			   void *data)
{
	struct error *error = NULL;

	for (unsigned i = 0; i < session->ring_count; i++) {
		struct perf_ring *ring = &session->rings[i];
		const struct perf_event_mmap_page *page = ring->map;

		/* A CPU whose events all came too late, for threads that had ended. */
		if (page) {
			ring->tail = page->data_tail;
			ring->head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE);
		}
		look(session, ring);
	}
	for (unsigned count = 0; !error; count++) {
		struct perf_ring *ring = earliest(session);
		const struct perf_event_header *header;

		if (ring->next_time > until || ring->next_time == UINT64_MAX)
			break;
		header = ring_record(session, ring);
		error = visit_record(session, header, visit, data);
		ring->tail += header->size;
		/* Not only at the end: the kernel waits for room. */
		if (count % 64 == 63)
			give_back(ring);
		look(session, ring);
	}
	for (unsigned i = 0; i < session->ring_count; i++)
		give_back(&session->rings[i]);
	return error;
}

/* An event of a ring that still says when there is something to read. */
static struct perf_event *listener(struct perf_session *session, unsigned cpu)
{
	vec_for_each (event, &session->events)
		if (event->cpu == cpu && !event->hung_up)
			return event;
	return NULL;
}

/*
 * Until a ring has something to say. An event whose threads have ended would end every wait at
 * once (perf_poll() of the kernel gives POLLHUP): another one listens for its ring then. A signal
 * ends the wait, too, which the caller asks about itself.
 */
static struct error *wait_for_rings(struct perf_session *session, int timeout_ms)
{
	cleanup(free) struct pollfd *wait = calloc(session->ring_count, sizeof(*wait));
	cleanup(free) struct perf_event **events = calloc(session->ring_count, sizeof(*events));

	if (!wait || !events)
		return &error_no_memory;
	for (;;) {
		bool again = false;
		unsigned heard = 0;

		for (unsigned i = 0; i < session->ring_count; i++) {
			events[i] = listener(session, i);
			wait[i].fd = events[i] ? events[i]->fd : -1;
			wait[i].events = POLLIN;
			heard += events[i] != NULL;
		}
		if (!heard)
			session->exited = true;
		poll(wait, session->ring_count, timeout_ms);
		for (unsigned i = 0; i < session->ring_count; i++)
			if (wait[i].revents & (POLLHUP | POLLERR | POLLNVAL)) {
				events[i]->hung_up = true;
				again = true;
			}
		if (!again)
			return NULL;
	}
}

struct error *perf_poll(struct perf_session *session, int timeout_ms, perf_visit *visit, void *data)
{
	struct error *error;

	if (!timeout_ms)
		return drain(session, UINT64_MAX - 1, visit, data);
	error = wait_for_rings(session, timeout_ms);
	return error ? error : drain(session, clock_ns() - SETTLED_NS, visit, data);
}
