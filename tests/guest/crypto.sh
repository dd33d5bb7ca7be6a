#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our cryptography: its driver registers AES-CBC, which
# encrypts as the kernel's own code does, for every key length; sessions come and
# go by the hundred; the driver comes back after it was unbound.

limit=120
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
backend crypto crypto --control-path="$tmp/ctl" --max-sessions=8
uml_start guest 60 virtio_uml.device="$socket:20" <<'GUEST'
check "the driver offers AES-CBC" grep -q virtio_crypto_aes_cbc /proc/crypto
check "and RSA" grep -q virtio-crypto-rsa /proc/crypto
for bits in 128 192 256; do
	check "AES-$bits-CBC is the same as the kernel's" algtest virtio_crypto_aes_cbc "cbc(aes-generic)" $((bits / 8))
done
i=0
while [ $i -lt 40 ]; do
	algtest virtio_crypto_aes_cbc "cbc(aes-generic)" 16 || break
	i=$((i + 1))
done
is "sessions that are closed make room for others" $i 40
driver=/sys/bus/virtio/drivers/virtio_crypto
check "the driver lets go" eval "echo virtio0 >$driver/unbind"
refuse "nothing is offered then" grep -q virtio_crypto_aes_cbc /proc/crypto
check "the driver comes back" eval "echo virtio0 >$driver/bind"
check "it works again" algtest virtio_crypto_aes_cbc "cbc(aes-generic)" 32 0.5
GUEST
guest_wait guest
requests=$("$vum" ctl "$tmp/ctl" query-metrics | grep -c requests)
ok "it was our back-end that did it" test "${requests:-0}" -gt 0
ok "the back-end ends at SIGTERM" stop crypto
done_testing
