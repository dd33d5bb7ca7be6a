#!/bin/bash
# SPDX-License-Identifier: MIT
#
# How the source looks: formatted by .clang-format, clean for shellcheck, a license
# line in every file, and nothing in it that is only somebody's note.

limit=300
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
requires clang-format shellcheck

# files PATTERN...: of the source tree, not of builds inside it
files()
{
	local pattern args=()
	for pattern; do
		args+=(${args:+-o} -name "$pattern")
	done
	find "$srcdir" -mindepth 1 \( -type d \( -name .git -o -name build-aux -o -name autom4te.cache -o \
		-exec test -f '{}/config.status' \; \) -prune \) -o -type f \( "${args[@]}" \) -print
}

mapfile -t c < <(files '*.c' '*.h' | grep -v '/config\.h$')
mapfile -t scripts < <(files '*' | grep -vE '/configure~?$|/config\.status$' |
	xargs -d '\n' grep -lE '^#!/bin/(ba)?sh|^# shellcheck shell=')

run clang-format --dry-run -Werror "${c[@]}"
is "${#c[@]} C files are formatted" "$status" 0
[ "$status" -eq 0 ] || grep -o '^[^:]*:[0-9]*' <<<"$err" | sort -u | head -20 | sed 's/^/# /'

run shellcheck -x -P "$srcdir" "${scripts[@]}"
is "${#scripts[@]} shell scripts are clean" "$status$out" 0

is "every file has its license line" \
	"$(grep -L 'SPDX-License-Identifier: MIT' "${c[@]}" "${scripts[@]}" | sed "s|^$srcdir/||")" ""

notes='\b(TO''DO|FIX''ME|XX''X)\b'
is "no notes to self" "$(grep -nE "$notes" "${c[@]}" "${scripts[@]}" | sed "s|^$srcdir/||" | head)" ""

done_testing
