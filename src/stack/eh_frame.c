#include "memprobe/eh_frame.h"

#include <dwarf.h>
#include <string.h>

#include "cfa_program.h"
#include "memprobe/lower_bound.h"
#include "memprobe/num.h"
#include "memprobe/vec.h"

/* Linkers merge equal CIEs: large libraries have some hundreds. */
#define CIES_MAX 65536

/* Between functions so near to each other there is only padding, in which nobody is. */
#define PADDING_MAX 16

/* What other unwinders keep of the letters of a CIE. */
#define AUGMENTATION_MAX 4
/* The largest description of a function that others are to read: they have no limit. */
#define USUAL_SIZE_MAX (1u << 20)

VEC_DEFINE(cie_vec, struct cie)

/* A frame description entry (FDE). */
struct entry {
	uint32_t start, end; /* offsets from text_start */
	uint32_t cie;
	uint32_t program_size;
	uint64_t program; /* position */
	uint64_t position;
};

VEC_DEFINE(entry_vec, struct entry)

struct compiler {
	const struct eh_frame *eh_frame;
	struct eh_frame_counts *counts;
	struct cie_vec cies; /* by position */
	struct entry_vec entries;
	bool is_sorted;
};

static struct cursor cursor_at(const struct eh_frame *eh_frame, uint64_t position, uint64_t size)
{
	return (struct cursor){ eh_frame->bytes + position, eh_frame->bytes + position + size,
				false };
}

static uint64_t address_of(const struct eh_frame *eh_frame, const uint8_t *place)
{
	return eh_frame->address + (place - eh_frame->bytes);
}

/* ---- encoded pointers ---- */

static uint64_t take_format(struct cursor *cursor, uint8_t format)
{
	switch (format) {
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata8:
	case DW_EH_PE_sdata8:
		return cursor_number(cursor, 8);
	case DW_EH_PE_uleb128:
		return cursor_uleb(cursor);
	case DW_EH_PE_sleb128:
		return cursor_sleb(cursor);
	case DW_EH_PE_udata2:
		return cursor_number(cursor, 2);
	case DW_EH_PE_udata4:
		return cursor_number(cursor, 4);
	case DW_EH_PE_sdata2:
		return (int16_t)cursor_number(cursor, 2);
	case DW_EH_PE_sdata4:
		return (int32_t)cursor_number(cursor, 4);
	default:
		cursor->failed = true;
		return 0;
	}
}

/* An address of code. What must be loaded from memory first (indirect) is none. */
static uint64_t take_pointer_encoded(struct cursor *cursor, const struct eh_frame *eh_frame,
				     uint8_t encoding)
{
	uint64_t place = address_of(eh_frame, cursor->at);
	uint64_t value = take_format(cursor, encoding & 0x0f);

	if (encoding & DW_EH_PE_indirect)
		cursor->failed = true;
	switch (encoding & 0x70) {
	case DW_EH_PE_absptr:
		return value;
	case DW_EH_PE_pcrel:
		return value + place;
	case DW_EH_PE_datarel:
		return value + eh_frame->data_base;
	default:
		cursor->failed = true;
		return 0;
	}
}

/* A pointer that is of no interest, in any form. */
static void skip_pointer(struct cursor *cursor, const struct eh_frame *eh_frame, uint8_t encoding)
{
	if (encoding == DW_EH_PE_omit)
		return;
	if ((encoding & 0x70) == DW_EH_PE_aligned) {
		cursor_bytes(cursor, -address_of(eh_frame, cursor->at) & 7);
		encoding = DW_EH_PE_absptr;
	}
	take_format(cursor, encoding & 0x0f);
}

/* ---- CIEs ---- */

static void take_augmentation(struct cie *cie, struct cursor *cursor,
			      const struct eh_frame *eh_frame, const char *letters)
{
	uint64_t size = cursor_uleb(cursor);
	const uint8_t *bytes = cursor_bytes(cursor, size);
	struct cursor data = { bytes, bytes ? bytes + size : NULL, !bytes };

	for (; *letters; letters++) {
		switch (*letters) {
		case 'R':
			cie->pointer_encoding = cursor_number(&data, 1);
			break;
		case 'L':
			cursor_number(&data, 1);
			break;
		case 'P':
			skip_pointer(&data, eh_frame, cursor_number(&data, 1));
			break;
		case 'S':
			cie->is_signal = true;
			break;
		case 'B':
		case 'G': /* of aarch64 */
			cie->unusual = true;
			break;
		default:
			/* The size says where it ends, but what follows is not known. */
			cie->unusual = true;
			return;
		}
	}
	cie->unusual |= data.at != data.end;
	cursor->failed |= data.failed;
}

/* What stands behind the id. */
static void take_cie(struct cie *cie, struct cursor *cursor, const struct eh_frame *eh_frame)
{
	uint64_t version = cursor_number(cursor, 1);
	const char *letters = (const char *)cursor->at;
	const void *end = memchr(cursor->at, '\0', cursor->end - cursor->at);

	cie->bad = true;
	if (cursor->failed || !end || (version != 1 && version != 3))
		return;
	cursor->at = (const uint8_t *)end + 1;
	cie->unusual = strlen(letters) > AUGMENTATION_MAX || (*letters && *letters != 'z');
	if (!strcmp(letters, "eh")) /* of the GCC of 1999 */
		cursor_number(cursor, 8);
	else if (*letters && *letters != 'z')
		return;
	cie->code_align = cursor_uleb(cursor);
	cie->data_align = cursor_sleb(cursor);
	cie->ra_register = version == 1 ? cursor_number(cursor, 1) : cursor_uleb(cursor);
	cie->has_augmentation = *letters == 'z';
	if (cie->has_augmentation)
		take_augmentation(cie, cursor, eh_frame, letters + 1);
	cie->bad = cursor->failed || cie->ra_register != DWARF_RA || !cfa_run_initial(cie, *cursor);
}

/* The long form of a size is read in different ways by different programs. */
static bool has_long_size(const struct eh_frame *eh_frame, uint64_t position)
{
	return load_word(eh_frame->bytes + position, 4) == UINT32_MAX;
}

static struct error *add_cie(struct compiler *compiler, uint64_t position, struct cursor cursor)
{
	struct cie cie = { .position = position };

	if (compiler->cies.size == CIES_MAX)
		return NULL;
	take_cie(&cie, &cursor, compiler->eh_frame);
	cie.unusual |= has_long_size(compiler->eh_frame, position) ||
		       cursor.end - cursor.at > USUAL_SIZE_MAX;
	compiler->counts->has_signal |= cie.is_signal && !cie.bad;
	return cie_vec_append(&compiler->cies, &cie);
}

/* The number of the CIE at @position; false: none stands there, in front of those that use it. */
static bool find_cie(const struct compiler *compiler, uint64_t position, uint32_t *ret)
{
	size_t at = lower_bound(compiler->cies.data, compiler->cies.size, cie,
				cie->position < position);

	if (at == compiler->cies.size || compiler->cies.data[at].position != position)
		return false;
	*ret = at;
	return true;
}

/* ---- FDEs ---- */

static bool take_entry(const struct compiler *compiler, uint64_t cie_position,
		       struct cursor *cursor, struct entry *entry, bool *is_elsewhere)
{
	const struct eh_frame *eh_frame = compiler->eh_frame;
	const struct cie *cie;
	uint64_t start, size;

	if (!find_cie(compiler, cie_position, &entry->cie))
		return false;
	cie = &compiler->cies.data[entry->cie];
	if (cie->bad || cie->pointer_encoding == DW_EH_PE_omit)
		return false;
	start = take_pointer_encoded(cursor, eh_frame, cie->pointer_encoding);
	size = take_format(cursor, cie->pointer_encoding & 0x0f);
	if (cie->has_augmentation)
		cursor_bytes(cursor, cursor_uleb(cursor));
	if (cursor->failed || cursor->end - cursor->at > UINT32_MAX)
		return false;
	*is_elsewhere = !size || start < eh_frame->text_start || start >= eh_frame->text_end;
	entry->start = start - eh_frame->text_start;
	entry->end = entry->start + min_u64(size, eh_frame->text_end - start);
	entry->program = cursor->at - eh_frame->bytes;
	entry->program_size = cursor->end - cursor->at;
	return true;
}

static struct error *add_entry(struct compiler *compiler, uint64_t position, uint64_t cie_position,
			       struct cursor cursor)
{
	struct entry_vec *entries = &compiler->entries;
	struct entry entry = { .position = position };
	bool is_elsewhere;

	compiler->counts->entries++;
	if (!take_entry(compiler, cie_position, &cursor, &entry, &is_elsewhere)) {
		compiler->counts->bad++;
		return NULL;
	}
	/* A function that the linker threw away, often: address 0, or no size. */
	if (is_elsewhere)
		return NULL;
	if (entries->size && entry.start < entries->data[entries->size - 1].start)
		compiler->is_sorted = false;
	return entry_vec_append(entries, &entry);
}

/* One CIE or FDE at @position; *@next is where the next one stands, 0 at the end. */
static struct error *take_one(struct compiler *compiler, uint64_t position, uint64_t *next)
{
	const struct eh_frame *eh_frame = compiler->eh_frame;
	struct cursor cursor = cursor_at(eh_frame, position, eh_frame->size - position);
	uint64_t size = cursor_number(&cursor, 4), id_position, id;
	const uint8_t *body;

	*next = 0;
	if (size == UINT32_MAX)
		size = cursor_number(&cursor, 8);
	id_position = cursor.at - eh_frame->bytes;
	body = cursor_bytes(&cursor, size);
	if (!size || !body)
		return NULL;
	*next = id_position + size;
	cursor = cursor_at(eh_frame, id_position, size);
	/* 4 bytes even with the long form of the size, as GNU tools have it. */
	id = cursor_number(&cursor, 4);
	if (cursor.failed)
		return NULL;
	if (!id)
		return add_cie(compiler, position, cursor);
	return add_entry(compiler, position, id_position - id, cursor);
}

static struct error *take_all(struct compiler *compiler)
{
	uint64_t position = 0, next;

	while (position < compiler->eh_frame->size) {
		struct error *error = take_one(compiler, position, &next);

		if (error)
			return error;
		if (!next)
			break;
		position = next;
	}
	return NULL;
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *left = a, *right = b;

	if (left->start != right->start)
		return left->start < right->start ? -1 : 1;
	return left->program < right->program ? -1 : left->program > right->program;
}

/* All entries, sorted; of those that begin at one address, the last. */
static struct error *read_all(struct compiler *compiler)
{
	struct error *error;

	*compiler->counts = (struct eh_frame_counts){ 0 };
	error = take_all(compiler);
	if (!error && !compiler->is_sorted)
		qsort(compiler->entries.data, compiler->entries.size,
		      sizeof(*compiler->entries.data), compare_entries);
	return error;
}

/* ---- rows ---- */

static void add_rows(struct compiler *compiler, struct row_sink *sink)
{
	uint64_t last_end = 0;

	row_sink_add(sink, 0, UNWIND_RULE_NO_CFI);
	vec_for_each (entry, &compiler->entries) {
		const struct entry *next = entry + 1;
		struct cfa_function function = {
			.cie = &compiler->cies.data[entry->cie],
			.start = entry->start,
			.end = entry->end,
			.text_start = compiler->eh_frame->text_start,
		};

		/* Where two claim an address, the one that begins later has it. */
		if (next < compiler->entries.data + compiler->entries.size)
			function.end = min_u64(function.end, next->start);
		if (function.start == function.end)
			continue;
		if (last_end && function.start - last_end >= PADDING_MAX)
			row_sink_add(sink, last_end, UNWIND_RULE_NO_CFI);
		if (!cfa_run(&function,
			     cursor_at(compiler->eh_frame, entry->program, entry->program_size),
			     sink))
			compiler->counts->bad++;
		last_end = function.end;
		if (sink->full)
			return;
	}
	if (last_end && compiler->eh_frame->text_end - compiler->eh_frame->text_start > last_end)
		row_sink_add(sink, last_end, UNWIND_RULE_NO_CFI);
}

struct error *eh_frame_compile(const struct eh_frame *eh_frame, struct unwind_row *rows,
			       size_t capacity, size_t *count_ret, struct eh_frame_counts *counts)
{
	struct row_sink sink = { .rows = rows, .capacity = capacity };
	struct compiler compiler = { .eh_frame = eh_frame, .counts = counts, .is_sorted = true };
	struct error *error;

	error = read_all(&compiler);
	if (!error) {
		add_rows(&compiler, &sink);
		if (sink.full)
			error = error_create(ERROR_FAILED, "the unwind table is full");
	}
	cie_vec_deinit(&compiler.cies);
	entry_vec_deinit(&compiler.entries);
	if (error)
		return error;
	for (size_t i = 0; i < sink.count; i++)
		counts->unsupported += rows[i].rule == UNWIND_RULE_UNSUPPORTED;
	*count_ret = sink.count;
	return NULL;
}

/* ---- looking up ---- */

struct eh_frame_index {
	struct eh_frame eh_frame;
	struct cie_vec cies;
	struct entry_vec entries;
};

struct error *eh_frame_index_create(const struct eh_frame *eh_frame, struct eh_frame_index **ret)
{
	struct eh_frame_index *index = calloc(1, sizeof(*index));
	struct eh_frame_counts counts;
	struct compiler compiler = {
		.eh_frame = eh_frame,
		.counts = &counts,
		.is_sorted = true,
	};
	struct error *error;

	if (!index)
		return &error_no_memory;
	error = read_all(&compiler);
	index->eh_frame = *eh_frame;
	index->cies = compiler.cies;
	index->entries = compiler.entries;
	if (error)
		eh_frame_index_destroy(index);
	else
		*ret = index;
	return error;
}

void eh_frame_index_destroy(struct eh_frame_index *index)
{
	if (!index)
		return;
	cie_vec_deinit(&index->cies);
	entry_vec_deinit(&index->entries);
	free(index);
}

/* The last one that begins at @offset or below. */
static const struct entry *find_entry(const struct eh_frame_index *index, uint64_t offset)
{
	const struct entry *entries = index->entries.data;
	size_t low = lower_bound(entries, index->entries.size, entry, entry->start <= offset);

	return low && offset < entries[low - 1].end ? &entries[low - 1] : NULL;
}

bool eh_frame_index_find(const struct eh_frame_index *index, uint64_t address,
			 struct eh_frame_function *ret)
{
	const struct eh_frame *eh_frame = &index->eh_frame;
	struct cfa_function function = { .text_start = eh_frame->text_start };
	const struct entry *entry;

	if (address < eh_frame->text_start || address >= eh_frame->text_end)
		return false;
	entry = find_entry(index, address - eh_frame->text_start);
	if (!entry)
		return false;
	function.cie = &index->cies.data[entry->cie];
	function.start = entry->start;
	function.end = entry->end;
	*ret = (struct eh_frame_function){
		.start = eh_frame->text_start + entry->start,
		.end = eh_frame->text_start + entry->end,
		.position = entry->position,
		.is_signal = function.cie->is_signal,
		.is_usual = !has_long_size(eh_frame, entry->position) &&
			    entry->program_size <= USUAL_SIZE_MAX &&
			    cfa_is_usual(&function,
					 cursor_at(eh_frame, entry->program, entry->program_size)),
	};
	return true;
}
