#include "metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "memprobe/num.h"

#define CONNECTIONS_MAX	   16u
#define CONNECTION_SECONDS 10u
#define MEMORY_OF_ONE	   16384u
#define URL_MAX		   96u

struct metrics_server {
	struct MHD_Daemon *daemon;
	pthread_mutex_t lock;
	char *texts[METRICS_FORMATS]; /* NULL: nothing has been seen yet */
	char url[URL_MAX];
};

/* ---- requests ---- */

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type,
			      const char *text)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result answer_metrics(struct metrics_server *server,
				      struct MHD_Connection *connection)
{
	static const char *const types[METRICS_FORMATS] = {
		"text/plain; version=0.0.4; charset=utf-8",
		"application/openmetrics-text; version=1.0.0; charset=utf-8",
	};
	const char *accepted =
		MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
	enum metrics_format format = accepted && strstr(accepted, "application/openmetrics-text")
					     ? METRICS_OPENMETRICS
					     : METRICS_PROMETHEUS;
	enum MHD_Result result;

	pthread_mutex_lock(&server->lock);
	if (server->texts[format])
		result = answer(connection, MHD_HTTP_OK, types[format], server->texts[format]);
	else
		result = answer(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain",
				"nothing has been read yet\n");
	pthread_mutex_unlock(&server->lock);
	return result;
}

static enum MHD_Result handle(void *data, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_size, void **request)
{
	if (strcmp(method, MHD_HTTP_METHOD_GET) && strcmp(method, MHD_HTTP_METHOD_HEAD))
		return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain",
			      "GET /metrics\n");
	if (strcmp(url, "/metrics"))
		return answer(connection, MHD_HTTP_NOT_FOUND, "text/plain", "GET /metrics\n");
	return answer_metrics(data, connection);
}

/* ---- the address ---- */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static bool parse_host(const char *host, in_port_t port, union address *ret)
{
	size_t length = strlen(host);
	char text[INET6_ADDRSTRLEN];

	memset(ret, 0, sizeof(*ret));
	if (host[0] == '[') {
		if (host[length - 1] != ']' || length - 2 >= sizeof(text))
			return false;
		snprintf(text, sizeof(text), "%.*s", (int)length - 2, host + 1);
		ret->v6.sin6_family = AF_INET6;
		ret->v6.sin6_port = htons(port);
		return inet_pton(AF_INET6, text, &ret->v6.sin6_addr) == 1;
	}
	if (!length)
		host = "0.0.0.0";
	else if (!strcmp(host, "localhost"))
		host = "127.0.0.1";
	ret->v4.sin_family = AF_INET;
	ret->v4.sin_port = htons(port);
	return inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1;
}

static bool parse_endpoint(const char *text, union address *ret)
{
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2];
	struct error *error;
	uint64_t port;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		return false;
	error = parse_u64(colon + 1, &port);
	if (error) {
		error_destroy(error);
		return false;
	}
	snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
	return port <= UINT16_MAX && parse_host(host, (in_port_t)port, ret);
}

static void make_url(const union address *address, char url[URL_MAX])
{
	char host[INET6_ADDRSTRLEN] = "";

	if (address->any.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof(host));
	else
		inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof(host));
	snprintf(url, URL_MAX,
		 address->any.sa_family == AF_INET6 ? "http://[%s]:%u/metrics"
						    : "http://%s:%u/metrics",
		 host, ntohs(address->v4.sin_port));
}

/* Opened here and not by the library, for the reason of a failure and the port that 0 became. */
static struct error *listen_at(const char *text, union address *address, int *ret)
{
	socklen_t size = sizeof(*address);
	int one = 1, fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return error_errno(ERROR_FAILED, errno, "cannot listen at %s", text);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, &address->any, size) || listen(fd, CONNECTIONS_MAX) ||
	    getsockname(fd, &address->any, &size)) {
		struct error *error = error_errno(ERROR_FAILED, errno, "cannot listen at %s", text);

		close(fd);
		return error;
	}
	*ret = fd;
	return NULL;
}

/* ---- begin and end ---- */

/* Signals are the main thread's. */
static struct MHD_Daemon *start_daemon(struct metrics_server *server, int fd)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	server->daemon = MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, handle, server,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, CONNECTION_SECONDS,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_OF_ONE, MHD_OPTION_END);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return server->daemon;
}

struct error *metrics_server_start(const char *text, struct metrics_server **ret)
{
	struct metrics_server *server;
	union address address;
	struct error *error;
	int fd = -1;

	if (!parse_endpoint(text, &address))
		return error_hint(
			error_create(ERROR_USAGE, "'%s' is no address to listen at", text),
			"like 127.0.0.1:9464, [::1]:9464 or :9464 (all of IPv4)");
	error = listen_at(text, &address, &fd);
	if (error)
		return error;
	server = calloc(1, sizeof(*server));
	if (!server || pthread_mutex_init(&server->lock, NULL) || !start_daemon(server, fd)) {
		close(fd);
		free(server);
		return error_create(ERROR_FAILED, "cannot serve HTTP at %s", text);
	}
	make_url(&address, server->url);
	*ret = server;
	return NULL;
}

const char *metrics_server_url(const struct metrics_server *server)
{
	return server->url;
}

struct error *metrics_server_set(struct metrics_server *server, const struct metrics_vec *rows)
{
	for (unsigned format = 0; format < METRICS_FORMATS; format++) {
		char *text = NULL, *old;
		size_t size;
		FILE *out = open_memstream(&text, &size);

		if (!out)
			return &error_no_memory;
		metrics_print(out, format, rows);
		if (fclose(out)) {
			free(text);
			return &error_no_memory;
		}
		pthread_mutex_lock(&server->lock);
		old = server->texts[format];
		server->texts[format] = text;
		pthread_mutex_unlock(&server->lock);
		free(old);
	}
	return NULL;
}

void metrics_server_stop(struct metrics_server *server)
{
	if (!server)
		return;
	/* It closes the socket, too. */
	MHD_stop_daemon(server->daemon);
	pthread_mutex_destroy(&server->lock);
	for (unsigned format = 0; format < METRICS_FORMATS; format++)
		free(server->texts[format]);
	free(server);
}
