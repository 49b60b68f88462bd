/* Functions of libc as they are here, for fuzz_relocate, into the directory that is given. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Of each as many bytes as a beginning and a few branches back to it take. */
#define SIZE 192

int main(int argc, char **argv)
{
	static const char *const names[] = {
		"malloc",  "calloc", "realloc", "free",	  "memalign", "posix_memalign",
		"strtoul", "memcpy", "mmap",	"qsort",  "printf",   "clone",
		"fork",	   "getenv", "sin",	"strtod", "pow",      "memmem",
	};
	void *libc = dlopen("libm.so.6", RTLD_NOW);

	if (argc != 2 || !libc)
		return 2;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct {
			uint64_t from;
			int32_t distance;
		} places = { 0x7f0000010000, -0x4000000 };
		const void *function = dlsym(libc, names[i]);
		char path[4096];
		FILE *out;

		if (!function)
			continue;
		snprintf(path, sizeof(path), "%s/seed-%s", argv[1], names[i]);
		out = fopen(path, "w");
		if (!out || fwrite(&places, sizeof(places), 1, out) != 1 ||
		    fwrite(function, SIZE, 1, out) != 1 || fclose(out))
			return 1;
	}
	return 0;
}
