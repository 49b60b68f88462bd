/* Call frame information written by hand, each opcode and encoding of it, whole and broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dwarf.h>

#include "memprobe/eh_frame.h"

#define ADDRESS	   0x5000 /* of the section */
#define DATA_BASE  0x4800
#define TEXT_START 0x1000
#define TEXT_END   0x3000

/* ---- building ---- */

struct section {
	uint8_t bytes[4096];
	size_t size;
};

static void put(struct section *section, const void *bytes, size_t size)
{
	assert_true(size <= sizeof(section->bytes) - section->size);
	if (size)
		memcpy(section->bytes + section->size, bytes, size);
	section->size += size;
}

static void put_number(struct section *section, uint64_t value, size_t size)
{
	put(section, &value, size);
}

/* The size of an entry that began at @start goes into its first word. */
static void end_entry(struct section *section, size_t start)
{
	uint32_t size;

	while ((section->size - start) % 4)
		put_number(section, DW_CFA_nop, 1);
	size = section->size - start - 4;
	memcpy(section->bytes + start, &size, 4);
}

/* Code alignment 1, data alignment -8, return address in 16; @data with its size in front of it. */
static size_t put_cie(struct section *section, unsigned version, const char *letters,
		      const char *data, size_t data_size)
{
	static const uint8_t start[] = { DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 16, 1 };
	size_t position = section->size;

	put_number(section, 0, 4);
	put_number(section, 0, 4);
	put_number(section, version, 1);
	put(section, letters, strlen(letters) + 1);
	if (!strcmp(letters, "eh"))
		put_number(section, 0, 8);
	put(section, "\x01\x78\x10", 3);
	put(section, data, data_size);
	put(section, start, sizeof(start));
	end_entry(section, position);
	return position;
}

static size_t put_plain_cie(struct section *section)
{
	return put_cie(section, 1, "zR", "\x01\x00", 2);
}

/* The head of an FDE with addresses of 8 bytes; the program follows, then end_entry(). */
static size_t begin_fde(struct section *section, size_t cie, uint64_t start, uint64_t size)
{
	size_t position = section->size;

	put_number(section, 0, 4);
	put_number(section, section->size - cie, 4);
	put_number(section, start, 8);
	put_number(section, size, 8);
	put_number(section, 0, 1); /* no augmentation data */
	return position;
}

static void put_fde(struct section *section, size_t cie, uint64_t start, uint64_t size,
		    const void *program, size_t program_size)
{
	size_t position = begin_fde(section, cie, start, size);

	put(section, program, program_size);
	end_entry(section, position);
}

/* ---- looking ---- */

struct result {
	struct unwind_row rows[512];
	size_t count;
	struct eh_frame_counts counts;
};

static struct error *try_compile(const struct section *section, struct result *result)
{
	/* Memory of the very size, so that the sanitizer sees what is read beyond. */
	uint8_t *bytes = malloc(section->size ? section->size : 1);
	struct eh_frame eh_frame = {
		.bytes = bytes,
		.size = section->size,
		.address = ADDRESS,
		.data_base = DATA_BASE,
		.text_start = TEXT_START,
		.text_end = TEXT_END,
	};
	struct error *error;

	memcpy(bytes, section->bytes, section->size);
	error = eh_frame_compile(&eh_frame, result->rows,
				 sizeof(result->rows) / sizeof(result->rows[0]), &result->count,
				 &result->counts);
	free(bytes);
	return error;
}

static void compile(const struct section *section, struct result *result)
{
	struct error *error = try_compile(section, result);

	if (error)
		fail_msg("%s", error->message);
	assert_true(result->count > 0);
	assert_int_equal(result->rows[0].offset, 0);
	for (size_t i = 1; i < result->count; i++) {
		assert_true(result->rows[i].offset > result->rows[i - 1].offset);
		assert_true(result->rows[i].rule != result->rows[i - 1].rule);
		assert_true(result->rows[i].rule >> 30 == 0 && result->rows[i].rule);
	}
}

static uint32_t rule_at(const struct result *result, uint64_t address)
{
	uint32_t rule = 0;

	for (size_t i = 0; i < result->count; i++)
		if (result->rows[i].offset <= address - TEXT_START)
			rule = result->rows[i].rule;
	return rule;
}

#define SP(words) UNWIND_RULE(UNWIND_SP, words, 0, 0)
#define BP(words) UNWIND_RULE(UNWIND_BP, words, 2, 0)

/* ---- whole ---- */

static void test_prologue(void **state)
{
	static const uint8_t program[] = {
		DW_CFA_advance_loc | 1,
		DW_CFA_def_cfa_offset,
		16,
		DW_CFA_offset | 6,
		2,
		DW_CFA_advance_loc | 3,
		DW_CFA_def_cfa_register,
		6,
		DW_CFA_advance_loc1,
		0x20,
		DW_CFA_offset | 3,
		3,
		DW_CFA_advance_loc2,
		0,
		1,
		DW_CFA_restore | 6,
		DW_CFA_def_cfa,
		7,
		8,
	};
	struct section section = { 0 };
	struct result result;
	size_t cie = put_plain_cie(&section);

	put_fde(&section, cie, 0x1100, 0x200, program, sizeof(program));
	compile(&section, &result);
	assert_int_equal(result.counts.entries, 1);
	assert_int_equal(result.counts.bad, 0);
	assert_int_equal(result.count, 7);
	assert_int_equal(rule_at(&result, 0x10ff), UNWIND_RULE_NO_CFI);
	assert_int_equal(rule_at(&result, 0x1100), SP(1));
	assert_int_equal(rule_at(&result, 0x1101), UNWIND_RULE(UNWIND_SP, 2, 2, 0));
	assert_int_equal(rule_at(&result, 0x1103), UNWIND_RULE(UNWIND_SP, 2, 2, 0));
	assert_int_equal(rule_at(&result, 0x1104), BP(2));
	assert_int_equal(rule_at(&result, 0x1124), UNWIND_RULE(UNWIND_BP, 2, 2, 3));
	assert_int_equal(rule_at(&result, 0x1224), UNWIND_RULE(UNWIND_SP, 1, 0, 3));
	assert_int_equal(rule_at(&result, 0x12ff), UNWIND_RULE(UNWIND_SP, 1, 0, 3));
	assert_int_equal(rule_at(&result, 0x1300), UNWIND_RULE_NO_CFI);
}

/* What stands at the end of a function whose program is one of these. */
struct opcode {
	const char *name;
	const char *program;
	size_t size;
	uint32_t rule;
};

#define OPCODE(name, program, rule)                      \
	{                                                \
		name, program, sizeof(program) - 1, rule \
	}
#define BAD UNWIND_RULE_UNSUPPORTED

static const struct opcode opcodes[] = {
	OPCODE("none", "", SP(1)),
	OPCODE("nop", "\0\0", SP(1)),
	OPCODE("def_cfa", "\x0c\x06\x10", UNWIND_RULE(UNWIND_BP, 2, 0, 0)),
	OPCODE("def_cfa_sf", "\x12\x06\x7e", UNWIND_RULE(UNWIND_BP, 2, 0, 0)),
	OPCODE("def_cfa_register", "\x0d\x06", UNWIND_RULE(UNWIND_BP, 1, 0, 0)),
	OPCODE("def_cfa_offset", "\x0e\x80\x01", SP(16)),
	OPCODE("def_cfa_offset_sf", "\x13\x60", SP(32)),
	OPCODE("a large frame", "\x0e\x80\x80\x40", UNWIND_RULE(UNWIND_PLT, 0, 0, 16 | 2)),
	OPCODE("too large a frame", "\x0e\x80\x80\x80\x04", BAD),
	OPCODE("half a word", "\x0e\x0c", BAD),
	OPCODE("rbx as CFA", "\x0c\x03\x10", UNWIND_RULE(UNWIND_REGISTER, 2, 0, 3)),
	OPCODE("r10 as CFA", "\x0c\x0a\x00", UNWIND_RULE(UNWIND_REGISTER, 0, 0, 10)),
	OPCODE("no register as CFA", "\x0c\x20\x00", BAD),
	OPCODE("offset", "\x86\x02", UNWIND_RULE(UNWIND_SP, 1, 2, 0)),
	OPCODE("offset_extended", "\x05\x06\x03", UNWIND_RULE(UNWIND_SP, 1, 3, 0)),
	OPCODE("offset_extended_sf", "\x11\x06\x04", UNWIND_RULE(UNWIND_SP, 1, 4, 0)),
	OPCODE("offset above the CFA", "\x11\x06\x7e", BAD),
	OPCODE("GNU_negative_offset_extended", "\x2f\x06\x02", BAD),
	OPCODE("offset of another register", "\x8c\x02", SP(1)),
	OPCODE("a far place of rbp", "\x86\x3f", UNWIND_RULE(UNWIND_SP, 1, 63, 0)),
	OPCODE("too far a place of rbp", "\x86\x40", BAD),
	OPCODE("too far a place of rbx", "\x83\x1f", UNWIND_RULE(UNWIND_SP, 1, 0, 31)),
	OPCODE("restore", "\x86\x02\xc6", SP(1)),
	OPCODE("restore_extended", "\x86\x02\x06\x06", SP(1)),
	OPCODE("same_value", "\x86\x02\x08\x06", SP(1)),
	OPCODE("undefined", "\x86\x02\x07\x06", SP(1)),
	OPCODE("end of the stack", "\x07\x10", UNWIND_RULE_END),
	OPCODE("register", "\x09\x06\x0b", BAD),
	OPCODE("register of rbx", "\x09\x03\x0b", UNWIND_RULE(UNWIND_SP, 1, 0, 31)),
	OPCODE("return address elsewhere", "\x90\x02", BAD),
	OPCODE("return address in a register", "\x09\x10\x05", BAD),
	OPCODE("val_offset", "\x14\x06\x02", BAD),
	OPCODE("val_offset_sf", "\x15\x06\x02", BAD),
	OPCODE("val_expression", "\x16\x06\x02\x76\x00", BAD),
	OPCODE("val_offset of another register", "\x14\x0c\x02\x15\x0d\x02", SP(1)),
	OPCODE("GNU_args_size", "\x2e\x80\x02\x0e\x18", SP(3)),
	OPCODE("remember and restore", "\x0a\x0e\x18\x86\x02\x0b", SP(1)),
	OPCODE("remember twice", "\x0a\x0e\x18\x0a\x0e\x20\x0b", SP(3)),
	OPCODE("restore of nothing", "\x0b", BAD),
	OPCODE("advance_loc", "\x0e\x10\x41\x0e\x18", SP(3)),
	OPCODE("advance_loc1", "\x0e\x10\x02\x41\x0e\x18", SP(3)),
	OPCODE("advance_loc2", "\x0e\x10\x03\x20\x00\x0e\x18", SP(3)),
	OPCODE("advance_loc4", "\x0e\x10\x04\x20\x00\x00\x00\x0e\x18", SP(3)),
	OPCODE("MIPS_advance_loc8", "\x0e\x10\x1d\x20\0\0\0\0\0\0\0\x0e\x18", SP(3)),
	OPCODE("advance beyond the end", "\x0e\x10\x04\xff\xff\xff\xff\x0e\x18", SP(2)),
	OPCODE("advance around the end", "\x41\x1d\xff\xff\xff\xff\xff\xff\xff\xff", BAD),
	OPCODE("set_loc", "\x0e\x10\x01\x20\x11\0\0\0\0\0\0\x0e\x18", SP(3)),
	OPCODE("set_loc backwards", "\x01\x00\x10\0\0\0\0\0\0", BAD),
	OPCODE("unknown", "\x3f", BAD),
	OPCODE("cut", "\x0e", BAD),
	OPCODE("cut in a number", "\x0e\x80\x80", BAD),
	OPCODE("a number without end", "\x0e\x90\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
	       SP(2)),
	OPCODE("cut in an expression", "\x0f\x40\x77\x08", BAD),
	OPCODE("an expression without end", "\x0f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", BAD),
	OPCODE("an empty expression", "\x0f\x00", BAD),
	OPCODE("offset of an expression", "\x0f\x02\x77\x08\x0e\x10", BAD),
	OPCODE("PLT", "\x0f\x0b\x77\x08\x80\x00\x3f\x1a\x3b\x2a\x33\x24\x22",
	       UNWIND_RULE(UNWIND_PLT, 1, 0, 11)),
	OPCODE("PLT, wrong", "\x0f\x0b\x77\x08\x80\x00\x3f\x1a\x3b\x2a\x33\x24\x24", BAD),
	OPCODE("PLT, cut", "\x0f\x0a\x77\x08\x80\x00\x3f\x1a\x3b\x2a\x33\x24", BAD),
	OPCODE("realigned", "\x10\x06\x02\x76\x00\x0f\x03\x76\x78\x06",
	       UNWIND_RULE(UNWIND_BP_LOAD, -1, 1, 0)),
	OPCODE("realigned, with rbx",
	       "\x10\x06\x02\x76\x00\x10\x03\x02\x76\x70\x0f\x03\x76\x78\x06",
	       UNWIND_RULE(UNWIND_BP_LOAD, -1, 1, 3)),
	OPCODE("realigned, rbp elsewhere", "\x86\x02\x0f\x03\x76\x78\x06", BAD),
	OPCODE("realigned, at its beginning", "\x0c\x0a\x00\x10\x06\x02\x76\x00",
	       UNWIND_RULE(UNWIND_REGISTER, 0, 1, 16 | 10)),
	OPCODE("loaded from the stack", "\x0f\x06\x77\x98\x01\x06\x23\x08\x86\x02",
	       UNWIND_RULE(UNWIND_SP_LOAD, 19, 2, 1)),
	OPCODE("loaded, too much added", "\x0f\x07\x77\x98\x01\x06\x23\x80\x02", BAD),
	OPCODE("loaded from rbp, and added", "\x0f\x05\x76\x08\x06\x23\x08", BAD),
};

static void test_opcodes(void **state)
{
	for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++) {
		const struct opcode *opcode = &opcodes[i];
		struct section section = { 0 };
		struct result result;
		size_t cie = put_plain_cie(&section), position;
		uint32_t rule;

		/* Not padded: what is cut must be. */
		position = begin_fde(&section, cie, 0x1100, 0x100);
		put(&section, opcode->program, opcode->size);
		section.bytes[position] = section.size - position - 4;
		compile(&section, &result);
		rule = rule_at(&result, 0x11ff);
		if (rule != opcode->rule)
			fail_msg("%s: rule %#x, not %#x", opcode->name, rule, opcode->rule);
		assert_int_equal(rule_at(&result, 0x1200), UNWIND_RULE_NO_CFI);
	}
}

static void test_remember_limit(void **state)
{
	uint8_t program[64];
	struct section section = { 0 };
	struct result result;
	size_t cie = put_plain_cie(&section);

	memset(program, DW_CFA_remember_state, sizeof(program));
	put_fde(&section, cie, 0x1100, 0x100, program, 16);
	put_fde(&section, cie, 0x1200, 0x100, program, sizeof(program));
	compile(&section, &result);
	assert_int_equal(rule_at(&result, 0x11ff), SP(1));
	assert_int_equal(rule_at(&result, 0x12ff), UNWIND_RULE_UNSUPPORTED);
	assert_int_equal(result.counts.bad, 1);
	assert_int_equal(result.counts.unsupported, 1);
}

/* glibc's __restore_rt. */
static void test_signal(void **state)
{
	static const uint8_t program[] = {
		DW_CFA_def_cfa_expression, 4,  DW_OP_breg7, 0xa0,	 1,    DW_OP_deref,
		DW_CFA_expression,	   6,  3,	    DW_OP_breg7, 0xf8, 0,
		DW_CFA_expression,	   16, 3,	    DW_OP_breg7, 0xa8, 1,
	};
	struct section section = { 0 };
	struct result result;
	size_t cie = put_cie(&section, 1, "zRS", "\x01\x00", 2), plain;

	put_fde(&section, cie, 0x1100, 0x10, program, sizeof(program));
	plain = put_plain_cie(&section);
	put_fde(&section, plain, 0x1200, 0x10, program, sizeof(program));
	compile(&section, &result);
	assert_true(result.counts.has_signal);
	assert_int_equal(rule_at(&result, 0x1100), UNWIND_RULE(UNWIND_SIGNAL, 20, 0, 0));
	assert_int_equal(rule_at(&result, 0x1200), UNWIND_RULE_UNSUPPORTED);
}

/* ---- CIEs ---- */

struct augmentation {
	const char *letters, *data;
	size_t data_size;
	bool good;
};

static void test_augmentations(void **state)
{
	static const struct augmentation augmentations[] = {
		{ "zR", "\x01\x00", 2, true },
		{ "zRB", "\x01\x00", 2, true },
		{ "zPLR", "\x07\x9b\1\2\3\4\x1b\x00", 8, true },
		{ "zPLR", "\x0b\x00\1\2\3\4\5\6\7\x08\x1b\x00", 12, true },
		{ "zP", "\x01\xff", 2, true }, /* omitted: then absptr is what is left */
		{ "z", "\x00", 1, true },
		{ "zR", "\x01\xff", 2, false },	 /* omit */
		{ "zR", "\x01\x80", 2, false },	 /* indirect */
		{ "zR", "\x01\x20", 2, false },	 /* textrel */
		{ "zR", "\x01\x40", 2, false },	 /* funcrel */
		{ "zR", "\x01\x05", 2, false },	 /* no format */
		{ "zRP", "\x01\x00", 2, false }, /* no room for P */
		{ "zR", "\xff\x7f\x00", 3, false },
		{ "zPR", "\x03\x9b\x01\x02", 4, false },
		{ "zX", "\x01\x07", 2, true }, /* unknown, but of known size */
		{ "X", "", 0, false },
		{ "eh", "", 0, true },
		{ "", "", 0, true },
	};

	for (size_t i = 0; i < sizeof(augmentations) / sizeof(augmentations[0]); i++) {
		const struct augmentation *a = &augmentations[i];
		struct section section = { 0 };
		struct result result;
		size_t cie = put_cie(&section, i % 2 ? 1 : 3, a->letters, a->data, a->data_size);
		size_t position = section.size;

		put_number(&section, 0, 4);
		put_number(&section, section.size - cie, 4);
		put_number(&section, 0x1100, 8);
		put_number(&section, 0x100, 8);
		if (a->letters[0] == 'z')
			put_number(&section, 0, 1);
		put(&section, "\x0e\x10", 2);
		end_entry(&section, position);
		compile(&section, &result);
		if (result.counts.bad != !a->good)
			fail_msg("%zu, %s: %s", i, a->letters, a->good ? "bad" : "good");
		if (a->good && i != 2 && i != 3)
			assert_int_equal(rule_at(&result, 0x11ff), SP(2));
	}
}

static void test_bad_cies(void **state)
{
	for (unsigned kind = 0; kind < 4; kind++) {
		struct section section = { 0 };
		struct result result;
		size_t cie = put_plain_cie(&section);

		if (kind == 0)
			section.bytes[8] = 4; /* version */
		else if (kind == 1)
			section.bytes[14] = 17; /* return address */
		else if (kind == 2)
			section.bytes[17] = DW_CFA_advance_loc | 1; /* in a CIE */
		else
			memset(section.bytes + 9, 'z',
			       cie + section.size - 9); /* endless letters */
		put_fde(&section, cie, 0x1100, 0x100, "", 0);
		compile(&section, &result);
		assert_int_equal(result.counts.entries, 1);
		assert_int_equal(result.counts.bad, 1);
		assert_int_equal(result.count, 1);
	}
}

/* ---- addresses ---- */

static void test_encodings(void **state)
{
	static const struct {
		uint8_t encoding, size;
		bool is_pcrel, is_datarel;
	} forms[] = {
		{ DW_EH_PE_absptr, 8, false, false },
		{ DW_EH_PE_udata2, 2, false, false },
		{ DW_EH_PE_udata4, 4, false, false },
		{ DW_EH_PE_udata8, 8, false, false },
		{ DW_EH_PE_sdata2, 2, false, false },
		{ DW_EH_PE_sdata8, 8, false, false },
		{ DW_EH_PE_pcrel | DW_EH_PE_sdata4, 4, true, false },
		{ DW_EH_PE_pcrel | DW_EH_PE_sdata8, 8, true, false },
		{ DW_EH_PE_pcrel | DW_EH_PE_absptr, 8, true, false },
		{ DW_EH_PE_datarel | DW_EH_PE_sdata4, 4, false, true },
		{ DW_EH_PE_datarel | DW_EH_PE_sdata2, 2, false, true },
	};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		char data[2] = { 1, (char)forms[i].encoding };
		struct section section = { 0 };
		struct result result;
		size_t cie = put_cie(&section, 1, "zR", data, 2), position = section.size;
		uint64_t base;

		put_number(&section, 0, 4);
		put_number(&section, section.size - cie, 4);
		base = forms[i].is_pcrel     ? ADDRESS + section.size
		       : forms[i].is_datarel ? DATA_BASE
					     : 0;
		put_number(&section, 0x1100 - base, forms[i].size);
		put_number(&section, 0x100, forms[i].size);
		put_number(&section, 0, 1);
		end_entry(&section, position);
		compile(&section, &result);
		assert_int_equal(result.counts.bad, 0);
		assert_int_equal(rule_at(&result, 0x10ff), UNWIND_RULE_NO_CFI);
		assert_int_equal(rule_at(&result, 0x1100), SP(1));
		assert_int_equal(rule_at(&result, 0x11ff), SP(1));
		assert_int_equal(rule_at(&result, 0x1200), UNWIND_RULE_NO_CFI);
	}
}

static void test_leb_addresses(void **state)
{
	struct section section = { 0 };
	struct result result;
	size_t cie = put_cie(&section, 1, "zR", "\x01\x01", 2), position = section.size;

	put_number(&section, 0, 4);
	put_number(&section, section.size - cie, 4);
	put(&section, "\x80\x22\x80\x02\x00", 5); /* 0x1100, 0x100 */
	end_entry(&section, position);
	compile(&section, &result);
	assert_int_equal(rule_at(&result, 0x1100), SP(1));
	assert_int_equal(rule_at(&result, 0x1200), UNWIND_RULE_NO_CFI);
}

/* The form of entries larger than 4 GiB. */
static void test_long_size(void **state)
{
	struct section section = { 0 };
	struct result result;
	size_t cie = put_plain_cie(&section), position = section.size;

	put_number(&section, UINT32_MAX, 4);
	put_number(&section, 4 + 8 + 8 + 1 + 3, 8);
	put_number(&section, section.size - cie, 4);
	put_number(&section, 0x1100, 8);
	put_number(&section, 0x100, 8);
	put(&section, "\x00\x0e\x10\x00", 4);
	assert_int_equal(section.size - position, 12 + 24);
	compile(&section, &result);
	assert_int_equal(rule_at(&result, 0x1100), SP(2));
}

/* ---- functions side by side ---- */

static void test_order(void **state)
{
	struct section section = { 0 };
	struct result result;
	size_t cie = put_plain_cie(&section);

	put_fde(&section, cie, 0x1800, 0x10, "\x0e\x18", 2);
	put_fde(&section, cie, 0x1100, 0x100, "\x0e\x10", 2);
	put_fde(&section, cie, 0x1200, 0x100, "\x0e\x10", 2);  /* the same: merged */
	put_fde(&section, cie, 0x1308, 0x8, "\x0e\x20", 2);    /* behind padding */
	put_fde(&section, cie, 0x1320, 0x100, "\x0e\x28", 2);  /* behind code */
	put_fde(&section, cie, 0x1380, 0x20, "\x0e\x30", 2);   /* overlaps */
	put_fde(&section, cie, 0x1400, 0, "\x0e\x38", 2);      /* empty */
	put_fde(&section, cie, 0, 0x100, "\x0e\x38", 2);       /* thrown away */
	put_fde(&section, cie, 0x3000, 0x100, "\x0e\x38", 2);  /* beyond */
	put_fde(&section, cie, 0x2f00, 0x1000, "\x0e\x40", 2); /* to beyond */
	compile(&section, &result);
	assert_int_equal(result.counts.entries, 10);
	assert_int_equal(result.counts.bad, 0);
	assert_int_equal(rule_at(&result, 0x1100), SP(2));
	assert_int_equal(rule_at(&result, 0x12ff), SP(2));
	assert_int_equal(rule_at(&result, 0x1304), SP(2));
	assert_int_equal(rule_at(&result, 0x1308), SP(4));
	assert_int_equal(rule_at(&result, 0x1310), UNWIND_RULE_NO_CFI);
	assert_int_equal(rule_at(&result, 0x1320), SP(5));
	assert_int_equal(rule_at(&result, 0x1380), SP(6));
	assert_int_equal(rule_at(&result, 0x13a0), UNWIND_RULE_NO_CFI);
	assert_int_equal(rule_at(&result, 0x1800), SP(3));
	assert_int_equal(rule_at(&result, 0x1810), UNWIND_RULE_NO_CFI);
	assert_int_equal(rule_at(&result, 0x2fff), SP(8));
	assert_int_equal(result.rows[result.count - 1].offset, 0x2f00 - TEXT_START);
}

static void test_none(void **state)
{
	struct section section = { 0 };
	struct result result;

	compile(&section, &result);
	assert_int_equal(result.count, 1);
	assert_int_equal(result.rows[0].rule, UNWIND_RULE_NO_CFI);
}

static void test_terminator(void **state)
{
	struct section section = { 0 };
	struct result result;
	size_t cie = put_plain_cie(&section);

	put_fde(&section, cie, 0x1100, 0x100, "", 0);
	put_number(&section, 0, 4);
	put_fde(&section, cie, 0x1200, 0x100, "", 0);
	compile(&section, &result);
	assert_int_equal(result.counts.entries, 1);
}

static void test_full(void **state)
{
	uint8_t program[3000];
	struct section section = { 0 };
	struct result result;
	struct error *error;
	size_t cie = put_plain_cie(&section);

	for (size_t i = 0; i < sizeof(program); i += 3) {
		program[i] = DW_CFA_advance_loc | 1;
		program[i + 1] = DW_CFA_def_cfa_offset;
		program[i + 2] = i % 2 ? 8 : 16;
	}
	put_fde(&section, cie, 0x1100, 0x1000, program, sizeof(program));
	error = try_compile(&section, &result);
	assert_true(error_is(error, ERROR_FAILED));
	error_destroy(error);
}

/* ---- broken ---- */

static void make_sample(struct section *section)
{
	size_t cie = put_cie(section, 1, "zPLR", "\x07\x9b\1\2\3\4\x1b\x00", 8), plain;

	plain = put_plain_cie(section);
	for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++)
		put_fde(section, plain, 0x1100 + 0x20 * i, 0x20, opcodes[i].program,
			opcodes[i].size);
	put_fde(section, cie, 0x2000, 0x100, "\x0e\x10", 2);
}

static void try(const struct section *section)
{
	struct result result;
	struct error *error = try_compile(section, &result);

	error_destroy(error);
}

static void test_cut(void **state)
{
	struct section section = { 0 };

	make_sample(&section);
	while (section.size) {
		try(&section);
		section.size--;
	}
}

static void test_mutated(void **state)
{
	static const uint8_t values[] = { 0, 1, 0x7f, 0x80, 0xff };
	struct section section = { 0 };

	make_sample(&section);
	for (size_t i = 0; i < section.size; i++) {
		uint8_t byte = section.bytes[i];

		for (size_t j = 0; j < sizeof(values); j++) {
			section.bytes[i] = values[j];
			try(&section);
		}
		section.bytes[i] = byte;
	}
}

/* ---- looking up ---- */

static struct eh_frame whole(const struct section *section)
{
	return (struct eh_frame){
		.bytes = section->bytes,
		.size = section->size,
		.address = ADDRESS,
		.data_base = DATA_BASE,
		.text_start = TEXT_START,
		.text_end = TEXT_END,
	};
}

static struct eh_frame_index *make_index(const struct section *section)
{
	struct eh_frame eh_frame = whole(section);
	struct eh_frame_index *index = NULL;

	assert_null(eh_frame_index_create(&eh_frame, &index));
	return index;
}

static void test_index(void **state)
{
	struct section section = { .size = 0 };
	size_t cie = put_plain_cie(&section), second, first;
	struct eh_frame_function function;
	struct eh_frame_index *index;

	second = section.size;
	put_fde(&section, cie, 0x1100, 0x40, NULL, 0);
	first = section.size;
	put_fde(&section, cie, 0x1000, 0x80, NULL, 0);
	index = make_index(&section);
	assert_true(eh_frame_index_find(index, 0x1000, &function));
	assert_int_equal(function.start, 0x1000);
	assert_int_equal(function.end, 0x1080);
	assert_int_equal(function.position, first);
	assert_true(function.is_usual);
	assert_false(function.is_signal);
	assert_true(eh_frame_index_find(index, 0x107f, &function));
	assert_int_equal(function.position, first);
	assert_false(eh_frame_index_find(index, 0x1080, &function));
	assert_true(eh_frame_index_find(index, 0x113f, &function));
	assert_int_equal(function.position, second);
	assert_false(eh_frame_index_find(index, 0x1140, &function));
	assert_false(eh_frame_index_find(index, 0x0fff, &function));
	assert_false(eh_frame_index_find(index, TEXT_END, &function));
	eh_frame_index_destroy(index);
}

#define USUAL(program, expected)                       \
	{                                              \
		program, sizeof(program) - 1, expected \
	}

static const struct {
	const char *program;
	size_t size;
	bool is_usual;
} programs[] = {
	USUAL("\x41\x0e\x10\x86\x02", true), /* advance, def_cfa_offset, offset rbp */
	USUAL("\x0a\x0e\x20\x0b", true),     /* remember, restore */
	USUAL("\x0b", false),		     /* restores what was not remembered */
	USUAL("\x90\x01", true),	     /* offset of the return address */
	USUAL("\x91\x01", false),	     /* of a register that is none of these */
	USUAL("\x05\x11\x01", false),	     /* offset_extended of one */
	USUAL("\x09\x03\x06", true),	     /* register: rbx in rbp */
	USUAL("\x09\x03\x7f", false),	     /* in register 127 */
	USUAL("\x0c\x20\x08", false),	     /* def_cfa of one */
	USUAL("\x14\x03\x01", false),	     /* val_offset */
	USUAL("\x3e\x01", false),	     /* no operation */
	/* def_cfa_expression: breg7 8 */
	USUAL("\x0f\x02\x77\x08", true),
	/* breg7 8, deref, plus_uconst 16 */
	USUAL("\x0f\x05\x77\x08\x06\x23\x10", true),
	/* lit1, lit0, div */
	USUAL("\x0f\x03\x31\x30\x1b", false),
	/* skip back for ever */
	USUAL("\x0f\x03\x2f\xfd\xff", false),
	/* longer than the program */
	USUAL("\x0f\x20\x77\x08", false),
};

static void test_usual(void **state)
{
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		struct section section = { .size = 0 };
		size_t cie = put_plain_cie(&section);
		struct eh_frame_function function = { .is_usual = false };
		struct eh_frame_index *index;

		put_fde(&section, cie, 0x1100, 0x40, programs[i].program, programs[i].size);
		index = make_index(&section);
		if (eh_frame_index_find(index, 0x1100, &function) != true ||
		    function.is_usual != programs[i].is_usual)
			fail_msg("program %zu is %susual", i, function.is_usual ? "" : "un");
		eh_frame_index_destroy(index);
	}
}

/* A CIE whose letters others read differently, and one that leaves the CFA open. */
static void test_unusual_cies(void **state)
{
	static const uint8_t no_cfa[] = { 0x14, 0,    0,  0, 0, 0, 0, 0, 1, 'z', 'R', 0,
					  1,	0x78, 16, 1, 0, 0, 0, 0, 0, 0,	 0,   0 };
	struct eh_frame_function function;

	for (unsigned what = 0; what < 3; what++) {
		struct section section = { .size = 0 };
		size_t cie = 0;
		struct eh_frame_index *index;

		if (what == 0)
			put(&section, no_cfa, sizeof(no_cfa));
		else if (what == 1)
			cie = put_cie(&section, 1, "zRX", "\x02\x00\x00", 3);
		else
			cie = put_cie(&section, 1, "zR", "\x02\x00\x00", 3);
		put_fde(&section, cie, 0x1100, 0x40, "\x41", 1);
		index = make_index(&section);
		assert_true(eh_frame_index_find(index, 0x1100, &function));
		assert_false(function.is_usual);
		eh_frame_index_destroy(index);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prologue),       cmocka_unit_test(test_opcodes),
		cmocka_unit_test(test_remember_limit), cmocka_unit_test(test_signal),
		cmocka_unit_test(test_augmentations),  cmocka_unit_test(test_bad_cies),
		cmocka_unit_test(test_encodings),      cmocka_unit_test(test_leb_addresses),
		cmocka_unit_test(test_long_size),      cmocka_unit_test(test_order),
		cmocka_unit_test(test_none),	       cmocka_unit_test(test_terminator),
		cmocka_unit_test(test_full),	       cmocka_unit_test(test_cut),
		cmocka_unit_test(test_mutated),	       cmocka_unit_test(test_index),
		cmocka_unit_test(test_usual),	       cmocka_unit_test(test_unusual_cies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
