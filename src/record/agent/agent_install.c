/*
 * The agent's mappings, made by scripts in the target. What the first two have mapped becomes the
 * target's for good only when it has been filled in: until then the script itself takes it away
 * again, whether memprobe lives or not. After the first there is an agent, which a later memprobe
 * recognises; after the second it also has its hooks. The others map the tables, in what the first
 * has reserved. They are many so that each is short: it holds a thread, and takes up room.
 */
#include "agent_recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "memprobe/num.h"

/* Kept from what else is mapped: a stack grows down, the heap up. */
#define GAP_MARGIN (1u << 20)
/* How far a jump goes, less what instructions and their operands take. */
#define REACH (UINT64_C(0x7ff00000))
/* Below that, kernels map nothing (vm.mmap_min_addr). */
#define LOWEST (1u << 16)

/* No error number, either. */
#define NO_DESCRIPTOR (-5000)

/* How far behind a thread pointer its id may be: within what every libc has there. */
#define TID_REACH 1024

/* x86-64's number, as of the agent. */
#define PRCTL 157

/* ---- a place for the hooks ---- */

/* The highest place in [from, to), away from both ends if there is so much room. */
static bool place_in(uint64_t from, uint64_t to, uint64_t size, uint64_t *ret)
{
	uint64_t room = to - from, margin;

	if (from >= to || room < size)
		return false;
	margin = round_down(min_u64((room - size) / 2, GAP_MARGIN), PAGE_SIZE);
	*ret = round_down(to - size - margin, PAGE_SIZE);
	return *ret >= from;
}

struct error *install_find_near(struct target *target, const struct text_range *text, uint64_t size,
				uint64_t *ret)
{
	uint64_t low = text->end > REACH ? round_up(text->end - REACH, PAGE_SIZE) : LOWEST;
	uint64_t high =
		min_u64(round_down(text->start + REACH, PAGE_SIZE), target->arch->address_max);
	uint64_t from = LOWEST, below = 0, above = 0, found;
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(target, MAPS_PLAIN, &maps);

	for (size_t i = 0; !error && i <= maps.size; i++) {
		uint64_t end = i < maps.size ? maps.data[i].start : target->arch->address_max;

		if (place_in(max_u64(from, low), min_u64(end, high), size, &found)) {
			if (found < text->start)
				below = found;
			else if (!above)
				above = found;
		}
		if (i < maps.size)
			from = max_u64(from, maps.data[i].end);
	}
	mappings_deinit(&maps);
	if (!error && !below && !above)
		error = error_create(ERROR_UNSUPPORTED,
				     "there is no room within 2 GiB of the allocator of %d",
				     (int)target->pid);
	if (!error)
		*ret = below ? below : above;
	return error;
}

/* ---- the scripts ---- */

struct script {
	struct call_script script;
	size_t descriptor; /* data word */
	size_t tsc;	   /* data word: prctl(PR_GET_TSC) */
	size_t results[8];
	const char *names[8];
	unsigned count;
};

static void add_call(struct script *script, const char *name, int number, unsigned count,
		     const struct call_arg *args, enum call_check check, uint64_t expect)
{
	script->results[script->count] =
		call_add_syscall(&script->script, number, count, args, check, expect);
	script->names[script->count++] = name;
}

static void add_map(struct script *script, uint64_t address, uint64_t size, int prot, int flags)
{
	const struct call_arg args[] = {
		CALL_ARG(address), CALL_ARG(size),
		CALL_ARG(prot),	   CALL_ARG(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags),
		CALL_ARG(-1),	   CALL_ARG(0),
	};

	add_call(script, "mmap", script->script.arch->syscalls.mmap, 6, args, CALL_EXPECT, address);
}

/* [@start, @end) of the tables, which lie at @base. */
static void add_map_shared(struct script *script, const struct tables *tables,
			   enum tables_part_name part, uint64_t base, uint64_t start, uint64_t end,
			   int prot)
{
	uint64_t address = base + start;
	const struct call_arg args[] = {
		CALL_ARG(address),
		CALL_ARG(end - start),
		CALL_ARG(prot),
		CALL_ARG(MAP_SHARED | MAP_NORESERVE | MAP_FIXED),
		CALL_WORD(script->descriptor),
		CALL_ARG(start - tables->parts[part].start),
	};

	add_call(script, "mmap", script->script.arch->syscalls.mmap, 6, args, CALL_EXPECT, address);
}

static void add_advice(struct script *script, uint64_t address, uint64_t size, int advice,
		       bool needed)
{
	const struct call_arg args[] = { CALL_ARG(address), CALL_ARG(size), CALL_ARG(advice) };

	add_call(script, "madvise", script->script.arch->syscalls.madvise, 3, args,
		 needed ? CALL_NO_ERRNO : CALL_ANY, 0);
}

static void add_copy(struct script *script, struct call_arg to, struct call_arg from)
{
	struct call_step step = { .op = CALL_OP_COPY, .args = { to, from, CALL_ARG(8) } };

	call_add_step(&script->script, &step);
}

/* Takes away as much as the word in CTL says, loaded first, or the data word @size as it is. */
static void add_undo(struct script *script, uint64_t ctl_word, uint64_t address, size_t size)
{
	const struct call_arg args[] = { CALL_ARG(address), CALL_WORD(size) };

	add_copy(script, CALL_ADDR(size), CALL_ARG(ctl_word));
	call_add_syscall(&script->script, script->script.arch->syscalls.munmap, 2, args, CALL_ANY,
			 0);
}

/* All but the hooks, in one piece of which nobody else can take a part. */
static void write_image_script(const struct install *install, struct script *script)
{
	uint64_t ctl = install->image + AGENT_IMAGE_SPACE;
	struct call_step store = {
		.op = CALL_OP_STORE,
		.args = { CALL_ARG(ctl + INSTALL_UNDO_IMAGE), CALL_ARG(install->image_space) },
	};
	size_t size;

	call_begin(&script->script, call_target(install->session)->arch);
	size = call_add_data(&script->script, &install->image_space, 8);
	add_map(script, install->image, install->image_space, PROT_NONE, MAP_FIXED_NOREPLACE);
	add_map(script, install->image, AGENT_IMAGE_SPACE, PROT_READ | PROT_EXEC, MAP_FIXED);
	add_map(script, ctl, sizeof(struct agent_ctl), PROT_READ | PROT_WRITE, MAP_FIXED);
	call_add_step(&script->script, &store);
	call_add_marker(&script->script);
	add_undo(script, ctl + INSTALL_UNDO_IMAGE, install->image, size);
	/* Without CTL there is no word to be loaded. */
	for (unsigned i = 1; i <= 2; i++)
		script->script.steps[i].fail = (int)script->script.step_count - 1;
}

static void write_near_script(const struct install *install, struct script *script)
{
	uint64_t ctl = install->image + AGENT_IMAGE_SPACE, enabled = PR_TSC_ENABLE;
	struct call_arg get_tsc[] = { CALL_ARG(PR_GET_TSC), CALL_ARG(0) };
	size_t size;

	call_begin(&script->script, call_target(install->session)->arch);
	size = call_add_data(&script->script, &install->near_size, 8);
	script->tsc = call_add_data(&script->script, &enabled, 8);
	get_tsc[1] = CALL_ADDR(script->tsc);
	add_map(script, install->near, install->near_size, PROT_READ | PROT_EXEC,
		MAP_FIXED_NOREPLACE);
	add_advice(script, ctl, sizeof(struct agent_ctl), MADV_WIPEONFORK, true);
	add_advice(script, ctl, sizeof(struct agent_ctl), MADV_NOHUGEPAGE, false);
	if (install->needs_tsc)
		add_call(script, "prctl", PRCTL, 2, get_tsc, CALL_ANY, 0);
	call_add_marker(&script->script);
	add_undo(script, ctl + INSTALL_UNDO_NEAR, install->near, size);
}

/* A file for a part of the tables. The agent that there is by then has its place. */
static void write_part_script(const struct install *install, enum tables_part_name name,
			      struct script *script)
{
	const struct tables *tables = install->tables;
	const struct tables_part *part = &tables->parts[name];
	uint64_t base = install->image + AGENT_IMAGE_SPACE + sizeof(struct agent_ctl);
	uint64_t none = (uint64_t)NO_DESCRIPTOR, writable = part->end;
	const struct arch *arch = call_target(install->session)->arch;
	struct call_arg memfd[] = { CALL_ARG(0), CALL_ARG(MFD_CLOEXEC) };

	call_begin(&script->script, arch);
	memfd[0] = CALL_ADDR(call_add_data(&script->script, "memprobe", 9));
	add_call(script, "memfd_create", arch->syscalls.memfd_create, 2, memfd, CALL_NO_ERRNO, 0);
	script->descriptor = script->results[script->count - 1];
	memcpy(script->script.data + script->descriptor, &none, sizeof(none));
	/* What the target only reads it shall not be able to spoil. */
	if (name == TABLES_HEAD) {
		writable = tables->unwind_offset;
		add_map_shared(script, tables, name, base, writable, part->end, PROT_READ);
	}
	add_map_shared(script, tables, name, base, part->start, writable, PROT_READ | PROT_WRITE);
	/* A core of the target would have all of the reservation in it. */
	add_advice(script, base + part->start, part->end - part->start, MADV_DONTDUMP, true);
	call_add_marker(&script->script);
	call_add_syscall(&script->script, arch->syscalls.close, 1,
			 (struct call_arg[]){ CALL_WORD(script->descriptor) }, CALL_ANY, 0);
}

/* ---- filling in, with the thread held at the marker ---- */

struct marker {
	struct install *install;
	const struct script *script;
	enum tables_part_name part;
};

static bool put(const struct install *install, uint64_t address, const void *bytes, size_t size)
{
	return pwrite(install->memory, bytes, size, (off_t)address) == (ssize_t)size;
}

static struct error *cannot_write(const struct install *install)
{
	return error_errno(ERROR_PERMISSION, errno, "cannot write the memory of %d",
			   (int)call_target(install->session)->pid);
}

static struct error *fill_image(struct target *target, const struct call_result *result, void *data)
{
	const struct marker *marker = data;
	struct install *install = marker->install;
	const struct agent_header *image = image_header();
	uint64_t ctl = install->image + AGENT_IMAGE_SPACE, keep = 0;

	/* The header last: what begins with it is complete. */
	if (!put(install, install->image + sizeof(*image), image + 1,
		 image->image_size - sizeof(*image)) ||
	    !put(install, install->image + image->config_offset, &install->config,
		 sizeof(install->config)) ||
	    !put(install, ctl + INSTALL_UNDO_NEAR, &install->near_size, 8) ||
	    !put(install, install->image, image, sizeof(*image)))
		return cannot_write(install);
	install->committed = true;
	return put(install, ctl + INSTALL_UNDO_IMAGE, &keep, 8) ? NULL : cannot_write(install);
}

/*
 * Where a libc notes a thread's id, from its thread pointer: the only place near there that holds
 * the id of the thread which made the call. 0: there is none, or not one only.
 */
static uint32_t find_tid(struct target *target, const struct call_result *result)
{
	struct process_status status = { 0 };
	uint32_t words[TID_REACH / 4], found = 0;
	struct error *error = process_read_status(target->process, result->tid, &status);
	uint32_t tid = (uint32_t)(status.ns_tid ? status.ns_tid : result->tid);

	if (!error)
		error = target_read(target, result->thread_pointer, words, sizeof(words));
	for (uint32_t i = 1; !error && i < TID_REACH / 4; i++) {
		if (words[i] != tid)
			continue;
		if (found) {
			found = 0;
			break;
		}
		found = 4 * i;
	}
	error_destroy(error);
	return found;
}

static struct error *fill_near(struct target *target, const struct call_result *result, void *data)
{
	const struct marker *marker = data;
	struct install *install = marker->install;
	uint64_t keep = 0;

	install->tid_offset = find_tid(target, result);
	/* The agent would fault wherever it looks at its lease. */
	if (install->needs_tsc && (uint32_t)call_result_word(result, &marker->script->script,
							     marker->script->tsc) != PR_TSC_ENABLE)
		return error_create(ERROR_UNSUPPORTED,
				    "%d may not read the time stamp counter (PR_SET_TSC), by which "
				    "the agent tells that memprobe lives",
				    (int)target->pid);
	if (!put(install, install->near, install->near_bytes, install->near_size) ||
	    !put(install, install->image + AGENT_IMAGE_SPACE + INSTALL_UNDO_NEAR, &keep, 8))
		return cannot_write(install);
	return NULL;
}

static struct error *take_part(struct target *target, const struct call_result *result, void *data)
{
	const struct marker *marker = data;
	const struct script *script = marker->script;
	char path[64];
	int fd;

	/* Threads may have descriptors of their own. */
	snprintf(path, sizeof(path), "task/%d/fd/%llu", (int)result->tid,
		 (unsigned long long)call_result_word(result, &script->script, script->descriptor));
	fd = openat(target->process->dirfd, path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return error_errno(ERROR_PERMISSION, errno, "cannot open the memory shared with %d",
				   (int)target->pid);
	marker->install->memfds[marker->part] = fd;
	return NULL;
}

/* Which of the calls failed, and how. */
static struct error *explain(const struct install *install, const struct script *script,
			     const struct call_result *result)
{
	int pid = (int)call_target(install->session)->pid;

	for (unsigned i = 0; i < script->count; i++) {
		int64_t value =
			(int64_t)call_result_word(result, &script->script, script->results[i]);

		if (value >= 0 || value < -4095)
			continue;
		if (value == -ENOMEM)
			return error_hint(
				error_create(ERROR_UNSUPPORTED,
					     "%d has no room for the recording's tables: %s fails",
					     pid, script->names[i]),
				"its limit of address space (ulimit -v) may be too low");
		if (value == -EAGAIN)
			return error_hint(
				error_create(ERROR_UNSUPPORTED,
					     "%d keeps all that it maps locked in memory, and has "
					     "no room for the recording's tables: %s fails",
					     pid, script->names[i]),
				"its limit of locked memory (ulimit -l) may be too low");
		return error_errno(value == -EPERM || value == -EACCES ? ERROR_PERMISSION
								       : ERROR_UNSUPPORTED,
				   (int)-value, "%s fails in %d", script->names[i], pid);
	}
	return error_create(ERROR_BUSY, "%d has mapped something where the agent was to go", pid);
}

static struct error *run(struct install *install, struct script *script,
			 struct error *(*at_marker)(struct target *target,
						    const struct call_result *result, void *data),
			 enum tables_part_name part)
{
	struct marker marker = { install, script, part };
	struct call_options options = { .at_marker = at_marker, .at_marker_data = &marker };
	struct call_result result;
	struct error *error = call_run(install->session, &script->script, &options, &result);

	if (!error && !result.completed)
		error = explain(install, script, &result);
	return error;
}

struct error *install_run(struct install *install)
{
	struct script image = { 0 }, near = { 0 };
	struct error *error;

	for (unsigned i = 0; i < TABLES_PARTS; i++)
		install->memfds[i] = -1;
	write_image_script(install, &image);
	write_near_script(install, &near);
	error = run(install, &image, fill_image, 0);
	if (!error)
		error = run(install, &near, fill_near, 0);
	for (unsigned i = 0; !error && i < TABLES_PARTS; i++) {
		struct script script = { 0 };

		write_part_script(install, i, &script);
		error = run(install, &script, take_part, i);
	}
	if (!error)
		error = tables_open(install->tables, install->memfds);
	for (unsigned i = 0; i < TABLES_PARTS; i++)
		if (install->memfds[i] >= 0)
			close(install->memfds[i]);
	return error;
}
