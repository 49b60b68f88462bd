/*
 * live.c - the table of live blocks, without locks.
 *
 * An address has one owner at a time: who got it from the allocator and has not yet given it back.
 * Only the owner enters it, takes it out, or looks for it; so two threads never meet at one key,
 * only at free entries, and those are claimed by one compare-and-swap.
 */
#include "agent/agent.h"

/* The two buckets of a level where a block may be. */
static struct agent_bucket *bucket_of(unsigned level, uint64_t hash, unsigned choice)
{
	struct agent_bucket *buckets = (struct agent_bucket *)agent_config.live[level].address;

	return &buckets[(choice ? hash >> 32 : hash) & agent_config.live[level].mask];
}

static struct agent_owner *owner_of(unsigned level, const struct agent_bucket *bucket, unsigned i)
{
	const struct agent_bucket *first = (struct agent_bucket *)agent_config.live[level].address;
	struct agent_owner *owners = (struct agent_owner *)agent_config.pools.owners[level];

	return &owners[(uint64_t)(bucket - first) * AGENT_BUCKET_BLOCKS + i];
}

static void fill(struct agent_bucket *bucket, unsigned i, uint64_t address,
		 const struct agent_block *block)
{
	bucket->blocks[i] = *block;
	__atomic_store_n(&bucket->keys[i], address, __ATOMIC_RELEASE);
}

static unsigned levels(void)
{
	unsigned count = __atomic_load_n(&agent_ctl.live_levels, __ATOMIC_ACQUIRE);

	return count < AGENT_LEVELS ? count : AGENT_LEVELS;
}

/*
 * A bit for each of the keys that is @key. Without a branch that depends on them: the processor
 * need not wait for a bucket that is not in its cache before it goes on, with the original free for
 * one.
 */
static inline unsigned keys_equal(const struct agent_bucket *bucket, uint64_t key)
{
	unsigned mask = 0;

#pragma GCC unroll 8
	for (unsigned i = 0; i < AGENT_BUCKET_BLOCKS; i++)
		mask |= (unsigned)(__atomic_load_n(&bucket->keys[i], __ATOMIC_RELAXED) == key) << i;
	return mask;
}

static bool bucket_insert(unsigned level, struct agent_bucket *bucket, uint64_t address,
			  const struct agent_block *block, const struct agent_owner *owner)
{
	unsigned empty = keys_equal(bucket, 0);

	for (; empty && agent_is_on(); empty &= empty - 1) {
		unsigned i = (unsigned)__builtin_ctz(empty);
		uint64_t key = 0;

		if (__atomic_compare_exchange_n(&bucket->keys[i], &key, AGENT_KEY_RESERVED, false,
						__ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			if (pools_are_there())
				*owner_of(level, bucket, i) = *owner;
			fill(bucket, i, address, block);
			return true;
		}
	}
	return false;
}

/* How far @address got: that many buckets, of those that it tries in turn, have it in `overflow`.
 */
static void forget_overflow(uint64_t hash, unsigned tried)
{
	for (unsigned i = 0; i < tried; i++)
		__atomic_fetch_sub(&bucket_of(i / 2, hash, i % 2)->overflow, 1, __ATOMIC_RELAXED);
}

void live_expect(uint64_t address)
{
	const struct agent_bucket *bucket = bucket_of(0, agent_hash(address), 0);

	if (!levels())
		return;
	__builtin_prefetch(bucket, 1);
	__builtin_prefetch(&bucket->blocks[0], 1);
}

void live_expect_key(uint64_t address)
{
	__builtin_prefetch(bucket_of(0, agent_hash(address), 0), 1);
}

bool live_insert(struct agent_thread *thread, uint64_t address, const struct agent_block *block,
		 const struct agent_owner *owner)
{
	uint64_t hash = agent_hash(address);
	unsigned count = 2 * levels(), tried;

	/* It is there already if the free did not pass through a hook. */
	if (count && keys_equal(bucket_of(0, hash, 0), address) && live_remove(address, NULL, NULL))
		thread_count(thread, AGENT_COUNT_REPLACED, 1);
	for (tried = 0; tried < count; tried++) {
		struct agent_bucket *bucket = bucket_of(tried / 2, hash, tried % 2);

		if (bucket_insert(tried / 2, bucket, address, block, owner))
			return true;
		if (!agent_is_on())
			break;
		__atomic_fetch_add(&bucket->overflow, 1, __ATOMIC_RELAXED);
	}
	if (agent_is_on())
		forget_overflow(hash, tried);
	return false;
}

static inline struct agent_bucket *find(uint64_t address, uint64_t hash, unsigned *index,
					unsigned *tried)
{
	unsigned count = 2 * levels();

	for (*tried = 0; *tried < count; ++*tried) {
		struct agent_bucket *bucket = bucket_of(*tried / 2, hash, *tried % 2);

		unsigned found = keys_equal(bucket, address);

		*index = (unsigned)__builtin_ctz(found | 1u << AGENT_BUCKET_BLOCKS);
		if (found)
			return bucket;
		if (!__atomic_load_n(&bucket->overflow, __ATOMIC_RELAXED))
			break;
	}
	return NULL;
}

bool live_remove(uint64_t address, struct agent_block *ret, struct agent_owner *owner_ret)
{
	uint64_t hash = agent_hash(address);
	unsigned tried;
	unsigned index;
	struct agent_bucket *bucket = find(address, hash, &index, &tried);

	if (!bucket || !agent_is_on())
		return false;
	if (ret)
		*ret = bucket->blocks[index];
	if (owner_ret && pools_are_there())
		*owner_ret = *owner_of(tried / 2, bucket, index);
	__atomic_store_n(&bucket->keys[index], 0, __ATOMIC_RELEASE);
	if (tried)
		forget_overflow(hash, tried);
	return true;
}

void live_resize(uint64_t address, uint64_t size)
{
	unsigned tried;
	unsigned index;
	struct agent_bucket *bucket = find(address, agent_hash(address), &index, &tried);

	if (bucket && agent_is_on())
		bucket->blocks[index].size = size;
}
