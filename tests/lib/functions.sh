# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Sourced by every shell test: TAP, a temporary directory, a time limit, child
# processes that cannot outlive the test.
#
#	limit=60	# seconds for the whole script, set before sourcing
#	. "$(dirname "$0")/../lib/functions.sh"
#	requires fio
#	ok "it answers" curl ...
#	is "one line" "$(wc -l <f)" 1
#	done_testing
#
# vum is the program under test. $tmp is the directory of this run; it goes
# away at the end, unless KEEP=1. $logs names files there to show on failure.
#
# All limits are made for an idle machine; a busy one is given $patience times as much.

patience=3

if [ -z "${TEST_LIMITED-}" ]; then
	export TEST_LIMITED=1
	exec timeout -k 10 "$((${limit:-60} * patience))" bash "$0" "$@"
fi
unset TEST_LIMITED

set -u
PATH=$PATH:/usr/sbin:/sbin
# shellcheck disable=SC2034 # for those who source this
srcdir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034
vum=${VUM:-./vhost-user-multi}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/vum.XXXXXX")
logs=()
tap_count=0
tap_failed=0
tap_planned=
declare -A child_pid=()

# ---- TAP ----

# note TEXT... | note <FILE
note()
{
	if [ $# -gt 0 ]; then
		echo "$*"
	else
		cat
	fi | sed 's/^/# /'
}

# result STATUS NAME
result()
{
	tap_count=$((tap_count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $tap_count - $2"
		return 0
	fi
	tap_failed=$((tap_failed + 1))
	echo "not ok $tap_count - $2"
	return 1
}

# ok NAME COMMAND [ARG...]: the command must succeed; its output is shown only if not
ok()
{
	local name=$1 status=0
	shift
	"$@" >"$tmp/ok.log" 2>&1 || status=$?
	result $status "$name" || {
		note "status $status of: $*"
		note <"$tmp/ok.log"
		return 1
	}
}

# refuses NAME COMMAND [ARG...]: the command must fail, and not by a signal
refuses()
{
	local name=$1 status=0
	shift
	"$@" >"$tmp/ok.log" 2>&1 || status=$?
	[ $status -gt 0 ] && [ $status -lt 126 ]
	result $? "$name" || {
		note "status $status of: $*"
		note <"$tmp/ok.log"
		return 1
	}
}

# is NAME GOT WANTED
is()
{
	[ "$2" = "$3" ]
	result $? "$1" || {
		note "got:    $2"
		note "wanted: $3"
		return 1
	}
}

# like NAME GOT REGEX
like()
{
	[[ $2 =~ $3 ]]
	result $? "$1" || {
		note "got:     $2"
		note "pattern: $3"
		return 1
	}
}

skip_all()
{
	tap_planned=1
	echo "1..0 # SKIP $*"
	exit 0
}

# lacking REASON: a tool is missing: skips the whole test, or fails where all
# tools were to be installed
lacking()
{
	[ -n "${TEST_NO_SKIP-}" ] || skip_all "$*"
	result 1 "$*"
	done_testing
}

# requires PROGRAM...
requires()
{
	local program
	for program; do
		command -v "$program" >/dev/null || lacking "no $program here"
	done
}

done_testing()
{
	tap_planned=1
	echo "1..$tap_count"
	[ $tap_failed -eq 0 ]
	exit
}

# ---- processes ----

# spawn NAME COMMAND [ARG...]: in the background, in a session of its own, its
# output in $tmp/NAME.log; dies with this shell however that ends
spawn()
{
	local name=$1
	shift
	setsid setpriv --pdeathsig KILL -- "$@" </dev/null >>"$tmp/$name.log" 2>&1 &
	child_pid[$name]=$!
	logs+=("$name.log")
}

alive()
{
	kill -0 "${child_pid[$1]}" 2>/dev/null
}

# await SECONDS COMMAND [ARG...]: polls until the command succeeds
await()
{
	local end=$((${EPOCHREALTIME/[^0-9]/} + $1 * patience * 1000000))
	shift
	until "$@"; do
		[ "${EPOCHREALTIME/[^0-9]/}" -lt $end ] || return 1
		sleep 0.02
	done
}

gone()
{
	! alive "$1"
}

# reap NAME SECONDS: waits for its end; the result is its exit status, 124 if it
# had to be killed
reap()
{
	local pid=${child_pid[$1]} status killed=
	{
		if ! await "$2" gone "$1"; then
			kill -KILL -- "-$pid"
			killed=1
		fi
		wait "$pid"
		status=$?
	} 2>/dev/null # bash reports what died by a signal
	unset "child_pid[$1]"
	[ -z "$killed" ] || return 124
	return $status
}

# stop NAME [SIGNAL]: asks it to end; the result is its exit status, 124 if it
# did not obey within five seconds
stop()
{
	kill "-${2:-TERM}" "${child_pid[$1]}" 2>/dev/null
	reap "$1" 5
}

# listening PATH: does a process listen on this socket? Looks without connecting.
listening()
{
	local flags path
	while read -r _ _ _ flags _ _ _ path; do
		[ "$path" = "$1" ] && [ "$flags" = 00010000 ] && return 0
	done </proc/net/unix
	return 1
}

# up NAME PATH: has it opened its socket, or ended?
up()
{
	listening "$2" || gone "$1"
}

# spawn_server NAME SOCKET COMMAND [ARG...]: spawn, and wait until it listens
spawn_server()
{
	local name=$1 socket=$2
	shift 2
	spawn "$name" "$@"
	await 10 up "$name" "$socket" && alive "$name"
}

# ---- the end ----

cleanup()
{
	local status=$? pid name
	trap '' TERM INT HUP
	for pid in "${child_pid[@]}"; do
		kill -KILL -- "-$pid" 2>/dev/null
	done
	wait 2>/dev/null
	if [ -z "$tap_planned" ] || [ $tap_failed -gt 0 ]; then
		for name in "${logs[@]}"; do
			[ -s "$tmp/$name" ] || continue
			note "---- the last lines of $name ----"
			tail -n 30 "$tmp/$name" | note
		done
	fi
	if [ -z "$tap_planned" ]; then
		result 1 "ran to its end (status $status)"
		echo "1..$tap_count"
		[ $status -ne 0 ] || status=1
	fi
	if [ -n "${KEEP-}" ]; then
		note "kept: $tmp"
	else
		rm -rf "$tmp"
	fi
	exit $status
}

trap cleanup EXIT
trap 'exit 124' TERM
trap 'exit 130' INT HUP
