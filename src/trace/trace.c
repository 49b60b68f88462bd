#include "memprobe/trace.h"

#include <stdlib.h>

void trace_data_destroy(struct trace_data *data)
{
	if (!data)
		return;
	trace_site_vec_deinit(&data->sites);
	trace_block_vec_deinit(&data->blocks);
	free(data->pcs);
	free(data);
}
