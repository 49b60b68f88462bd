# The tests. `make check` installs what they need, runs all of them, and ends with the line
# `N passed, N failed`. Nothing here is listed by name: a new file in tests/unit, tests/live or
# tests/victims is found by itself (CONTRIBUTING.md, "Tests").

CXX ?= g++
CLANG_FORMAT ?= clang-format
CHECK_JOBS ?= 2
CHECK_TIMEOUT ?= 900

# ---- unit tests: tests/unit/test_*.c, each a cmocka program; other files there are helpers ----

UNIT_TESTS := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/unit/test_*.c)))
UNIT_HELPERS := $(patsubst %.c,$(BUILD)/%.o,\
	$(sort $(filter-out tests/unit/test_%,$(wildcard tests/unit/*.c))))

# cmocka 2 deprecates assert_in_range(), which is the one that both it and cmocka 1 have.
$(BUILD)/tests/unit/%.o: tests/unit/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -Wno-deprecated-declarations -MMD -MP -c -o $@ $<

$(UNIT_TESTS): %: %.o $(UNIT_HELPERS) $(LIBRARY)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS) -ldl -lrt

.PRECIOUS: $(BUILD)/tests/unit/%.o

-include $(UNIT_TESTS:%=%.d) $(UNIT_HELPERS:.o=.d)

# ---- victims: tests/victims/NAME.c or .cc -> build/victims/NAME and its variants ----
#
# A victim's source may say in lines of its own
#	variants: 32 static musl	also build NAME-32 (-m32), NAME-static, NAME-musl (static too)
#	cflags: -mavx512f		more flags, for every variant
#	libs: -ljemalloc		and libraries

VICTIM_CFLAGS ?= -O2 -g -fno-omit-frame-pointer
# Each allocation in the source is one in the program: gcc 15 leaves out what is never looked at.
VICTIM_FLAGS = -Wall -Wextra -Wno-unused-parameter -D_GNU_SOURCE -pthread $(VICTIM_CFLAGS) \
	-fno-allocation-dce $(patsubst %,-fno-builtin-%,malloc calloc realloc free) \
	$(shell sed -n 's/^.*[[:blank:]]cflags:\(.*\)/\1/p' $<)
# What was apart from libc before glibc 2.34, for whoever needs it.
VICTIM_LIBS = $(shell sed -n 's/^.*[[:blank:]]libs:\(.*\)/\1/p' $<) -Wl,--as-needed -ldl -lrt
VICTIM_DIR := $(BUILD)/victims
VICTIM_SOURCES := $(sort $(wildcard tests/victims/*.c tests/victims/*.cc))
victims-with = $(foreach source,$(shell grep -lEs '[[:blank:]]variants:.*\b$(1)\b' $(VICTIM_SOURCES)),\
	$(VICTIM_DIR)/$(basename $(notdir $(source)))-$(1))
VICTIMS := $(foreach source,$(VICTIM_SOURCES),$(VICTIM_DIR)/$(basename $(notdir $(source)))) \
	$(call victims-with,32) $(call victims-with,static) $(call victims-with,musl)
VICTIM_HEADERS := $(wildcard tests/victims/*.h)

.PHONY: victims unit-tests
victims: $(VICTIMS) $(BUILD)/demo/leaky
unit-tests: $(UNIT_TESTS)

define victim-rule
$(VICTIM_DIR)/%$(1): tests/victims/%.$(2) $(VICTIM_HEADERS)
	@mkdir -p $$(@D)
	$(3) $$(VICTIM_FLAGS) $(4) -o $$@ $$< $$(VICTIM_LIBS)
endef

# The variants come first: `a-32` is to match the first rule, not to be made from `a-32.c`.
$(eval $(call victim-rule,-32,c,gcc,-std=gnu11 -m32))
$(eval $(call victim-rule,-static,c,gcc,-std=gnu11 -static))
$(eval $(call victim-rule,-musl,c,musl-gcc,-std=gnu11 -static))
$(eval $(call victim-rule,-32,cc,g++,-std=gnu++17 -m32))
$(eval $(call victim-rule,-static,cc,g++,-std=gnu++17 -static))
$(eval $(call victim-rule,,c,gcc,-std=gnu11))
$(eval $(call victim-rule,,cc,g++,-std=gnu++17))

include tests/torture.mk
include tests/unwind.mk
include tests/bench.mk

# ---- running them ----

LIVE_TESTS ?= $(sort $(wildcard tests/live/*.bats))
RUN_TESTS = BUILD=$(BUILD) CHECK_JOBS=$(CHECK_JOBS) CHECK_TIMEOUT=$(CHECK_TIMEOUT) tests/run.sh

.PHONY: check-run check-ready
check: check-ready
	$(MAKE) check-run

# All that the tests are made of: installs and builds it.
check-ready:
	sh contrib/install-deps.sh --build --tests
	$(MAKE) $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc)) all unit-tests victims

check-run: all unit-tests victims
	$(RUN_TESTS) $(UNIT_TESTS) $(LIVE_TESTS)

check-unit: unit-tests
	$(RUN_TESTS) $(UNIT_TESTS)

check-live: all victims
	$(RUN_TESTS) $(LIVE_TESTS)

check-layers:
	sh contrib/check-layers.sh

check-format:
	find src include tests contrib -name '*.[ch]' -o -name '*.cc' | sort | \
		xargs $(CLANG_FORMAT) --dry-run -Werror

include tests/fuzz/fuzz.mk
