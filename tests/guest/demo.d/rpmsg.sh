# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

serve rpmsg 7 --service=name=rpmsg-raw,echo

in_guest <<'GUEST'
await 10 test -e /dev/rpmsg0
row "endpoint" "/dev/rpmsg0"
portio messages 500 /dev/rpmsg0 >/dev/null
confirm $? "500 messages come back"
GUEST
