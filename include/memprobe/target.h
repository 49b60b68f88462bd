/*
 * target.h - the read-only view of a process, whatever it is read from.
 *
 * Analysis sees only this. Backends: live process (live.c), fake (fake.c, for tests); cores and
 * snapshots join them. The power to change a process is not here: see call.h.
 *
 * To add a backend: 1. fill a `struct target_ops`; 2. give it a constructor that calls
 * target_init(); 3. describe what it cannot do by leaving that op NULL (the wrapper then fails
 * with ERROR_UNSUPPORTED).
 */
#ifndef MEMPROBE_TARGET_H
#define MEMPROBE_TARGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "memprobe/arch.h"
#include "memprobe/maps.h"
#include "memprobe/process.h"
#include "memprobe/vec.h"

struct target;

/* How much to read for each mapping. */
enum maps_detail {
	MAPS_PLAIN, /* addresses, permissions, paths */
	MAPS_USAGE, /* and struct mapping_usage: the kernel walks the page tables, 20 times dearer
		     */
};

struct thread {
	pid_t tid;
	pid_t ns_tid; /* the id the process itself knows it by */
	char name[64];
	char state; /* as in /proc/PID/stat; 0: unknown */
	/* Its stack without guard: the mapping it lies in, or the part of it that is this
	 * thread's; 0, 0: not found. */
	uint64_t stack_start, stack_end;
	/* Its C library's or the kernel's word for it: nothing else lies there. Else it is the
	 * mapping around the stack pointer, in which there may be anything. */
	bool stack_exact;
	uint64_t sp;		 /* 0: not known without stopping it (it was running) */
	uint64_t thread_pointer; /* address of its TCB (struct pthread); 0: not found */
};

VEC_DEFINE(thread_vec, struct thread)

/* One mapping of a module: [start, end) shows its file from @offset on. */
struct module_segment {
	uint64_t start, end;
	uint64_t offset;
	unsigned perms; /* enum mapping_perms */
};

VEC_DEFINE(module_segment_vec, struct module_segment)

struct elf_file;

/* An ELF file, or the vdso, mapped into the target. */
struct module {
	char *path;			    /* owned; as the target sees it */
	uint64_t start, end;		    /* from its first to its last mapping */
	struct module_segment_vec segments; /* by address */
	uint64_t bias;			    /* what to add to an address in the file */
	uint64_t inode;
	dev_t device;
	bool is_exe;
	bool is_vdso;
	bool deleted;
	struct elf_file *elf; /* headers and symbols, once read; owned by elf_file.c */
	void *image;	      /* the file's bytes, copied by module_load(); NULL until then */
	size_t image_size;
};

VEC_DEFINE(module_vec, struct module)

/*
 * How to read what the process has not touched of a mapping. Reading shared memory through a
 * process makes the pages that are not there yet, at the cost of the process and of all who share
 * it.
 */
enum page_backing {
	BACKING_ANY,	 /* as the rest: nothing is made */
	BACKING_FILE,	 /* through the file, whose holes read as zeros and stay holes */
	BACKING_TOUCHED, /* not at all; also where a server that may hang would have to answer */
	BACKING_DEVICE,	 /* nor what it has touched: reading may have effects */
};

struct target_ops {
	/*
	 * All of [address, address + size), or ERROR_FAULT with the first bad address, what lies
	 * before it being read. Like a debugger, a live target also reads what the process itself
	 * may not (PROT_NONE): skip such mappings where they do not matter.
	 */
	struct error *(*read)(struct target *target, uint64_t address, void *buffer, size_t size);
	/* Fresh on every call. Sorted by address. Not yet classified. */
	struct error *(*read_maps)(struct target *target, enum maps_detail detail,
				   struct mapping_vec *ret);
	struct error *(*read_threads)(struct target *target, struct thread_vec *ret);
	/*
	 * Opens the very file that the module maps, for reading; the caller closes it. Where that
	 * fails (or the op is NULL), the module is read from the target's memory.
	 */
	struct error *(*open_module)(struct target *target, const struct module *module,
				     int *fd_ret);
	/* See target_open_perf_map(). NULL: there is none. */
	struct error *(*open_perf_map)(struct target *target, int *fd_ret);
	/* /proc/PID/auxv as it is; the caller frees it. NULL: there is none. */
	struct error *(*read_auxv)(struct target *target, char **bytes_ret, size_t *size_ret);
	/*
	 * For each page of [address, address + pages * PAGE_SIZE) whether it holds data of its own:
	 * not present and not swapped means that reading it would give zeros (anonymous memory).
	 * Guard pages (MADV_GUARD_INSTALL) hold none.
	 */
	struct error *(*page_present)(struct target *target, uint64_t address, size_t pages,
				      bool *present);
	/* See target_next_present(). NULL: it cannot tell faster than page_present. */
	uint64_t (*next_present)(struct target *target, uint64_t address, uint64_t end);
	/* See target_backing(). NULL: BACKING_ANY. */
	enum page_backing (*backing)(struct target *target, const struct mapping *mapping,
				     int *fd_ret);
	void (*destroy)(struct target *target);
};

struct target {
	const struct target_ops *ops;
	const struct arch *arch;
	pid_t pid;		 /* 0: none (fake) */
	struct process *process; /* NULL unless live */
	char *name;		 /* comm; owned */
	char *exe;		 /* path as the target sees it; "" if unknown; owned */
	/* Lazily read by target_modules(); in link-map order where that can be had (the order in
	 * which symbols are searched), else by address. */
	struct module_vec modules;
	bool modules_known;
	/*
	 * What the caller has just read and lends for some calls: target_modules() and
	 * target_read_threads() then do not read the maps again, which takes milliseconds where
	 * there are many. NULL: nothing.
	 */
	const struct mapping_vec *lent_maps;
	/*
	 * Asked before each read: true ends it with ERROR_INTERRUPTED, and with it whatever works
	 * through the memory. Not asked while @calls is not 0: what was changed is to be undone.
	 * May be NULL; a snapshot asks as its origin does.
	 */
	bool (*interrupted)(void);
	atomic_int calls; /* remote calls' sessions that are open */
	atomic_int busy; /* these, and stops at work: until they are over, memprobe must not exit */
	void *backend;
};

static inline bool target_is_interrupted(const struct target *target)
{
	return target->interrupted && target->interrupted();
}

/* Opens a live process. Reads nothing but /proc; needs no permission beyond what that takes. */
struct error *target_open_live(pid_t pid, struct target **ret);

/*
 * For a live process that shares its pages with another since a fork. process_vm_readv(2) pins what
 * it reads, and a page that is pinned is first made the process's own (Linux 5.19 and later,
 * mm/gup.c, gup_must_unshare()): a copy of the whole would be made on the way. /proc/PID/mem does
 * not pin.
 */
void target_live_shares_pages(struct target *target);

/* For loops that take long without a read: ERROR_INTERRUPTED, as a read would give. */
struct error *target_check_interrupted(const struct target *target);

void target_destroy(struct target *target);
CLEANUP_DEFINE(target, struct target *, target_destroy)

struct error *target_read(struct target *target, uint64_t address, void *buffer, size_t size);
/* One word of the target's size, zero-extended. */
struct error *target_read_word(struct target *target, uint64_t address, uint64_t *ret);
struct error *target_read_u32(struct target *target, uint64_t address, uint32_t *ret);
/* At most @size - 1 bytes, always NUL-terminated; stops quietly at unmapped memory. */
struct error *target_read_string(struct target *target, uint64_t address, char *buffer,
				 size_t size);
struct error *target_read_maps(struct target *target, enum maps_detail detail,
			       struct mapping_vec *ret);
struct error *target_read_threads(struct target *target, struct thread_vec *ret);
struct error *target_page_present(struct target *target, uint64_t address, size_t pages,
				  bool *present);
/*
 * Where to look next in [address, end), a part of one mapping: what lies before the answer holds no
 * data of its own; what begins there may (target_page_present() tells). Large reserves are passed
 * over at once where the kernel can (Linux 6.7) or the whole mapping is empty. Never fails: where
 * nothing can be told, the answer is @address.
 */
uint64_t target_next_present(struct target *target, uint64_t address, uint64_t end);
/*
 * A file of /proc/PID that tells about the memory, by its name, for reading; -1: errno. The first
 * thread may have ended before others, and then has no memory any more: it is one of theirs. ENOENT
 * also if @target is no living process.
 */
int target_open_proc(struct target *target, const char *name);
/*
 * Of BACKING_FILE, *fd_ret is open for reading, at the mapping's place in it if shifted by
 * mapping->offset, and the caller closes it; else it is -1. @fd_ret may be NULL. The first call for
 * a mapping must be no other thread's, too.
 */
enum page_backing target_backing(struct target *target, const struct mapping *mapping, int *fd_ret);
struct error *target_modules(struct target *target, const struct module_vec **ret);

/*
 * /tmp/perf-PID.map as the target sees it, for reading, if it is a regular file of the target's
 * user or of root; the caller closes it. Works for a process that ended, if it was opened before.
 * ERROR_UNSUPPORTED: there is none.
 */
struct error *target_open_perf_map(struct target *target, int *fd_ret);

/* An entry of the auxiliary vector (AT_PHDR ...); false: not there. */
bool target_auxv(struct target *target, uint64_t type, uint64_t *ret);

/* For backends: frees what target_modules() has built. */
void target_forget_modules(struct target *target);

/* Whether @mapping begins with an ELF header; also true where the memory may not be read. */
bool target_may_be_elf(struct target *target, const struct mapping *mapping);

/* The module that has @address in one of its mappings, or NULL (also on error). */
struct module *target_module_at(struct target *target, uint64_t address);

#endif
