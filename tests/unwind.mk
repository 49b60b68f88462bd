# What the tests of the unwind table need: a tool that compares it with libdwfl, and a program that
# times the walk; and of pools: one that compares a recording with PostgreSQL's contexts.

UNWIND_TOOLS := $(BUILD)/tests/tools/unwind_compare $(BUILD)/tests/tools/unwind_bench
POOL_TOOLS := $(BUILD)/tests/tools/pg_exact

$(BUILD)/tests/tools/unwind_bench.o: override CFLAGS += -fomit-frame-pointer \
	-fno-optimize-sibling-calls

$(BUILD)/tests/tools/%.o: tests/tools/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(UNWIND_TOOLS) $(POOL_TOOLS): %: %.o $(LIBRARY)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) -lpthread -ldl

.PRECIOUS: $(BUILD)/tests/tools/%.o

-include $(UNWIND_TOOLS:%=%.d) $(POOL_TOOLS:%=%.d)

victims: $(UNWIND_TOOLS) $(POOL_TOOLS)

# ---- make bench-unwind, which make bench runs, too ----

.PHONY: bench-unwind
bench-unwind: $(BUILD)/tests/tools/unwind_bench
	$< table libLLVM-14.so.1
	$< one
	$<
