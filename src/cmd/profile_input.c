#include "profile_input.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/io.h"
#include "memprobe/log.h"
#include "memprobe/pprof_read.h"
#include "memprobe/sites_json.h"
#include "memprobe/stack_text.h"

struct error *input_read(const char *path, char **text_ret, size_t *size_ret)
{
	if (!strcmp(path, "-"))
		return read_fd(STDIN_FILENO, "standard input", text_ret, size_ret);
	return read_file_at(AT_FDCWD, path, text_ret, size_ret);
}

bool input_is_json(const char *text)
{
	text += strspn(text, " \t\r\n");
	return *text == '{';
}

/* `redis-server 314: allocs`, for a title. */
static struct error *set_name(struct profile *profile, const json_t *document)
{
	const json_t *target = json_object_get(document, "target");
	const char *name = json_string_value(json_object_get(target, "name"));
	const char *command = json_string_value(json_object_get(document, "command"));
	json_int_t pid = json_integer_value(json_object_get(target, "pid"));
	cleanup(free) char *title = NULL;

	if (!name || !command)
		return NULL;
	if (asprintf(&title, "%s %lld: %s", name, (long long)pid, command) < 0) {
		title = NULL;
		return &error_no_memory;
	}
	return profile_intern(profile, title, &profile->name);
}

static struct error *read_json(const char *path, const char *text, size_t size,
			       struct profile *profile, size_t *left_out_ret)
{
	json_error_t problem;
	json_t *document = json_loadb(text, size, 0, &problem);
	struct error *error;

	if (!document)
		return error_create(ERROR_FAILED, "cannot read %s: line %d: %s", path, problem.line,
				    problem.text);
	error = error_prefix(sites_json_read(document, profile, left_out_ret), "cannot read %s",
			     path);
	if (!error)
		error = set_name(profile, document);
	json_decref(document);
	return error;
}

static struct error *read_text(struct command_context *context, const char *path, const char *text,
			       size_t size, struct profile *profile)
{
	struct stack_text_result result;
	struct error *error = profile_set_column(profile, PROFILE_COUNT, NULL, NULL);

	if (!error)
		error = profile_set_column(profile, PROFILE_BYTES, "samples", "samples");
	if (!error)
		error = stack_text_read(text, size, profile, &result);
	if (!error && result.event)
		error = profile_set_column(profile, PROFILE_BYTES, "samples", result.event);
	if (error || !profile->sites.size)
		return error;
	if (result.other_events)
		log_warn("%s: %zu samples are of other events than the first, and left out", path,
			 result.other_events);
	if (!result.left_out)
		return NULL;
	log_warn("%s: %zu of %zu lines are left out for making no sense; the first is line %zu",
		 path, result.left_out, result.lines, result.first_left);
	context->status = ERROR_PARTIAL;
	return NULL;
}

struct error *profile_input_parse(struct command_context *context, const char *path,
				  const char *text, size_t size, bool may_be_empty,
				  struct profile **ret)
{
	cleanup(profile) struct profile *profile = NULL;
	bool is_pprof = pprof_is(text, size), is_json = !is_pprof && input_is_json(text);
	size_t left_out = 0;
	struct error *error = profile_create(&profile);

	if (!error && is_pprof)
		error = error_prefix(pprof_read(text, size, profile, &left_out), "cannot read %s",
				     path);
	else if (!error && is_json)
		error = read_json(path, text, size, profile, &left_out);
	else if (!error)
		error = read_text(context, path, text, size, profile);
	if (error)
		return error;
	/* A recording of nothing is one, too; as text it is empty. */
	if (!profile->sites.size && (!may_be_empty || left_out || !(is_json || is_pprof || !size)))
		return error_hint(error_create(ERROR_FAILED, "there are no stacks in %s", path),
				  "memprobe reads folded stacks, pprof, JSON with `sites`, `perf "
				  "script`, and stap's print_usyms()");
	if (left_out) {
		log_warn("%s: %zu sites are left out: they are broken", path, left_out);
		context->status = ERROR_PARTIAL;
	}
	*ret = take_pointer(profile);
	return NULL;
}

struct error *profile_input_read(struct command_context *context, const char *path,
				 bool may_be_empty, struct profile **ret)
{
	cleanup(free) char *text = NULL;
	size_t size;
	struct error *error = input_read(path, &text, &size);

	return error ? error : profile_input_parse(context, path, text, size, may_be_empty, ret);
}
