/*
 * probe_section.h - making and closing uprobes. Private to record/.
 *
 * The kernel takes no breakpoint out of a process for a thread that a SIGKILL has reached but not
 * yet ended ("failed to unregister, leaking uprobe"): it would stay in the target. So these calls
 * are sections that are finished (memprobe/guard.h); the end of a process does take them out.
 */
#ifndef RECORD_PROBE_SECTION_H
#define RECORD_PROBE_SECTION_H

#include <unistd.h>

#include "memprobe/guard.h"

static inline void probe_close(int fd)
{
	guard_enter();
	close(fd);
	guard_leave();
}

/* What makes one; its value, and errno. */
#define PROBE_MAKE(call)                  \
	({                                \
		int probe_made;           \
                                          \
		guard_enter();            \
		probe_made = (int)(call); \
		guard_leave();            \
		probe_made;               \
	})

#endif
