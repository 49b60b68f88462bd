/*
 * sample.c - Poisson sampling by bytes, and the filter that keeps frees of all other blocks cheap.
 */
#include "agent/agent.h"

#define LN2_FIXED 0xb17217f8ull /* ln 2 * 2^32 */

/* xorshift64*, Vigna 2016. */
static uint64_t next_random(struct agent_thread *thread)
{
	uint64_t x = thread->random ? thread->random : 1;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	thread->random = x;
	return x * 0x2545f4914f6cdd1d;
}

/* -log2(x / 2^64) * 2^32 for x > 0: the digits of the logarithm come by squaring. */
static uint64_t minus_log2(uint64_t x)
{
	unsigned zeros = (unsigned)__builtin_clzll(x);
	uint64_t mantissa = x << zeros >> 1; /* [2^62, 2^63): [1, 2) */
	uint64_t fraction = 0;

	for (int i = 0; i < 32; i++) {
		mantissa = (uint64_t)((unsigned __int128)mantissa * mantissa >> 62);
		fraction <<= 1;
		if (mantissa >> 63) {
			fraction |= 1;
			mantissa >>= 1;
		}
	}
	return ((uint64_t)(zeros + 1) << 32) - fraction;
}

/*
 * The distance is exponential with mean `rate`, rounded up: a block of n bytes is sampled if
 * distance <= n, so with probability 1 - exp(-n / rate) exactly.
 */
int64_t sample_draw(struct agent_thread *thread)
{
	uint64_t rate = *(volatile uint64_t *)&agent_ctl.rate;
	uint64_t random = next_random(thread);
	uint64_t log = minus_log2(random ? random : 1);			   /* at most 65 * 2^32 */
	uint64_t e = (uint64_t)((unsigned __int128)log * LN2_FIXED >> 32); /* 32 binary digits */

	thread->rate = (uint8_t)(rate >> AGENT_RATE_BITS);
	rate &= (UINT64_C(1) << AGENT_RATE_BITS) - 1;
	return (int64_t)((unsigned __int128)rate * e >> 32) + 1;
}

void counter_add(uint8_t *counter)
{
	uint8_t value = __atomic_load_n(counter, __ATOMIC_RELAXED);

	while (value != 255 && !__atomic_compare_exchange_n(counter, &value, value + 1, true,
							    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

void counter_remove(uint8_t *counter)
{
	uint8_t value = __atomic_load_n(counter, __ATOMIC_RELAXED);

	while (value != 255 && value != 0 &&
	       !__atomic_compare_exchange_n(counter, &value, value - 1, true, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED))
		;
}

void filter_add(uint64_t address)
{
	counter_add(&agent_ctl.filter[agent_filter_index(address)]);
	counter_add(&agent_ctl.sieve[agent_sieve_index(address)]);
}

void filter_remove(uint64_t address)
{
	counter_remove(&agent_ctl.sieve[agent_sieve_index(address)]);
	counter_remove(&agent_ctl.filter[agent_filter_index(address)]);
}
