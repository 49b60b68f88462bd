/* poke.h - wakes threads of memprobe that are blocked in a system call. */
#ifndef CMD_POKE_H
#define CMD_POKE_H

/* Sends @signal to every other thread, by tgkill(). For signal handlers. */
void poke_threads(int signal);

#endif
