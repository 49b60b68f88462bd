/* The slope and its interval on simulated series, and verdicts on typical ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "memprobe/trend.h"

#define MIB    1048576.0
#define RUNS   100
#define POINTS 300

static uint64_t state;

static double uniform(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (double)(state >> 11) / 9007199254740992.0;
}

static double normal(void)
{
	return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform());
}

enum noise { WHITE, CORRELATED, TEETH, STEPS, PAGES };

static void simulate(struct trend_series *series, enum noise noise, double slope)
{
	double correlated = normal(), phase = uniform() * 20, step = 0;

	memset(series, 0, sizeof(*series));
	for (unsigned i = 0; i < POINTS; i++) {
		double value = 100 * MIB + slope * i;

		correlated = 0.8 * correlated + 0.6 * normal();
		if (noise == WHITE)
			value += MIB * normal();
		else if (noise == CORRELATED)
			value += MIB * correlated;
		else if (noise == TEETH)
			value += fmod(i + phase, 20) * MIB / 2;
		else if (noise == PAGES)
			value = floor(value / 4096) * 4096;
		else if (i % 10 == 0)
			/* All of ten seconds at once, one more and one less. */
			step = 100 * MIB + slope * (i + 10 * uniform() - 5);
		trend_add(series, i, noise == STEPS ? step : value);
	}
}

static unsigned count_hits(enum noise noise, double slope)
{
	static struct trend_series series;
	unsigned hits = 0;
	struct trend trend;

	for (unsigned i = 0; i < RUNS; i++) {
		simulate(&series, noise, slope);
		trend_judge(&series, MIB, &trend);
		hits += trend.slope_low <= slope && slope <= trend.slope_high;
		assert_true(trend.slope_low <= trend.slope && trend.slope <= trend.slope_high);
	}
	return hits;
}

static void the_true_slope_is_in_the_interval(void **unused)
{
	static const double slopes[] = { 0, 10000, 200000 };

	state = 1;
	for (unsigned noise = WHITE; noise <= PAGES; noise++)
		for (unsigned i = 0; i < 3; i++) {
			unsigned hits = count_hits(noise, slopes[i]);

			if (hits * 100 < RUNS * 95)
				fail_msg("noise %u, slope %.0f: %u of %u", noise, slopes[i], hits,
					 RUNS);
		}
}

static void the_interval_says_something(void **unused)
{
	static struct trend_series series;
	struct trend trend;

	state = 2;
	simulate(&series, WHITE, 200000);
	trend_judge(&series, MIB, &trend);
	assert_true(trend.slope_high - trend.slope_low < 20000);
	simulate(&series, CORRELATED, 200000);
	trend_judge(&series, MIB, &trend);
	assert_true(trend.slope_high - trend.slope_low < 60000);
}

static enum trend_verdict verdict_of(double (*value)(unsigned i))
{
	static struct trend_series series;
	struct trend trend;

	memset(&series, 0, sizeof(series));
	for (unsigned i = 0; i < 600; i++)
		trend_add(&series, i, value(i));
	trend_judge(&series, MIB, &trend);
	return trend.verdict;
}

static double flat(unsigned i)
{
	return 100 * MIB;
}

static double noisy(unsigned i)
{
	return 100 * MIB + 2 * MIB * normal();
}

static double climb(unsigned i)
{
	return 100 * MIB + i * 300000.0 + MIB * normal();
}

static double slow(unsigned i)
{
	return 100 * MIB + i * 10000.0;
}

static double saw(unsigned i)
{
	return 100 * MIB + (i % 60) * MIB;
}

static double restarts(unsigned i)
{
	return 20 * MIB + (i % 200) * MIB;
}

static double fills_up(unsigned i)
{
	return 20 * MIB + (i < 100 ? i : 100) * MIB;
}

static double warms_up(unsigned i)
{
	return 20 * MIB + 100 * MIB * log(1 + i);
}

static double shrinks(unsigned i)
{
	return 600 * MIB - i * MIB / 2;
}

static double one_step(unsigned i)
{
	return (i < 30 ? 50 : 90) * MIB;
}

static void verdicts_are_right(void **unused)
{
	state = 3;
	assert_int_equal(verdict_of(flat), TREND_STEADY);
	assert_int_equal(verdict_of(noisy), TREND_STEADY);
	assert_int_equal(verdict_of(climb), TREND_GROWING);
	assert_int_equal(verdict_of(slow), TREND_GROWING);
	assert_int_equal(verdict_of(saw), TREND_SAW_TOOTH);
	assert_int_equal(verdict_of(restarts), TREND_SAW_TOOTH);
	assert_int_equal(verdict_of(fills_up), TREND_PLATEAU);
	assert_int_equal(verdict_of(warms_up), TREND_WARMING_UP);
	assert_int_equal(verdict_of(shrinks), TREND_STEADY);
	assert_int_not_equal(verdict_of(one_step), TREND_GROWING);
}

static void few_points_say_little(void **unused)
{
	static struct trend_series series;
	struct trend trend;

	trend_judge(&series, MIB, &trend);
	assert_int_equal(trend.verdict, TREND_STEADY);
	for (unsigned i = 0; i < 5; i++) {
		trend_add(&series, i, i * 100 * MIB);
		trend_judge(&series, MIB, &trend);
		assert_int_not_equal(trend.verdict, TREND_GROWING);
	}
	/* A clock that stands still or goes back. */
	trend_add(&series, 4, 0);
	trend_add(&series, 3, 0);
	assert_int_equal(series.count, 5);
}

static void days_are_kept_in_few_points(void **unused)
{
	static struct trend_series series;
	struct trend trend;

	for (unsigned i = 0; i < 200000; i++)
		trend_add(&series, i, i * 1000.0);
	assert_true(series.count > TREND_POINTS / 4 && series.count <= TREND_POINTS);
	trend_judge(&series, MIB, &trend);
	assert_int_equal(trend.verdict, TREND_GROWING);
	assert_true(fabs(trend.slope - 1000) < 1);
	assert_true(trend.seconds > 190000);
}

static void what_moves_together_is_found(void **unused)
{
	static struct trend_series memory, requests, other;
	double bytes = 0, count = 0, chance = 0;
	bool is_sure;

	state = 4;
	for (unsigned i = 0; i < 200; i++) {
		double asked = i / 20 % 2 ? 100 * uniform() : 0;

		count += asked;
		bytes += asked * 1000 + 500 * uniform();
		chance += uniform();
		trend_add(&memory, i, bytes);
		trend_add(&requests, i, count);
		trend_add(&other, i, chance);
	}
	assert_true(trend_moves_with(&memory, &requests, &is_sure) > 0.9);
	assert_true(is_sure);
	assert_true(fabs(trend_moves_with(&memory, &other, &is_sure)) < 0.3);
	assert_false(is_sure);
	memset(&other, 0, sizeof(other));
	assert_true(trend_moves_with(&memory, &other, &is_sure) == 0);
	assert_false(is_sure);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_true_slope_is_in_the_interval),
		cmocka_unit_test(the_interval_says_something),
		cmocka_unit_test(verdicts_are_right),
		cmocka_unit_test(few_points_say_little),
		cmocka_unit_test(days_are_kept_in_few_points),
		cmocka_unit_test(what_moves_together_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
