/*
 * A function of PostgreSQL: `create function planted(text, int, int) returns int language c as
 * '.../planted_postgres'`, then `select planted('leaked', COUNT, SIZE)`. Without the server's
 * headers an empty library.
 *
 * cflags: -shared -fPIC -I$(pg_config --includedir-server 2>/dev/null || echo /nonexistent)
 */
#if __has_include("postgres.h")

#include "postgres.h"

#include "fmgr.h"

#include "planted.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(planted);

Datum planted(PG_FUNCTION_ARGS)
{
	text *kind = PG_GETARG_TEXT_PP(0);
	plant_fn plant = plant_by_name(VARDATA_ANY(kind), VARSIZE_ANY_EXHDR(kind));

	if (!plant)
		PG_RETURN_NULL();
	PG_RETURN_INT32(plant(PG_GETARG_INT32(1), PG_GETARG_INT32(2)));
}

#else

int no_server_headers;

#endif
