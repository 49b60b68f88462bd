#!/usr/bin/env bats
# The demonstration that the README begins with.

load lib

@test "make demo shows what it says" {
	run -0 timeout "$(patience 240)" env BUILD="$BUILD" "$ROOT/contrib/demo/demo.sh"
	[[ $output != *"demo: "* ]] || fail "$output"
	for shown in 'is free memory that' 'channel=fax' make_request '2000 requests answered correctly'; do
		[[ $output = *"$shown"* ]] || fail "not shown: $shown" "$output"
	done
}
