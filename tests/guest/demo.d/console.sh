# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

# Logs in on the pseudo-terminal that is the guest's console.
demo_login()
{
	local text
	exec 9<>"$tmp/terminal"
	for text in "login: " "/root # "; do
		await 60 grep -q -a -F -e "$text" "$tmp/console.txt" || return
		[ "$text" = "login: " ] && echo root >&9
	done
	# shellcheck disable=SC2016 # for the guest
	echo 'echo "$(tty) $(stty size)" >/tmp/logged-in; exit' >&9
}

serve console 3 --port="host=pty:link=$tmp/terminal,log=$tmp/console.txt"
stty -F "$tmp/terminal" cols 100 rows 40
demo_login &

in_guest <<'GUEST'
row "console" "/dev/hvc0"
echo root::0:0:root:/root:/bin/sh >/etc/passwd
setsid getty -i 38400 hvc0
await 20 test -s /tmp/logged-in
row "somebody logged in on" "$(cut -d ' ' -f 1 /tmp/logged-in)"
[ "$(cut -d ' ' -f 2- /tmp/logged-in)" = "40 100" ]
confirm $? "the window is 100 by 40"
GUEST
