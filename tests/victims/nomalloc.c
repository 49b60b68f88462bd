/*
 * `nomalloc`: a program that has not called malloc() yet, and does only after memprobe is gone.
 *
 * variants: 32 musl
 */
#include "victim.h"

int main(int argc, char **argv)
{
	victim_init();
	victim_ready();
	for (;;)
		pause();
	return malloc(argc) == NULL;
}
