#include "sleepers.h"

#include <string.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/ptrace.h"

/* A thread is busy that was never seen asleep while it spent so much time in the program, and
 * hardly any in the kernel. */
#define BUSY_TICKS    2
#define BUSY_SHARE    8
#define LOOK_US	      1000
#define AWAIT_LOOK_US 100
/* Then those that are awake just now are stopped. */
#define LOOK_MOST_US 400000

#define TRANSFER_LOOKS	 50
#define TRANSFER_LOOK_US 100

static bool is_in(const struct pid_vec *tids, pid_t tid)
{
	for (size_t i = 0; tids && i < tids->size; i++)
		if (tids->data[i] == tid)
			return true;
	return false;
}

/* The count is read first: a thread that wakes before the second look has another one afterwards.
 */
static bool look(const struct target *target, pid_t tid, struct sleeper *ret, bool *gone_ret)
{
	struct process_status status;
	struct error *error = process_read_status(target->process, tid, &status);

	*gone_ret = error || status.state == 'Z' || status.state == 'X';
	error_destroy(error);
	if (*gone_ret)
		return false;
	ret->tid = tid;
	ret->switches = status.switches;
	ret->kind = wait_kind_now(target->process, target->arch, tid, &ret->call);
	return !ret->call.running;
}

struct awake {
	pid_t tid;
	uint64_t user, system; /* at the first look */
};

VEC_DEFINE(awake_vec, struct awake)

struct looks {
	struct sleeper_vec *sleepers;
	struct pid_vec *awake;	/* and those that are to be stopped though they sleep */
	struct pid_vec running; /* of these, who does not sleep */
	struct awake_vec busy;	/* of these, who never has so far */
};

static struct error *look_at_all(const struct target *target, const struct pid_vec *unless,
				 struct looks *looks)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(target->process, &tids);

	looks->sleepers->size = looks->awake->size = looks->running.size = 0;
	for (size_t i = 0; !error && i < tids.size; i++) {
		struct sleeper sleeper;
		bool gone, asleep = look(target, tids.data[i], &sleeper, &gone);

		if (gone)
			continue;
		if (asleep && (sleeper.kind >= WAIT_CUT || !is_in(unless, sleeper.tid))) {
			error = sleeper_vec_append(looks->sleepers, &sleeper);
			continue;
		}
		error = pid_vec_append(looks->awake, &tids.data[i]);
		if (!error && !asleep)
			error = pid_vec_append(&looks->running, &tids.data[i]);
	}
	pid_vec_deinit(&tids);
	return error;
}

static struct error *begin_busy(const struct target *target, struct looks *looks)
{
	struct error *error = NULL;

	vec_for_each (tid, &looks->running) {
		struct awake awake = { .tid = *tid };

		process_cpu_time(target->process, *tid, &awake.user, &awake.system);
		if (!error)
			error = awake_vec_append(&looks->busy, &awake);
	}
	return error;
}

/* Keeps of the busy who is running, too. */
static void keep_busy(struct looks *looks)
{
	struct awake_vec *busy = &looks->busy;
	size_t kept = 0;

	for (size_t i = 0; i < busy->size; i++)
		if (is_in(&looks->running, busy->data[i].tid))
			busy->data[kept++] = busy->data[i];
	busy->size = kept;
}

static bool computes(const struct target *target, const struct awake *awake)
{
	uint64_t user, system;

	return process_cpu_time(target->process, awake->tid, &user, &system) &&
	       user - awake->user >= BUSY_TICKS &&
	       (system - awake->system) * BUSY_SHARE <= user - awake->user;
}

/* Whether there is nothing to wait for: all that run do nothing else. */
static bool only_compute(const struct target *target, const struct looks *looks)
{
	if (looks->busy.size != looks->running.size)
		return false;
	vec_for_each (awake, &looks->busy)
		if (!computes(target, awake))
			return false;
	return true;
}

struct error *sleepers_find(const struct target *target, const struct pid_vec *unless,
			    struct sleeper_vec *sleepers, struct pid_vec *awake, bool *quiet_ret)
{
	uint64_t deadline_us = clock_us() + LOOK_MOST_US;
	struct looks looks = { .sleepers = sleepers, .awake = awake };
	struct error *error = NULL;

	for (unsigned i = 0; !error; i++) {
		error = look_at_all(target, unless, &looks);
		if (error || !looks.running.size || clock_us() >= deadline_us)
			break;
		if (!i)
			error = begin_busy(target, &looks);
		keep_busy(&looks);
		if (only_compute(target, &looks))
			break;
		usleep(LOOK_US);
	}
	*quiet_ret = !looks.running.size;
	pid_vec_deinit(&looks.running);
	awake_vec_deinit(&looks.busy);
	return error;
}

static bool all_sleep(const struct target *target, const struct pid_vec *tids)
{
	vec_for_each (tid, tids) {
		struct process_syscall call;

		if (wait_kind_now(target->process, target->arch, *tid, &call) >= WAIT_CUT ||
		    call.running)
			return false;
	}
	return true;
}

void sleepers_await(const struct target *target, const struct pid_vec *tids)
{
	uint64_t deadline_us = clock_us() + LOOK_MOST_US;

	while (!all_sleep(target, tids) && clock_us() < deadline_us)
		usleep(AWAIT_LOOK_US);
}

static bool is_same_call(const struct process_syscall *one, const struct process_syscall *other)
{
	return one->nr == other->nr && one->sp == other->sp && one->pc == other->pc &&
	       !memcmp(one->args, other->args, sizeof(one->args));
}

/* *runs_ret: on a CPU just now. */
static bool has_slept(const struct target *target, const struct sleeper *before, bool *runs_ret)
{
	struct process_syscall call = { .running = false };
	struct process_status status;
	/* The call first, here: see look(). */
	struct error *error = process_read_syscall(target->process, before->tid, &call);
	bool slept;

	if (!error)
		error = process_read_status(target->process, before->tid, &status);
	*runs_ret = !error && call.running;
	slept = !error && !call.running && is_same_call(&call, &before->call) &&
		(before->kind == WAIT_CUT || status.switches == before->switches);
	error_destroy(error);
	return slept;
}

/* Who is on a CPU for the next part of a transfer sleeps again soon. */
static bool has_slept_on(const struct target *target, const struct sleeper *before)
{
	bool runs, slept = has_slept(target, before, &runs);

	for (unsigned i = 0; !slept && runs && before->kind == WAIT_CUT && i < TRANSFER_LOOKS;
	     i++) {
		usleep(TRANSFER_LOOK_US);
		slept = has_slept(target, before, &runs);
	}
	return slept;
}

struct error *sleepers_check(const struct target *target, const struct sleeper_vec *sleepers,
			     struct pid_vec *woken)
{
	struct error *error = NULL;

	vec_for_each (sleeper, sleepers) {
		if (!error && !has_slept_on(target, sleeper))
			error = pid_vec_append(woken, &sleeper->tid);
	}
	return error;
}
