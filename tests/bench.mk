# `make bench`: memprobe beside gdb, pmap and what the kernel alone takes (tests/bench/bench.py).

BENCH_PROGRAMS := $(BUILD)/tests/bench/heartbeat $(BUILD)/tests/bench/floor $(BUILD)/tests/bench/blob

$(BENCH_PROGRAMS): $(BUILD)/tests/bench/%: tests/bench/%.c $(VICTIM_HEADERS)
	@mkdir -p $(@D)
	gcc -std=gnu11 $(VICTIM_FLAGS) -o $@ $<

bench:
	sh contrib/install-deps.sh --build --bench
	$(MAKE) all $(BENCH_PROGRAMS) $(VICTIM_DIR)/manymaps $(VICTIM_DIR)/leaks
	tests/bench/bench.py $(BUILD) $(PARTS)
	$(if $(PARTS),,$(MAKE) bench-unwind)
