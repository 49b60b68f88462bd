# `make fuzz` runs each harness tests/fuzz/fuzz_*.c for FUZZ_SECONDS under libFuzzer and the
# address and undefined-behaviour sanitizers. A harness may have seeds: the program
# tests/fuzz/seed_NAME.c writes them into the directory that it is given. What is
# found stays in build/fuzz/NAME.found, the corpus in build/fuzz/NAME.corpus. By default the inputs
# are the same every time, so that what fails is due to what has changed; FUZZ_SEED=0 tries others.

FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 1
FUZZ_CC ?= clang
FUZZ_DIR := $(BUILD)/fuzz
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_HELPERS := $(UNIT_HELPERS:$(BUILD)/%=$(FUZZ_DIR)/%)
FUZZ_FLAGS = -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all

.PHONY: fuzz fuzz-build $(FUZZERS:%=fuzz-%)
fuzz: $(FUZZERS:%=fuzz-%)
fuzz-build: $(FUZZERS:%=$(FUZZ_DIR)/fuzz_%)

# The whole library again, in a directory of its own and with the coverage that libFuzzer follows.
# Once for all of them, which may be built side by side.
.PHONY: fuzz-library
fuzz-library:
	+$(MAKE) BUILD=$(FUZZ_DIR) CC=$(FUZZ_CC) CFLAGS='$(FUZZ_FLAGS)' \
		LDFLAGS='-fsanitize=address,undefined' $(FUZZ_DIR)/libmemprobe.a \
		$(FUZZ_HELPERS)

$(FUZZ_DIR)/fuzz_%: tests/fuzz/fuzz_%.c fuzz-library
	$(FUZZ_CC) $(CPPFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer -o $@ $< \
		$(FUZZ_HELPERS) \
		$(FUZZ_DIR)/libmemprobe.a -lcmocka $(LIBS) -lpthread
	if [ -e tests/fuzz/seed_$*.c ]; then \
		$(FUZZ_CC) $(CPPFLAGS) $(FUZZ_FLAGS) -o $(FUZZ_DIR)/seed_$* tests/fuzz/seed_$*.c \
			$(FUZZ_HELPERS) \
			$(FUZZ_DIR)/libmemprobe.a -lcmocka $(LIBS) -lpthread; \
	fi

$(FUZZERS:%=fuzz-%): fuzz-%: $(FUZZ_DIR)/fuzz_%
	mkdir -p $(FUZZ_DIR)/$*.corpus $(FUZZ_DIR)/$*.found
	if [ -x $(FUZZ_DIR)/seed_$* ]; then $(FUZZ_DIR)/seed_$* $(FUZZ_DIR)/$*.corpus; fi
	$(FUZZ_DIR)/fuzz_$* -seed=$(FUZZ_SEED) -max_total_time=$(FUZZ_SECONDS) -timeout=60 -rss_limit_mb=2048 \
		-max_len=65536 -print_final_stats=1 -verbosity=0 \
		-artifact_prefix=$(FUZZ_DIR)/$*.found/ $(FUZZ_DIR)/$*.corpus
