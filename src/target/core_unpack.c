/* Unpacks a core compressed by zstd into a nameless temporary file, zeros as holes. */
#include "core_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "memprobe/io.h"
#include "memprobe/num.h"

bool core_is_packed(const void *bytes, size_t size)
{
	static const unsigned char magic[] = { 0x28, 0xb5, 0x2f, 0xfd };

	return size >= sizeof(magic) && !memcmp(bytes, magic, sizeof(magic));
}

/* /var/tmp before /tmp: that may be memory. */
static struct error *open_temporary(int *fd_ret)
{
	const char *directories[] = { getenv("TMPDIR"), "/var/tmp", "/tmp" };
	int fd = -1;

	for (size_t i = 0; fd < 0 && i < sizeof(directories) / sizeof(*directories); i++)
		if (directories[i] && directories[i][0])
			fd = open(directories[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(ERROR_FAILED, errno, "cannot create a temporary file");
	*fd_ret = fd;
	return NULL;
}

static bool is_zero(const char *bytes, size_t size)
{
	return size && !bytes[0] && !memcmp(bytes, bytes + 1, size - 1);
}

/* Whole pages of zeros become holes; @at is a multiple of a page but for the last call. */
static struct error *store(int fd, const char *bytes, size_t size, uint64_t at)
{
	for (size_t done = 0; done < size;) {
		size_t end = done, part = min_u64(PAGE_SIZE, size - done);
		bool zero = is_zero(bytes + done, part);
		struct error *error;

		while (end < size && is_zero(bytes + end, min_u64(PAGE_SIZE, size - end)) == zero)
			end += min_u64(PAGE_SIZE, size - end);
		if (!zero) {
			if (at + done > INT64_MAX || lseek(fd, (off_t)(at + done), SEEK_SET) < 0)
				return error_errno(ERROR_FAILED, EFBIG, "cannot unpack");
			error = write_all(fd, bytes + done, end - done, "a temporary file");
			if (error)
				return error;
		}
		done = end;
	}
	return NULL;
}

struct unpacker {
	ZSTD_DStream *stream;
	char *in, *out;
	size_t in_size, out_size, out_used;
	uint64_t size; /* stored so far */
	bool damaged;
};

static struct error *flush(struct unpacker *unpacker, int fd)
{
	struct error *error = store(fd, unpacker->out, unpacker->out_used, unpacker->size);

	unpacker->size += unpacker->out_used;
	unpacker->out_used = 0;
	return error;
}

/* All that @got bytes give. @rest_ret: 0 at the end of a frame. */
static struct error *unpack_part(struct unpacker *unpacker, int fd, size_t got, size_t *rest_ret)
{
	ZSTD_inBuffer in = { unpacker->in, got, 0 };
	bool filled = false;

	while (in.pos < in.size || filled) {
		ZSTD_outBuffer out = { unpacker->out, unpacker->out_size, unpacker->out_used };
		size_t rest = ZSTD_decompressStream(unpacker->stream, &out, &in);
		struct error *error = NULL;

		if (ZSTD_isError(rest))
			return error_create(ERROR_NO_TARGET, "%s", ZSTD_getErrorName(rest));
		*rest_ret = rest;
		unpacker->out_used = out.pos;
		if (out.pos == out.size)
			error = flush(unpacker, fd);
		/* At the end of a frame nothing more is kept back: to ask would begin another. */
		filled = out.pos == out.size && rest;
		if (error)
			return error;
	}
	return NULL;
}

/* What was unpacked before damage or an early end stays: a core that is cut short. */
static struct error *unpack_all(struct unpacker *unpacker, int from, int to)
{
	size_t rest = 0;
	off_t at = 0;

	for (;;) {
		ssize_t got = pread(from, unpacker->in, unpacker->in_size, at);
		struct error *error;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(ERROR_FAILED, errno, "cannot read it");
		if (got == 0)
			break;
		at += got;
		error = unpack_part(unpacker, to, got, &rest);
		if (error_is(error, ERROR_NO_TARGET) && unpacker->size + unpacker->out_used) {
			error_destroy(error);
			unpacker->damaged = true;
			break;
		}
		if (error)
			return error;
	}
	unpacker->damaged |= rest != 0;
	return flush(unpacker, to);
}

struct error *core_unpack(int fd, const char *path, int *fd_ret, bool *whole_ret)
{
	struct unpacker unpacker = {
		.stream = ZSTD_createDStream(),
		.in_size = ZSTD_DStreamInSize(),
		.out_size = 1 << 20,
	};
	cleanup(close) int to = -1;
	struct error *error = open_temporary(&to);

	unpacker.in = malloc(unpacker.in_size);
	unpacker.out = malloc(unpacker.out_size);
	if (!error && (!unpacker.stream || !unpacker.in || !unpacker.out))
		error = &error_no_memory;
	if (!error)
		error = unpack_all(&unpacker, fd, to);
	if (!error && ftruncate(to, (off_t)unpacker.size) < 0)
		error = error_errno(ERROR_FAILED, errno, "cannot write a temporary file");
	ZSTD_freeDStream(unpacker.stream);
	free(unpacker.in);
	free(unpacker.out);
	if (error)
		return error_prefix(error, "cannot unpack %s", path);
	*whole_ret = !unpacker.damaged;
	*fd_ret = take_fd(&to);
	return NULL;
}
