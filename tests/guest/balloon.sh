#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest with a balloon: it fills its memory, half of that goes into the
# balloon, and the file that its memory is on the host shrinks by as much; what
# the guest keeps is intact. Deflation gives the memory back. Under pressure the
# guest helps itself, when it may. Memory that it frees is given back without a
# balloon, by free page reporting.

limit=200
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires jq
guest_memory=160M

# control NAME COMMAND...: of the back-end NAME
control()
{
	"$vum" ctl "$tmp/$1.ctl" "${@:2}"
}

balloon()
{
	backend "$1" balloon --control-path="$tmp/$1.ctl" "${@:2}"
}

# field NAME KEY: of query-balloon
field()
{
	control "$1" query-balloon | jq ".[\"$2\"]"
}

# resident NAME: MiB that the guest's memory takes on the host
resident()
{
	local fd size
	for fd in /proc/"${child_pid[$1]}"/fd/*; do
		size=$(stat -L -c '%F %s' "$fd" 2>/dev/null)
		case $size in
		"regular file "*) [ "${size##* }" -lt 100000000 ] || echo $(($(stat -L -c '%b * %B' "$fd") / 1048576)) ;;
		esac
	done | tail -n 1
}

actual_is()
{
	[ "$(field "$1" actual)" = "$2" ]
}

below()
{
	[ "$(resident "$1")" -lt "$2" ]
}

# step GUEST FILE: waits for the guest to get there; go FILE: lets it go on
step()
{
	ok "$1: $2" await 60 test -e "$tmp/$1/$2"
}

go()
{
	touch "$tmp/$1/$2"
}

cat >"$tmp/guest-lib" <<'GUEST'
await() { until [ -e "/host/$1" ]; do usleep 20000; done; }
reach() { touch "/host/$1"; }
kib() { awk -v key="$1:" '$1 == key { print $2 }' /proc/meminfo; }
mkdir /tmp/big
mount -t tmpfs -o size=100% big /tmp/big
GUEST

# guest_script: what all scripts need, and standard input, in $tmp/script
guest_script()
{
	cat "$tmp/guest-lib" - >"$tmp/script"
}

# ---- inflate, deflate, statistics ----

balloon b --stats-interval=200ms
guest_script <<'GUEST'
cd /tmp/big
dd if=/dev/urandom of=kept bs=1M count=24 2>/dev/null
before=$(md5sum <kept)
total=$(kib MemTotal)
dd if=/dev/zero of=junk bs=1M count=$(($(kib MemFree) / 1024 - 12)) 2>/dev/null
rm junk
reach filled
await inflated
is "its memory shrank by the balloon" $((total - $(kib MemTotal))) 65536
is "what it keeps is intact" "$(md5sum <kept)" "$before"
reach smaller
await deflated
is "its memory is back" "$(kib MemTotal)" "$total"
dd if=/dev/zero of=junk bs=1M count=$(($(kib MemFree) / 1024 - 12)) 2>/dev/null
is "it can be used" "$(tr -d '\0' <junk | wc -c)" 0
is "what it keeps is intact" "$(md5sum <kept)" "$before"
reach full
await finish
GUEST
uml_start guest 100 virtio_uml.device="$socket:5" <"$tmp/script"
step guest filled
full=$(resident b)
note "full: $full MiB"
ok "its memory was in use" test "$full" -gt 110
control b balloon size=64M
ok "the balloon inflates" await 60 actual_is b 67108864
small=$(resident b)
note "inflated: $small MiB; $(control b query-balloon | jq -c .)"
ok "the host has its memory back" test "$small" -le $((full - 56))
is "all of it was given back" "$(field b discarded)" 67108864
is "nothing else was named" "$(field b pages-outside)" 0
like "features" "$(control b query-status | jq -c .features)" 'must-tell-host.*stats-vq'
go guest inflated
step guest smaller
like "the guest's statistics" "$(control b query-balloon-stats | jq '.["total-bytes"] / 1048576 | floor')" '^[6-9][0-9]$'
control b balloon size=0
ok "the balloon deflates" await 60 actual_is b 0
ok "which takes no memory yet" test "$(resident b)" -le $((small + 8))
go guest deflated
step guest full
note "full again: $(resident b) MiB"
ok "the guest uses it again" test "$(resident b)" -ge $((full - 16))
go guest finish
guest_wait guest
ok "the back-end ends at SIGTERM" stop b

# ---- what the guest takes by itself, and what it reports ----

balloon o --deflate-on-oom --initial=64M
oom=$socket
guest_script <<'GUEST'
await inflated
cd /tmp/big
free=$(kib MemFree)
dd if=/dev/urandom of=/tmp/big/much bs=1M count=$((free / 1024 + 24)) 2>/host/dd.log
is "more than was free could be written" "$(($(stat -c %s much) / 1048576))" $((free / 1024 + 24))
reach written
await seen
GUEST
uml_start guest-oom 100 virtio_uml.device="$oom:5" <"$tmp/script"
ok "inflates at once" await 60 actual_is o 67108864
go guest-oom inflated
step guest-oom written
left=$(field o actual)
note "left in the balloon: $((left / 1048576)) MiB"
ok "the guest took pages back" test "$left" -lt $((60 << 20))
is "the target is as it was" "$(field o target)" 67108864
# User Mode Linux unplugs its devices after it has halted; a balloon that is not empty waits there for ever.
control o balloon size=0
ok "it deflates by command as well" await 60 actual_is o 0
go guest-oom seen
guest_wait guest-oom
ok "the back-end ends at SIGTERM" stop o

# Blocks of 128 KiB: the kernel reports only while 32 of them are free beyond its low water mark.
balloon r --free-page-reporting
guest_script <<'GUEST'
cd /tmp/big
dd if=/dev/urandom of=kept bs=1M count=16 2>/dev/null
before=$(md5sum <kept)
dd if=/dev/zero of=junk bs=1M count=80 2>/dev/null
echo 5 >/sys/module/page_reporting/parameters/page_reporting_order
reach filled
await measured
rm junk
reach freed
await shrunk
is "what it keeps is intact" "$(md5sum <kept)" "$before"
dd if=/dev/zero of=junk bs=1M count=80 2>/dev/null
is "memory that was given back reads as zeros" "$(tr -d '\0' <junk | wc -c)" 0
GUEST
uml_start guest-reports 100 virtio_uml.device="$socket:5" <"$tmp/script"
step guest-reports filled
full=$(resident r)
go guest-reports measured
step guest-reports freed
ok "the file shrinks after a big free" await 30 below r $((full - 60))
note "from $full to $(resident r) MiB"
ok "by what was reported" test "$(field r reported)" -ge $((60 << 20))
go guest-reports shrunk
guest_wait guest-reports
ok "the back-end ends at SIGTERM" stop r

done_testing
