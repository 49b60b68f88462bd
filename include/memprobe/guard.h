/*
 * guard.h - lets a dying memprobe finish what must not be left half done.
 *
 * A SIGKILL ends a process between any two of its instructions. Where a target would not be
 * what it was after that, the work is done by a child: whoever kills memprobe kills the process
 * that was started, and the child, which sees its end, finishes the section that it is in and ends
 * then, too.
 *
 * Signals that have a handler are handed on to the child, and the first process ends as the child
 * does. Others stop or end the first process alone, as SIGSTOP and SIGKILL do.
 */
#ifndef MEMPROBE_GUARD_H
#define MEMPROBE_GUARD_H

#include <stdbool.h>

/*
 * Returns in the child; the caller stays behind. To be called while there is but one thread, and
 * once. Where no child can be made, all goes on without.
 */
void guard_begin(void);

/*
 * A section that is to be finished, by any thread; they nest. It must end in bounded time, and
 * where that is long, look at guard_is_orphan(). Neither returns when memprobe is to end. Without
 * guard_begin() they do nothing.
 */
void guard_enter(void);
void guard_leave(void);

/* Whether memprobe has been killed: what is being done is for nobody but the target. */
bool guard_is_orphan(void);

#endif
