#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our entropy: the driver takes it for its hardware generator,
# bytes of a given source arrive unaltered and in order, a dry source makes the
# guest wait, a limit makes it slow.

limit=120
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires od basenc

# ascending FILE: do its big-endian 32-bit words count upwards? The guest's
# kernel takes some of them for itself, so there are gaps.
ascending()
{
	od -An -v -tx1 -w4 "$1" | tr -d ' ' >"$tmp/words"
	[ "$(wc -l <"$tmp/words")" -ge 8 ] && LC_ALL=C sort -c -u "$tmp/words"
}

seq -f %08.0f 65536 | tr -d '\n' | basenc -d --base16 >"$tmp/numbers"

# ---- the default source ----

backend rng rng
uml_start guest 60 virtio_uml.device="$socket:4" <<'GUEST'
rng=/sys/class/misc/hw_random
is "available" "$(xargs <$rng/rng_available)" virtio_rng.0
is "current" "$(cat $rng/rng_current)" virtio_rng.0
check "a first read" dd if=/dev/hwrng of=/tmp/a bs=1k count=64 iflag=fullblock
check "a second read" dd if=/dev/hwrng of=/tmp/b bs=1k count=64 iflag=fullblock
is "all of it came" "$(cat /tmp/a /tmp/b | wc -c)" 131072
refuse "they differ" cmp -s /tmp/a /tmp/b
is "it does not compress" "$(($(gzip -c /tmp/a | wc -c) > 65000))" 1

check "the driver lets go" eval 'echo virtio0 >/sys/bus/virtio/drivers/virtio_rng/unbind'
is "no generator then" "$(cat $rng/rng_current)" none
check "the driver comes back" eval 'echo virtio0 >/sys/bus/virtio/drivers/virtio_rng/bind'
check "a read after that" dd if=/dev/hwrng of=/tmp/c bs=1k count=4 iflag=fullblock
is "all of it came" "$(wc -c </tmp/c)" 4096

uml=/sys/bus/platform/drivers/virtio-uml
check "the front-end disconnects" eval "echo virtio-uml.0 >$uml/unbind"
check "the front-end connects again" eval "echo virtio-uml.0 >$uml/bind"
check "a read after that" dd if=/dev/hwrng of=/tmp/c bs=1k count=4 iflag=fullblock
is "all of it came" "$(wc -c </tmp/c)" 4096
GUEST
guest_wait guest
ok "the back-end ends at SIGTERM" stop rng

# ---- a file, and a limit ----

backend file rng --source="$tmp/numbers"
file=$socket
backend slow rng --source="$tmp/numbers" --max-bytes=64 --period=400
uml_start guest-file 60 virtio_uml.device="$file:4" virtio_uml.device="$socket:4" <<'GUEST'
rng=/sys/class/misc/hw_random
check "the first generator" eval "echo virtio_rng.0 >$rng/rng_current"
check "read" dd if=/dev/hwrng of=/host/file bs=64 count=1024 iflag=fullblock
check "the limited generator" eval "echo virtio_rng.1 >$rng/rng_current"
hundredths()
{
	sed 's/ .*//; s/[.]//; s/^0*//' /proc/uptime
}
start=$(hundredths)
check "read" dd if=/dev/hwrng of=/host/slow bs=64 count=5 iflag=fullblock
end=$(hundredths)
echo "took $((end - start)) hundredths of a second"
is "five periods' worth takes at least three" "$((end - start >= 120))" 1
GUEST
guest_wait guest-file
is "all of it came" "$(stat -c %s "$tmp/guest-file/file")" 65536
ok "the guest has the file's bytes" ascending "$tmp/guest-file/file"
is "all of the slow ones came" "$(stat -c %s "$tmp/guest-file/slow")" 320
ok "the guest has the file's bytes, slowly" ascending "$tmp/guest-file/slow"
ok "the first back-end ends at SIGTERM" stop file
ok "the second back-end ends at SIGTERM" stop slow

# ---- a FIFO that runs dry ----

mkfifo "$tmp/fifo"
exec 7<>"$tmp/fifo"
backend dry rng --source="$tmp/fifo"
uml_start guest-fifo 60 virtio_uml.device="$socket:4" <<'GUEST'
dd if=/dev/hwrng of=/host/bytes bs=64 count=64 iflag=fullblock &
usleep 500000
refuse "nothing comes from a dry source" test -s /host/bytes
touch /host/thirsty
wait
is "all of it came" "$(wc -c </host/bytes)" 4096
GUEST
ok "the guest runs dry" await 30 test -e "$tmp/guest-fifo/thirsty"
spawn feed cp "$tmp/numbers" "$tmp/fifo"
guest_wait guest-fifo
ok "the guest has the FIFO's bytes" ascending "$tmp/guest-fifo/bytes"
ok "the back-end ends at SIGTERM" stop dry

done_testing
