#include "memprobe/cmd.h"

#include "memprobe/allocator.h"
#include "memprobe/elf_file.h"

/* A document is worth more than the reason why one field of it is null. */
static bool succeeded(struct error *error)
{
	error_destroy(error);
	return !error;
}

json_t *command_libc_text(struct target *target)
{
	static const char *const names[] = {
		[LIBC_GLIBC] = "glibc",
		[LIBC_MUSL] = "musl",
	};
	struct libc libc;

	if (!succeeded(target_libc(target, &libc)) ||
	    (libc.kind != LIBC_GLIBC && libc.kind != LIBC_MUSL))
		return json_null();
	if (libc.major || libc.minor)
		return json_sprintf("%s %u.%u", names[libc.kind], libc.major, libc.minor);
	return json_string(names[libc.kind]);
}

json_t *command_allocator_text(struct target *target)
{
	struct allocator allocator;

	if (!succeeded(allocator_detect(target, &allocator)) || !allocator.name)
		return json_null();
	return json_string(allocator.name);
}
