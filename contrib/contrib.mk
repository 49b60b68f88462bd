# The demonstration, installation, and what else is not the program itself.

# ---- make demo: on a fresh machine, too ----

$(BUILD)/demo/leaky: contrib/demo/leaky.cc
	@mkdir -p $(@D)
	g++ -std=c++17 -O2 -g -Wall -Wextra -pthread -o $@ $<

.PHONY: demo-run
demo:
	sh contrib/install-deps.sh --build --demo
	$(MAKE) --no-print-directory demo-run

demo-run: all $(BUILD)/demo/leaky
	BUILD=$(BUILD) contrib/demo/demo.sh

# ---- make docs: the examples in README.md and the manual, and the picture ----

docs:
	sh contrib/install-deps.sh --build --demo --docs
	$(MAKE) all $(BUILD)/demo/leaky
	contrib/docs.py $(BUILD)

# ---- make install ----

MANDIR ?= $(PREFIX)/share/man
BASH_COMPLETIONS ?= $(PREFIX)/share/bash-completion/completions
ZSH_COMPLETIONS ?= $(PREFIX)/share/zsh/site-functions
FISH_COMPLETIONS ?= $(PREFIX)/share/fish/vendor_completions.d
# To be read and changed: they are in the program, which looks here, beside its own folder, before.
POOLDIR = $(PREFIX)/share/memprobe/pools
POOLS := $(sort $(wildcard contrib/pools/*.pool))
INSTALL ?= install

COMPLETIONS := $(BUILD)/completion/memprobe.bash $(BUILD)/completion/_memprobe \
	$(BUILD)/completion/memprobe.fish

# From the program's own command table.
$(BUILD)/completion/memprobe.bash: $(BUILD)/memprobe
	@mkdir -p $(@D)
	$(BUILD)/memprobe completion bash >$@

$(BUILD)/completion/_memprobe: $(BUILD)/memprobe
	@mkdir -p $(@D)
	$(BUILD)/memprobe completion zsh >$@

$(BUILD)/completion/memprobe.fish: $(BUILD)/memprobe
	@mkdir -p $(@D)
	$(BUILD)/memprobe completion fish >$@

.PHONY: uninstall
install: all $(COMPLETIONS)
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(MANDIR)/man1 \
		$(DESTDIR)$(BASH_COMPLETIONS) $(DESTDIR)$(ZSH_COMPLETIONS) \
		$(DESTDIR)$(FISH_COMPLETIONS)
	$(INSTALL) -m 755 $(BUILD)/memprobe $(DESTDIR)$(PREFIX)/bin/memprobe
	$(INSTALL) -m 644 $(MANUALS) $(DESTDIR)$(MANDIR)/man1
	$(INSTALL) -d $(DESTDIR)$(POOLDIR)
	$(INSTALL) -m 644 $(POOLS) $(DESTDIR)$(POOLDIR)
	$(INSTALL) -m 644 $(BUILD)/completion/memprobe.bash $(DESTDIR)$(BASH_COMPLETIONS)/memprobe
	$(INSTALL) -m 644 $(BUILD)/completion/_memprobe $(DESTDIR)$(ZSH_COMPLETIONS)/_memprobe
	$(INSTALL) -m 644 $(BUILD)/completion/memprobe.fish \
		$(DESTDIR)$(FISH_COMPLETIONS)/memprobe.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/memprobe \
		$(addprefix $(DESTDIR)$(POOLDIR)/,$(notdir $(POOLS))) \
		$(addprefix $(DESTDIR)$(MANDIR)/man1/,$(notdir $(MANUALS))) \
		$(DESTDIR)$(BASH_COMPLETIONS)/memprobe $(DESTDIR)$(ZSH_COMPLETIONS)/_memprobe \
		$(DESTDIR)$(FISH_COMPLETIONS)/memprobe.fish
