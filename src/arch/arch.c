#include "memprobe/arch.h"

static const struct arch *const architectures[] = { &arch_x86_64, &arch_i386, &arch_aarch64 };

const struct arch *arch_native(void)
{
#if defined(__x86_64__)
	return &arch_x86_64;
#elif defined(__aarch64__)
	return &arch_aarch64;
#else
#error "add this architecture: see memprobe/arch.h"
#endif
}

const struct arch *arch_find(uint8_t elf_class, uint16_t elf_machine)
{
	for (size_t i = 0; i < sizeof(architectures) / sizeof(architectures[0]); i++)
		if (architectures[i]->elf_class == elf_class &&
		    architectures[i]->elf_machine == elf_machine)
			return architectures[i];
	return NULL;
}

bool arch_list_has(const int *list, long number)
{
	for (; list && *list >= 0; list++)
		if (*list == number)
			return true;
	return false;
}
