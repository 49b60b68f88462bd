/*
 * metrics.h - what `watch` has seen last, for Prometheus: as text, by HTTP, and as a file for
 * node_exporter. Names and units: prometheus.io/docs/practices/naming.
 */
#ifndef CMD_METRICS_H
#define CMD_METRICS_H

#include "watch_series.h"

/* A process, or one that was there; the caller keeps the series. */
struct metrics_row {
	const struct watch_series *series;
	bool up;
};

VEC_DEFINE(metrics_vec, struct metrics_row)

/* Prometheus' text format; or OpenMetrics 1.0, in which names of counters and the end differ. */
enum metrics_format { METRICS_PROMETHEUS, METRICS_OPENMETRICS, METRICS_FORMATS };

void metrics_print(FILE *out, enum metrics_format format, const struct metrics_vec *rows);

/* Replaces DIR/memprobe-@name.prom as a whole, readable by everybody. */
struct error *metrics_write_file(const char *folder, const char *name,
				 const struct metrics_vec *rows);
void metrics_remove_file(const char *folder, const char *name);

/* ---- HTTP: GET /metrics ---- */

struct metrics_server;

/* @address: 127.0.0.1:9464, [::1]:9464, localhost:9464; :9464 is every one of IPv4, port 0 a free
 * one. ERROR_USAGE: it is none; ERROR_FAILED: it is taken, or not ours. */
struct error *metrics_server_start(const char *address, struct metrics_server **ret);
/* As one would type it. */
const char *metrics_server_url(const struct metrics_server *server);
/* What is served from here on. */
struct error *metrics_server_set(struct metrics_server *server, const struct metrics_vec *rows);
/* NULL is fine. */
void metrics_server_stop(struct metrics_server *server);

#endif
