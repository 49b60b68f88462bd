/*
 * oom_logs.h - the kernel logs in tests/unit/oom/.
 */
#ifndef OOM_LOGS_H
#define OOM_LOGS_H

#include "memprobe/oom.h"

/* tests/unit/oom/NAME.log, to be freed. */
char *oom_read_log(const char *name, size_t *size_ret);
/* In pieces of @step bytes. */
struct oom_log oom_parse(const char *text, size_t size, size_t step);

#endif
