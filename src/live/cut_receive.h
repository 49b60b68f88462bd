/*
 * cut_receive.h - recvmmsg() that a stop has ended after the first messages.
 *
 * It returns their count, and the kernel keeps what has ended it as the socket's error, for the
 * next call on the socket to fail with: 512, ERESTARTSYS, which no program is ever to see (Linux
 * net/socket.c, do_recvmmsg). With a timeout on the socket it is EINTR.
 */
#ifndef MEMPROBE_CUT_RECEIVE_H
#define MEMPROBE_CUT_RECEIVE_H

#include <sys/types.h>
#include <sys/user.h>

#include "memprobe/arch.h"
#include "memprobe/process.h"

/*
 * Of a thread in a stop that memprobe asked for, with these registers: if they are those of such a
 * call, takes that error from its socket. Another error cannot have been there when the call began,
 * and ends the call itself if it comes later; one that comes in the instant of the stop is lost,
 * with a warning.
 */
void cut_receive_mend(const struct process *process, const struct arch *arch, pid_t tid,
		      const struct user_regs_struct *regs);

#endif
