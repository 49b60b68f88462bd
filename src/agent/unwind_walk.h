/*
 * unwind_walk.h - walks a stack by the compiled unwind table, inside the target and outside.
 *
 * Freestanding: no call, no global, no lock. Inside, the stack is read where it is; outside, in a
 * copy. Some 5 ns a frame where the cache knows the addresses, 50 where not.
 */
#ifndef MEMPROBE_AGENT_UNWIND_WALK_H
#define MEMPROBE_AGENT_UNWIND_WALK_H

#include <stdbool.h>

#include "agent/unwind_abi.h"

/* Where the words of the stack are found. */
struct unwind_memory {
	/* [low, high) can be read, at address + shift. Nothing: 8, 8. */
	uint64_t low, high;
	uint64_t shift;
	/*
	 * Reads a word that is not all in there, which need not be aligned, or says that it cannot
	 * be read. It may widen the range (in both directions: a gap between the range and what was
	 * asked for is cheaper filled than forgotten). NULL: there is nothing else.
	 */
	bool (*read)(struct unwind_memory *memory, uint64_t address, uint64_t *ret);
	void *data; /* the caller's */
	/*
	 * A frame was sought by a frame pointer, which may be anything: what the range has been
	 * widened by since then, from sure_low and sure_high on, may be no part of a stack, and
	 * gone at any time.
	 */
	bool guessed;
	uint64_t sure_low, sure_high;
};

/* Where to begin: the registers of one frame. */
struct unwind_start {
	uint64_t pc, sp, bp;
	uint64_t bx;  /* only some frames of the dynamic linker need it */
	bool is_call; /* pc is a return address; else it is where the thread was interrupted */
	bool has_bx;
	/* All 16 by their DWARF numbers, where they are known (a thread interrupted anywhere may
	 * have its CFA in any of them). NULL: not. */
	const uint64_t *registers;
};

/* The frame that called the function which uses this (itself compiled with frame pointers). */
#define UNWIND_START_CALLER                                                          \
	{                                                                            \
		.pc = (uint64_t)__builtin_return_address(0),                         \
		.sp = (uint64_t)__builtin_frame_address(0) + 16,                     \
		.bp = *(const uint64_t *)__builtin_frame_address(0), .is_call = true \
	}

enum unwind_result {
	UNWIND_COMPLETE, /* to the end of the stack */
	UNWIND_FULL,	 /* as many frames as there was room for; the stack goes on */
	/* The stack goes on, but: */
	UNWIND_UNSUPPORTED, /* the last frame's rule is none */
	UNWIND_UNREADABLE,  /* memory could not be read */
	UNWIND_NONSENSE,    /* the caller would be no address, or its frame below the last one */
	UNWIND_WANTS_BX,    /* for the walk itself */
};

/* The table as it is at one instant. */
struct unwind_view {
	const struct unwind_header *table;
	const struct unwind_module *modules;
	uint64_t module_count;
};

static inline struct unwind_view unwind_view(const struct unwind_header *table)
{
	uint64_t modules = __atomic_load_n(&table->modules, __ATOMIC_ACQUIRE);

	return (struct unwind_view){
		.table = table,
		.modules = (const void *)((const char *)table + (modules >> UNWIND_COUNT_BITS)),
		.module_count = modules & ((1u << UNWIND_COUNT_BITS) - 1),
	};
}

static inline uint32_t unwind_lookup_module(const struct unwind_view *view,
					    const struct unwind_module *module, uint64_t address)
{
	const char *image = (const char *)view->table;
	const struct unwind_row *rows = (const void *)(image + module->rows);
	const uint32_t *index = (const void *)(image + module->index);
	uint32_t offset = (uint32_t)(address - module->start);
	uint32_t low = index[offset / UNWIND_BLOCK];
	uint32_t high = index[offset / UNWIND_BLOCK + 1];

	/* The last row at or below offset: rows[low] is, rows[high + 1] is not. */
	while (low < high) {
		uint32_t middle = high - (high - low) / 2;

		if (rows[middle].offset <= offset)
			low = middle;
		else
			high = middle - 1;
	}
	return rows[low].rule;
}

/* The rule at @address: never 0. */
static inline uint32_t unwind_lookup(const struct unwind_view *view, uint64_t address)
{
	uint64_t low = 0, high = view->module_count;

	while (low < high) {
		uint64_t middle = (low + high) / 2;
		const struct unwind_module *module = &view->modules[middle];

		if (address < module->start)
			high = middle;
		else if (address >= module->end)
			low = middle + 1;
		else
			return unwind_lookup_module(view, module, address);
	}
	return UNWIND_RULE_NO_CFI;
}

/*
 * The same through @cache of UNWIND_CACHE_SIZE words, zeros at first; NULL: none. Whoever
 * publishes a table with fewer modules, or others, makes it zeros again.
 */
static inline uint32_t unwind_lookup_cached(const struct unwind_view *view, uint64_t *cache,
					    uint64_t address)
{
	uint64_t tag = (address >> UNWIND_CACHE_BITS) & ((1ull << 34) - 1);
	uint64_t *entry, word;
	uint32_t rule;

	if (!cache)
		return unwind_lookup(view, address);
	entry = &cache[(address ^ tag) & (UNWIND_CACHE_SIZE - 1)];
	word = __atomic_load_n(entry, __ATOMIC_RELAXED);
	if (word >> 30 == tag && (word & 0x3fffffff))
		return word & 0x3fffffff;
	rule = unwind_lookup(view, address);
	__atomic_store_n(entry, tag << 30 | rule, __ATOMIC_RELAXED);
	return rule;
}

static inline __attribute__((always_inline)) bool unwind_read(struct unwind_memory *memory,
							      uint64_t address, uint64_t *ret)
{
	if (__builtin_expect(address >= memory->low && address <= memory->high - 8, 1)) {
		__builtin_memcpy(ret, (const void *)(address + memory->shift), 8);
		return true;
	}
	return memory->read && memory->read(memory, address, ret);
}

/* A frame at work. */
struct unwind_frame {
	uint64_t pc, sp, bp, bx;
	bool is_exact;
	bool bx_known; /* always false where it is not followed */
	/* Where the other registers are: of the innermost frame, or of one that a signal
	 * interrupted, by the address that its rsp is saved at. Neither: unknown. */
	const uint64_t *registers;
	uint64_t signal;
};

static inline bool unwind_register(const struct unwind_frame *frame, struct unwind_memory *memory,
				   unsigned number, uint64_t *ret)
{
	/* struct sigcontext_64 holds r8 to r15, di, si, bp, bx, dx, ax, cx, sp; DWARF has ax, dx,
	 * cx, bx, si, di, bp, sp first. A digit for each of these, the lowest first. */
	static const uint32_t places = 0xfa89becdu;

	if (frame->registers) {
		*ret = frame->registers[number];
		return true;
	}
	if (frame->signal) {
		unsigned place = number < 8 ? places >> (4 * number) & 15 : number - 8;

		return unwind_read(memory, frame->signal - 8 * (15 - place), ret);
	}
	*ret = frame->bx;
	return number == 3 && frame->bx_known;
}

/*
 * The caller of code without call frame information, which may well have no frame pointer either. A
 * thread's first function is called with rbp cleared (System V ABI AMD64, 3.4.1).
 */
static inline enum unwind_result unwind_step_bp(struct unwind_frame *frame,
						struct unwind_memory *memory)
{
	uint64_t bp, pc, cfa = frame->bp + 16;

	if (!frame->bp && !frame->is_exact)
		return UNWIND_COMPLETE;
	if (!memory->guessed) {
		memory->guessed = true;
		memory->sure_low = memory->low;
		memory->sure_high = memory->high;
	}
	if (cfa <= frame->sp || frame->bp % 8)
		return UNWIND_NONSENSE;
	if (!unwind_read(memory, cfa - 16, &bp) || !unwind_read(memory, cfa - 8, &pc))
		return UNWIND_UNREADABLE;
	*frame = (struct unwind_frame){ .pc = pc, .sp = cfa, .bp = bp };
	return UNWIND_FULL;
}

static inline enum unwind_result unwind_step_signal(struct unwind_frame *frame,
						    struct unwind_memory *memory, uint64_t place,
						    bool follow_bx)
{
	struct unwind_frame next = { .is_exact = true, .bx_known = follow_bx, .signal = place };

	if (!unwind_read(memory, place, &next.sp) ||
	    !unwind_read(memory, place + UNWIND_SIGNAL_RIP, &next.pc) ||
	    !unwind_read(memory, place + UNWIND_SIGNAL_RBP, &next.bp) ||
	    !unwind_read(memory, place + UNWIND_SIGNAL_RBX, &next.bx))
		return UNWIND_UNREADABLE;
	*frame = next;
	return UNWIND_FULL;
}

/* The CFA of the rarer kinds. @base: what the saved registers lie below of. */
static inline enum unwind_result unwind_rare_cfa(const struct unwind_frame *frame,
						 struct unwind_memory *memory, uint32_t rule,
						 uint64_t *cfa, uint64_t *base)
{
	uint64_t offset = 8 * UNWIND_RULE_SIGNED(rule);
	unsigned extra = UNWIND_RULE_EXTRA(rule);

	switch (UNWIND_RULE_KIND(rule)) {
	case UNWIND_BP_LOAD:
		*base = frame->bp + 8;
		return unwind_read(memory, frame->bp + offset, cfa) ? UNWIND_FULL
								    : UNWIND_UNREADABLE;
	case UNWIND_SP_LOAD:
		if (!unwind_read(memory, frame->sp + 8ull * UNWIND_RULE_OFFSET(rule), cfa))
			return UNWIND_UNREADABLE;
		*cfa += 8 * extra;
		break;
	case UNWIND_PLT:
		if (extra & UNWIND_EXTRA_FAR)
			*cfa = frame->sp +
			       8ull * (UNWIND_RULE_OFFSET(rule) | (uint64_t)(extra & 15) << 16);
		else
			*cfa = frame->sp + offset + ((frame->pc & 15) >= extra ? 8 : 0);
		break;
	default:
		if (!unwind_register(frame, memory, extra & 15, cfa))
			return (extra & 15) == 3 ? UNWIND_WANTS_BX : UNWIND_UNSUPPORTED;
		*cfa += offset;
		if (extra & UNWIND_EXTRA_RELATIVE) {
			*base = frame->bp + 8;
			return UNWIND_FULL;
		}
	}
	*base = *cfa;
	return UNWIND_FULL;
}

/* Makes @frame its caller: UNWIND_FULL. Anything else: it has none, or none that is found. */
static inline __attribute__((always_inline)) enum unwind_result unwind_step(
	const struct unwind_view *view, uint64_t *cache, struct unwind_frame *frame,
	struct unwind_memory *memory, bool follow_bx)
{
	uint32_t rule = unwind_lookup_cached(view, cache, frame->pc - !frame->is_exact);
	unsigned kind = UNWIND_RULE_KIND(rule), slot = UNWIND_RULE_BP(rule);
	unsigned extra = UNWIND_RULE_EXTRA(rule);
	uint64_t cfa, base;

	if (__builtin_expect(kind == UNWIND_SP, 1)) {
		base = cfa = frame->sp + 8ull * UNWIND_RULE_OFFSET(rule);
	} else if (kind == UNWIND_BP) {
		base = cfa = frame->bp + 8 * UNWIND_RULE_SIGNED(rule);
	} else if (kind == UNWIND_SIGNAL) {
		return unwind_step_signal(frame, memory,
					  frame->sp + 8ull * UNWIND_RULE_OFFSET(rule), follow_bx);
	} else if (kind == UNWIND_SPECIAL) {
		if (rule == UNWIND_RULE_END)
			return UNWIND_COMPLETE;
		return rule == UNWIND_RULE_NO_CFI ? unwind_step_bp(frame, memory)
						  : UNWIND_UNSUPPORTED;
	} else {
		enum unwind_result result = unwind_rare_cfa(frame, memory, rule, &cfa, &base);

		if (result != UNWIND_FULL)
			return result;
	}
	if (__builtin_expect(cfa <= frame->sp, 0))
		return UNWIND_NONSENSE;
	if (!unwind_read(memory, cfa - 8, &frame->pc))
		return UNWIND_UNREADABLE;
	if (follow_bx) {
		if (kind > UNWIND_BP_LOAD || extra == UNWIND_EXTRA_UNKNOWN)
			frame->bx_known = false;
		else if (extra)
			frame->bx_known = unwind_read(memory, base - 8ull * extra, &frame->bx);
	}
	if (slot && !unwind_read(memory, base - 8ull * slot, &frame->bp))
		return UNWIND_UNREADABLE;
	frame->sp = cfa;
	frame->is_exact = false;
	frame->registers = NULL;
	frame->signal = 0;
	return UNWIND_FULL;
}

/* What a walk finds. */
struct unwind_frames {
	/* Innermost first; each an address that is returned to, or with UNWIND_PC_EXACT. */
	uint64_t *pcs;
	uint64_t *sps; /* the stack pointer in each frame; NULL: not wanted */
	unsigned max, count;
	struct unwind_guesses *guesses; /* from one walk to the next; NULL: none */
};

static inline __attribute__((always_inline)) uint64_t unwind_guess(struct unwind_guesses *guesses,
								   uint64_t sp, uint64_t cfa)
{
	uint16_t *size = &guesses->size[sp / 8 % UNWIND_GUESSES];
	uint64_t guess = sp + 8ull * __atomic_load_n(size, __ATOMIC_RELAXED);

	if (__builtin_expect(guess == cfa, 1)) {
		/* A branch it must remain, and no longer depend on the right one. */
		__asm__("" : "+r"(guess));
		return guess;
	}
	__atomic_store_n(size, (uint16_t)((cfa - sp) / 8), __ATOMIC_RELAXED);
	return cfa;
}

/*
 * Walks on from @frame, which was called, as long as its callers are found as nearly all are: by a
 * rule that the cache has, relative to rsp or rbp, in memory that is known. Leaves the rest, the
 * first frame that is not so found included, to unwind_step(), which would have come to the same.
 * All it needs is in registers; that is what it is for.
 */
static inline __attribute__((always_inline)) void unwind_run(const uint64_t *cache,
							     const struct unwind_memory *memory,
							     struct unwind_frame *frame,
							     struct unwind_frames *frames)
{
	uint64_t pc = frame->pc, sp = frame->sp, bp = frame->bp, shift = memory->shift;
	uint64_t low = memory->low, high = memory->high;
	struct unwind_guesses *guesses = frames->guesses;
	uint64_t *pcs = frames->pcs, *sps = frames->sps;
	unsigned count = frames->count, max = frames->max;

	for (; count < max; count++) {
		uint64_t tag = ((pc - 1) >> UNWIND_CACHE_BITS) & ((1ull << 34) - 1);
		uint64_t word = __atomic_load_n(&cache[((pc - 1) ^ tag) & (UNWIND_CACHE_SIZE - 1)],
						__ATOMIC_RELAXED);
		uint32_t rule = word & 0x3fffffff;
		unsigned slot = UNWIND_RULE_BP(rule);
		uint64_t cfa, next, saved = bp;

		if (word >> 30 != tag || !rule)
			break;
		if (UNWIND_RULE_KIND(rule) == UNWIND_SP)
			cfa = sp + 8ull * UNWIND_RULE_OFFSET(rule);
		else if (UNWIND_RULE_KIND(rule) == UNWIND_BP)
			cfa = bp + 8 * UNWIND_RULE_SIGNED(rule);
		else
			break;
		if (cfa <= sp || cfa > high || cfa - 8ull * slot < low || cfa - 8 < low ||
		    cfa < 8 * UNWIND_BP_MAX)
			break;
		if (guesses)
			cfa = unwind_guess(guesses, sp, cfa);
		__builtin_memcpy(&next, (const void *)(cfa - 8 + shift), 8);
		if (slot)
			__builtin_memcpy(&saved, (const void *)(cfa - 8ull * slot + shift), 8);
		if ((next - 1) >> 48)
			break;
		if (sps)
			sps[count] = sp;
		pcs[count] = pc;
		pc = next;
		sp = cfa;
		bp = saved;
	}
	if (count == frames->count)
		return;
	frames->count = count;
	*frame = (struct unwind_frame){ .pc = pc, .sp = sp, .bp = bp };
}

static inline __attribute__((always_inline)) enum unwind_result unwind_walk_following(
	const struct unwind_header *table, uint64_t *cache, const struct unwind_start *start,
	struct unwind_memory *memory, struct unwind_frames *frames, bool follow_bx)
{
	struct unwind_view view = unwind_view(table);
	struct unwind_frame frame = {
		.pc = start->pc,
		.sp = start->sp,
		.bp = start->bp,
		.bx = start->bx,
		.bx_known = follow_bx && start->has_bx,
		.is_exact = !start->is_call,
		.registers = start->registers,
	};

	for (frames->count = 0; frames->count < frames->max;) {
		enum unwind_result result;

		if (!follow_bx && cache && !frame.is_exact) {
			unwind_run(cache, memory, &frame, frames);
			if (frames->count == frames->max)
				break;
		}
		if (frames->sps)
			frames->sps[frames->count] = frame.sp;
		frames->pcs[frames->count++] = frame.pc | (frame.is_exact ? UNWIND_PC_EXACT : 0);
		result = unwind_step(&view, cache, &frame, memory, follow_bx);
		if (result != UNWIND_FULL)
			return result;
		/* Where a handler returns to has been called by nobody: it is not the instruction
		 * in front of it that is meant. */
		if (frame.signal)
			frames->pcs[frames->count - 1] |= UNWIND_PC_EXACT;
		if (!frame.pc)
			return UNWIND_COMPLETE;
		if (frame.pc >> 48)
			return UNWIND_NONSENSE;
	}
	return UNWIND_FULL;
}

/*
 * Walks from @start outwards. @cache may be NULL. At least one frame is found, unless there is no
 * room for any.
 */
static inline enum unwind_result unwind_walk(const struct unwind_header *table, uint64_t *cache,
					     const struct unwind_start *start,
					     struct unwind_memory *memory,
					     struct unwind_frames *frames)
{
	enum unwind_result result =
		unwind_walk_following(table, cache, start, memory, frames, false);

	/* So rare that who needs it walks twice, and all others need not pay. */
	if (result == UNWIND_WANTS_BX)
		result = unwind_walk_following(table, cache, start, memory, frames, true);
	return result == UNWIND_WANTS_BX ? UNWIND_UNSUPPORTED : result;
}

#endif
