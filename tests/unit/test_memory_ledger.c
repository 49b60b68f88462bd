/*
 * Whose each mapping is, also where calls of two threads are told in another order than they
 * worked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "record/kernel/memory_ledger.h"
#include "memprobe/arch.h"

#define PLACE	 0x7f0000000000u
#define PAGES(n) ((n)*PAGE_SIZE)

struct world {
	struct target *target;
	struct memory_ledger ledger;
	uint64_t now;
};

static int setup(void **state)
{
	static struct world world;

	world = (struct world){ .now = 1 };
	*state = &world;
	return target_open_live(getpid(), &world.target) ||
	       sample_stacks_create(world.target, &world.ledger.stacks);
}

static int teardown(void **state)
{
	struct world *world = *state;

	sample_stacks_destroy(world->ledger.stacks);
	memory_ledger_deinit(&world->ledger);
	target_destroy(world->target);
	return 0;
}

static void note(struct world *world, pid_t tid, enum memory_call call, uint64_t result,
		 const uint64_t args[4])
{
	const struct perf_sample sample = { .tid = tid, .time = world->now++ };
	struct memory_call_event event = { .call = call, .result = result, .sample = &sample };

	memcpy(event.args, args, 4 * sizeof(*args));
	assert_null(memory_ledger_note(&world->ledger, &event));
}

/* @flags tell the sites of mmap apart. */
static void map(struct world *world, pid_t tid, uint64_t start, uint64_t size, uint64_t flags)
{
	note(world, tid, MEMORY_CALL_MMAP, start, (const uint64_t[4]){ 0, size, 0, flags });
}

static void unmap(struct world *world, pid_t tid, uint64_t start, uint64_t size)
{
	note(world, tid, MEMORY_CALL_MUNMAP, 0, (const uint64_t[4]){ start, size });
}

static uint64_t net(const struct world *world, uint64_t flags)
{
	uint64_t sum = 0;

	vec_for_each (site, &world->ledger.sites)
		if (site->call == MEMORY_CALL_MMAP && site->flags == flags)
			sum += site->net;
	return sum;
}

static void test_in_order(void **state)
{
	struct world *world = *state;

	map(world, 1, PLACE, PAGES(8), 0);
	unmap(world, 1, PLACE + PAGES(2), PAGES(1));
	assert_int_equal(net(world, 0), PAGES(7));
	/* A program that chooses the place maps over what is there. */
	map(world, 2, PLACE + PAGES(4), PAGES(2), MAP_FIXED);
	assert_int_equal(net(world, 0), PAGES(5));
	unmap(world, 1, PLACE, PAGES(8));
	assert_int_equal(net(world, 0), 0);
	assert_int_equal(net(world, MAP_FIXED), 0);
	assert_int_equal(world->ledger.mapped_bytes, PAGES(10));
	assert_int_equal(world->ledger.unmapped_bytes, PAGES(9));
}

static void test_given_out_before_it_is_told(void **state)
{
	struct world *world = *state;

	map(world, 1, PLACE, PAGES(8), 0);
	/* Thread 1 unmaps all of it; 2 and 3 are given parts, and return first. */
	map(world, 2, PLACE + PAGES(1), PAGES(2), MAP_PRIVATE);
	map(world, 3, PLACE + PAGES(4), PAGES(1), MAP_SHARED);
	unmap(world, 1, PLACE, PAGES(8));
	assert_int_equal(net(world, 0), 0);
	assert_int_equal(net(world, MAP_PRIVATE), PAGES(2));
	assert_int_equal(net(world, MAP_SHARED), PAGES(1));
	/* Nothing is owed any more. */
	unmap(world, 1, PLACE, PAGES(8));
	assert_int_equal(net(world, MAP_PRIVATE) + net(world, MAP_SHARED), 0);
}

static void test_own_unmapping_is_meant(void **state)
{
	struct world *world = *state;

	map(world, 1, PLACE, PAGES(4), 0);
	map(world, 2, PLACE, PAGES(4), MAP_PRIVATE);
	/* Thread 2 cannot have freed what it was given. */
	unmap(world, 2, PLACE, PAGES(4));
	assert_int_equal(net(world, MAP_PRIVATE), 0);
	map(world, 3, PLACE, PAGES(4), MAP_SHARED);
	unmap(world, 1, PLACE, PAGES(4));
	assert_int_equal(net(world, MAP_SHARED), PAGES(4));
}

static void test_moved_away(void **state)
{
	struct world *world = *state;
	const uint64_t to = PLACE + PAGES(64);

	map(world, 1, PLACE, PAGES(4), 0);
	map(world, 2, PLACE + PAGES(1), PAGES(1), MAP_PRIVATE);
	note(world, 1, MEMORY_CALL_MREMAP, to,
	     (const uint64_t[4]){ PLACE, PAGES(4), PAGES(4), MREMAP_MAYMOVE });
	assert_int_equal(net(world, 0), PAGES(4));
	assert_int_equal(net(world, MAP_PRIVATE), PAGES(1));
	unmap(world, 1, to, PAGES(4));
	assert_int_equal(net(world, 0), 0);
	assert_int_equal(net(world, MAP_PRIVATE), PAGES(1));
}

static void test_what_was_lost_owes_nothing_for_long(void **state)
{
	struct world *world = *state;

	map(world, 1, PLACE, PAGES(4), 0);
	map(world, 2, PLACE, PAGES(4), MAP_PRIVATE);
	world->now += 5000000000u;
	unmap(world, 1, PLACE, PAGES(4));
	assert_int_equal(net(world, MAP_PRIVATE), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_given_out_before_it_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(test_own_unmapping_is_meant, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moved_away, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_was_lost_owes_nothing_for_long, setup,
						teardown),
	};

	return cmocka_run_group_tests_name("memory_ledger", tests, NULL, NULL);
}
