#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Sockets and signals, the same for every type: where connections come from, what
# is refused, how the process ends and what it leaves behind.

limit=300
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
client=${builddir_abs:-$PWD}/tests/cli/vhost-client

sock=$tmp/s

client()
{
	"$client" "$@"
}

# start: $type as the child "b", listening on $sock
start()
{
	spawn_server b "$sock" "$vum" "$type" "${needs[@]}" --socket-path="$sock"
}

answers()
{
	client hello "$sock"
}

# ended_within US SIGNAL: ends "b"; sets $status; succeeds if that was fast enough
ended_within()
{
	local start=${EPOCHREALTIME/[^0-9]/} pid=${child_pid[b]}
	kill "-$2" "$pid"
	status=0
	wait "$pid" || status=$?
	unset "child_pid[b]"
	took=$((${EPOCHREALTIME/[^0-9]/} - start))
	[ $took -lt "$1" ]
}

# ends_by SIGNAL WHAT [PREPARE...]: exit status 0 within 100 ms, socket removed. A busy machine is late now and then, what waits
# for something always: one of many is in time.
ends_by()
{
	local signal=$1 what=$2 try
	shift 2
	for try in {1..30}; do
		start || break
		[ $# -eq 0 ] || "$@"
		ended_within 100000 "$signal" && break
		note "try $try: $took us"
	done
	is "$type: $signal $what: exit status" "$status" 0
	ok "$type: $signal $what: within 100 ms ($took us)" test "$took" -lt 100000
	ok "$type: $signal $what: the socket is removed" test ! -e "$sock"
	[ -z "${child_pid[holder]-}" ] || ok "$type: $signal $what: the connection ends" reap holder 10
}

# shellcheck disable=SC2317 # called by ends_by
connected()
{
	rm -f "$tmp/connected"
	spawn holder "$client" hold "$sock" "$tmp/connected"
	await 10 test -e "$tmp/connected"
}

# fails NAME PATTERN COMMAND...: exit status 1 or 2, within 10 s, and a message
fails()
{
	local name=$1 pattern=$2
	shift 2
	run timeout $((10 * patience)) "$@"
	like "$type: $name: status" "$status" '^[12]$'
	like "$type: $name: message" "$err" "$pattern"
	is "$type: $name: nothing on standard output" "$out" ""
}

for type in $(list DEVICE); do
	type_options "$type"
	program=("$vum" "$type" "${needs[@]}")
	rm -f "$sock"

	# exactly one way to connect
	for args in "" "--socket-path=$sock --fd=0" "--fd=0 --connect=$sock" "--socket-path=$sock --connect=$sock"; do
		# shellcheck disable=SC2086 # words on purpose
		run timeout $((10 * patience)) "${program[@]}" $args
		like "$type: '$args': usage" "$status $err" "^2 vhost-user-$type: .*--socket-path, --fd and --connect"
		ok "$type: '$args': no socket" test ! -e "$sock"
	done

	# a life: foreground, standard descriptors and others kept, one connection after the other
	exec 9>"$tmp/lock"
	start
	exec 9>&-
	ok "$type: listens" listening "$sock"
	pid=${child_pid[b]}
	is "$type: stays in the foreground" "$(readlink "/proc/$pid/exe")" "$(realpath "$vum")"
	is "$type: standard input is kept" "$(readlink "/proc/$pid/fd/0")" /dev/null
	is "$type: standard error is kept" "$(readlink "/proc/$pid/fd/2")" "$tmp/b.log"
	is "$type: an inherited descriptor is kept" "$(readlink "/proc/$pid/fd/9")" "$tmp/lock"
	ok "$type: answers" answers
	ok "$type: answers again after a disconnect" answers
	fails "a live socket is refused" "$sock" "${program[@]}" --socket-path="$sock"
	ok "$type: which leaves the first one alone" answers
	is "$type: quiet" "$(<"$tmp/b.log")" ""

	# a crash leaves a dead socket
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
	unset "child_pid[b]"
	ok "$type: a crash leaves the socket" test -S "$sock"
	ok "$type: a dead socket is replaced" start
	ok "$type: and answers" answers

	# somebody else's socket in the place of ours
	rm "$sock"
	spawn other "$client" listening "$sock" sleep 100
	await 10 test -S "$sock"
	ended_within 5000000 TERM
	is "$type: ends though its socket was replaced" "$status" 0
	ok "$type: what replaced its socket stays" test -S "$sock"
	stop other
	rm -f "$sock"

	ends_by TERM "while waiting"
	ends_by INT "while waiting"
	ends_by TERM "while connected" connected

	# several sockets, where the type can have them
	fails "the same socket twice" "--socket-path=$sock: this option was given before" "${program[@]}" \
		--socket-path="$sock" --socket-path="$sock"
	if "$vum" "$type" --help | grep -q 'may be given several times'; then
		spawn_server b "$sock.2" "${program[@]}" --socket-path="$sock" --socket-path="$sock.2"
		ok "$type: the first of two sockets answers" answers
		ok "$type: the second one answers" client hello "$sock.2"
		ok "$type: the first one answers again" answers
		ended_within 5000000 TERM
		is "$type: two sockets: exit status" "$status" 0
		ok "$type: two sockets: both are removed" test ! -e "$sock" -a ! -e "$sock.2"
		fails "two kinds of sockets" "exclude each other" "${program[@]}" --socket-path="$sock" --fd=0
		fails "the second socket is the control socket" "--control-path=$sock.2: is the same" "${program[@]}" \
			--socket-path="$sock" --socket-path="$sock.2" --control-path="$sock.2"
		fails "the second socket can't be made" "$tmp/none/s" "${program[@]}" --socket-path="$sock" \
			--socket-path="$tmp/none/s"
		ok "$type: which leaves no socket" test ! -e "$sock"
		many=()
		for i in {1..65}; do
			many+=(--socket-path="$sock.$i")
		done
		fails "65 sockets" "--socket-path=$sock.65: too many" "${program[@]}" "${many[@]}"
	else
		for option in socket-path connect; do
			fails "two of --$option" "--$option=$sock.2: this option was given before" "${program[@]}" \
				--$option="$sock" --$option="$sock.2"
		done
		fails "two of --fd" "--fd=1: this option was given before" "${program[@]}" --fd=0 --fd=1
	fi

	# what is no socket
	echo precious >"$sock"
	fails "a file in the place of the socket" "$sock" "${program[@]}" --socket-path="$sock"
	is "$type: the file is untouched" "$(<"$sock")" precious
	rm "$sock"
	mkdir "$sock"
	fails "a directory in the place of the socket" "$sock" "${program[@]}" --socket-path="$sock"
	rmdir "$sock"
	fails "no such directory" "$tmp/none/s" "${program[@]}" --socket-path="$tmp/none/s"
	long=$tmp/$(printf 'x%.0s' {1..120})
	fails "a path that is too long" "$long" "${program[@]}" --socket-path="$long"

	# --fd
	fails "--fd is not open" '--fd=99' "${program[@]}" --fd=99
	fails "--fd is a file" '--fd=0' "${program[@]}" --fd=0
	fails "--fd is a datagram socket" '--fd=' "$client" datagram \
		"${program[@]}" --fd='{fd}'
	spawn_server b "$sock" "$client" listening "$sock" "${program[@]}" --fd '{fd}'
	ok "$type: --fd listening: answers" answers
	ok "$type: --fd listening: answers again" answers
	ended_within 5000000 TERM
	is "$type: --fd listening: exit status" "$status" 0
	ok "$type: --fd listening: the socket is not ours to remove" test -S "$sock"
	rm "$sock"
	ok "$type: --fd connected: answers, ends well with the connection" client connected "${program[@]}" --fd='{fd}'

	# --connect: before there is a server, again after a disconnect
	spawn b "${program[@]}" --connect="$sock"
	ok "$type: --connect: two connections" client serve "$sock" 2
	ok "$type: --connect: still there" alive b
	ended_within 5000000 TERM
	is "$type: --connect: exit status" "$status" 0
	ok "$type: --connect: the socket is not ours to remove" test -S "$sock"
	rm "$sock"

	# --socket-mode
	(umask 077 && exec "${program[@]}" --socket-path="$sock" --socket-mode=0666) >/dev/null 2>&1 &
	child_pid[b]=$!
	await 10 listening "$sock"
	is "$type: --socket-mode" "$(stat -c %a "$sock")" 666
	ended_within 5000000 TERM
	for mode in 0 0888 rw 01777 10660; do
		fails "--socket-mode=$mode" "--socket-mode=$mode: " "${program[@]}" --socket-path="$sock" --socket-mode=$mode
	done
	# --socket-group
	group=$(id -gn)
	[ "$(id -u)" -ne 0 ] || group=daemon
	spawn b "${program[@]}" --socket-path="$sock" --socket-group="$group"
	await 10 listening "$sock"
	is "$type: --socket-group" "$(stat -c '%G %a' "$sock")" "$group 660"
	ended_within 5000000 TERM
	spawn b "${program[@]}" --socket-path="$sock" --socket-group="$(id -g)" --socket-mode=0600
	await 10 listening "$sock"
	is "$type: --socket-group and --socket-mode" "$(stat -c '%g %a' "$sock")" "$(id -g) 600"
	ended_within 5000000 TERM
	for group in no-such-group 12x -1 ""; do
		fails "--socket-group=$group" "--socket-group=$group: " "${program[@]}" --socket-path="$sock" \
			--socket-group="$group"
	done
	fails "--socket-group without a path" "--socket-group: only" "${program[@]}" --fd=3 --socket-group=0
	fails "--syslog still shows errors" "$sock/x" "${program[@]}" --syslog --socket-path="$sock/x"
done
done_testing
