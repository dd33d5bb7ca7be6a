#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our cryptography: its driver registers AES-CBC and RSA, which
# pass the kernel's self-tests. AES-CBC encrypts as the kernel's own code does, for
# every key length, RSA as openssl does on the host, and the two understand each
# other; sessions come and go by the hundred; the driver comes back after it was
# unbound.

limit=150
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires openssl
backend crypto crypto --control-path="$tmp/ctl" --max-sessions=8
uml_start guest 90 virtio_uml.device="$socket:20" cryptomgr.notests=0 <<'GUEST'
# tested DRIVER
tested()
{
	sed -n "/^driver *: $1\$/,/^\$/s/^selftest *: //p" /proc/crypto | grep -q passed
}
for driver in virtio_crypto_aes_cbc virtio-crypto-rsa; do
	check "$driver passes the kernel's tests" await 10 tested $driver
done
refuse "and they say nothing" eval "dmesg | grep 'alg: .*virtio' | grep -v 'No test for'"
for bits in 128 192 256; do
	check "AES-$bits-CBC is the same as the kernel's" algtest virtio_crypto_aes_cbc "cbc(aes-generic)" $((bits / 8))
done
i=0
while [ $i -lt 40 ]; do
	algtest virtio_crypto_aes_cbc "cbc(aes-generic)" 16 || break
	i=$((i + 1))
done
is "sessions that are closed make room for others" $i 40

await 60 test -e /host/next
cd /host
for bits in 1024 2048 4096; do
	for hash in sha1 sha256 sha512; do
		check "RSA-$bits signs a sum by $hash" keytest sign "enc=pkcs1 hash=$hash" key$bits digest.$hash $bits.$hash.guest
		check "and takes openssl's signature for right" keytest verify "enc=pkcs1 hash=$hash" key$bits digest.$hash $bits.$hash.host
	done
	refuse "but not for another text" keytest verify "enc=pkcs1 hash=sha256" key$bits digest.other $bits.sha256.host 2>/dev/null
	check "RSA-$bits encrypts" keytest encrypt enc=pkcs1 key$bits digest.sha512 $bits.coded.guest
	check "and decrypts what openssl did" keytest decrypt enc=pkcs1 key$bits $bits.coded.host $bits.plain.guest
	check "which is the same" cmp digest.sha512 $bits.plain.guest
	check "without padding" keytest encrypt enc=raw key$bits raw.$bits $bits.raw.guest
done
check "it was our driver that did it" grep -q "^driver *: pkcs1pad(virtio-crypto-rsa,sha256)$" /proc/crypto
cd /

driver=/sys/bus/virtio/drivers/virtio_crypto
check "the driver lets go" eval "echo virtio0 >$driver/unbind"
refuse "nothing is offered then" grep -q virtio_crypto_aes_cbc /proc/crypto
check "the driver comes back" eval "echo virtio0 >$driver/bind"
check "it works again" algtest virtio_crypto_aes_cbc "cbc(aes-generic)" 32 0.5
GUEST

cd "$tmp/guest" || exit
echo "a message" >text
echo "another" | openssl dgst -sha256 -binary >digest.other
for hash in sha1 sha256 sha512; do
	openssl dgst -$hash -binary <text >digest.$hash
done
for bits in 1024 2048 4096; do
	openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:$bits -out $bits.pem
	openssl pkcs8 -topk8 -nocrypt -outform DER -in $bits.pem -out key$bits
	for hash in sha1 sha256 sha512; do
		openssl pkeyutl -sign -inkey $bits.pem -pkeyopt digest:$hash -in digest.$hash -out $bits.$hash.host
	done
	openssl pkeyutl -encrypt -inkey $bits.pem -in digest.sha512 -out $bits.coded.host
	head -c $((bits / 8 - 1)) /dev/zero | tr '\0' x | cat <(printf '\0') - >raw.$bits
	openssl pkeyutl -encrypt -inkey $bits.pem -pkeyopt rsa_padding_mode:none -in raw.$bits -out $bits.raw.host
done
touch next
cd - >/dev/null || exit
guest_wait guest

cd "$tmp/guest" || exit
for bits in 1024 2048 4096; do
	for hash in sha1 sha256 sha512; do
		ok "RSA-$bits: openssl signs the same with $hash" cmp $bits.$hash.host $bits.$hash.guest
	done
	ok "RSA-$bits: openssl decrypts what the guest encrypted" \
		openssl pkeyutl -decrypt -inkey $bits.pem -in $bits.coded.guest -out $bits.plain.host
	ok "RSA-$bits: which is the same" cmp digest.sha512 $bits.plain.host
	ok "RSA-$bits: without padding too" cmp $bits.raw.host $bits.raw.guest
done
cd - >/dev/null || exit
requests=$("$vum" ctl "$tmp/ctl" query-metrics | grep -c requests)
ok "it was our back-end that did it" test "${requests:-0}" -gt 0
ok "the back-end ends at SIGTERM" stop crypto
done_testing
