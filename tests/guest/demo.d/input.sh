# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

# Types into a file that the guest's keyboard is, as soon as the guest listens.
demo_type()
{
	local key
	await 60 test -e "$tmp/guest/listening" || return
	for key in H E L L O; do
		printf 'KEY_%s=1\n+0.02 KEY_%s=0\n+0.03\n' $key $key
	done >"$1"
}

mkfifo "$tmp/keys"
serve input 18 --source="$tmp/keys" --kind=keyboard
demo_type "$tmp/keys" &

in_guest <<'GUEST'
node=/dev/input/$(basename "$device"/input/input*/event*)
row "keyboard" "$(cat "$device"/input/input*/name), $node"
# ten reports: five keys, down and up
typed=$(inputtest read "$node" /host/listening 10 | sed -n 's/^1:\([0-9]*\)=1$/\1/p' | tr '\n' ' ')
row "codes of the keys" "$typed"
[ "$typed" = "35 18 38 38 24 " ]
confirm $? "they are HELLO"
GUEST
