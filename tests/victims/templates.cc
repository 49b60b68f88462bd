/*
 * `templates`: a C++ program that waits below functions whose names are mangled at length.
 *
 * Truth: a line `function NAME` for each on the main thread's stack, innermost first.
 */
#include "victim.h"

#include <map>
#include <string>

namespace storage
{
template <class Key, class Value> struct Cache {
	std::map<Key, Value> entries;

	__attribute__((noinline)) int insert(const Key &key, Value value)
	{
		entries[key] = value;
		victim_serve(nullptr);
		return (int)entries.size();
	}
};

struct Loader {
	Cache<std::string, long> cache;

	__attribute__((noinline)) int operator()(int count) const &
	{
		return const_cast<Loader *>(this)->cache.insert("key", count) + 1;
	}
};
} // namespace storage

int main()
{
	storage::Loader loader;
	auto load = [&loader](int count) __attribute__((always_inline))
	{
		return loader(count);
	};

	victim_init();
	say("function storage::Cache<std::__cxx11::basic_string<char, std::char_traits<char>, "
	    "std::allocator<char> >, long>::insert(");
	say("function storage::Loader::operator()(int) const &");
	say("function main::{lambda}::operator()");
	victim_ready();
	return load(3) + 1;
}
