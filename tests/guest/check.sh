# shellcheck shell=dash
# SPDX-License-Identifier: MIT
#
# Sourced by the scripts that run inside a test guest (busybox sh). Each check
# prints one line, "ok" or "not ok"; the host makes TAP results of them.

guest_failed=0

# result STATUS NAME: returns the status
result()
{
	if [ "$1" -eq 0 ]; then
		echo "ok - $2"
	else
		echo "not ok - $2"
		guest_failed=1
	fi
	return "$1"
}

# check NAME COMMAND [ARG...]: the command must succeed
check()
{
	check_name=$1
	shift
	"$@"
	result $? "$check_name"
}

# refuse NAME COMMAND [ARG...]: the command must fail
refuse()
{
	check_name=$1
	shift
	! "$@"
	result $? "$check_name"
}

# is NAME GOT WANTED
is()
{
	[ "$2" = "$3" ]
	result $? "$1" || printf 'got:    %s\nwanted: %s\n' "$2" "$3"
}

# await SECONDS COMMAND [ARG...]: waits until the command succeeds; on a busy machine for three times as long, as the host does
await()
{
	read -r await_end _ </proc/uptime
	await_end=$((${await_end%.*} + $1 * 3))
	shift
	until "$@"; do
		read -r await_now _ </proc/uptime
		[ "${await_now%.*}" -le $await_end ] || return 1
		usleep 20000
	done
}

# sha FILE: the bare sum
sha()
{
	sha256sum "$1" | cut -d ' ' -f 1
}

# drain: waits until the port has sent all that was printed
drain()
{
	stty raw -echo 2>/dev/null
}

# guest_end: the exit status of the whole script
guest_end()
{
	exit $guest_failed
}
