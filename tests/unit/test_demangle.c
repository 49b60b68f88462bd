/* Names as their programmers wrote them, and what hostile ones may cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/symbols.h"

static void assert_name(const char *mangled, const char *expected)
{
	char *name = demangle(mangled);

	assert_non_null(name);
	assert_string_equal(name, expected);
	free(name);
}

static void names_of_all_languages(void **state)
{
	assert_name("main", "main");
	assert_name("_ZN3foo3barEi", "foo::bar(int)");
	assert_name("_ZNSt6vectorIiSaIiEE9push_backERKi",
		    "std::vector<int, std::allocator<int> >::push_back(int const&)");
	assert_name("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write");
	assert_name("_RNvC6_123foo3bar", "123foo::bar");
	assert_name("_D3std5stdio7writelnFZv", "std.stdio.writeln()");
}

static void names_of_none(void **state)
{
	assert_name("", "");
	assert_name("_", "_");
	assert_name("_Zfoo", "_Zfoo");
	assert_name("_D", "_D");
	assert_name("_start", "_start");
}

static void versions_are_cut_off(void **state)
{
	assert_name("pthread_cond_wait@@GLIBC_2.3.2", "pthread_cond_wait");
	assert_name("read@GLIBC_2.2.5", "read");
	assert_name("@", "@");
}

/* Each template argument doubles the one before: 2^19 times `a<`. */
static void a_name_that_explodes_stays_as_it_is(void **state)
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	char name[1024] = "_Z1f1aIiiES_IS0_S0_E";
	size_t length = strlen(name);

	for (unsigned i = 1; i < 19; i++)
		length += (size_t)snprintf(name + length, sizeof(name) - length, "S_IS%c_S%c_E",
					   digits[i], digits[i]);
	assert_name(name, name);
}

static void endless_names_stay_as_they_are(void **state)
{
	size_t length = 100000;
	char *name = malloc(length + 1);

	memset(name, 'N', length);
	memcpy(name, "_Z", 2);
	name[length] = '\0';
	assert_name(name, name);
	name[8000] = '\0';
	assert_name(name, name);
	free(name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_of_all_languages),
		cmocka_unit_test(names_of_none),
		cmocka_unit_test(versions_are_cut_off),
		cmocka_unit_test(a_name_that_explodes_stays_as_it_is),
		cmocka_unit_test(endless_names_stay_as_they_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
