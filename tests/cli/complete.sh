#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What belongs to a device is there: each built type has its source, man page,
# description template, tests and Makefile lines. No test lies around unused.

limit=30
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"

makefile=$srcdir/Makefile.am

# in_makefile FILE: is it named there, as a word?
in_makefile()
{
	grep -qE "(^|[[:space:]])$1([[:space:]]|\$)" "$makefile"
}

is "--list is devices/list.h" "$("$vum" --list | cut -d ' ' -f 1)" "$(list DEVICE)"
is "devices/list.h is in order" "$(sed -nE 's/^(DEVICE|PLANNED)\((.*)\)$/\2/p' "$srcdir/devices/list.h")" \
	"$(sed -nE 's/^(DEVICE|PLANNED)\((.*)\)$/\2/p' "$srcdir/devices/list.h" | sort)"

for type in $("$vum" --list | cut -d ' ' -f 1); do
	for file in "devices/$type.c" "tests/device/$type.c" "tests/guest/$type.sh"; do
		ok "$type: $file exists" test -f "$srcdir/$file"
		ok "$type: $file is in Makefile.am" in_makefile "$file"
	done
	ok "$type: devices/$type.pod exists" test -f "$srcdir/devices/$type.pod"
	is "$type: one description template" \
		"$(cd "$srcdir/data" && find . -name "*-vhost-user-multi-$type.json.in" | wc -l)" 1
done

# Man pages and tests of types that are not built would be lies.
for file in "$srcdir"/devices/*.pod; do
	type=$(basename "$file" .pod)
	like "$type.pod belongs to a built type" " $(list DEVICE | tr '\n' ' ')" " $type "
done

cd "$srcdir" || exit 1
for file in src/*.[ch] devices/*.[ch] tests/unit/*.c tests/device/*.c; do
	ok "$file is in Makefile.am" in_makefile "$file"
done
for file in tests/cli/*.sh tests/guest/*.sh; do
	case $file in
	*/common.sh | */cache.sh | */check.sh | */packages.sh) continue ;;
	esac
	ok "$file is in Makefile.am" in_makefile "$file"
done
done_testing
