#include "memprobe/pool_file.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/io.h"

#define WORD_MAX   128
#define OFFSET_MAX 65536

static const struct keyword {
	const char *word;
	enum pool_kind kind;
} kinds[] = {
	{ "alloc", POOL_ALLOC },
	{ "realloc", POOL_REALLOC },
	{ "free", POOL_FREE },
	{ "free-chain", POOL_FREE_CHAIN },
	{ "reset", POOL_RESET },
	{ "reset-only", POOL_RESET_ONLY },
	{ "reset-children", POOL_RESET_CHILDREN },
	{ "delete", POOL_DELETE },
	{ "move", POOL_MOVE },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- words ---- */

struct parser {
	const char *at, *end; /* of the line that is left */
	const char *line_start;
	unsigned line;
	unsigned column; /* of the word that was taken last */
	char word[WORD_MAX];
	struct pool_file *file;
};

struct error *pool_file_error(const struct pool_file *file, unsigned line, unsigned column,
			      struct error *error)
{
	return error_prefix(error, "%s:%u:%u", file->name, line, column);
}

static struct error *complain(const struct parser *parser, unsigned column, const char *what,
			      const char *subject)
{
	struct error *error = subject ? error_create(ERROR_USAGE, "%s '%s'", what, subject)
				      : error_create(ERROR_USAGE, "%s", what);

	return pool_file_error(parser->file, parser->line, column, error);
}

/* The next word into parser->word; "" at the end of the line, or where a comment begins. */
static struct error *next_word(struct parser *parser)
{
	size_t length = 0;

	while (parser->at < parser->end && isspace((unsigned char)*parser->at))
		parser->at++;
	parser->column = (unsigned)(parser->at - parser->line_start) + 1;
	parser->word[0] = '\0';
	if (parser->at < parser->end && *parser->at == '#')
		parser->at = parser->end;
	for (; parser->at < parser->end && !isspace((unsigned char)*parser->at); parser->at++) {
		if (!isgraph((unsigned char)*parser->at))
			return complain(parser, (unsigned)(parser->at - parser->line_start) + 1,
					"a character that is none of text", NULL);
		if (length + 1 == WORD_MAX)
			return complain(parser, parser->column, "a word is too long", NULL);
		parser->word[length++] = *parser->at;
	}
	parser->word[length] = '\0';
	return NULL;
}

static bool is_symbol(const char *text, size_t length)
{
	if (!length || isdigit((unsigned char)*text))
		return false;
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("_.$@", text[i]))
			return false;
	return true;
}

static struct error *take_name(const struct parser *parser, unsigned column, const char *text,
			       size_t length, char **ret)
{
	if (!is_symbol(text, length))
		return complain(parser, column, "this is no name:", text);
	free(*ret);
	*ret = strndup(text, length);
	return *ret ? NULL : &error_no_memory;
}

/* A whole number with a sign, decimal or 0x, up to @text's end. */
static struct error *take_offset(const struct parser *parser, unsigned column, const char *text,
				 const char *end, int32_t *ret)
{
	char *stop;
	long value = strtol(text, &stop, 0);

	if (stop == text || stop != end || value < -OFFSET_MAX || value > OFFSET_MAX)
		return complain(parser, column, "an offset is expected, up to 65536, not", text);
	if (value % 8)
		return complain(parser, column, "offsets are multiples of 8, not", text);
	*ret = (int32_t)value;
	return NULL;
}

/* ---- values ---- */

/* `arg3`: its number; else -1. */
static int arg_number(const char *text, size_t length)
{
	return length == 4 && !memcmp(text, "arg", 3) && text[3] >= '0' && text[3] <= '5'
		       ? text[3] - '0'
		       : -1;
}

/* argN, NAME or `return`, and [OFFSET] behind it. */
static struct error *parse_arg(const struct parser *parser, unsigned column, const char *text,
			       const char *end, struct pool_value *ret)
{
	const char *bracket = memchr(text, '[', (size_t)(end - text));
	size_t length = (size_t)((bracket ? bracket : end) - text);
	int arg = arg_number(text, length);
	struct error *error = NULL;

	if (length == 6 && !memcmp(text, "return", 6))
		ret->form = POOL_VALUE_RETURN;
	else if (arg >= 0)
		ret->arg = (uint8_t)arg;
	else
		error = take_name(parser, column, text, length, &ret->name);
	if (!error && bracket && end[-1] != ']')
		error = complain(parser, column, "a ] is missing in", text);
	if (!error && bracket) {
		ret->has_offset = true;
		error = take_offset(parser, column + (unsigned)(bracket + 1 - text), bracket + 1,
				    end - 1, &ret->offset);
	}
	return error;
}

static struct error *parse_value(const struct parser *parser, unsigned column, const char *text,
				 size_t length, bool is_context, struct pool_value *ret)
{
	static const char of_return[] = "(return)";
	const size_t tail = sizeof(of_return) - 1;
	const char *end = text + length;

	if (ret->form != POOL_VALUE_NONE)
		return complain(parser, column, "it is given twice:", text);
	ret->column = column;
	ret->form = POOL_VALUE_ARG;
	if (!length)
		return complain(parser, column, "a value is missing", NULL);
	if (length > tail && !memcmp(end - tail, of_return, tail)) {
		ret->form = POOL_VALUE_ASK;
		return take_name(parser, column, text, length - tail, &ret->name);
	}
	if (*text != '*')
		return parse_arg(parser, column, text, end, ret);
	if (is_context) {
		ret->form = POOL_VALUE_GLOBAL;
		return take_name(parser, column + 1, text + 1, length - 1, &ret->name);
	}
	ret->form = POOL_VALUE_THROUGH;
	return parse_arg(parser, column + 1, text + 1, end, ret);
}

static struct error *parse_return(const struct parser *parser, unsigned column, const char *value,
				  struct pool_function *function)
{
	function->may_refuse = true;
	return strcmp(value, "0") ? complain(parser, column, "it is 0, not", value) : NULL;
}

/* A size can be a product. */
static struct error *parse_size(const struct parser *parser, unsigned column, const char *text,
				struct pool_function *function)
{
	const char *times = *text == '*' ? NULL : strchr(text, '*');
	size_t length = times ? (size_t)(times - text) : strlen(text);
	struct error *error = parse_value(parser, column, text, length, false, &function->size);

	if (!error && times)
		error = parse_value(parser, column + (unsigned)length + 1, times + 1,
				    strlen(times + 1), false, &function->count);
	return error;
}

/* ---- lines ---- */

/* The value of `KEY=value`, or NULL. */
static const char *value_of(const char *word, const char *key)
{
	size_t length = strlen(key);

	return !strncmp(word, key, length) && word[length] == '=' ? word + length + 1 : NULL;
}

/* False: it is no condition. */
static bool parse_condition(const struct parser *parser, struct pool_condition *ret,
			    struct error **error)
{
	const char *value = value_of(parser->word, "if");
	char **name = &ret->present;

	if (!value) {
		value = value_of(parser->word, "unless");
		name = &ret->absent;
	}
	if (!value)
		return false;
	*error = take_name(parser, parser->column + (unsigned)(value - parser->word), value,
			   strlen(value), name);
	return true;
}

static struct error *parse_word(const struct parser *parser, struct pool_function *function)
{
	static const char *const keys[] = { "size",    "returns", "pointer",
					    "context", "parent",  "next" };
	struct pool_value *const values[] = {
		NULL,		NULL, &function->pointer, &function->context, &function->parent,
		&function->next
	};
	struct error *error = NULL;

	if (parse_condition(parser, &function->condition, &error))
		return error;
	if (!strcmp(parser->word, "optional")) {
		function->is_optional = true;
		return NULL;
	}
	for (unsigned i = 0; i < COUNT(keys); i++) {
		const char *value = value_of(parser->word, keys[i]);
		unsigned column = parser->column + (unsigned)strlen(keys[i]) + 1;

		if (!value)
			continue;
		if (i == 0)
			return parse_size(parser, column, value, function);
		if (i == 1)
			return parse_return(parser, column, value, function);
		return parse_value(parser, column, value, strlen(value),
				   values[i] == &function->context, values[i]);
	}
	return complain(
		parser, parser->column,
		"pointer=, size=, context=, parent=, next=, returns=, if=, unless= or optional is "
		"expected, not",
		parser->word);
}

static bool is_plain_arg(const struct pool_value *value)
{
	return value->form == POOL_VALUE_ARG && !value->has_offset;
}

/* Known before the call, or only by what it returns. */
static bool is_size(const struct pool_function *function)
{
	const struct pool_value *size = &function->size;

	if (is_plain_arg(size))
		return !function->count.form || is_plain_arg(&function->count);
	return function->kind == POOL_ALLOC && !function->count.form &&
	       ((size->form == POOL_VALUE_RETURN && size->has_offset) ||
		(size->form == POOL_VALUE_ASK && !strcmp(size->name, "string")));
}

static const char *what_is_missing_of_a_block(const struct pool_function *function)
{
	bool allocates = function->kind == POOL_ALLOC || function->kind == POOL_REALLOC;

	if (allocates && !function->size.form)
		return "size=ARGUMENT is missing";
	if (allocates && !is_size(function))
		return "a size is made of arguments, or of an alloc return[OFFSET] or string(return)";
	if (function->kind == POOL_ALLOC &&
	    (function->pointer.form == POOL_VALUE_ARG || function->pointer.has_offset))
		return "pointer= of an alloc is return or *ARGUMENT";
	if (function->kind != POOL_ALLOC && !is_plain_arg(&function->pointer))
		return "pointer=ARGUMENT is missing";
	if (function->kind == POOL_FREE_CHAIN && !is_plain_arg(&function->next))
		return "next=ARGUMENT is missing";
	return NULL;
}

static const char *what_is_missing(const struct pool_function *function)
{
	bool allocates = function->kind == POOL_ALLOC || function->kind == POOL_REALLOC;

	if (function->may_refuse && function->kind != POOL_FREE)
		return "returns= is for free";
	if (function->parent.form && function->kind != POOL_MOVE)
		return "parent= is for move";
	if (function->next.form && function->kind != POOL_FREE_CHAIN)
		return "next= is for free-chain";
	if (function->context.form == POOL_VALUE_RETURN)
		return "a context cannot be what is returned";
	if (function->context.form == POOL_VALUE_ASK && !allocates)
		return "only what allocates can ask for a context";
	if (function->kind < POOL_RESET)
		return what_is_missing_of_a_block(function);
	if (!function->context.form)
		return "context= is missing";
	if (function->pointer.form || function->size.form)
		return "there is nothing to it but a context";
	if (function->kind == POOL_MOVE && !is_plain_arg(&function->parent))
		return "parent=ARGUMENT is missing";
	return NULL;
}

static struct error *parse_function(struct parser *parser, enum pool_kind kind)
{
	struct pool_function function = { .kind = kind, .line = parser->line };
	struct error *error = next_word(parser);
	const char *missing;

	function.column = parser->column;
	if (!error && !*parser->word)
		error = complain(parser, parser->column, "the name of a function is missing", NULL);
	if (!error)
		error = take_name(parser, parser->column, parser->word, strlen(parser->word),
				  &function.name);
	while (!error && !(error = next_word(parser)) && *parser->word)
		error = parse_word(parser, &function);
	missing = error ? NULL : what_is_missing(&function);
	if (missing)
		error = complain(parser, function.column, missing, NULL);
	/* From here on it is the file's to release. */
	if (pool_function_vec_append(&parser->file->functions, &function)) {
		error_destroy(error);
		error = &error_no_memory;
	}
	return error;
}

static struct error *parse_tree(struct parser *parser)
{
	struct pool_tree tree = { .line = parser->line };
	unsigned column = parser->column;
	bool has_child = false, has_next = false;
	struct error *error = NULL;

	while (!error && !(error = next_word(parser)) && *parser->word) {
		const char *child = value_of(parser->word, "child");
		const char *next = value_of(parser->word, "next");
		const char *node = value_of(parser->word, "node");
		const char *parent = value_of(parser->word, "parent");
		const char *value = child ? child : next ? next : node ? node : parent;

		has_child |= child != NULL;
		has_next |= next != NULL;
		tree.has_parent |= parent != NULL;
		if (value)
			error = take_offset(parser,
					    parser->column + (unsigned)(value - parser->word),
					    value, value + strlen(value),
					    child  ? &tree.child
					    : next ? &tree.next
					    : node ? &tree.node
						   : &tree.parent);
		else if (!strcmp(parser->word, "blocks"))
			tree.is_blocks = true;
		else if (!parse_condition(parser, &tree.condition, &error))
			error = complain(
				parser, parser->column,
				"child=, next=, parent=, node=, if=, unless= or blocks is expected, not",
				parser->word);
	}
	if (!error && (!has_child || !has_next))
		error = complain(parser, column, "a tree needs child=OFFSET and next=OFFSET", NULL);
	if (pool_tree_vec_append(&parser->file->trees, &tree)) {
		error_destroy(error);
		error = &error_no_memory;
	}
	return error;
}

static struct error *parse_line(struct parser *parser)
{
	struct error *error = next_word(parser);

	if (error || !*parser->word)
		return error;
	if (!strcmp(parser->word, "tree"))
		return parse_tree(parser);
	for (unsigned i = 0; i < COUNT(kinds); i++)
		if (!strcmp(parser->word, kinds[i].word))
			return parse_function(parser, kinds[i].kind);
	return complain(
		parser, parser->column,
		"alloc, realloc, free, free-chain, reset, reset-only, reset-children, delete, move or "
		"tree is expected, not",
		parser->word);
}

/* ---- files ---- */

struct error *pool_file_parse(const char *name, const char *text, size_t size,
			      struct pool_file **ret)
{
	cleanup(pool_file) struct pool_file *file = calloc(1, sizeof(*file));
	struct parser parser = { .file = file };
	const char *end = text + size;
	struct error *error = NULL;

	if (!file || !(file->name = strdup(name)))
		return &error_no_memory;
	while (!error && text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));

		parser.at = parser.line_start = text;
		parser.end = newline ? newline : end;
		parser.line++;
		error = parse_line(&parser);
		text = parser.end + 1;
	}
	if (!error && !file->functions.size)
		error = error_create(ERROR_USAGE, "%s names no function", name);
	if (!error)
		*ret = take_pointer(file);
	return error;
}

struct error *pool_file_open(const char *name, const char *directory, struct pool_file **ret)
{
	cleanup(free) char *path = NULL, *text = NULL;
	struct error *error;
	size_t size;

	if (strpbrk(name, "/.") ? !(path = strdup(name))
				: asprintf(&path, "%s/%s.pool", directory, name) < 0) {
		path = NULL;
		return &error_no_memory;
	}
	error = read_file_at(AT_FDCWD, path, &text, &size);
	if (error)
		return error;
	return pool_file_parse(strpbrk(name, "/.") ? name : strrchr(path, '/') + 1, text, size,
			       ret);
}

static void value_deinit(struct pool_value *value)
{
	free(value->name);
}

static void condition_deinit(struct pool_condition *condition)
{
	free(condition->present);
	free(condition->absent);
}

void pool_file_destroy(struct pool_file *file)
{
	if (!file)
		return;
	vec_for_each (function, &file->functions) {
		free(function->name);
		value_deinit(&function->pointer);
		value_deinit(&function->size);
		value_deinit(&function->count);
		value_deinit(&function->context);
		value_deinit(&function->parent);
		value_deinit(&function->next);
		condition_deinit(&function->condition);
	}
	vec_for_each (tree, &file->trees)
		condition_deinit(&tree->condition);
	pool_function_vec_deinit(&file->functions);
	pool_tree_vec_deinit(&file->trees);
	free(file->name);
	free(file);
}
