/* mallinfo2.h - mallinfo2() of every glibc: before 2.33 the same figures are ints. */
#ifndef VICTIM_MALLINFO2_H
#define VICTIM_MALLINFO2_H

#include <malloc.h>
#include <stddef.h>

#if defined(__GLIBC__) && !__GLIBC_PREREQ(2, 33)
struct mallinfo2 {
	size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks,
		keepcost;
};

static inline struct mallinfo2 mallinfo2(void)
{
	struct mallinfo info = mallinfo();

	return (struct mallinfo2){
		.arena = (unsigned)info.arena,
		.ordblks = (unsigned)info.ordblks,
		.smblks = (unsigned)info.smblks,
		.hblks = (unsigned)info.hblks,
		.hblkhd = (unsigned)info.hblkhd,
		.usmblks = (unsigned)info.usmblks,
		.fsmblks = (unsigned)info.fsmblks,
		.uordblks = (unsigned)info.uordblks,
		.fordblks = (unsigned)info.fordblks,
		.keepcost = (unsigned)info.keepcost,
	};
}
#endif

#endif
