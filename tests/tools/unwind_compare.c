/*
 * unwind_compare PID... COUNT: stops the processes again and again and unwinds what is stopped by
 * the compiled table, by libunwind and by libdwfl, until COUNT points of each have been compared. A
 *point counts if the thread has moved since the last one. Prints for each process PID NAME: points
 *N identical M frames F cut C distinct D and the first pairs that differ. Exit status 1: some
 *differed.
 *
 * unwind_compare --print PID: the functions of each thread by the table, a line a thread.
 *
 * unwind_compare --time PID ROUNDS: how long unwinding all threads takes, for each way a line
 *	NAME THREADS FRAMES FIRST_US US
 * the first time, which reads the call frame information, and the mean of the following rounds.
 * `_UPT` is libunwind as its ptrace library uses it: the threads are stopped all the time.
 */
#include <inttypes.h>
#include <libunwind-ptrace.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "memprobe/stop.h"
#include "memprobe/unwind_table.h"

#define SHOWN_MAX 5

struct last {
	pid_t tid;
	uint64_t pc, sp, word;
};

VEC_DEFINE(last_vec, struct last)
VEC_DEFINE(hash_vec, uint64_t)

struct comparison {
	struct target *target;
	struct symbolizer *symbolizer;
	struct unwinder *unwinder;
	struct unwind_table *table;
	struct last_vec last;
	struct hash_vec hashes;
	uint64_t points, identical, longer, cut, frames, table_ns, libunwind_ns, libdwfl_ns;
};

static void must(struct error *error)
{
	if (!error)
		return;
	fprintf(stderr, "unwind_compare: %s\n", error->message);
	exit(2);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void open_target(struct comparison *comparison, pid_t pid)
{
	struct unwind_table_stats stats;

	must(target_open_live(pid, &comparison->target));
	must(unwind_table_create(comparison->target, &comparison->table));
	must(symbolizer_create(comparison->target, &comparison->symbolizer));
	must(unwinder_create(comparison->symbolizer, &comparison->unwinder));
	unwind_table_stats(comparison->table, &stats);
	printf("%d %s: modules %" PRIu64 " without CFI %" PRIu64 " left out %" PRIu64
	       " FDEs %" PRIu64 " bad %" PRIu64 " rows %" PRIu64 " unsupported %" PRIu64
	       " bytes %" PRIu64 " built in %" PRIu64 " us\n",
	       (int)pid, comparison->target->name, stats.modules, stats.without_cfi, stats.left_out,
	       stats.entries, stats.bad_entries, stats.rows, stats.unsupported, stats.bytes,
	       stats.build_us);
}

static void close_target(struct comparison *comparison)
{
	unwinder_destroy(comparison->unwinder);
	symbolizer_destroy(comparison->symbolizer);
	unwind_table_destroy(comparison->table);
	target_destroy(comparison->target);
	last_vec_deinit(&comparison->last);
	hash_vec_deinit(&comparison->hashes);
}

static bool has_moved(struct comparison *comparison, const struct thread_state *state)
{
	struct last now = { state->tid, arch_x86_64.pc(&state->regs), arch_x86_64.sp(&state->regs),
			    0 };

	for (size_t i = 0; i < state->stack_size / 8 && i < 256; i++) {
		uint64_t word;

		memcpy(&word, state->stack + 8 * i, 8);
		now.word = now.word * 31 + word;
	}
	vec_for_each (last, &comparison->last) {
		bool moved;

		if (last->tid != now.tid)
			continue;
		moved = last->pc != now.pc || last->sp != now.sp || last->word != now.word;
		*last = now;
		return moved;
	}
	must(last_vec_append(&comparison->last, &now));
	return true;
}

static bool is_identical(const struct frame_vec *a, const struct frame_vec *b)
{
	if (a->size != b->size)
		return false;
	for (size_t i = 0; i < a->size; i++)
		if (a->data[i].pc != b->data[i].pc ||
		    a->data[i].is_activation != b->data[i].is_activation ||
		    a->data[i].is_cut != b->data[i].is_cut)
			return false;
	return true;
}

/* With the same end, unless @b is cut. */
static bool is_longer(const struct frame_vec *a, const struct frame_vec *b)
{
	return a->size > b->size && !a->data[a->size - 1].is_cut &&
	       (b->data[b->size - 1].is_cut || a->data[a->size - 1].pc == b->data[b->size - 1].pc);
}

static void show(struct comparison *comparison, const char *who, const struct frame_vec *frames)
{
	printf("  %s:\n", who);
	vec_for_each (frame, frames) {
		struct symbol_vec symbols = { 0 };

		must(symbolize(comparison->symbolizer, frame->pc, !frame->is_activation, &symbols));
		printf("    %#" PRIx64 "%s%s cfa %#" PRIx64 " %s (%s)\n", frame->pc,
		       frame->is_activation ? " exact" : "", frame->is_cut ? " CUT" : "",
		       frame->cfa, symbols.data[symbols.size - 1].function,
		       symbols.data[symbols.size - 1].module);
		symbols_deinit(&symbols);
	}
}

static void note_stack(struct comparison *comparison, const struct frame_vec *frames)
{
	uint64_t hash = 0;

	vec_for_each (frame, frames)
		hash = (hash ^ frame->pc) * 0x9e3779b97f4a7c15ull;
	vec_for_each (known, &comparison->hashes)
		if (*known == hash)
			return;
	must(hash_vec_append(&comparison->hashes, &hash));
}

static uint64_t unwind_by(struct comparison *comparison, enum unwind_library library,
			  const struct thread_state *state, struct frame_vec *frames)
{
	uint64_t begun = now_ns();

	unwinder_use(comparison->unwinder, library);
	must(unwind_thread(comparison->unwinder, state, frames));
	return now_ns() - begun;
}

static void compare(struct comparison *comparison, const struct thread_state *state)
{
	struct frame_vec table = { 0 }, libunwind = { 0 }, libdwfl = { 0 };
	uint64_t begun = now_ns();

	must(unwind_table_walk(comparison->table, state, &table));
	comparison->table_ns += now_ns() - begun;
	comparison->libunwind_ns += unwind_by(comparison, UNWIND_LIBUNWIND, state, &libunwind);
	comparison->libdwfl_ns += unwind_by(comparison, UNWIND_LIBDWFL, state, &libdwfl);
	comparison->points++;
	comparison->frames += table.size;
	comparison->cut += table.data[table.size - 1].is_cut;
	note_stack(comparison, &table);
	if (is_identical(&table, &libdwfl) &&
	    (is_identical(&libunwind, &libdwfl) || is_longer(&libunwind, &libdwfl))) {
		comparison->identical++;
		comparison->longer += !is_identical(&libunwind, &libdwfl);
	} else if (comparison->points - comparison->identical <= SHOWN_MAX) {
		printf("thread %d differs:\n", (int)state->tid);
		show(comparison, "table", &table);
		show(comparison, "libunwind", &libunwind);
		show(comparison, "libdwfl", &libdwfl);
	}
	frame_vec_deinit(&table);
	frame_vec_deinit(&libunwind);
	frame_vec_deinit(&libdwfl);
}

static void sample(struct comparison *comparison, uint64_t count)
{
	struct stop_options options = { .stack_max = 1 << 20 };
	struct stop *stop;

	must(stop_threads(comparison->target, &options, &stop));
	vec_for_each (state, &stop->threads)
		if (comparison->points < count && has_moved(comparison, state))
			compare(comparison, state);
	stop_destroy(stop);
}

static bool finish(struct comparison *comparison)
{
	if (!comparison->points) {
		printf("nothing has moved\n");
		close_target(comparison);
		return false;
	}
	printf("%d %s: points %" PRIu64 " identical %" PRIu64 " frames %.1f cut %" PRIu64
	       " distinct %zu longer %" PRIu64 "; ns a stack: table %" PRIu64 " libunwind %" PRIu64
	       " libdwfl %" PRIu64 "\n",
	       (int)comparison->target->pid, comparison->target->name, comparison->points,
	       comparison->identical, (double)comparison->frames / comparison->points,
	       comparison->cut, comparison->hashes.size, comparison->longer,
	       comparison->table_ns / comparison->points,
	       comparison->libunwind_ns / comparison->points,
	       comparison->libdwfl_ns / comparison->points);
	close_target(comparison);
	return comparison->points == comparison->identical;
}

static void print_functions(struct comparison *comparison, const struct thread_state *state)
{
	struct frame_vec frames = { 0 };

	must(unwind_table_walk(comparison->table, state, &frames));
	printf("thread %d", (int)state->tid);
	vec_for_each (frame, &frames) {
		struct symbol_vec symbols = { 0 };
		const char *name;

		must(symbolize(comparison->symbolizer, frame->pc, !frame->is_activation, &symbols));
		name = symbols.data[symbols.size - 1].function;
		printf(" %s", name ? name : "?");
		symbols_deinit(&symbols);
	}
	printf("\n");
	frame_vec_deinit(&frames);
}

static int print(pid_t pid)
{
	struct comparison comparison = { 0 };
	struct stop *stop;

	open_target(&comparison, pid);
	must(stop_threads(comparison.target, NULL, &stop));
	vec_for_each (state, &stop->threads)
		print_functions(&comparison, state);
	stop_destroy(stop);
	close_target(&comparison);
	return 0;
}

/* ---- timing ---- */

static uint64_t unwind_all(struct comparison *comparison, const struct stop *stop, uint64_t *frames)
{
	uint64_t begun = now_ns();

	*frames = 0;
	vec_for_each (state, &stop->threads) {
		struct frame_vec found = { 0 };

		must(unwind_thread(comparison->unwinder, state, &found));
		*frames += found.size;
		frame_vec_deinit(&found);
	}
	return now_ns() - begun;
}

static void time_library(pid_t pid, const struct stop *stop, const char *name,
			 enum unwind_library library, uint64_t rounds)
{
	struct comparison comparison = { 0 };
	uint64_t first, rest = 0, frames;

	must(target_open_live(pid, &comparison.target));
	must(symbolizer_create(comparison.target, &comparison.symbolizer));
	must(unwinder_create(comparison.symbolizer, &comparison.unwinder));
	unwinder_use(comparison.unwinder, library);
	first = unwind_all(&comparison, stop, &frames);
	for (uint64_t i = 0; i < rounds; i++)
		rest += unwind_all(&comparison, stop, &frames);
	printf("%s %zu %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", name, stop->threads.size, frames,
	       first / 1000, rest / rounds / 1000);
	close_target(&comparison);
}

static uint64_t step_through(unw_addr_space_t space, void *stopped)
{
	unw_cursor_t cursor;
	uint64_t frames = 1;

	if (unw_init_remote(&cursor, space, stopped))
		return 0;
	while (frames < UNWIND_FRAMES_MAX && unw_step(&cursor) > 0)
		frames++;
	return frames;
}

static void time_upt(const struct stop *stop, uint64_t rounds)
{
	unw_addr_space_t space = unw_create_addr_space(&_UPT_accessors, 0);
	uint64_t first = 0, rest = 0, frames = 0;

	unw_set_caching_policy(space, UNW_CACHE_GLOBAL);
	vec_for_each (state, &stop->threads) {
		uint64_t begun = now_ns();
		void *stopped;

		if (ptrace(PTRACE_ATTACH, state->tid, NULL, NULL) ||
		    waitpid(state->tid, NULL, __WALL) < 0)
			continue;
		stopped = _UPT_create(state->tid);
		frames += step_through(space, stopped);
		first += now_ns() - begun;
		begun = now_ns();
		for (uint64_t i = 0; i < rounds; i++)
			step_through(space, stopped);
		rest += now_ns() - begun;
		_UPT_destroy(stopped);
		ptrace(PTRACE_DETACH, state->tid, NULL, NULL);
	}
	unw_destroy_addr_space(space);
	printf("_UPT %zu %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", stop->threads.size, frames,
	       first / 1000, rest / rounds / 1000);
}

static int time_all(pid_t pid, uint64_t rounds)
{
	struct target *target;
	struct stop *stop;

	must(target_open_live(pid, &target));
	must(stop_threads(target, NULL, &stop));
	time_library(pid, stop, "libunwind", UNWIND_LIBUNWIND, rounds);
	time_library(pid, stop, "libdwfl", UNWIND_LIBDWFL, rounds);
	time_library(pid, stop, "both", UNWIND_BOTH, rounds);
	time_upt(stop, rounds);
	stop_destroy(stop);
	target_destroy(target);
	return 0;
}

int main(int argc, char **argv)
{
	bool good = true;

	if (argc == 3 && !strcmp(argv[1], "--print"))
		return print(strtol(argv[2], NULL, 10));
	if (argc == 4 && !strcmp(argv[1], "--time"))
		return time_all(strtol(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
	if (argc < 3) {
		fprintf(stderr, "usage: unwind_compare PID... COUNT\n");
		return 2;
	}
	for (int i = 1; i + 1 < argc; i++) {
		struct comparison comparison = { 0 };
		uint64_t count = strtoull(argv[argc - 1], NULL, 10);
		uint64_t end = now_ns() + 300000000000ull;

		open_target(&comparison, strtol(argv[i], NULL, 10));
		while (comparison.points < count && now_ns() < end) {
			struct timespec pause = { 0, 1000000 + rand() % 4000000 };

			sample(&comparison, count);
			nanosleep(&pause, NULL);
		}
		good &= finish(&comparison);
	}
	return !good;
}
