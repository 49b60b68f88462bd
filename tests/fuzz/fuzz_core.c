/* libFuzzer: any bytes as a core. */
#include <stddef.h>
#include <stdint.h>

#include "../unit/cores.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct target *target;
	struct error *error = cores_open_bytes(bytes, size, &target);

	if (error) {
		error_destroy(error);
		return 0;
	}
	cores_ask_all(target);
	target_destroy(target);
	return 0;
}
