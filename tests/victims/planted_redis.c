/*
 * A module of redis-server: `--loadmodule FILE`, then `PLANTED leaked|kept|freed COUNT SIZE`.
 *
 * cflags: -shared -fPIC
 */
#include "planted.h"

/* As far as this needs them. Source: redis 7.0, src/redismodule.h. */
struct context {
	int (*get_api)(const char *name, void *function_ret);
};

struct text;

typedef int (*command_fn)(struct context *context, struct text **arguments, int count);

static void (*set_module)(struct context *context, const char *name, int version, int api);
static int (*create_command)(struct context *context, const char *name, command_fn command,
			     const char *flags, int first_key, int last_key, int key_step);
static const char *(*text_of)(const struct text *text, size_t *length_ret);
static int (*number_of)(const struct text *text, long long *ret);
static int (*reply_number)(struct context *context, long long number);
static int (*reply_error)(struct context *context, const char *text);

enum { REDIS_OK, REDIS_ERROR };

static int on_command(struct context *context, struct text **arguments, int count)
{
	long long blocks, size;
	plant_fn plant = NULL;
	size_t length;

	if (count == 4 && number_of(arguments[2], &blocks) == REDIS_OK &&
	    number_of(arguments[3], &size) == REDIS_OK) {
		const char *name = text_of(arguments[1], &length);

		plant = plant_by_name(name, length);
	}
	if (!plant)
		return reply_error(context, "ERR PLANTED leaked|kept|freed COUNT SIZE");
	return reply_number(context, plant(blocks, size));
}

int RedisModule_OnLoad(struct context *context, struct text **arguments, int count);

int RedisModule_OnLoad(struct context *context, struct text **arguments, int count)
{
	const struct {
		const char *name;
		void *function;
	} needed[] = {
		{ "RedisModule_SetModuleAttribs", &set_module },
		{ "RedisModule_CreateCommand", &create_command },
		{ "RedisModule_StringPtrLen", &text_of },
		{ "RedisModule_StringToLongLong", &number_of },
		{ "RedisModule_ReplyWithLongLong", &reply_number },
		{ "RedisModule_ReplyWithError", &reply_error },
	};

	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (context->get_api(needed[i].name, needed[i].function) != REDIS_OK)
			return REDIS_ERROR;
	set_module(context, "planted", 1, 1);
	return create_command(context, "planted", on_command, "", 0, 0, 0);
}
