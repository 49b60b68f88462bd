/* A small input of each format for fuzz_folded, into the directory that is given. */
#include <stdio.h>
#include <stdlib.h>

static const struct {
	const char *name, *text;
} seeds[] = {
	{ "folded", "main;run;std::vector<int, A>::f(int) 10\nmain;k_[k] 2.5\n\nx\n" },
	{ "perf", "comm 12/13 [000] 1.5: 1 page-faults:u:\n\t7f12 memset+0x1 (/l (deleted))\n"
		  "\tffffffff8100 f+0x2 ([kernel.kallsyms])\n\t40 g (inlined)\n\n" },
	{ "stap", " 0x7f01 : malloc+0x0/0x1c [/l.so]\n 0x40 [/a+0x4/0x5]\n\t12\n 0x1 : 0x1\n\n" },
	{ "json", "{\"sites\": [{\"frames\": [\"a\", \"b_[k]\"], \"count\": 1, \"bytes\": 2, "
		  "\"unreachable_bytes\": 1, \"old_bytes\": 3, \"all_bytes\": 4}]}" },
};

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
		char path[4096];
		FILE *out;

		snprintf(path, sizeof(path), "%s/seed-%s", argv[1], seeds[i].name);
		out = fopen(path, "w");
		if (!out || fputs(seeds[i].text, out) < 0 || fclose(out))
			return 1;
	}
	return 0;
}
