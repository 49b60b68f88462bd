#include "memprobe/arch.h"

#include <string.h>

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

uint64_t arch_word(const struct arch *arch, const struct user_regs_struct *regs, uint16_t place)
{
	uint64_t word;

	if (place == ARCH_NONE)
		return 0;
	memcpy(&word, (const char *)regs + place, sizeof(word));
	return arch->bits == 32 ? (uint32_t)word : word;
}

static long signed_word(const struct arch *arch, const struct user_regs_struct *regs,
			uint16_t place)
{
	uint64_t word = arch_word(arch, regs, place);

	return arch->bits == 32 ? (int32_t)word : (long)word;
}

long arch_call_number(const struct arch *arch, const struct user_regs_struct *regs)
{
	return arch->places.number == ARCH_NONE ? -1 : signed_word(arch, regs, arch->places.number);
}

long arch_call_result(const struct arch *arch, const struct user_regs_struct *regs)
{
	return signed_word(arch, regs, arch->places.result);
}

void arch_call_arguments(const struct arch *arch, const struct user_regs_struct *regs,
			 uint64_t ret[6])
{
	for (int i = 0; i < 6; i++)
		ret[i] = arch_word(arch, regs, arch->places.arguments[i]);
}

void arch_set_word(const struct arch *arch, struct user_regs_struct *regs, uint16_t place,
		   int64_t value)
{
	if (arch->bits == 32)
		value = (int32_t)value;
	if (place != ARCH_NONE)
		memcpy((char *)regs + place, &value, sizeof(value));
}

bool arch_runs(const struct arch *arch, const struct user_regs_struct *regs)
{
	return arch->places.mode == ARCH_NONE ||
	       arch_word(arch, regs, arch->places.mode) == arch->places.mode_value;
}

bool arch_list_has(const int *list, long number)
{
	for (; list && *list >= 0; list++)
		if (*list == number)
			return true;
	return false;
}

const char *arch_call_name(const struct arch *arch, long number)
{
	for (const struct arch_call *call = arch->calls; call->number >= 0; call++)
		if (call->number == number)
			return call->name;
	return NULL;
}
