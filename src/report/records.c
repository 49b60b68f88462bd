#include "memprobe/records.h"

#include <inttypes.h>

static const void *field(const struct record_column *column, const void *row)
{
	return (const char *)row + column->offset;
}

static bool is_wanted(const struct record_column *column, const char *name, unsigned without)
{
	return name && !(column->part & without);
}

/* ---- tables ---- */

void records_columns(struct table *table, const struct record_column *columns, unsigned without)
{
	for (; columns->kind; columns++) {
		enum record_kind kind = columns->kind;
		bool right = columns->right || (kind != RECORD_TEXT && kind != RECORD_ADDRESS &&
						kind != RECORD_OTHER && kind != RECORD_BOOL);
		bool text = kind == RECORD_TEXT || (kind == RECORD_OTHER && !right);

		if (!is_wanted(columns, columns->heading, without))
			continue;
		table_column(table, columns->heading, right ? TABLE_RIGHT : TABLE_LEFT);
		table_column_fit(table,
				 !text			      ? TABLE_KEEP
				 : columns->fit != TABLE_KEEP ? columns->fit
							      : TABLE_CUT,
				 columns->rank);
	}
}

static void put_text(struct table *table, const char *text)
{
	table_cell_text(table, text ? text : "-");
}

static void put_number(struct table *table, uint64_t number)
{
	if (number == TABLE_UNKNOWN)
		table_cell_text(table, "-");
	else
		table_cell(table, "%" PRIu64, number);
}

static void put_address(struct table *table, uint64_t address)
{
	if (address == TABLE_UNKNOWN)
		table_cell_text(table, "-");
	else
		table_cell(table, "0x%" PRIx64, address);
}

static void put_delta(struct table *table, int64_t delta)
{
	if (delta == INT64_MIN)
		table_cell_text(table, "-");
	else
		table_cell_delta(table, delta);
}

static void put_id(struct table *table, int id)
{
	if (id)
		table_cell(table, "%d", id);
	else
		table_cell_text(table, "-");
}

static void put_hex(struct table *table, uint64_t address)
{
	if (address == TABLE_UNKNOWN)
		table_cell_text(table, "-");
	else
		table_cell_hex(table, address);
}

static void put_cell(struct table *table, const struct record_column *column, const void *at)
{
	switch (column->kind) {
	case RECORD_TEXT:
		put_text(table, *(const char *const *)at);
		break;
	case RECORD_NUMBER:
		put_number(table, *(const uint64_t *)at);
		break;
	case RECORD_SIZE:
		table_cell_size(table, *(const uint64_t *)at);
		break;
	case RECORD_DELTA:
		put_delta(table, *(const int64_t *)at);
		break;
	case RECORD_ID:
		put_id(table, *(const int *)at);
		break;
	case RECORD_INT:
		table_cell(table, "%d", *(const int *)at);
		break;
	case RECORD_ADDRESS:
		put_address(table, *(const uint64_t *)at);
		break;
	case RECORD_HEX:
		put_hex(table, *(const uint64_t *)at);
		break;
	case RECORD_BOOL:
		table_cell_text(table, *(const bool *)at ? "yes" : "no");
		break;
	case RECORD_OTHER:
		table_cell_text(table, "-");
		break;
	}
}

void records_row(struct table *table, const struct record_column *columns, unsigned without,
		 const void *row)
{
	for (; columns->kind; columns++) {
		if (!is_wanted(columns, columns->heading, without))
			continue;
		if (columns->cell)
			columns->cell(table, row);
		else
			put_cell(table, columns, field(columns, row));
	}
}

void records_total(struct table *table, const struct record_column *columns, unsigned without,
		   const void *row)
{
	bool first = true;

	table_rule(table);
	for (; columns->kind; columns++) {
		bool is_sum = columns->right || columns->kind == RECORD_NUMBER ||
			      columns->kind == RECORD_SIZE || columns->kind == RECORD_DELTA;

		if (!is_wanted(columns, columns->heading, without))
			continue;
		if (first)
			table_cell_text(table, "total");
		else if (is_sum && columns->cell)
			columns->cell(table, row);
		else if (is_sum)
			put_cell(table, columns, field(columns, row));
		else
			table_cell_text(table, "");
		first = false;
	}
}

static const void *row_at(const struct records *records, size_t i)
{
	return records->row ? records->row(records->data, i)
			    : (const char *)records->rows + i * records->size;
}

struct table *records_table(const struct records *records, struct table_style style)
{
	struct table *table = table_create(style);

	records_columns(table, records->columns, records->without);
	for (size_t i = 0; table && i < records->count; i++)
		records_row(table, records->columns, records->without, row_at(records, i));
	return table;
}

/* ---- JSON ---- */

static json_t *json_of(const struct record_column *column, const void *at)
{
	switch (column->kind) {
	case RECORD_TEXT:
		return json_text(*(const char *const *)at);
	case RECORD_NUMBER:
	case RECORD_SIZE:
		return json_number(*(const uint64_t *)at);
	case RECORD_DELTA:
		return *(const int64_t *)at == INT64_MIN ? json_null()
							 : json_integer(*(const int64_t *)at);
	case RECORD_ID:
		return *(const int *)at ? json_integer(*(const int *)at) : json_null();
	case RECORD_INT:
		return json_integer(*(const int *)at);
	case RECORD_ADDRESS:
	case RECORD_HEX:
		return *(const uint64_t *)at == JSON_UNKNOWN ? json_null()
							     : json_address(*(const uint64_t *)at);
	case RECORD_BOOL:
		return json_boolean(*(const bool *)at);
	case RECORD_OTHER:
		break;
	}
	return json_null();
}

bool records_set(json_t *object, const struct record_column *columns, unsigned without,
		 const void *row)
{
	for (; columns->kind; columns++) {
		json_t *value;

		if (!is_wanted(columns, columns->key, without))
			continue;
		value = columns->json ? columns->json(row) : json_of(columns, field(columns, row));
		if (columns->optional && json_is_null(value))
			continue;
		/* NULL is out-of-memory, too. */
		if (json_object_set_new(object, columns->key, value))
			return false;
	}
	return true;
}

static json_t *make_object(const struct record_column *columns, unsigned without, const void *row)
{
	json_t *object = json_object();

	if (object && records_set(object, columns, without, row))
		return object;
	json_decref(object);
	return NULL;
}

json_t *records_json(const struct record_column *columns, const void *row)
{
	return make_object(columns, 0, row);
}

json_t *records_array(const struct records *records)
{
	json_t *array = json_array();

	for (size_t i = 0; i < records->count; i++) {
		json_t *object =
			make_object(records->columns, records->without, row_at(records, i));

		if (!json_array_append_new(array, object))
			continue;
		json_decref(array);
		return NULL;
	}
	return array;
}
