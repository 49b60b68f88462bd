#include "allocs_screen.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "allocs_profile.h"
#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/sites_table.h"

#define EVERY_US 1000000u
/* Drawing is to take at most this part of the time. */
#define SHARE		20u
#define ROWS_DEFAULT	24u
#define COLUMNS_DEFAULT 80u
/* Lines beside those of sites: our heading, that of the table, rule, totals, `and more`, cursor. */
#define ROWS_BESIDE 6u

/* Nothing wraps, so that a line of text is one of the screen. */
#define WRAP_OFF "\033[?7l"
#define WRAP_ON	 "\033[?7h"
#define CLEAR	 "\033[J"

struct site_values {
	int64_t values[PROFILE_COLUMNS];
};

VEC_DEFINE(site_values_vec, struct site_values)

struct allocs_screen {
	struct command_context *context;
	struct trace_session *session;
	struct allocs_columns columns;
	/* Names once looked up are kept; figures are brought up to date by their differences. */
	struct profile *profile;
	struct profile_stacks *stacks;
	size_t modules;			   /* that the names were looked up in */
	struct site_values_vec shown, now; /* by stack */
	uint64_t next_us;
	unsigned lines; /* on the screen */
	bool drawn, broken;
};

bool allocs_screen_wanted(const struct command_context *context,
			  const struct profile_output *output)
{
	bool to_stdout = !context->output_path || !strcmp(context->output_path, "-");

	return !context->quiet && isatty(STDOUT_FILENO) &&
	       !(to_stdout && (context->json || output->format));
}

struct error *allocs_screen_create(struct command_context *context, struct trace_session *session,
				   bool all, struct allocs_screen **ret)
{
	struct allocs_screen *screen = calloc(1, sizeof(*screen));

	if (!screen)
		return &error_no_memory;
	screen->context = context;
	screen->session = session;
	screen->columns.all = all;
	screen->next_us = clock_us() + EVERY_US;
	*ret = screen;
	return NULL;
}

static void forget_names(struct allocs_screen *screen)
{
	profile_stacks_destroy(take_pointer(screen->stacks));
	profile_destroy(take_pointer(screen->profile));
	screen->shown.size = screen->now.size = 0;
}

static void clear(struct allocs_screen *screen)
{
	if (screen->lines)
		printf("\033[%uA\r" CLEAR, screen->lines);
	screen->lines = 0;
	fflush(stdout);
}

void allocs_screen_destroy(struct allocs_screen *screen)
{
	if (!screen)
		return;
	clear(screen);
	forget_names(screen);
	site_values_vec_deinit(&screen->shown);
	site_values_vec_deinit(&screen->now);
	free(screen);
}

/* ---- figures ---- */

/* A library may have come whose functions were unknown. */
static struct error *learn_modules(struct allocs_screen *screen)
{
	struct target *target = trace_modules(screen->session);
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	if (error || (screen->stacks && modules->size == screen->modules))
		return error;
	forget_names(screen);
	screen->modules = modules->size;
	error = profile_create(&screen->profile);
	if (!error)
		error = allocs_profile_set_columns(screen->profile, &screen->columns);
	if (!error)
		error = profile_stacks_create(target, screen->profile, &screen->stacks);
	return error;
}

static struct error *make_room(struct site_values_vec *values, uint32_t stack)
{
	const struct site_values none = { 0 };
	struct error *error = NULL;

	while (!error && values->size <= stack)
		error = site_values_vec_append(values, &none);
	return error;
}

static struct error *gather(struct allocs_screen *screen, const struct trace_data *data)
{
	struct error *error = NULL;

	vec_for_each (values, &screen->now)
		*values = (struct site_values){ 0 };
	vec_for_each (site, &data->sites) {
		struct site_values values;
		uint32_t stack;

		if (!allocs_site_values(site, screen->columns.all, values.values))
			continue;
		error = profile_stacks_add(screen->stacks, site->pcs, site->depth, site->truncated,
					   &stack);
		if (!error)
			error = make_room(&screen->now, stack);
		if (!error)
			error = make_room(&screen->shown, stack);
		if (error)
			return error;
		for (size_t i = 0; i < PROFILE_COLUMNS; i++)
			screen->now.data[stack].values[i] += values.values[i];
	}
	return NULL;
}

/* Sites that the profile has got rid of stay in it, with 0. */
static struct error *bring_up_to_date(struct allocs_screen *screen, const struct trace_data *data)
{
	struct error *error = learn_modules(screen);

	if (!error)
		error = gather(screen, data);
	for (uint32_t stack = 0; !error && stack < screen->now.size; stack++) {
		int64_t change[PROFILE_COLUMNS];
		bool changed = false;

		for (size_t i = 0; i < PROFILE_COLUMNS; i++) {
			change[i] = screen->now.data[stack].values[i] -
				    screen->shown.data[stack].values[i];
			changed |= change[i] != 0;
		}
		if (changed)
			error = profile_add_site(screen->profile, stack, change);
		screen->shown.data[stack] = screen->now.data[stack];
	}
	if (error)
		return error;
	screen->profile->duration_us = data->counters.time_us;
	profile_sort(screen->profile);
	return NULL;
}

/* ---- the screen ---- */

static void put_heading(const struct allocs_screen *screen, const struct trace_counters *counters,
			FILE *out)
{
	char rate[SIZE_TEXT_MAX], sample[SIZE_TEXT_MAX];
	uint64_t period = trace_report(screen->session)->rate;
	uint64_t lost = counters->lost_allocs + counters->lost_frees;

	format_size((uint64_t)counters->bytes_per_second, rate);
	fprintf(out, "recording %d: %" PRIu64 " s", (int)screen->context->target->pid,
		counters->time_us / 1000000u);
	if (counters->bytes_per_second > 0)
		fprintf(out, ", %s/s allocated", rate);
	fprintf(out, "; %" PRIu64 " blocks recorded, %" PRIu64 " freed", counters->recorded,
		counters->freed);
	if (period > 1)
		fprintf(out, ", a sample every %s", format_size(period, sample));
	if (lost)
		fprintf(out, ", %" PRIu64 " LOST", lost);
	fputs("\n", out);
}

static unsigned count_lines(const char *text)
{
	unsigned lines = 0;

	for (; *text; text++)
		lines += *text == '\n';
	return lines;
}

/* What has been freed: at the end, as it is sorted. Nothing but a table is made of it any more. */
static void leave_out_empty(struct profile *profile)
{
	struct profile_site_vec *sites = &profile->sites;

	while (sites->size && sites->data[sites->size - 1].values[profile->weight] <= 0)
		sites->size--;
}

static struct error *render(const struct allocs_screen *screen,
			    const struct trace_counters *counters, char **text_ret)
{
	struct winsize size = { 0 };
	struct sites_table_options table = { .style = command_style(screen->context) };
	cleanup(profile) struct profile *by_name = NULL;
	struct error *error = profile_by_name(screen->profile, &by_name);
	size_t length;
	FILE *out;

	if (error)
		return error;
	leave_out_empty(by_name);
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_col || !size.ws_row)
		size = (struct winsize){ .ws_col = COLUMNS_DEFAULT, .ws_row = ROWS_DEFAULT };
	table.style.width = size.ws_col;
	table.top = size.ws_row > ROWS_BESIDE ? size.ws_row - ROWS_BESIDE : 1;
	out = open_memstream(text_ret, &length);
	if (!out)
		return &error_no_memory;
	put_heading(screen, counters, out);
	error = sites_table_print(by_name, &table, out);
	if (fclose(out) && !error)
		error = &error_no_memory;
	return error;
}

static struct error *draw(struct allocs_screen *screen)
{
	cleanup(trace_data) struct trace_data *data = NULL;
	cleanup(free) char *text = NULL;
	struct error *error = trace_read(screen->session, NULL, &data);

	if (!error)
		error = bring_up_to_date(screen, data);
	if (!error)
		error = render(screen, &data->counters, &text);
	if (error)
		return error;
	clear(screen);
	printf(WRAP_OFF "%s" WRAP_ON, text);
	fflush(stdout);
	screen->lines = count_lines(text);
	return NULL;
}

void allocs_screen_show(struct allocs_screen *screen)
{
	uint64_t begin = clock_us(), took;
	struct error *error;

	if (!screen || screen->broken || begin < screen->next_us)
		return;
	error = draw(screen);
	took = clock_us() - begin;
	/* The first looked up most of the names that there will ever be. */
	if (!screen->drawn)
		took = 0;
	screen->drawn = true;
	screen->next_us = clock_us() + max_u64(EVERY_US, took * SHARE);
	if (!error)
		return;
	log_debug("the table cannot be shown: %s", error->message);
	error_destroy(error);
	screen->broken = true;
}
