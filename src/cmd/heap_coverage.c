#include "heap_coverage.h"

#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/num.h"

#define PAGES 4096u
/* Less than this beside the heap is no news. */
#define ANONYMOUS_MUCH (1u << 20)

/* Runtimes with a heap beside malloc's, by a part of a module's name. */
static const struct {
	const char *module, *name;
	enum diagnose_runtime kind;
} runtimes[] = {
	{ "libjvm.so", "java: its heap", RUNTIME_JAVA },
	{ "libpython", "python: pymalloc", RUNTIME_PYTHON },
	{ "/python", "python: pymalloc", RUNTIME_PYTHON },
	{ "libnode", "node: V8", RUNTIME_OTHER },
	{ "/node", "node: V8", RUNTIME_OTHER },
	{ "libruby", "ruby: its heap pages", RUNTIME_OTHER },
	{ "/ruby", "ruby: its heap pages", RUNTIME_OTHER },
	{ "libphp", "php: zend_mm", RUNTIME_OTHER },
	{ "/php", "php: zend_mm", RUNTIME_OTHER },
	{ "libmono", "mono: its heap", RUNTIME_OTHER },
	{ "libcoreclr", ".NET: its heap", RUNTIME_OTHER },
	{ "libluajit", "luajit: its heap", RUNTIME_OTHER },
};

static bool is_go(struct target *target, const struct module_vec *modules)
{
	Elf64_Shdr section;

	vec_for_each (module, modules)
		if (module->is_exe && module_section(target, module, ".gopclntab", &section))
			return true;
	return false;
}

const char *heap_coverage_runtime(struct target *target, enum diagnose_runtime *kind_ret)
{
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	*kind_ret = RUNTIME_NONE;
	if (error) {
		error_destroy(error);
		return NULL;
	}
	for (size_t i = 0; i < sizeof(runtimes) / sizeof(runtimes[0]); i++) {
		bool of_program = runtimes[i].module[0] == '/';

		vec_for_each (module, modules) {
			if (!strstr(module->path, runtimes[i].module) ||
			    (of_program && !module->is_exe))
				continue;
			*kind_ret = runtimes[i].kind;
			return runtimes[i].name;
		}
	}
	if (!is_go(target, modules))
		return NULL;
	*kind_ret = RUNTIME_GO;
	return "go: its heap and stacks";
}

/* Pages of [start, end) that hold something, in bytes. */
static uint64_t present_bytes(struct target *target, uint64_t start, uint64_t end)
{
	static const uint64_t window = PAGES * (uint64_t)PAGE_SIZE;
	bool present[PAGES];
	uint64_t bytes = 0;

	for (; start < end; start += window) {
		size_t pages = (min_u64(end - start, window) + PAGE_SIZE - 1) / PAGE_SIZE;
		struct error *error = target_page_present(target, start, pages, present);

		for (size_t i = 0; !error && i < pages; i++)
			bytes += present[i] ? PAGE_SIZE : 0;
		error_destroy(error);
	}
	return bytes;
}

/* What @heap has of @mapping; neighbours may share a page. */
static uint64_t walked_bytes(struct target *target, const struct heap *heap,
			     const struct mapping *mapping)
{
	uint64_t bytes = 0, done = mapping->start;

	vec_for_each (region, &heap->regions) {
		uint64_t start, end;

		if (region->end <= mapping->start)
			continue;
		if (region->start >= mapping->end)
			break;
		start = max_u64(done, round_down(region->start, PAGE_SIZE));
		end = min_u64(mapping->end, round_up(region->end, PAGE_SIZE));
		if (start >= end)
			continue;
		bytes += present_bytes(target, start, end);
		done = end;
	}
	/* Swapped pages hold something, too. */
	return min_u64(bytes, mapping->usage.rss);
}

static bool is_anonymous(const struct mapping *mapping)
{
	return !mapping->inode && !(mapping->perms & PERM_SHARED) &&
	       (!mapping->path[0] || !strcmp(mapping->path, "[heap]") ||
		!strncmp(mapping->path, "[anon:", 6));
}

void heap_coverage_read(struct target *live, const struct heap *heap, struct heap_coverage *ret)
{
	struct mapping_vec maps = { 0 };
	enum diagnose_runtime kind;
	struct error *error;

	*ret = (struct heap_coverage){ 0 };
	if (!live->process)
		return;
	error = target_read_maps(live, MAPS_USAGE, &maps);
	error_destroy(error);
	ret->known = !error && maps.size;
	vec_for_each (mapping, &maps) {
		uint64_t walked = is_anonymous(mapping) ? walked_bytes(live, heap, mapping) : 0;

		ret->known &= mapping->usage_known;
		ret->rss += mapping->usage.rss;
		ret->walked += walked;
		if (is_anonymous(mapping))
			ret->anonymous += mapping->usage.rss - walked;
	}
	mappings_deinit(&maps);
	if (ret->anonymous >= ANONYMOUS_MUCH)
		ret->runtime = heap_coverage_runtime(live, &kind);
}

json_t *heap_coverage_json(const struct heap_coverage *coverage)
{
	json_t *object;

	if (!coverage->known)
		return json_null();
	object = json_object();
	json_object_set_new(object, "rss", json_number(coverage->rss));
	json_object_set_new(object, "walked", json_number(coverage->walked));
	json_object_set_new(object, "unexplained", json_number(coverage->rss - coverage->walked));
	return object;
}

void heap_coverage_print(FILE *out, struct table_style style, const struct heap_coverage *coverage)
{
	char text[3][TABLE_SIZE_MAX];

	if (!coverage->known)
		return;
	fprintf(out, "malloc %s of %s RSS", table_size(style, coverage->walked, text[0]),
		table_size(style, coverage->rss, text[1]));
	if (coverage->anonymous >= ANONYMOUS_MUCH)
		fprintf(out, "; %s anonymous memory is not malloc's%s%s%s",
			table_size(style, coverage->anonymous, text[2]),
			coverage->runtime ? " (" : "", coverage->runtime ? coverage->runtime : "",
			coverage->runtime ? ")" : "");
	fputc('\n', out);
}
