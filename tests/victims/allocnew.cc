/*
 * What C++ allocates: `go` keeps blocks of new, new[], aligned and nothrow new in functions and
 * templates of known names, and deletes others; `truth FUNCTION LIVE BYTES ALL ALL_BYTES`, `done
 * TIMES`.
 *
 * cflags: -fomit-frame-pointer
 * variants: static
 */
#include "victim.h"

#include <memory>
#include <new>
#include <string>
#include <vector>

namespace shop
{

struct Item {
	char text[120];
};

struct alignas(64) Wide {
	char text[192];
};

static void *kept[3000];
static unsigned kept_count;

static void keep(void *block)
{
	kept[kept_count++] = block;
}

template <typename T> __attribute__((noinline, noclone)) void keep_template()
{
	keep(new T());
	asm volatile("");
}

__attribute__((noinline, noclone)) static void keep_array()
{
	keep(new char[500]);
	asm volatile("");
}

__attribute__((noinline, noclone)) static void keep_nothrow()
{
	keep(new (std::nothrow) char[30]);
	asm volatile("");
}

__attribute__((noinline, noclone)) static void toss_vector()
{
	std::vector<Item> *volatile items = new std::vector<Item>(10);

	delete items;
}

__attribute__((noinline, noclone)) static void fail_to_allocate()
{
	volatile size_t size = SIZE_MAX / 4;
	bool thrown = false;

	try {
		keep(new char[size]);
	} catch (const std::bad_alloc &) {
		thrown = true;
	}
	check_that(thrown, "bad_alloc");
}

} // namespace shop

static bool command(const char *line)
{
	const unsigned rounds = 500;
	static unsigned times;

	if (strcmp(line, "go"))
		return false;
	for (unsigned i = 0; i < rounds; i++) {
		shop::keep_template<shop::Item>();
		shop::keep_template<shop::Wide>();
		shop::keep_array();
		shop::keep_nothrow();
		shop::toss_vector();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		shop::fail_to_allocate(); /* sanitizers end the program for it */
#endif
	}
	say("truth shop::keep_template<shop::Item> %u %u %u %u", rounds, rounds * 120, rounds,
	    rounds * 120);
	say("truth shop::keep_template<shop::Wide> %u %u %u %u", rounds, rounds * 192, rounds,
	    rounds * 192);
	say("truth shop::keep_array %u %u %u %u", rounds, rounds * 500, rounds, rounds * 500);
	say("truth shop::keep_nothrow %u %u %u %u", rounds, rounds * 30, rounds, rounds * 30);
	say("truth shop::toss_vector 0 0 %u %u", 2 * rounds, rounds * (1200 + 24));
	say("done %u", ++times);
	return true;
}

int main()
{
	victim_init();
	victim_ready();
	victim_serve(command);
	return 0;
}
