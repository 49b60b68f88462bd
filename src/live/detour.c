#include "detour.h"

#include "memprobe/arch.h"

extern const uint8_t detour_x86_64_begin[], detour_x86_64_literal[], detour_x86_64_entry[];
extern const uint8_t detour_x86_64_abort[], detour_x86_64_copied[], detour_x86_64_end[];
extern const uint8_t detour_i386_begin[], detour_i386_literal[], detour_i386_entry[];
extern const uint8_t detour_i386_abort[], detour_i386_copied[], detour_i386_end[];

bool detour_find(const struct arch *arch, struct detour *ret)
{
	if (arch == &arch_x86_64)
		*ret = (struct detour){
			.code = detour_x86_64_begin,
			.size = (size_t)(detour_x86_64_end - detour_x86_64_begin),
			.literal = (size_t)(detour_x86_64_literal - detour_x86_64_begin),
			.entry = (size_t)(detour_x86_64_entry - detour_x86_64_begin),
			.copied = (size_t)(detour_x86_64_copied - detour_x86_64_begin),
			.abort = (size_t)(detour_x86_64_abort - detour_x86_64_begin),
		};
	else if (arch == &arch_i386)
		*ret = (struct detour){
			.code = detour_i386_begin,
			.size = (size_t)(detour_i386_end - detour_i386_begin),
			.literal = (size_t)(detour_i386_literal - detour_i386_begin),
			.entry = (size_t)(detour_i386_entry - detour_i386_begin),
			.copied = (size_t)(detour_i386_copied - detour_i386_begin),
			.abort = (size_t)(detour_i386_abort - detour_i386_begin),
		};
	else
		return false;
	return true;
}
