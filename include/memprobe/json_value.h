/*
 * json_value.h - values of JSON documents as all commands write them.
 */
#ifndef MEMPROBE_JSON_VALUE_H
#define MEMPROBE_JSON_VALUE_H

#include <jansson.h>
#include <stdint.h>

/* A string "0x..." for an address. */
json_t *json_address(uint64_t address);
/* A string of foreign bytes: what is no UTF-8 becomes U+FFFD. NULL @text: null. */
json_t *json_text(const char *text);
/* An unsigned number; JSON_UNKNOWN: null. */
#define JSON_UNKNOWN UINT64_MAX
json_t *json_number(uint64_t value);

#endif
