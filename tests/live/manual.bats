#!/usr/bin/env bats
# `-h`, the manual and the completions are one truth: the command table.

load lib

setup() {
	commands=$("$MEMPROBE" -h | sed -n '/^commands:/,/^$/ s/^  \([a-z]*\) .*/\1/p')
	[ -n "$commands" ]
}

rendered() { # PAGE: as plain text, lines unbroken
	groff -man -Tascii -P-c -rLL=500n "$ROOT/man/$1.1" | col -b
}

section() { # TITLE, of a page on stdin
	awk -v title="$1" '/^[A-Z]/ { inside = ($0 == title); next } inside'
}

blanks() {
	tr -s '[:space:]' ' ' | sed 's/^ //; s/ $//'
}

long_options() { # of -h, between two headings
	sed -n "/^$1/,/^\$/ s/^ .*\(--[a-z0-9-]*\).*/\1/p" | sed 's/=.*//'
}

@test "SYNOPSIS is the usage line of -h" {
	for command in $commands; do
		usage=$(memprobe "$command" -h | sed -n '1s/^usage: //p' | blanks)
		synopsis=$(rendered "memprobe-$command" | section SYNOPSIS | blanks)
		[ "$usage" = "$synopsis" ] || fail "$command: -h has '$usage', the page '$synopsis'"
	done
}

@test "every option of -h is in the manual, and every option of the manual in -h" {
	for command in $commands; do
		help=$(memprobe "$command" -h)
		page=$(rendered "memprobe-$command" | section OPTIONS)
		for option in $(long_options options: <<<"$help"); do
			grep -q -- "^ .*$option\b" <<<"$page" || fail "$command: $option is not in the page"
		done
		for option in $(sed -nE 's/^ {1,8}(-[a-z]( [A-Z]+)?, )?(--[a-z0-9-]+).*/\3/p' <<<"$page"); do
			grep -q -- "$option\b" <<<"$help" || fail "$command: $option is not in -h"
		done
	done
	page=$(rendered memprobe | section OPTIONS)
	for option in $(memprobe -h | long_options 'options of every command'); do
		grep -q -- "^ .*$option\b" <<<"$page" || fail "$option is not in memprobe(1)"
	done
}

@test "memprobe(1) names every command, and there is no page without one" {
	page=$(rendered memprobe | section COMMANDS)
	for command in $commands; do
		grep -q "^ *$command\b" <<<"$page" || fail "$command is not in memprobe(1)"
	done
	for file in "$ROOT"/man/memprobe-*.1; do
		name=${file##*/memprobe-}
		grep -qx "${name%.1}" <<<"$commands" || fail "${file##*/} has no command"
	done
}

@test "the README names every command" {
	for command in $commands; do
		grep -qE "\`$command\b|memprobe $command\b" "$ROOT/README.md" || fail "$command"
	done
}

@test "the manual pages are clean" {
	for file in "$ROOT"/man/*.1; do
		run groff -man -Tutf8 -ww -z "$file"
		[ -z "$output" ] || fail "$file: $output"
		if command -v mandoc >/dev/null; then
			run mandoc -T lint -W warning "$file"
			[ "$status" -eq 0 ] || fail "$output"
		fi
	done
}

@test "the version is that of the manual and of NEWS" {
	version=$(memprobe --version)
	[[ $version =~ ^memprobe\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
	for file in "$ROOT"/man/*.1; do
		grep -q "^\.TH .*\"$version\"" "$file" || fail "$file"
	done
	head -3 "$ROOT/NEWS" | grep -q "${version#memprobe }"
}

# ---- completions ----

complete_bash() { # the words of a command line, the last one being completed
	# shellcheck disable=SC2016
	run bash --norc -c '
		source /dev/stdin <<<"$("$0" completion bash)"
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		_memprobe
		[ ${#COMPREPLY[@]} -eq 0 ] || printf "%s\n" "${COMPREPLY[@]}"' "$MEMPROBE" "$@"
	[ "$status" -eq 0 ]
}

has_line() {
	grep -qxF -- "$1" <<<"$output" || fail "no '$1' in:" "$output"
}

@test "bash completes commands, options, values, PIDs and names" {
	start_victim idle
	complete_bash memprobe ma
	has_line maps
	has_line mallinfo
	complete_bash memprobe ''
	for command in $commands; do
		has_line "$command"
	done
	complete_bash memprobe maps --by-t
	[ "$output" = --by-type ]
	complete_bash memprobe maps 1 --color = al
	[ "$output" = always ]
	complete_bash memprobe flame in --color = h
	[ "$output" = hot ]
	complete_bash memprobe flame --format sv
	[ "$output" = svg ]
	complete_bash memprobe maps "$victim_pid"
	has_line "$victim_pid"
	complete_bash memprobe maps idl
	has_line idle
	complete_bash memprobe dump 1 -o "$ROOT/READM"
	has_line "$ROOT/README.md"
	complete_bash memprobe maps "$victim_pid" ''
	[ -z "$output" ]
}

@test "a process cannot run commands through its name when bash completes" {
	cp "$VICTIMS/idle" "$BATS_TEST_TMPDIR/\$(touch \$X)"
	export X=$BATS_TEST_TMPDIR/harm
	start_command "$BATS_TEST_TMPDIR/\$(touch \$X)"
	[ "$(cat "/proc/$victim_pid/comm")" = "\$(touch \$X)" ]
	complete_bash memprobe maps ''
	[ ! -e "$X" ]
}

@test "the completions are valid for their shells" {
	for shell in bash zsh fish; do
		memprobe completion "$shell" >"$BATS_TEST_TMPDIR/$shell"
		[ -s "$BATS_TEST_TMPDIR/$shell" ]
		command -v "$shell" >/dev/null || continue
		"$shell" -n "$BATS_TEST_TMPDIR/$shell"
	done
	run memprobe completion tcsh
	[ "$status" -eq 2 ]
}

@test "fish completes commands and options" {
	command -v fish >/dev/null || skip "no fish"
	memprobe completion fish >"$BATS_TEST_TMPDIR/memprobe.fish"
	run fish --no-config -c "source '$BATS_TEST_TMPDIR/memprobe.fish'
		complete -C 'memprobe ma'; complete -C 'memprobe maps --by-'"
	[[ $output = *mallinfo* ]]
	[[ $output = *--by-type* ]]
}

# ---- installation ----

@test "make install puts everything into its place, and uninstall removes it" {
	make -s -C "$ROOT" install BUILD="$BUILD" DESTDIR="$BATS_TEST_TMPDIR/root" PREFIX=/usr
	cd "$BATS_TEST_TMPDIR/root/usr"
	bin/memprobe --version
	for command in $commands; do
		[ -e "share/man/man1/memprobe-$command.1" ] || fail "$command"
	done
	[ -s share/bash-completion/completions/memprobe ]
	[ -s share/zsh/site-functions/_memprobe ]
	[ -s share/fish/vendor_completions.d/memprobe.fish ]
	make -s -C "$ROOT" uninstall BUILD="$BUILD" DESTDIR="$BATS_TEST_TMPDIR/root" PREFIX=/usr
	[ -z "$(find . -type f)" ]
}
