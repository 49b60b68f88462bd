#include "memprobe/json_value.h"

#include <stdio.h>
#include <stdlib.h>

#include "memprobe/cleanup.h"
#include "memprobe/text.h"

json_t *json_address(uint64_t address)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)address);
	return json_string(text);
}

json_t *json_text(const char *text)
{
	cleanup(free) char *valid = NULL;
	json_t *string = text ? json_string(text) : json_null();

	if (string)
		return string;
	valid = text_utf8(text);
	return valid ? json_string(valid) : NULL;
}

json_t *json_number(uint64_t value)
{
	return value == JSON_UNKNOWN ? json_null() : json_integer((json_int_t)value);
}
