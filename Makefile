# memprobe. `make demo` shows it, `make check` tests it, `make help` lists the rest.

CC ?= gcc
CFLAGS ?= -O2 -g
BUILD ?= build
# One folder has one name, or what depends on a header would be known by the other name only.
override BUILD := $(patsubst $(CURDIR)/%,%,$(BUILD))
PREFIX ?= /usr/local
DESTDIR ?=

PACKAGES = libdw libelf libunwind-ptrace libunwind-generic jansson libzstd libpcre2-8 zlib
WARNINGS = -Wall -Wextra -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-parameter
CPPFLAGS += -Iinclude -Isrc -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
override CFLAGS += -std=gnu11 $(WARNINGS) -fno-strict-aliasing
LIBS = -ldw -lelf -lunwind-ptrace -lunwind-generic -ljansson -liberty -lzstd -lpcre2-8 -lmicrohttpd -lz -lm -lpthread

ifdef SANITIZE
override CFLAGS += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
LDFLAGS += -fsanitize=$(SANITIZE)
endif

# What runs inside targets is built by src/agent/agent.mk; the library has it as data.
SOURCES := $(sort $(filter-out src/agent/%,$(wildcard src/*/*.c src/*/*/*.c)))
ASSEMBLY := $(sort $(filter-out src/agent/%,$(wildcard src/*/*.S src/*/*/*.S)) src/agent/image.S)
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) $(ASSEMBLY:%.S=$(BUILD)/%.o)
LIBRARY := $(BUILD)/libmemprobe.a
MANUALS := $(sort $(wildcard man/*.1))

.PHONY: all check check-unit check-live check-layers check-format demo docs bench fuzz torture install clean help
.DELETE_ON_ERROR:

all: $(BUILD)/memprobe

help:
	@echo 'all (build/memprobe), demo, check, docs, fuzz, bench, torture, install, clean'
	@echo 'options: CC=clang  SANITIZE=address,undefined  BUILD=dir  PREFIX=/usr/local  DESTDIR='

$(BUILD)/memprobe: $(BUILD)/src/main.o $(LIBRARY)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(LIBRARY): $(OBJECTS)
	rm -f $@
	ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -include include/memprobe/banned.h -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.S
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -MMD -MP -c -o $@ $<

# What these take in by .incbin.
$(BUILD)/src/report/flamegraph_files.o: src/report/flamegraph.css src/report/flamegraph.js
$(BUILD)/src/cmd/pool_files.o: $(wildcard contrib/pools/*.pool)

-include $(OBJECTS:.o=.d) $(BUILD)/src/main.d

clean:
	rm -rf $(BUILD)

include src/agent/agent.mk
include tests/tests.mk
include contrib/contrib.mk
