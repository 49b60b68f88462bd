# The torture: a self-checking target in several parts (tests/torture/target*.c), the tools that
# kill memprobe and call in a loop, and tests/live/torture.bats, which `make check` runs in small
# and `make torture` in large. tests/torture/series.py records servers and victims again and again,
# and is killed as often: SERIES=500 make torture for what a release should have seen.
# tests/torture/storm.py draws targets, commands and mishaps: STORM=20000 for a release.

TORTURE_TARGETS := $(VICTIM_DIR)/torture $(VICTIM_DIR)/torture-32 $(VICTIM_DIR)/torture-static
TORTURE_TOOLS := $(BUILD)/tests/torture/killer $(BUILD)/tests/torture/call_loop $(BUILD)/tests/torture/trace_loop
TORTURE_SOURCES := $(sort $(wildcard tests/torture/target*.c))
TORTURE_FLAGS = -std=gnu11 -Wall -Wextra -Wno-unused-parameter -D_GNU_SOURCE -pthread $(VICTIM_CFLAGS)

$(TORTURE_TARGETS): $(TORTURE_SOURCES) tests/torture/target.h $(VICTIM_HEADERS)
	@mkdir -p $(@D)
	gcc $(TORTURE_FLAGS) $(if $(findstring -32,$(notdir $@)),-m32) \
		$(if $(findstring -static,$(notdir $@)),-static) -Wl,-z,now -o $@ $(TORTURE_SOURCES)

$(BUILD)/tests/torture/%.o: tests/torture/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(TORTURE_TOOLS): %: %.o $(LIBRARY)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) -lpthread

.PRECIOUS: $(BUILD)/tests/torture/%.o

-include $(TORTURE_TOOLS:%=%.d)

victims: $(TORTURE_TARGETS) $(TORTURE_TOOLS)

SERIES ?= 20
STORM ?= 1000

torture: CHECK_TIMEOUT = 7200
torture: all victims
	tests/torture/series.py $(BUILD) cycles $(SERIES)
	tests/torture/series.py $(BUILD) kills $(SERIES)
	tests/torture/storm.py $(BUILD) $(STORM)
	TORTURE=long $(RUN_TESTS) tests/live/torture.bats tests/live/agent.bats tests/live/killed.bats \
		tests/live/servers.bats tests/live/unwind_table.bats
