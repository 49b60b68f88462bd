# The agent: a program of its own, which runs inside targets. It is linked to one flat image that
# needs no relocation; the library has it as data (image.S).

AGENT_SOURCES := $(sort $(filter-out src/agent/image.S,$(wildcard src/agent/*.[cS])))
AGENT_OBJECTS := $(AGENT_SOURCES:%=$(BUILD)/%.o)
AGENT_IMAGE := $(BUILD)/src/agent/agent.bin

# Callers' vector registers must survive, so there is none; no sanitizer, no thread-local canary.
AGENT_FLAGS = -Isrc -std=gnu11 $(WARNINGS) -O2 -g -ffreestanding -fPIC -fvisibility=hidden \
	-fno-stack-protector -fno-omit-frame-pointer -fno-asynchronous-unwind-tables \
	-fno-strict-aliasing -fno-jump-tables -fno-tree-loop-distribute-patterns -mgeneral-regs-only \
	-fcf-protection=branch -U_FORTIFY_SOURCE
ifneq (,$(findstring clang,$(CC)))
AGENT_FLAGS := $(filter-out -fno-tree-loop-distribute-patterns,$(AGENT_FLAGS)) -fno-builtin
endif

$(BUILD)/src/agent/%.c.o: src/agent/%.c
	@mkdir -p $(@D)
	$(CC) $(AGENT_FLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/src/agent/%.S.o: src/agent/%.S
	@mkdir -p $(@D)
	$(CC) -Isrc -MMD -MP -c -o $@ $<

# Binutils 2.39 warns of what an image of code and data in one is, and knows how not to.
AGENT_NO_WARN = $(addprefix -Wl$(comma),$(shell ld --help 2>/dev/null | \
	grep -o -m 1 -e '--no-warn-rwx-segments'))
comma := ,

$(BUILD)/src/agent/agent.elf: $(AGENT_OBJECTS) src/agent/agent.ld
	$(CC) -nostdlib -static -Wl,-T,src/agent/agent.ld -Wl,--build-id=none -Wl,--emit-relocs \
		$(AGENT_NO_WARN) -o $@ $(AGENT_OBJECTS)

# Code that depends on where it lies would have an absolute relocation.
$(AGENT_IMAGE): $(BUILD)/src/agent/agent.elf src/agent/agent.mk
	@if readelf -rW $< | sed -n '/\.rela\.\(text\|header\)/,/^$$/p' | \
		grep -E 'R_X86_64_(64|32S?|GLOB_DAT|RELATIVE|GOT|TPOFF)' | \
		grep -v 'agent_\(image\|ctl\)_size'; then \
		echo 'the agent is not position independent' >&2; exit 1; fi
	objcopy -O binary -j .header -j .text $< $@

$(BUILD)/src/agent/image.o: src/agent/image.S $(AGENT_IMAGE)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -DAGENT_IMAGE_FILE='"$(AGENT_IMAGE)"' -MMD -MP -c -o $@ $<

-include $(AGENT_OBJECTS:.o=.d)
