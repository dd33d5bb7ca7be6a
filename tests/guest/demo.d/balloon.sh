# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

demo_balloon_is()
{
	"$vum" ctl "$tmp/balloon.ctl" query-balloon | grep -q "\"actual\": $1,"
}

# Lets the balloon go when the guest has seen it.
demo_deflate()
{
	await 60 test -e "$tmp/guest/booted" || return
	await 60 demo_balloon_is 8388608 && touch "$tmp/guest/inflated"
	await 60 test -e "$tmp/guest/seen" || return
	"$vum" ctl "$tmp/balloon.ctl" balloon size=0
}

demo_balloon()
{
	local given
	given=$("$vum" ctl "$tmp/balloon.ctl" query-balloon | sed -n 's/.*"discarded": \([0-9]*\).*/\1/p')
	[ "$given" -eq 8388608 ]
	confirm $? "balloon was given back"
}

serve balloon 5 --initial=8M --control-path="$tmp/balloon.ctl"
demo_deflate &
afterwards demo_balloon

in_guest <<'GUEST'
total() { awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo; }
touch /host/booted
await 60 test -e /host/inflated
with=$(total)
row "memory with balloon" "$with KiB"
touch /host/seen
await 60 eval '[ $(($(total) - with)) -ge 8192 ]'
row "memory without" "$(total) KiB"
[ $(($(total) - with)) -eq 8192 ]
confirm $? "8 MiB more"
GUEST
