#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The cache of guest kernels: an entry is made once, and the old ones go, but
# never one that is in use.

# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
requires flock

made=$tmp/made
VHOST_USER_MULTI_CACHE=$tmp/cache
# shellcheck source=tests/guest/cache.sh
. "$srcdir/tests/guest/cache.sh"

names()
{
	find "$cache_dir" -mindepth 1 -maxdepth 1 ! -name ".*" -printf "%f\n" | sort | tr -d "\n"
}

# entry NAME AGE: one that was used AGE minutes ago
entry()
{
	mkdir -p "$cache_dir/$1"
	echo old >"$cache_dir/$1/file"
	touch -d "$2 minutes ago" "$cache_dir/$1"
}

make_file()
{
	echo "made" >file
	echo "$1" >>"$made"
}

ok "an entry is made" cache_make kind-1a make_file 1a
is "in its directory" "$(cat "$cache_entry/file")" made
ok "and is there the next time" cache_make kind-1a make_file again
is "without being made again" "$(cat "$made")" 1a
refuses "what fails is no entry" cache_make kind-bad false
is "and leaves nothing" "$(find "$cache_dir" -name '*bad*' ! -name '*.lock')" ""

entry kind-3c 300
entry kind-4d 400
entry kind-5e 500
entry kind-6f 30
entry other-7a 600
entry other-8b 700
entry other-9c 800
cache_hold "$cache_dir/kind-4d/file"
touch -d "400 minutes ago" "$cache_dir/kind-4d"
ok "another one" cache_make kind-2b make_file 2b
is "the newest stay, those just used, and the held one" "$(names)" \
	kind-1akind-2bkind-4dkind-6fother-7aother-8bother-9c
is "nothing is left of the others" "$(find "$cache_dir" -name '*.tmp*')" ""

touch -d "900 minutes ago" "$cache_dir/kind-1a"
ok "who uses one" cache_make kind-1a make_file 1a
ok "makes it new" [ -n "$(find "$cache_dir/kind-1a" -maxdepth 0 -mmin -5)" ]

waits()
{
	sleep 0.3
	make_file "$1"
}
cache_make slow-1 waits slow-1 &
cache_make slow-1 waits slow-1 2>/dev/null
wait
is "two builders make it once" "$(grep -c slow "$made")" 1
done_testing
