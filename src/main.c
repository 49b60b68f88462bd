#include "memprobe/cmd.h"

int main(int argc, char **argv)
{
	return memprobe_main(argc, argv);
}
