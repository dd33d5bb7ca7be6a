# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

# The host's end of the line is a file that what the guest says is added to.
demo_line_check()
{
	[ "$(cat "$tmp/line")" = "hello remote processor" ]
	confirm $? "the line carried the guest's words"
}

serve rproc-serial 11 --port=host=file:"$tmp/line"
afterwards demo_line_check

in_guest <<'GUEST'
port=$(basename "$device"/virtio-ports/*)
row "port" "/dev/$port"
echo "hello remote processor" >"/dev/$port"
confirm $? "it is written to"
GUEST
