#include "memprobe/object_type.h"

#include <ctype.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/hash_index.h"
#include "memprobe/lower_bound.h"
#include "memprobe/map64.h"
#include "memprobe/num.h"

/* Of a mangled name; longer ones have no type. */
#define NAME_MAX_BYTES 4096u
/* The farthest that a base may lie in an object. */
#define TOP_MAX	   (16u << 20)
#define PAGE_SLOTS 256u
/* What is remembered of addresses that are none: 2 MiB. What comes later is asked again. */
#define REMEMBERED_MAX (1u << 17)
/* Questions to the symbol tables: each may be for an address of its own that is none. */
#define SYMBOL_QUESTIONS 65536u
/* Program headers of a module. */
#define PROGRAM_HEADERS 64u

/* They stay where they are when there are more. */
typedef struct object_type *object_type_pointer;
VEC_DEFINE(object_type_vec, object_type_pointer)

/* A table: its type, and where in the object its vptr is. */
struct vtable {
	const struct object_type *type;
	uint64_t top;
};

VEC_DEFINE(vtable_vec, struct vtable)

/* Memory that a module's file has when it is loaded, its zeroed data included. */
struct span {
	uint64_t start, end;
	bool executable;
};

VEC_DEFINE(span_vec, struct span)

struct page {
	uint64_t address; /* UINT64_MAX: nothing is here */
	bool readable;
	uint8_t bytes[PAGE_SIZE];
};

struct object_types {
	struct target *target;
	unsigned word;
	struct span_vec spans; /* by address */
	/* All spans are in these two ranges, around the widest gap between them. */
	uint64_t low[2], length[2];
	struct map64 vtables; /* by address: index into vtable_vec; 0: none */
	struct vtable_vec found;
	struct map64 class_tables; /* of type_infos: 1 or 0 */
	struct map64 names;	   /* hash of a name: its type */
	struct object_type_vec types;
	struct page *pages;
	struct symbolizer *symbolizer; /* NULL: not asked for yet */
	unsigned questions;
	bool lacks_memory;
};

/* ---- modules ---- */

static int compare_spans(const void *left, const void *right)
{
	const struct span *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

static struct error *add_segments(struct object_types *types, const struct module *module,
				  bool *any_ret)
{
	struct error *error = NULL;

	vec_for_each (segment, &module->segments) {
		struct span span = { segment->start, segment->end, segment->perms & PERM_EXEC };

		if (!error)
			error = span_vec_append(&types->spans, &span);
		*any_ret = true;
	}
	return error;
}

static struct error *add_module(struct object_types *types, struct module *module)
{
	const uint64_t mask = types->word == 4 ? UINT32_MAX : UINT64_MAX;
	bool any = false;
	Elf64_Phdr header;

	for (unsigned i = 0; i < PROGRAM_HEADERS; i++) {
		struct span span;
		struct error *error;

		if (!module_program_header(types->target, module, i, &header))
			break;
		if (header.p_type != PT_LOAD || !header.p_memsz)
			continue;
		span.start = (module->bias + header.p_vaddr) & mask;
		span.end = span.start + header.p_memsz;
		span.executable = header.p_flags & PF_X;
		if (span.end <= span.start || span.start < module->start ||
		    span.start >= module->end)
			continue;
		error = span_vec_append(&types->spans, &span);
		if (error)
			return error;
		any = true;
	}
	return any ? NULL : add_segments(types, module, &any);
}

static void set_ranges(struct object_types *types)
{
	const struct span_vec *spans = &types->spans;
	size_t split = spans->size;
	uint64_t widest = 0;

	if (!spans->size)
		return;
	for (size_t i = 1; i < spans->size; i++) {
		uint64_t gap = spans->data[i].start - spans->data[i - 1].end;

		if (spans->data[i].start > spans->data[i - 1].end && gap > widest) {
			widest = gap;
			split = i;
		}
	}
	types->low[0] = spans->data[0].start;
	types->length[0] = spans->data[split - 1].end - types->low[0];
	if (split == spans->size)
		return;
	types->low[1] = spans->data[split].start;
	types->length[1] = spans->data[spans->size - 1].end - types->low[1];
}

static const struct span *span_at(const struct object_types *types, uint64_t address)
{
	size_t low = lower_bound(types->spans.data, types->spans.size, span, span->end <= address);

	if (low == types->spans.size || types->spans.data[low].start > address)
		return NULL;
	return &types->spans.data[low];
}

struct error *object_types_create(struct target *target, struct object_types **ret)
{
	cleanup(object_types) struct object_types *types = calloc(1, sizeof(*types));
	const struct vtable none = { 0 };
	struct error *error;

	if (!types)
		return &error_no_memory;
	types->target = target;
	types->word = target->arch->word_size;
	types->pages = malloc(PAGE_SLOTS * sizeof(*types->pages));
	if (!types->pages)
		return &error_no_memory;
	for (unsigned i = 0; i < PAGE_SLOTS; i++)
		types->pages[i].address = UINT64_MAX;
	error = vtable_vec_append(&types->found, &none);
	if (!error) {
		const struct module_vec *modules;

		error = target_modules(target, &modules);
	}
	vec_for_each (module, &target->modules)
		if (!error)
			error = add_module(types, module);
	if (error)
		return error;
	if (types->spans.size)
		qsort(types->spans.data, types->spans.size, sizeof(*types->spans.data),
		      compare_spans);
	set_ranges(types);
	*ret = take_pointer(types);
	return NULL;
}

void object_types_destroy(struct object_types *types)
{
	if (!types)
		return;
	vec_for_each (type, &types->types) {
		free((*type)->name);
		free(*type);
	}
	object_type_vec_deinit(&types->types);
	vtable_vec_deinit(&types->found);
	span_vec_deinit(&types->spans);
	map64_deinit(&types->vtables);
	map64_deinit(&types->class_tables);
	map64_deinit(&types->names);
	symbolizer_destroy(types->symbolizer);
	free(types->pages);
	free(types);
}

/* ---- memory ---- */

/* The page that has @address, or NULL if it cannot be read. */
static struct error *page_at(struct object_types *types, uint64_t address, const uint8_t **ret)
{
	uint64_t start = round_down(address, PAGE_SIZE);
	struct page *page = &types->pages[start / PAGE_SIZE % PAGE_SLOTS];

	*ret = NULL;
	if (page->address != start) {
		struct error *error = target_read(types->target, start, page->bytes, PAGE_SIZE);

		page->address = UINT64_MAX;
		if (error && !error_is(error, ERROR_FAULT))
			return error;
		page->address = start;
		page->readable = !error;
		if (error && span_at(types, address))
			types->lacks_memory = true;
		error_destroy(error);
	}
	*ret = page->readable ? page->bytes : NULL;
	return NULL;
}

/* An aligned word; *good is made false if there is none. */
static struct error *read_word(struct object_types *types, uint64_t address, uint64_t *ret,
			       bool *good)
{
	const uint8_t *page = NULL;
	struct error *error = NULL;

	*ret = 0;
	if (*good && address % types->word == 0)
		error = page_at(types, address, &page);
	*good = page != NULL;
	if (page)
		*ret = load_word(page + address % PAGE_SIZE, types->word);
	return error;
}

/* A text that could be a mangled type; *good is made false if it is none. */
static struct error *read_name(struct object_types *types, uint64_t address,
			       char name[NAME_MAX_BYTES], bool *good)
{
	for (size_t length = 0; *good && length < NAME_MAX_BYTES; length++, address++) {
		const uint8_t *page;
		struct error *error = page_at(types, address, &page);
		unsigned char c;

		if (error)
			return error;
		if (!page)
			break;
		c = page[address % PAGE_SIZE];
		name[length] = c;
		if (c == '\0') {
			*good = length > 0;
			return NULL;
		}
		/* Types of one file only begin with a star; UTF-8 may stand in identifiers. */
		if (!isalnum(c) && c != '_' && c != '.' && c != '$' && c < 0x80 &&
		    !(c == '*' && length == 0))
			break;
	}
	*good = false;
	return NULL;
}

/* ---- names ---- */

/* Takes over @name. */
static struct error *intern(struct object_types *types, char *name, const struct object_type **ret)
{
	uint64_t key = hash_bytes(HASH_SEED, name, strlen(name)), index;
	struct object_type *type;
	struct error *error;

	for (; (index = map64_get(&types->names, key)) != MAP64_NONE; key++) {
		if (strcmp(types->types.data[index]->name, name))
			continue;
		free(name);
		*ret = types->types.data[index];
		return NULL;
	}
	type = malloc(sizeof(*type));
	if (!type) {
		free(name);
		return &error_no_memory;
	}
	*type = (struct object_type){ name, types->types.size };
	error = object_type_vec_append(&types->types, &type);
	if (error) {
		free(name);
		free(type);
		return error;
	}
	*ret = type;
	return map64_put(&types->names, key, type->index);
}

/* The rest of a demangled symbol: `vtable for T`; "" if it is none of these. */
static const char *without_kind(const char *text)
{
	static const char *const kinds[] = { "vtable for ", "typeinfo for ",
					     "construction vtable for " };

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strncmp(text, kinds[i], strlen(kinds[i])))
			return text + strlen(kinds[i]);
	return "";
}

/* @symbol is mangled, beginning with _ZT. *ret NULL: it is no type's. */
static struct error *type_of_symbol(struct object_types *types, const char *symbol,
				    const struct object_type **ret)
{
	cleanup(free) char *text = demangle(symbol);
	char *name;

	*ret = NULL;
	if (!text)
		return &error_no_memory;
	if (!*without_kind(text))
		return NULL;
	name = strdup(without_kind(text));
	return name ? intern(types, name, ret) : &error_no_memory;
}

/* ---- type information ---- */

static bool is_class_type_info(const char *name)
{
	return !strcmp(name, "N10__cxxabiv117__class_type_infoE") ||
	       !strcmp(name, "N10__cxxabiv120__si_class_type_infoE") ||
	       !strcmp(name, "N10__cxxabiv121__vmi_class_type_infoE");
}

/*
 * Whether @vptr is that of the type_info of a class. The library's own classes have type
 * information, too, whose name says it: no symbol is needed, wherever the library is.
 */
static struct error *is_type_info_vptr(struct object_types *types, uint64_t vptr, bool *ret)
{
	uint64_t known = map64_get(&types->class_tables, vptr), info, at;
	char name[NAME_MAX_BYTES];
	bool good = vptr >= 2 * types->word;
	struct error *error;

	*ret = known == 1;
	if (known != MAP64_NONE)
		return NULL;
	error = read_word(types, vptr - types->word, &info, &good);
	if (!error)
		error = read_word(types, info + types->word, &at, &good);
	if (!error)
		error = read_name(types, at, name, &good);
	*ret = !error && good && is_class_type_info(name);
	if (error || types->class_tables.size >= REMEMBERED_MAX)
		return error;
	return map64_put(&types->class_tables, vptr, *ret);
}

static struct error *type_of_info(struct object_types *types, uint64_t info,
				  const struct object_type **ret)
{
	static const char prefix[] = "_ZTI";
	char symbol[sizeof(prefix) + NAME_MAX_BYTES], *name = symbol + strlen(prefix);
	uint64_t vptr, at;
	bool good = true;
	struct error *error = read_word(types, info, &vptr, &good);

	*ret = NULL;
	if (!error)
		error = read_word(types, info + types->word, &at, &good);
	if (!error && good)
		error = is_type_info_vptr(types, vptr, &good);
	if (!error)
		error = read_name(types, at, name, &good);
	if (error || !good)
		return error;
	if (*name == '*')
		memmove(name, name + 1, strlen(name));
	memcpy(symbol, prefix, strlen(prefix));
	return type_of_symbol(types, symbol, ret);
}

/* ---- tables ---- */

static struct error *ask_symbols(struct object_types *types, uint64_t vptr,
				 const struct object_type **ret)
{
	cleanup(free) char *name = NULL;
	struct error *error = NULL;
	uint64_t offset;

	*ret = NULL;
	if (types->questions++ >= SYMBOL_QUESTIONS)
		return NULL;
	if (!types->symbolizer)
		error = symbolizer_create(types->target, &types->symbolizer);
	if (!error)
		error = symbolizer_name(types->symbolizer, vptr, &name, &offset);
	if (error || !name || offset < 2 * types->word ||
	    (strncmp(name, "_ZTV", 4) && strncmp(name, "_ZTC", 4)))
		return error;
	return type_of_symbol(types, name, ret);
}

/* Looks for a table at an address that lies in a module. */
static struct error *look(struct object_types *types, uint64_t vptr, struct vtable *ret)
{
	const unsigned word = types->word;
	const struct span *span;
	uint64_t top, info, function;
	bool good = true;
	struct error *error = read_word(types, vptr - 2 * word, &top, &good);

	if (!error)
		error = read_word(types, vptr - word, &info, &good);
	top = word == 4 ? (uint32_t)-top : -top;
	if (error || !good || top > TOP_MAX || top % word)
		return error;
	ret->top = top;
	if (info)
		return type_of_info(types, info, &ret->type);
	/* Neither without type information nor without functions: that would be anything. */
	error = read_word(types, vptr, &function, &good);
	if (error || !good)
		return error;
	span = span_at(types, function);
	return span && span->executable ? ask_symbols(types, vptr, &ret->type) : NULL;
}

static inline bool in_ranges(const struct object_types *types, uint64_t address)
{
	return address - types->low[0] < types->length[0] ||
	       address - types->low[1] < types->length[1];
}

struct error *object_types_at(struct object_types *types, uint64_t vptr,
			      const struct object_type **ret, uint64_t *top_ret)
{
	struct vtable vtable = { 0 };
	struct error *error;
	uint64_t index;

	*ret = NULL;
	*top_ret = 0;
	if (!in_ranges(types, vptr) || vptr % types->word)
		return NULL;
	index = map64_get(&types->vtables, vptr);
	if (index != MAP64_NONE) {
		*ret = types->found.data[index].type;
		*top_ret = types->found.data[index].top;
		return NULL;
	}
	if (!span_at(types, vptr - 1))
		return NULL;
	error = look(types, vptr, &vtable);
	if (error || (!vtable.type && types->vtables.size >= REMEMBERED_MAX))
		return error;
	index = vtable.type ? types->found.size : 0;
	if (vtable.type)
		error = vtable_vec_append(&types->found, &vtable);
	if (!error)
		error = map64_put(&types->vtables, vptr, index);
	*ret = vtable.type;
	*top_ret = vtable.top;
	return error;
}

/* ---- blocks ---- */

static struct error *type_named(struct object_types *types, const struct object_type *type,
				const char *format, uint64_t number, const struct object_type **ret)
{
	char suffix[48], *name;
	int length = snprintf(suffix, sizeof(suffix), format, (unsigned long long)number);

	name = malloc(strlen(type->name) + length + 1);
	if (!name)
		return &error_no_memory;
	memcpy(name, type->name, strlen(type->name));
	memcpy(name + strlen(type->name), suffix, length + 1);
	return intern(types, name, ret);
}

/*
 * `new T[n]` puts n in front of the objects, if they have a destructor. With two objects at least,
 * the second must be where a size of T can have put it.
 */
static struct error *type_of_array(struct object_types *types, uint64_t address, uint64_t size,
				   uint64_t count, uint64_t vptr, const struct object_type **ret)
{
	const unsigned word = types->word;
	const struct object_type *type;
	uint64_t top, stride, slack = 3 * 8 - 1;
	struct error *error;

	if (count < 2 || count > size / word)
		return NULL;
	error = object_types_at(types, vptr, &type, &top);
	if (error || !type || top)
		return error;
	/* The allocator rounds up: of the sizes that are possible, one fits. */
	for (stride = round_down((size - word) / count, word);
	     stride >= word && count * stride + word + slack >= size; stride -= word) {
		uint64_t second = 0;

		error = target_read_word(types->target, address + word + stride, &second);
		if (error_is(error, ERROR_FAULT)) {
			error_destroy(error);
			return NULL;
		}
		if (error)
			return error;
		if (second == vptr)
			return type_named(types, type, "[]", 0, ret);
	}
	return NULL;
}

struct error *object_types_of_block(struct object_types *types, uint64_t address, uint64_t size,
				    const void *bytes, size_t bytes_size,
				    const struct object_type **ret)
{
	const unsigned word = types->word;
	const uint8_t *at = bytes;
	uint64_t first, second, top;
	struct error *error;

	*ret = NULL;
	if (bytes_size < word)
		return NULL;
	first = load_word(at, word);
	error = object_types_at(types, first, ret, &top);
	if (error || (!*ret && bytes_size < 2 * word))
		return error;
	/* No object begins in its middle; but that is what stands here. */
	if (*ret)
		return top ? type_named(types, *ret, " (its base at +%llu)", top, ret) : NULL;
	second = load_word(at + word, word);
	return in_ranges(types, second) ? type_of_array(types, address, size, first, second, ret)
					: NULL;
}

bool object_types_lack_memory(const struct object_types *types)
{
	return types->lacks_memory;
}

const struct object_type *object_types_get(const struct object_types *types, unsigned index)
{
	return types->types.data[index];
}
