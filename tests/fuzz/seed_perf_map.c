/* A perf map with what node and java write, overlapping. */
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char path[4096];
	FILE *file;

	if (argc < 2 || chdir(argv[1]))
		return 1;
	snprintf(path, sizeof(path), "lines");
	file = fopen(path, "w");
	if (!file)
		return 1;
	fputs("1000 200 JS:*lose /path/n.js:1:5\n0x0000000000001100 0x0000000000000040 long "
	      "T.burn(int)\n1120 ffff later\n10 8 a\n",
	      file);
	return fclose(file) != 0;
}
