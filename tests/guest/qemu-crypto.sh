#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's cryptodev on our back-end, in the two versions whose messages differ:
# the driver's self-tests in the guest's kernel pass, what it encrypts is what
# openssl makes of it here; its driver may let go and come back. After a kill -9 of
# the back-end QEMU connects to the next one; but these two crash as soon as the
# guest stops its driver then, so that is as far as it goes.

limit=300
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
requires openssl od
newer=$("$guestdir/build-qemu" --cached) || lacking "no QEMU of the backports (tests/guest/build-qemu gets it)"

# same NAME BITS: does openssl say the same of the guest's output?
same()
{
	local key iv
	key=$(sed -n "/^AES $2$/,/^coded/s/^key //p" "$tmp/$1/out")
	iv=$(sed -n "/^AES $2$/,/^coded/s/^iv //p" "$tmp/$1/out")
	[ "$(sed -n "/^AES $2$/,/^coded/s/^coded //p" "$tmp/$1/out")" = \
		"$(openssl enc "-aes-$2-cbc" -nopad -K "$key" -iv "$iv" -in "$tmp/plain" | od -An -v -tx1 | tr -d ' \n')" ]
}

# 16 times all bytes
for _ in {1..16}; do
	printf '%02X' {0..255}
done | basenc -d --base16 >"$tmp/plain"

connected()
{
	"$vum" ctl "$tmp/ctl" query-status | grep -q '"connected": true'
}

# with NAME DEVICE-PROPERTIES
with()
{
	local name=$1 bits requests
	backend crypto crypto --control-path="$tmp/ctl"
	qemu_start "$name" 120 -chardev "socket,id=c,path=$socket,reconnect=1" \
		-object cryptodev-vhost-user,id=cr,chardev=c,queues=2 -device "virtio-crypto-pci,cryptodev=cr$2" <<'GUEST'
modprobe algif_skcipher
modprobe virtio_crypto
registered()
{
	grep -q 'virtio_crypto_aes_cbc' /proc/crypto
}
field()
{
	sed -n "/virtio_crypto_aes_cbc/,/^\$/s/^$1 *: //p" /proc/crypto
}
tested()
{
	[ "$(field selftest)" = passed ]
}
drain_errors()
{
	dmesg | grep -c 'alg: .*virtio'
}
check "the driver offers AES-CBC" await 20 registered
algtest virtio_crypto_aes_cbc - 16 >/tmp/first
check "the kernel's tests of it have passed" await 20 tested
is "and said nothing" "$(drain_errors)" 0
for bits in 128 192 256; do
	check "AES-$bits: as the kernel does it" algtest virtio_crypto_aes_cbc "cbc(aes-generic)" $((bits / 8))
	echo "AES $bits"
	algtest virtio_crypto_aes_cbc - $((bits / 8))
done
echo ready
read -r go
driver=/sys/bus/virtio/drivers/virtio_crypto
device=$(cd $driver && echo virtio[0-9]*)
check "the driver lets go" eval "echo $device >$driver/unbind"
check "and comes back" eval "echo $device >$driver/bind"
check "AES-CBC is there again" await 20 registered
check "and works" algtest virtio_crypto_aes_cbc "cbc(aes-generic)" 32
echo again
read -r go
GUEST
	ok "$name: the guest has encrypted" guest_await "$name" 80 '^ready$'
	for bits in 128 192 256; do
		ok "$name: AES-$bits is the same as openssl's" same "$name" $bits
	done
	requests=$("$vum" ctl "$tmp/ctl" query-stats | sed -n 's/.*"requests": \([0-9]*\).*/\1/p' | sort -n | tail -n 1)
	ok "$name: it was our back-end that did it" test "${requests:-0}" -gt 100
	guest_tell "$name" go
	ok "$name: and again" guest_await "$name" 60 '^again$'
	stop crypto KILL
	backend crypto crypto --control-path="$tmp/ctl"
	ok "$name: QEMU connects to the next back-end" await 20 connected
	stop "$name" # with a limit of its own, which takes QEMU along
	guest_results "$name" < <(grep -a "^\(not \)*ok " "$tmp/$name/out")
	ok "$name: the back-end ends at SIGTERM" stop crypto
}

# without MSI-X: with it, this version crashes if there is no KVM
with qemu-7 ,vectors=0
PATH=$newer:$PATH
with qemu-10 ""

done_testing
