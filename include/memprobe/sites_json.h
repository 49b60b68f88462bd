/*
 * sites_json.h - a profile as the keys that commands add to their JSON document.
 */
#ifndef MEMPROBE_SITES_JSON_H
#define MEMPROBE_SITES_JSON_H

#include <jansson.h>

#include "memprobe/profile.h"

/*
 * Sets in @document: `duration` (seconds), `events`, `lost`, `sites`: [{`frames`: [name, root
 * first], `count`, `bytes`}], `totals`: {`count`, `bytes`}. Where the profile has these columns,
 * sites and totals also have `all_count`, `all_bytes`, `unreachable_count`, `unreachable_bytes`,
 * `old_bytes`; one without PROFILE_COUNT has no `count`. A @recorded of false leaves the first
 * three out.
 */
struct error *sites_json_add(json_t *document, const struct profile *profile, bool recorded);

/*
 * Adds the `sites` of such a document to @profile, which gets the columns that they have. Sites
 * that make no sense are left out and counted. ERROR_FAILED: it has no `sites`.
 */
struct error *sites_json_read(const json_t *document, struct profile *profile,
			      size_t *left_out_ret);

#endif
