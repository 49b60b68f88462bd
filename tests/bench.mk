# `make bench`: memprobe beside gdb, pmap, LeakSanitizer and what the kernel alone takes
# (tests/bench/bench.py).

BENCH_PROGRAMS := $(addprefix $(BUILD)/tests/bench/,heartbeat floor blob leaky gaps)

$(BENCH_PROGRAMS): $(BUILD)/tests/bench/%: tests/bench/%.c tests/bench/beat.h $(VICTIM_HEADERS)
	@mkdir -p $(@D)
	gcc -std=gnu11 $(VICTIM_FLAGS) -o $@ $<

# The same program in the hands of LeakSanitizer.
$(BUILD)/tests/bench/leaky-lsan: tests/bench/leaky.c tests/bench/beat.h $(VICTIM_HEADERS)
	@mkdir -p $(@D)
	gcc -std=gnu11 $(VICTIM_FLAGS) -DWITH_LSAN -fsanitize=leak -o $@ $<

BENCH_PROGRAMS += $(BUILD)/tests/bench/leaky-lsan

bench:
	sh contrib/install-deps.sh --build --bench
	$(MAKE) all $(BENCH_PROGRAMS) $(BUILD)/tests/bench/agent_cost \
		$(BUILD)/tests/torture/trace_loop $(VICTIM_DIR)/manymaps $(VICTIM_DIR)/leaks \
		$(VICTIM_DIR)/faultshape $(VICTIM_DIR)/mapcalls \
		$(VICTIM_DIR)/allocload $(BUILD)/tests/tools/unwind_compare
	tests/bench/bench.py $(BUILD) $(PARTS)
	$(if $(PARTS),,$(MAKE) bench-unwind)

# Runs the agent in its own process.
$(BUILD)/tests/bench/agent_cost: tests/bench/agent_cost.c $(BUILD)/tests/unit/agent_world.o $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -std=gnu11 -Wall -Wextra -O2 -g -fomit-frame-pointer $(LDFLAGS) -o $@ $^ $(LIBS)
