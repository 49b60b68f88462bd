/*
 * Functions of MariaDB: `create function planted returns integer soname 'planted_mariadb.so'`, then
 * `select planted('leaked', COUNT, SIZE)`.
 *
 * cflags: -shared -fPIC
 */
#include "planted.h"

#include <stdio.h>

/* As far as this needs them. Source: MariaDB 10.11, include/mysql/udf_registration_types.h. */
enum item_result { RESULT_STRING, RESULT_REAL, RESULT_INT };

struct udf_arguments {
	unsigned int count;
	enum item_result *types;
	char **values;
	unsigned long *lengths;
};

#define MESSAGE_MAX 512

/* The first argument is a text, the others are cast to integers. */
char planted_init(void *init, struct udf_arguments *arguments, char *message);
long long planted(void *init, struct udf_arguments *arguments, char *is_null, char *error);

char planted_init(void *init, struct udf_arguments *arguments, char *message)
{
	if (arguments->count != 3) {
		snprintf(message, MESSAGE_MAX, "planted(kind, count, size)");
		return 1;
	}
	arguments->types[0] = RESULT_STRING;
	arguments->types[1] = arguments->types[2] = RESULT_INT;
	return 0;
}

long long planted(void *init, struct udf_arguments *arguments, char *is_null, char *error)
{
	plant_fn plant = plant_by_name(arguments->values[0], arguments->lengths[0]);

	if (!plant) {
		*error = 1;
		return 0;
	}
	return plant(*(long long *)arguments->values[1], *(long long *)arguments->values[2]);
}
