# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

serve rng 4

in_guest <<'GUEST'
row "/dev/hwrng" "$(cat /sys/class/misc/hw_random/rng_current)"
first=$(head -c 24 /dev/hwrng | od -An -tx1 -v | tr -d '\n')
second=$(head -c 24 /dev/hwrng | od -An -tx1 -v | tr -d '\n')
row "24 bytes" "${first# }"
row "24 bytes more" "${second# }"
[ ${#first} -eq 72 ] && [ ${#second} -eq 72 ] && [ "$first" != "$second" ]
confirm $? "they differ"
GUEST
