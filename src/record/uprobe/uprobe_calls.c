/*
 * By the stack pointer, as it was when the return address was the last word. So a return
 * that was lost, or a call that was left by longjmp(), does not make others wrong.
 */
#include <stdlib.h>

#include "memprobe/map64.h"
#include "uprobe.h"

VEC_DEFINE(uprobe_thread_vec, struct uprobe_thread)
VEC_DEFINE(index_vec, uint32_t)

struct uprobe_calls {
	struct map64 index;		  /* tid -> number in threads + 1; 0: none */
	struct uprobe_thread_vec threads; /* reused once nothing of them is open */
	struct index_vec unused;
	uint64_t abandoned, seen;
};

struct error *uprobe_calls_create(struct uprobe_calls **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? NULL : &error_no_memory;
}

void uprobe_calls_destroy(struct uprobe_calls *calls)
{
	if (!calls)
		return;
	map64_deinit(&calls->index);
	uprobe_thread_vec_deinit(&calls->threads);
	index_vec_deinit(&calls->unused);
	free(calls);
}

static struct uprobe_thread *find(struct uprobe_calls *calls, pid_t tid)
{
	uint64_t number = map64_get(&calls->index, (uint64_t)tid);

	return number && number != MAP64_NONE ? &calls->threads.data[number - 1] : NULL;
}

static struct error *add(struct uprobe_calls *calls, pid_t tid, struct uprobe_thread **ret)
{
	const struct uprobe_thread thread = { .tid = tid };
	uint64_t before = map64_get(&calls->index, (uint64_t)tid);
	struct error *error = NULL;
	size_t number;

	if (calls->unused.size) {
		number = calls->unused.data[--calls->unused.size];
		calls->threads.data[number] = thread;
	} else {
		number = calls->threads.size;
		error = uprobe_thread_vec_append(&calls->threads, &thread);
	}
	if (!error)
		error = map64_put(&calls->index, (uint64_t)tid, number + 1);
	if (error)
		return error;
	calls->seen += before == MAP64_NONE;
	*ret = &calls->threads.data[number];
	return NULL;
}

static void drop(struct uprobe_thread *thread, unsigned from, unsigned count)
{
	thread->depth -= count;
	for (unsigned i = from; i < thread->depth; i++)
		thread->calls[i] = thread->calls[i + count];
}

/* Exceptions have left those that lie below. */
static void drop_thrown(struct uprobe_thread *thread, uint64_t sp)
{
	for (unsigned i = thread->depth; i; i--)
		if (thread->calls[i - 1].may_throw && thread->calls[i - 1].sp < sp)
			drop(thread, i - 1, 1);
}

struct error *uprobe_calls_enter(struct uprobe_calls *calls, pid_t tid,
				 const struct uprobe_call *call)
{
	struct uprobe_thread *thread = find(calls, tid);
	struct error *error = thread ? NULL : add(calls, tid, &thread);

	if (error)
		return error;
	drop_thrown(thread, call->sp);
	if (thread->depth == UPROBE_CALLS_MAX) {
		calls->abandoned += !thread->calls[0].may_throw;
		drop(thread, 0, 1);
	}
	thread->calls[thread->depth++] = *call;
	thread->last_sp = 0;
	return NULL;
}

/* Between two events of a thread that has nothing open nobody asks about it. */
static struct error *put_back(struct uprobe_calls *calls, struct uprobe_thread *thread)
{
	const uint32_t number = (uint32_t)(thread - calls->threads.data);
	struct error *error = index_vec_append(&calls->unused, &number);

	return error ? error : map64_put(&calls->index, (uint64_t)thread->tid, 0);
}

static bool is_of(const struct uprobe_call *call, unsigned function, uint64_t sp)
{
	return call->sp == sp &&
	       (function == UPROBE_AT_RET ? call->at_ret : call->function == function);
}

struct error *uprobe_calls_return(struct uprobe_calls *calls, pid_t tid, unsigned function,
				  uint64_t sp, bool own_caller, struct uprobe_call *ret,
				  enum uprobe_return *kind_ret)
{
	struct uprobe_thread *thread = find(calls, tid);
	unsigned at = thread ? thread->depth : 0, inner;

	*kind_ret = UPROBE_UNKNOWN;
	while (at && !is_of(&thread->calls[at - 1], function, sp))
		at--;
	if (!at)
		return NULL;
	at--;
	*ret = thread->calls[at];
	/* What is further in has gone; a tail call, whose return comes as well, has the same sp. */
	for (inner = thread->depth; inner > at + 1; inner--) {
		if (thread->calls[inner - 1].sp == sp)
			continue;
		calls->abandoned += !thread->calls[inner - 1].may_throw;
		drop(thread, inner - 1, 1);
	}
	drop(thread, at, 1);
	*kind_ret = (own_caller && at) || thread->last_sp == sp ? UPROBE_INNER : UPROBE_OUTER;
	thread->last_sp = sp;
	return thread->depth ? NULL : put_back(calls, thread);
}

uint64_t uprobe_calls_abandoned(const struct uprobe_calls *calls)
{
	return calls->abandoned;
}

uint64_t uprobe_calls_threads(const struct uprobe_calls *calls)
{
	return calls->seen;
}
