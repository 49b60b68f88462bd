/*
 * `requests [LEAKED [LIVE]]`: a server in C++ that has forgotten to delete LEAKED (300000) requests
 * of one class, each with the text of an HTTP request in a block of its own, and keeps LIVE (1000)
 * others and a few objects of other shapes. After `ready` nothing allocates.
 *
 * Truth: `type COUNT NAME` for every class that blocks begin with; `leaked COUNT`; `texts COUNT`.
 *
 * variants: 32 static
 * cflags: -fvisibility=hidden
 */
#include "victim.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

class Request
{
      public:
	virtual ~Request()
	{
	}
	virtual unsigned long result() const
	{
		return number_;
	}
	unsigned long number_ = 7;
};

class Logged
{
      public:
	virtual ~Logged()
	{
	}
	virtual const char *line() const = 0;
	int level_ = 1;
};

/* The one that is forgotten. */
class CommItopReq : public Request
{
      public:
	CommItopReq(unsigned long number) : text_(strdup("GET /comm HTTP/1.1\r\nHost: itop"))
	{
		number_ = number;
		snprintf(id_, sizeof(id_), "itop request %lu", number);
	}
	~CommItopReq() override
	{
		free(text_);
	}
	unsigned long result() const override
	{
		return number_ + 1;
	}

      private:
	char *text_;
	char id_[64];
};

/* Two tables; the second has an offset to the top. */
class Session : public Request, public Logged
{
      public:
	const char *line() const override
	{
		return "session";
	}
};

class Left : public virtual Request
{
	long left_ = 1;
};

class Right : public virtual Request
{
	long right_ = 2;
};

class Diamond : public Left, public Right
{
	long bottom_ = 3;
};

template <class T> class Cache : public Logged
{
      public:
	const char *line() const override
	{
		return "cache";
	}
	T value_{};
};

namespace
{

class Local : public Logged
{
      public:
	const char *line() const override
	{
		return "local";
	}
	char bytes_[40] = {};
};

} // namespace

namespace net
{

struct Plain {
	long words[4];
};

} // namespace net

struct kept {
	std::vector<Request *> requests;
	std::vector<Logged *> logged;
	std::vector<std::shared_ptr<Session>> shared;
	Session *array;
	Diamond *diamond;
	net::Plain *plain;
	std::map<std::string, int> names;
};

static struct kept *keep;

__attribute__((noinline)) static void fill(unsigned long live)
{
	keep = new kept();
	for (unsigned long i = 0; i < live; i++)
		keep->requests.push_back(new CommItopReq(i));
	for (int i = 0; i < 300; i++)
		keep->requests.push_back(new Session());
	for (int i = 0; i < 200; i++)
		keep->logged.push_back(new Cache<std::string>());
	for (int i = 0; i < 100; i++)
		keep->logged.push_back(new Local());
	for (int i = 0; i < 50; i++)
		keep->shared.push_back(std::make_shared<Session>());
	keep->array = new Session[25];
	keep->diamond = new Diamond();
	keep->plain = new net::Plain();
	for (int i = 0; i < 40; i++)
		keep->names[std::string("name ") + char('a' + i % 26) + char('a' + i / 26)] = i;
}

__attribute__((noinline)) static void forget(unsigned long count)
{
	for (unsigned long i = 0; i < count; i++) {
		Request *volatile request = new CommItopReq(i);

		victim_progress += request->result() != 0;
	}
}

__attribute__((noinline)) static void clean_stack()
{
	char bytes[1 << 15];

	memset(bytes, 0, sizeof(bytes));
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

int main(int argc, char **argv)
{
	unsigned long leaked = victim_number(argc, argv, 1, 300000);
	unsigned long live = victim_number(argc, argv, 2, 1000);

	victim_init();
	fill(live);
	forget(leaked);
	clean_stack();
	say("leaked %lu", leaked);
	say("texts %lu", leaked + live);
	say("type %lu CommItopReq", leaked + live);
	say("type 300 Session");
	say("type 100 (anonymous namespace)::Local");
	say("type 1 Session[]");
	say("type 1 Diamond");
	victim_ready();
	victim_serve(NULL);
	return 0;
}
