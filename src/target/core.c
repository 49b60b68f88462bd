#include "core_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/log.h"
#include "memprobe/lower_bound.h"
#include "memprobe/num.h"
#include "threads.h"

#define LOST_NAMED 4

/* ---- the file ---- */

size_t core_pread(const struct core *core, uint64_t offset, void *buffer, size_t size)
{
	size_t done = 0;

	while (done < size && offset + done >= offset && offset + done <= INT64_MAX) {
		ssize_t got =
			pread(core->fd, (char *)buffer + done, size - done, (off_t)(offset + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		done += got;
	}
	return done;
}

/* For messages: why @bytes do not begin a core; NULL: they do. */
static const char *not_a_core(const unsigned char *bytes, size_t size)
{
	if (size < SELFMAG || memcmp(bytes, ELFMAG, SELFMAG))
		return "it is no ELF file";
	if (size < sizeof(Elf32_Ehdr))
		return "it is cut short within its header";
	if (bytes[EI_CLASS] != ELFCLASS32 && bytes[EI_CLASS] != ELFCLASS64)
		return "its ELF class is unknown";
	if (bytes[EI_DATA] == ELFDATA2MSB && bytes[16] == 0 && bytes[17] == ET_CORE)
		return NULL;
	if (bytes[EI_DATA] != ELFDATA2LSB)
		return "its byte order is unknown";
	if (bytes[16] != ET_CORE || bytes[17])
		return "it is an ELF file, but no core";
	if (bytes[EI_CLASS] == ELFCLASS64 && size < sizeof(Elf64_Ehdr))
		return "it is cut short within its header";
	return NULL;
}

bool core_probe(const char *path)
{
	cleanup(close) int fd = -1;
	unsigned char bytes[sizeof(Elf64_Ehdr)];
	struct stat status;
	ssize_t size;

	if (stat(path, &status) < 0 || !S_ISREG(status.st_mode))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	size = fd < 0 ? -1 : pread(fd, bytes, sizeof(bytes), 0);
	return size > 0 && (core_is_packed(bytes, size) || !not_a_core(bytes, size));
}

static struct error *open_file(struct core *core, const char *path)
{
	unsigned char magic[4];
	struct stat status;

	core->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (core->fd < 0)
		return error_errno(errno == EACCES ? ERROR_PERMISSION : ERROR_NO_TARGET, errno,
				   "cannot open %s", path);
	if (fstat(core->fd, &status) < 0 || !S_ISREG(status.st_mode))
		return error_create(ERROR_NO_TARGET, "%s is no core: it is no regular file", path);
	core->time = status.st_mtim;
	if (core_is_packed(magic, core_pread(core, 0, magic, sizeof(magic)))) {
		bool whole;
		int fd;
		struct error *error = core_unpack(core->fd, path, &fd, &whole);

		if (error)
			return error;
		close(core->fd);
		core->fd = fd;
		core->truncated = !whole;
		if (fstat(fd, &status) < 0)
			return error_errno(ERROR_FAILED, errno, "cannot read %s", path);
	}
	core->size = (uint64_t)status.st_size;
	core->dense = (uint64_t)status.st_blocks * 512 >= core->size;
	return NULL;
}

/* ---- headers ---- */

struct headers {
	uint64_t offset, count;
	unsigned entry_size;
};

/* More than 65,534 segments: their number stands in the first section header. */
static uint64_t extended_count(const struct core *core, uint64_t sections)
{
	unsigned char bytes[sizeof(Elf64_Shdr)];
	const size_t size = core->is_64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	const size_t info =
		core->is_64 ? offsetof(Elf64_Shdr, sh_info) : offsetof(Elf32_Shdr, sh_info);

	return core_pread(core, sections, bytes, size) == size ? load_word(bytes + info, 4) : 0;
}

static struct error *read_header(struct target *target, const char *path, struct headers *ret)
{
	struct core *core = target->backend;
	unsigned char bytes[sizeof(Elf64_Ehdr)];
	size_t size = core_pread(core, 0, bytes, sizeof(bytes));
	const char *why = not_a_core(bytes, size);
	Elf64_Ehdr wide;
	Elf32_Ehdr narrow;
	bool fits;

	if (why)
		return error_create(ERROR_NO_TARGET, "%s is no core: %s", path, why);
	memcpy(&wide, bytes, sizeof(wide));
	memcpy(&narrow, bytes, sizeof(narrow));
	core->is_64 = wide.e_ident[EI_CLASS] == ELFCLASS64;
	if (wide.e_ident[EI_DATA] == ELFDATA2LSB)
		target->arch = arch_find(wide.e_ident[EI_CLASS], wide.e_machine);
	if (!target->arch)
		return error_create(ERROR_UNSUPPORTED,
				    "%s is the core of an unknown architecture (ELF machine %u, "
				    "%s, %s endian)",
				    path, wide.e_machine, core->is_64 ? "64 bit" : "32 bit",
				    wide.e_ident[EI_DATA] == ELFDATA2LSB ? "little" : "big");
	*ret = (struct headers){
		.offset = core->is_64 ? wide.e_phoff : narrow.e_phoff,
		.count = core->is_64 ? wide.e_phnum : narrow.e_phnum,
		.entry_size = core->is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr),
	};
	fits = ret->entry_size == (core->is_64 ? wide.e_phentsize : narrow.e_phentsize);
	if (ret->count == PN_XNUM)
		ret->count = extended_count(core, core->is_64 ? wide.e_shoff : narrow.e_shoff);
	if (!fits || !ret->count)
		return error_create(ERROR_NO_TARGET, "%s is no core: it has no program headers",
				    path);
	if (ret->offset >= core->size)
		return error_create(ERROR_NO_TARGET,
				    "%s is no core: it is cut short within its headers", path);
	return NULL;
}

static void take_header(const struct core *core, const unsigned char *bytes, Elf64_Phdr *ret)
{
	Elf32_Phdr narrow;

	if (core->is_64) {
		memcpy(ret, bytes, sizeof(*ret));
		return;
	}
	memcpy(&narrow, bytes, sizeof(narrow));
	*ret = (Elf64_Phdr){
		.p_type = narrow.p_type,
		.p_flags = narrow.p_flags,
		.p_offset = narrow.p_offset,
		.p_vaddr = narrow.p_vaddr,
		.p_filesz = narrow.p_filesz,
		.p_memsz = narrow.p_memsz,
	};
}

static struct error *add_segment(struct target *target, const Elf64_Phdr *header)
{
	struct core *core = target->backend;
	const uint64_t promised = min_u64(header->p_filesz, header->p_memsz);
	struct core_segment segment = {
		.start = header->p_vaddr,
		.offset = header->p_offset,
		.perms = (header->p_flags & PF_R ? PERM_READ : 0) |
			 (header->p_flags & PF_W ? PERM_WRITE : 0) |
			 (header->p_flags & PF_X ? PERM_EXEC : 0),
		.file = -1,
	};
	const bool is_gate = header->p_vaddr == 0xffffffffff600000;

	if (!header->p_memsz)
		return NULL;
	if (header->p_vaddr % PAGE_SIZE ||
	    (header->p_vaddr >= target->arch->address_max && !is_gate) ||
	    header->p_memsz > UINT64_MAX - 2 * PAGE_SIZE - header->p_vaddr) {
		log_debug("the core has a segment at 0x%llx, where none can be",
			  (unsigned long long)header->p_vaddr);
		return NULL;
	}
	segment.end = round_up(header->p_vaddr + header->p_memsz, PAGE_SIZE);
	if (!is_gate)
		segment.end = min_u64(segment.end, round_up(target->arch->address_max, PAGE_SIZE));
	segment.dumped = min_u64(promised, segment.end - segment.start);
	segment.lost = segment.dumped;
	if (segment.offset < core->size)
		segment.dumped = min_u64(segment.dumped, core->size - segment.offset);
	else
		segment.dumped = 0;
	segment.lost -= segment.dumped;
	return core_segment_vec_append(&core->segments, &segment);
}

static struct error *read_segments(struct target *target, const struct headers *headers)
{
	enum { PART = 512 };
	struct core *core = target->backend;
	unsigned char bytes[PART * sizeof(Elf64_Phdr)];
	struct error *error = NULL;

	for (uint64_t i = 0; !error && i < headers->count; i += PART) {
		uint64_t count = min_u64(headers->count - i, PART);
		size_t got = core_pread(core, headers->offset + i * headers->entry_size, bytes,
					count * headers->entry_size);

		for (size_t at = 0; !error && at + headers->entry_size <= got;
		     at += headers->entry_size) {
			Elf64_Phdr header;

			take_header(core, bytes + at, &header);
			if (header.p_type == PT_LOAD)
				error = add_segment(target, &header);
			else if (header.p_type == PT_NOTE)
				error = core_take_notes(target, header.p_offset, header.p_filesz);
		}
		if (got < count * headers->entry_size) {
			core->truncated = true;
			log_warn("the core is cut short within its headers: not all of its "
				 "segments are known");
			break;
		}
	}
	return error;
}

/* ---- what is missing ---- */

static void warn_of_loss(struct core *core)
{
	char text[SIZE_TEXT_MAX];
	uint64_t bytes = 0;
	size_t count = 0;

	vec_for_each (segment, &core->segments) {
		if (!segment->lost)
			continue;
		core->truncated = true;
		bytes += segment->lost;
		if (count++ < LOST_NAMED)
			log_warn("the core is cut short: 0x%llx-0x%llx is missing",
				 (unsigned long long)(segment->start + segment->dumped),
				 (unsigned long long)(segment->start + segment->dumped +
						      segment->lost));
	}
	if (count > LOST_NAMED)
		log_warn("the core is cut short: %zu ranges are missing, %s in all", count,
			 format_size(bytes, text));
	if (core->truncated && !count)
		log_warn("the core is cut short or damaged at its end");
	if (!core->threads.size)
		log_warn("the core tells no threads");
}

/* ---- memory ---- */

struct core_segment *core_segment_at(const struct core *core, uint64_t address)
{
	size_t at = lower_bound(core->segments.data, core->segments.size, segment,
				segment->end <= address);

	if (at < core->segments.size && core->segments.data[at].start <= address)
		return &core->segments.data[at];
	return NULL;
}

uint64_t core_zeros(const struct core *core, const struct core_segment *segment, uint64_t address)
{
	const struct range *zeros = ranges_find(&core->zeros, address);
	uint64_t promised = segment->start + segment->dumped + segment->lost;

	return zeros && address >= promised ? min_u64(zeros->end, segment->end) - address : 0;
}

static size_t read_mapped_file(struct target *target, const struct core_segment *segment,
			       uint64_t skip, void *buffer, size_t size)
{
	int fd;
	ssize_t got = 0;

	if (segment->file < 0 || (segment->perms & PERM_WRITE) || !(segment->perms & 7) ||
	    segment->file_offset + skip > INT64_MAX)
		return 0;
	fd = core_file_fd(target, segment->file);
	if (fd >= 0)
		got = pread(fd, buffer, size, (off_t)(segment->file_offset + skip));
	if (got <= 0)
		return 0;
	/* The rest of a file's last page is zeros. */
	if ((size_t)got < size && (skip + got) % PAGE_SIZE) {
		size_t zeros = min_u64(size - got, PAGE_SIZE - (skip + got) % PAGE_SIZE);

		memset((char *)buffer + got, 0, zeros);
		got += zeros;
	}
	return got;
}

static size_t read_undumped(struct target *target, const struct core_segment *segment,
			    uint64_t skip, void *buffer, size_t size)
{
	uint64_t zeros = core_zeros(target->backend, segment, segment->start + skip);

	if (!zeros)
		return read_mapped_file(target, segment, skip, buffer, size);
	size = min_u64(size, zeros);
	memset(buffer, 0, size);
	return size;
}

static struct error *core_read(struct target *target, uint64_t address, void *buffer, size_t size)
{
	const struct core *core = target->backend;

	while (size) {
		const struct core_segment *segment = core_segment_at(core, address);
		uint64_t skip, part;
		size_t got;

		if (!segment)
			return error_fault(address);
		skip = address - segment->start;
		part = min_u64(size, segment->end - address);
		if (skip < segment->dumped)
			got = core_pread(core, segment->offset + skip, buffer,
					 min_u64(part, segment->dumped - skip));
		else
			got = read_undumped(target, segment, skip, buffer, part);
		if (!got)
			return error_fault(address);
		buffer = (char *)buffer + got;
		address += got;
		size -= got;
	}
	return NULL;
}

/* ---- the rest of the interface ---- */

static struct error *core_read_auxv(struct target *target, char **bytes_ret, size_t *size_ret)
{
	const struct core *core = target->backend;
	char *copy;

	if (!core->auxv)
		return error_create(ERROR_FAILED, "the core has no auxiliary vector");
	copy = malloc(core->auxv_size + 1);
	if (!copy)
		return &error_no_memory;
	memcpy(copy, core->auxv, core->auxv_size);
	*bytes_ret = copy;
	*size_ret = core->auxv_size;
	return NULL;
}

static struct error *core_read_threads(struct target *target, struct thread_vec *ret)
{
	const struct core *core = target->backend;
	const struct arch *arch = target->arch;
	const size_t first = ret->size;
	struct error *error = NULL;

	vec_for_each (known, &core->threads) {
		struct thread thread = {
			.tid = known->tid,
			.ns_tid = known->tid,
			.state = known->state,
			.sp = arch->sp(&known->registers.regs),
			.thread_pointer = arch->thread_pointer(&known->registers.regs),
		};

		memcpy(thread.name, known->name, sizeof(thread.name));
		error = thread_vec_append(ret, &thread);
		if (error)
			return error;
	}
	return threads_find_stacks(target, ret, first);
}

struct error *core_thread_states(struct target *target, struct thread_state_vec *ret)
{
	const struct core *core = target->backend;
	struct error *error = NULL;

	if (!target_is_core(target))
		return error_create(ERROR_UNSUPPORTED, "%s is no core", target->name);
	if (!target->arch->core.take_regs)
		return error_create(ERROR_UNSUPPORTED,
				    "cannot take registers of %s on this machine",
				    target->arch->name);
	vec_for_each (thread, &core->threads) {
		struct thread_state state = {
			.tid = thread->tid,
			.state = thread->state,
			.regs = thread->registers.regs,
		};

		memcpy(state.name, thread->name, sizeof(state.name));
		error = thread_state_vec_append(ret, &state);
		if (error)
			return error;
	}
	return NULL;
}

static void core_destroy(struct target *target)
{
	struct core *core = target->backend;

	if (!core)
		return;
	core_files_close(core);
	core_segment_vec_deinit(&core->segments);
	core_mapped_vec_deinit(&core->mapped);
	core_thread_vec_deinit(&core->threads);
	free(core->file_names);
	free(core->auxv);
	free(core->maps_text);
	range_vec_deinit(&core->zeros);
	if (core->fd >= 0)
		close(core->fd);
	if (core->lock_known)
		pthread_mutex_destroy(&core->lock);
	free(core);
}

static const struct target_ops core_ops = {
	.read = core_read,
	.read_maps = core_read_maps,
	.read_threads = core_read_threads,
	.open_module = core_open_module,
	.read_auxv = core_read_auxv,
	.page_present = core_page_present,
	.next_present = core_next_present,
	.destroy = core_destroy,
};

bool target_is_core(const struct target *target)
{
	return target->ops == &core_ops;
}

bool core_is_truncated(const struct target *target)
{
	return target_is_core(target) && ((const struct core *)target->backend)->truncated;
}

/* The executable is the file that has the program headers; without NT_FILE, what was run. */
static struct error *name_target(struct target *target)
{
	struct core *core = target->backend;
	const struct core_segment *segment = NULL;
	char path[4096] = "";
	uint64_t address;

	if (target_auxv(target, AT_PHDR, &address))
		segment = core_segment_at(core, address);
	if (segment && segment->file >= 0) {
		const struct core_file *file = &core->files.data[segment->file];

		target->exe =
			strndup(file->path,
				strlen(file->path) - (file->deleted ? strlen(" (deleted)") : 0));
	} else {
		if (target_auxv(target, AT_EXECFN, &address))
			error_destroy(target_read_string(target, address, path, sizeof(path)));
		target->exe = strdup(path[0] == '/' ? path : "");
	}
	if (!target->pid && core->threads.size)
		target->pid = core->threads.data[0].tid;
	vec_for_each (thread, &core->threads)
		if (thread->tid == target->pid && !thread->name[0])
			memcpy(thread->name, core->name, sizeof(core->name));
	target->name = strdup(core->name[0] ? core->name : "core");
	return target->exe && target->name ? NULL : &error_no_memory;
}

struct error *target_open_core(const char *path, struct target **ret)
{
	cleanup(target) struct target *target = calloc(1, sizeof(*target));
	struct core *core = calloc(1, sizeof(*core));
	struct headers headers;
	struct error *error;

	if (!target || !core) {
		free(core);
		return &error_no_memory;
	}
	core->fd = -1;
	core->lock_known = pthread_mutex_init(&core->lock, NULL) == 0;
	target->ops = &core_ops;
	target->backend = core;
	error = open_file(core, path);
	if (!error)
		error = read_header(target, path, &headers);
	if (!error)
		error = read_segments(target, &headers);
	if (!error)
		error = core_place_files(core);
	if (!error)
		error = name_target(target);
	if (error)
		return error;
	warn_of_loss(core);
	*ret = take_pointer(target);
	return NULL;
}
