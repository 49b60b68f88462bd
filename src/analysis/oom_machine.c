/*
 * What memory the machine has, below `Mem-Info:`: show_free_areas() and show_mem().
 */
#include "oom_messages.h"

struct error *oom_on_mem_info(struct oom_record *record)
{
	record->parser->now.in_mem_info = record->parser->now.is_open;
	return NULL;
}

/* The phrase's own word as key; nodes and zones have them again, in kB. */
struct error *oom_on_pages(struct oom_record *record)
{
	struct scan scan = record->scan, next;
	const char *colon = record->scan.at - 1;
	char key[32];
	uint64_t value, kib;

	next = scan;
	if (!record->parser->now.in_mem_info || scan_kib(&next, &kib) ||
	    !scan_number(&scan, &value))
		return NULL;
	scan_copy(record->phrase, colon, key, sizeof(key));
	oom_report_machine(record->parser, key, value);
	record->scan = scan;
	return NULL;
}

static struct error *read_machine_swap(struct oom_record *record, const char *key)
{
	uint64_t value;

	if (record->parser->now.in_mem_info && scan_kib(&record->scan, &value))
		oom_report_machine(record->parser, key, value);
	return NULL;
}

struct error *oom_on_free_swap(struct oom_record *record)
{
	return read_machine_swap(record, "free swap");
}

struct error *oom_on_total_swap(struct oom_record *record)
{
	return read_machine_swap(record, "total swap");
}

/* `2097022 pages RAM`, `67366 pages reserved`: the number stands before. */
static struct error *read_pages_before(struct oom_record *record, const char *key)
{
	const char *at = record->phrase;
	struct scan scan;
	uint64_t value;

	while (at > record->before && scan_is_blank(at[-1]))
		at--;
	while (at > record->before && at[-1] >= '0' && at[-1] <= '9' &&
	       record->phrase - at < (ptrdiff_t)OOM_LOOK_BACK)
		at--;
	scan = (struct scan){ at, record->phrase };
	if (record->parser->now.in_mem_info && scan_number(&scan, &value))
		oom_report_machine(record->parser, key, value);
	return NULL;
}

struct error *oom_on_ram(struct oom_record *record)
{
	return read_pages_before(record, "ram");
}

struct error *oom_on_reserved(struct oom_record *record)
{
	return read_pages_before(record, "reserved");
}
