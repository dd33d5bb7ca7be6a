#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Gives each fuzz target to libFuzzer for FUZZ_SECONDS, starting from its seeds
# and from what earlier runs in this build directory have found interesting.
# `make fuzz` calls it with what a compiler needs to know:
#
#	fuzz.sh SOURCE_DIR "SOURCES" "COMPILER FLAGS" "LIBRARIES" TARGET...
#
# One line per target; status 1 when one of them found something.

set -euo pipefail

: "${FUZZ_SECONDS:=60}" "${FUZZ_CC:=clang}" "${FUZZ_JOBS:=$(nproc)}"
src=$1
read -ra sources <<<"$2"
read -ra flags <<<"$3"
read -ra libs <<<"$4"
shift 4
here=$PWD/tests/fuzz
objects=$here/objects
# shellcheck disable=SC2054 # the commas are the compiler's
sanitize=(-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined)

have_fuzzer()
{
	mkdir -p "$objects"
	echo 'int LLVMFuzzerTestOneInput(const char *p, long n); int LLVMFuzzerTestOneInput(const char *p, long n) { return !p && n; }' |
		"$FUZZ_CC" -fsanitize=fuzzer,address -x c - -o "$objects/probe" 2>/dev/null
}

# stale FILE: has a source or header changed since it was made?
stale()
{
	[ ! -f "$1" ] || [ -n "$(find "$src/src" "$src/devices" "$src/tests/fuzz" -name '*.[ch]' -newer "$1" -print -quit)" ]
}

build_core()
{
	local file list=()
	stale "$objects/core" || return 0
	for file in "${sources[@]}"; do
		[[ $file != *.c ]] || list+=("$file")
	done
	# shellcheck disable=SC2016 # for the inner shell
	printf '%s\n' "${list[@]}" | OBJECTS=$objects xargs -P "$FUZZ_JOBS" -I FILE bash -c '
		out=$OBJECTS/$(basename "$1" .c).o
		shift
		exec "$@" -c -o "$out"' - FILE "$FUZZ_CC" "${flags[@]}" "${sanitize[@]}" -fsanitize=fuzzer-no-link "$src/FILE"
	rm -f "$objects/core.a"
	ar rc "$objects/core.a" "$objects"/*.o
	touch "$objects/core"
}

build_target()
{
	stale "$here/fuzz-$1" || return 0
	"$FUZZ_CC" "${flags[@]}" "${sanitize[@]}" -fsanitize=fuzzer "$src/tests/fuzz/$1.c" "$objects/core.a" \
		"${libs[@]}" -o "$here/fuzz-$1" -pthread
}

# fuzz TARGET
fuzz()
{
	local corpus=$here/corpus-$1 log=$here/fuzz-$1.out runs
	mkdir -p "$corpus"
	"$here/$1" --seeds="$corpus"
	if ! "$here/fuzz-$1" -max_total_time="$FUZZ_SECONDS" -max_len=2048 -timeout=10 -rss_limit_mb=4096 \
		-close_fd_mask=2 -print_final_stats=1 -artifact_prefix="$here/found-$1-" "$corpus" >"$log" 2>&1; then
		echo "fuzz $1: FAILED, see $log"
		grep -a -E '^(SUMMARY|artifact_prefix|==.*ERROR)' "$log" || true
		echo "  again: $here/$1 $here/found-$1-..."
		return 1
	fi
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	echo "fuzz $1: $runs runs in $FUZZ_SECONDS s, nothing found"
}

if ! have_fuzzer; then
	echo "fuzz: $FUZZ_CC cannot build with -fsanitize=fuzzer (Debian: clang, libclang-rt-14-dev)" >&2
	exit 1
fi
build_core
failed=0
for target; do
	build_target "$target"
done
for target; do
	fuzz "$target" || failed=1
done
exit $failed
