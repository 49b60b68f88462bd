/* Lines of every kind for fuzz_pool, into the directory that is given. */
#include <stdio.h>

static const char *const seeds[] = {
	"# all\nalloc palloc size=arg0 context=*CurrentMemoryContext\n"
	"alloc get pointer=*arg2 size=arg3*arg1 context=arg5 optional\n",
	"realloc more pointer=old size=n context=arg0[-8] if=A unless=B\nfree drop pointer=arg1\n",
	"reset r context=pool[0x10]\nreset-only s context=arg0\nreset-children t context=arg0\n"
	"delete u context=arg0\ntree child=8 next=-16 node=96 blocks unless=C\n",
};

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
		char path[4096];
		FILE *out;

		snprintf(path, sizeof(path), "%s/seed-%zu", argv[1], i);
		out = fopen(path, "w");
		if (!out || fputs(seeds[i], out) < 0 || fclose(out))
			return 1;
	}
	return 0;
}
