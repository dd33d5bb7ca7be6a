# shellcheck shell=bash
# SPDX-License-Identifier: MIT

serve crypto 20

in_guest <<'GUEST'
row "AES-CBC by" "$(grep -B 1 '^driver *: virtio_crypto' /proc/crypto | sed -n 's/^driver *: //p' | head -n 1)"
algtest virtio_crypto_aes_cbc "cbc(aes-generic)" 32
confirm $? "it encrypts as the guest's kernel does"
GUEST
