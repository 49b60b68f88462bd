/*
 * A server that leaks: what `make demo` looks into.
 *
 *	leaky server PORT_FILE SECONDS	serves on a free loopback port, written to PORT_FILE, and
 *					ends by itself after SECONDS
 *	leaky client PORT COUNT		sends COUNT requests and checks every answer
 *
 * A request is a line `CHANNEL NUMBER`; the answer is `CHANNEL RESULT`. The main thread reads
 * requests and makes an object of each; four worker threads answer and delete them. Two faults are
 * built in:
 *
 *	- Requests of a channel that nobody knows are answered, but never deleted: the leak.
 *	- Filling the price table at the start takes 120 MB of small blocks. All but one in 500 are
 *	  freed again, but these lie scattered, so that glibc gives nothing back: RSS stays.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <vector>

namespace
{

constexpr int WORKERS = 4;

/* ---- requests ---- */

class Request
{
      public:
	Request(FILE *client, std::string channel, uint64_t number)
	    : client_(client), channel_(std::move(channel)), number_(number)
	{
	}
	virtual ~Request() = default;
	virtual uint64_t result() const = 0;
	virtual bool known() const
	{
		return true;
	}
	void answer() const
	{
		fprintf(client_, "%s %llu\n", channel_.c_str(), (unsigned long long)result());
		fflush(client_);
	}

      protected:
	uint64_t number() const
	{
		return number_;
	}

      private:
	FILE *client_;
	std::string channel_;
	uint64_t number_;
};

class QuoteRequest : public Request
{
      public:
	using Request::Request;
	uint64_t result() const override
	{
		return number() * 3;
	}
};

class OrderRequest : public Request
{
      public:
	using Request::Request;
	uint64_t result() const override
	{
		return number() + 1000;
	}

      private:
	char details_[200] = {};
};

/* Keeps the whole text for the log. */
class UnknownChannelRequest : public Request
{
      public:
	UnknownChannelRequest(FILE *client, const std::string &channel, uint64_t number)
	    : Request(client, channel, number)
	{
		snprintf(text_, sizeof(text_), "unrouted request: channel=%s number=%llu",
			 channel.c_str(), (unsigned long long)number);
	}
	uint64_t result() const override
	{
		return 0;
	}
	bool known() const override
	{
		return false;
	}

      private:
	char text_[960] = {};
};

uint64_t expected_result(const std::string &channel, uint64_t number)
{
	return channel == "quote" ? number * 3 : channel == "order" ? number + 1000 : 0;
}

std::unique_ptr<Request> make_request(FILE *client, const char *line)
{
	char channel[32] = "";
	unsigned long long number = 0;

	sscanf(line, "%31s %llu", channel, &number);
	if (!strcmp(channel, "quote"))
		return std::make_unique<QuoteRequest>(client, channel, number);
	if (!strcmp(channel, "order"))
		return std::make_unique<OrderRequest>(client, channel, number);
	return std::make_unique<UnknownChannelRequest>(client, channel, number);
}

/* ---- the server ---- */

class RequestQueue
{
      public:
	void push(std::unique_ptr<Request> request)
	{
		std::lock_guard<std::mutex> lock(mutex_);

		requests_.push(std::move(request));
		unanswered_++;
		filled_.notify_one();
	}
	std::unique_ptr<Request> pop()
	{
		std::unique_lock<std::mutex> lock(mutex_);

		filled_.wait(lock, [this] { return !requests_.empty(); });
		std::unique_ptr<Request> request = std::move(requests_.front());
		requests_.pop();
		return request;
	}
	void answered()
	{
		std::lock_guard<std::mutex> lock(mutex_);

		if (--unanswered_ == 0)
			idle_.notify_one();
	}
	void wait_until_idle()
	{
		std::unique_lock<std::mutex> lock(mutex_);

		idle_.wait(lock, [this] { return unanswered_ == 0; });
	}

      private:
	std::mutex mutex_;
	std::condition_variable filled_, idle_;
	size_t unanswered_ = 0;
	std::queue<std::unique_ptr<Request>> requests_;
};

void work(RequestQueue &queue, int index)
{
	char name[16];

	snprintf(name, sizeof(name), "worker-%d", index);
	pthread_setname_np(pthread_self(), name);
	for (;;) {
		std::unique_ptr<Request> request = queue.pop();

		request->answer();
		queue.answered();
		if (!request->known())
			request.release(); /* the forgotten delete */
	}
}

struct Price {
	uint64_t number;
	char name[376];
};

/* Reads "all prices of the year", of which few are kept. */
std::vector<Price *> fill_price_table()
{
	std::vector<Price *> all, kept;

	for (uint64_t i = 0; i < 320000; i++) {
		all.push_back(new Price{ i, {} });
		snprintf(all.back()->name, sizeof(all.back()->name), "price %llu",
			 (unsigned long long)i);
	}
	for (uint64_t i = 0; i < all.size(); i++) {
		if (i % 500 == 499)
			kept.push_back(all[i]);
		else
			delete all[i];
	}
	return kept;
}

int listen_on_loopback(const char *port_file)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sockaddr_in address = {};
	socklen_t length = sizeof(address);
	FILE *file;

	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (sockaddr *)&address, length) < 0 || listen(fd, 16) < 0 ||
	    getsockname(fd, (sockaddr *)&address, &length) < 0) {
		perror("leaky: cannot listen");
		exit(1);
	}
	file = fopen(port_file, "w");
	if (!file) {
		perror(port_file);
		exit(1);
	}
	fprintf(file, "%d\n", ntohs(address.sin_port));
	fclose(file);
	return fd;
}

int serve(const char *port_file, unsigned seconds)
{
	RequestQueue queue;
	std::vector<Price *> prices;

	alarm(seconds);
	signal(SIGPIPE, SIG_IGN); /* clients may go before their answers */
	prices = fill_price_table();
	for (int i = 1; i <= WORKERS; i++)
		std::thread(work, std::ref(queue), i).detach();

	int fd = listen_on_loopback(port_file);

	for (;;) {
		int connection = accept(fd, nullptr, nullptr);

		if (connection < 0) {
			perror("leaky: accept");
			continue;
		}
		FILE *client = fdopen(connection, "r");
		FILE *answers = fdopen(dup(connection), "w");
		char line[256];

		while (fgets(line, sizeof(line), client))
			queue.push(make_request(answers, line));
		queue.wait_until_idle();
		fclose(client);
		fclose(answers);
	}
}

/* ---- the client ---- */

int run_client(int port, uint64_t count)
{
	static const char *const channels[] = { "quote", "order", "quote", "fax" };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sockaddr_in address = {};
	uint64_t unknown = 0;

	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t)port);
	if (connect(fd, (sockaddr *)&address, sizeof(address)) < 0) {
		perror("leaky: cannot connect");
		return 1;
	}
	FILE *requests = fdopen(dup(fd), "w"), *answers = fdopen(fd, "r");

	for (uint64_t i = 0; i < count; i++) {
		std::string channel = channels[i % 4], answered;
		char line[256], name[32];
		unsigned long long result;

		unknown += channel == "fax";
		fprintf(requests, "%s %llu\n", channel.c_str(), (unsigned long long)i);
		fflush(requests);
		if (!fgets(line, sizeof(line), answers) ||
		    sscanf(line, "%31s %llu", name, &result) != 2 || channel != name ||
		    result != expected_result(channel, i)) {
			fprintf(stderr, "leaky: wrong answer to `%s %llu`\n", channel.c_str(),
				(unsigned long long)i);
			return 1;
		}
	}
	printf("%llu requests answered correctly, %llu of them of an unknown channel\n",
	       (unsigned long long)count, (unsigned long long)unknown);
	return 0;
}

} // namespace

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "server"))
		return serve(argv[2], (unsigned)strtoul(argv[3], nullptr, 10));
	if (argc == 4 && !strcmp(argv[1], "client"))
		return run_client((int)strtoul(argv[2], nullptr, 10),
				  strtoull(argv[3], nullptr, 10));
	fputs("usage: leaky server PORT_FILE SECONDS\n"
	      "       leaky client PORT COUNT\n",
	      stderr);
	return 2;
}
