/* Writes the seeds of fuzz_eh_frame into a directory: the small ones of this process's modules. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "memprobe/elf_file.h"

#define SEED_MAX 65536

static void save(const char *directory, size_t number, const void *bytes, size_t size)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/module%zu", directory, number);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size) {
		perror(path);
		exit(1);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	const struct module_vec *modules;
	struct target *target;

	if (argc != 2)
		return 2;
	if (target_open_live(getpid(), &target) || target_modules(target, &modules))
		return 1;
	for (size_t i = 0; i < modules->size; i++) {
		struct module *module = &modules->data[i];
		Elf64_Shdr section;
		void *bytes;

		if (!module_section(target, module, ".eh_frame", &section) ||
		    section.sh_size > SEED_MAX)
			continue;
		bytes = module_copy(target, module, section.sh_addr, section.sh_size);
		if (bytes)
			save(argv[1], i, bytes, section.sh_size);
		free(bytes);
	}
	target_destroy(target);
	return 0;
}
