#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"

/*
 * Stacks hold stale words. A server that sleeps in epoll_wait with an old return address into
 * malloc in some unused buffer would never pass the scan of its stack. So the scan has a second
 * opinion: the stack is copied in the stop, unwound after it, and when the thread is stopped again
 * in the very same state, what the unwinder found is true of it.
 */

/* What of a stack is copied for the unwinder. */
#define COPY_MAX (512u << 10)

/*
 * A hash of the return addresses where unwinding found them. Other words may change while a thread
 * only sleeps: select() writes the time that is left.
 */
static uint64_t hash_slots(const struct call_session *session, const struct opinion *opinion)
{
	const struct stack_view *view = &session->view;
	unsigned word = session->target->arch->word_size;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < opinion->slot_count; i++) {
		uint64_t at = opinion->slots[i] - view->start;

		if (at > view->size - word)
			continue;
		hash = (hash ^ load_word(view->bytes + at, word)) * UINT64_C(0x100000001b3);
	}
	return hash;
}

bool opinion_clears(const struct call_session *session, pid_t tid,
		    const struct user_regs_struct *regs)
{
	const struct arch *arch = session->target->arch;

	vec_for_each (opinion, &session->opinions)
		if (opinion->tid == tid && opinion->pc == arch->pc(regs) &&
		    opinion->sp == arch->sp(regs) && opinion->hash == hash_slots(session, opinion))
			return opinion->clear;
	return false;
}

void opinion_ask(struct call_session *session, pid_t tid, const struct user_regs_struct *regs)
{
	struct thread_state *state = &session->doubt;
	const struct mapping *mapping = mappings_find(&session->maps, session->view.start);
	struct error *error;

	if (!session->unwind || !mapping || state->stack)
		return;
	state->tid = tid;
	state->regs = *regs;
	state->stack_start = session->view.start;
	state->stack_size = min_u64(mapping->end - session->view.start, COPY_MAX);
	state->stack = malloc(state->stack_size);
	if (!state->stack)
		return;
	error = target_read(session->target, state->stack_start, state->stack, state->stack_size);
	if (error)
		opinion_forget(session);
	error_destroy(error);
}

void opinion_forget(struct call_session *session)
{
	free(session->doubt.stack);
	session->doubt = (struct thread_state){ 0 };
}

void opinion_form(struct call_session *session)
{
	const struct arch *arch = session->target->arch;
	struct thread_state *state = &session->doubt;
	struct call_frame frames[CALL_UNWIND_MAX];
	struct opinion opinion = { .tid = state->tid };
	struct error *error;
	size_t count = 0;

	if (!state->stack)
		return;
	opinion.pc = arch->pc(&state->regs);
	opinion.sp = arch->sp(&state->regs);
	ptrace_restore_priority();
	opinion.clear =
		session->unwind(session->unwind_data, state, frames, CALL_UNWIND_MAX, &count);
	ptrace_raise_priority();
	for (size_t i = 0; i < count; i++) {
		if (code_ranges_hold(&session->unsafe.malloc, frames[i].pc) ||
		    code_ranges_hold(&session->unsafe.other, frames[i].pc))
			opinion.clear = false;
		if (opinion.slot_count < OPINION_SLOTS && frames[i].cfa)
			opinion.slots[opinion.slot_count++] = frames[i].cfa - arch->word_size;
	}
	opinion.hash = hash_slots(session, &opinion);
	error = opinion_vec_append(&session->opinions, &opinion);
	error_destroy(error);
	opinion_forget(session);
}
