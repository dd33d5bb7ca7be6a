#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The control socket through its client, on every type: every command, help,
# manual pages and schemas that say the same, sockets left over and in use,
# lines that are broken or too long, a hundred clients.

limit=300
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
requires jq podchecker
requires_schema

sock=$tmp/s
control=$tmp/c

ctl()
{
	"$vum" ctl "$control" "$@"
}

# start: $type as the child "b", with a control socket
start()
{
	spawn_server b "$sock" "$vum" "$type" "${needs[@]}" --socket-path="$sock" --control-path="$control"
}

# raw LINE...: sends them as they are; prints what comes back until the other side hangs up
raw()
{
	"${client[@]}" raw "$control" "$@"
}

# hello_until_gone: connects, which makes events, until "events" has seen one
hello_until_gone()
{
	"${client[@]}" hello "$sock" >/dev/null
	gone events
}

# pod_commands FILE HEADING: "name arg=type…" of each command from a man page
pod_commands()
{
	awk -v heading="=head1 $2" '/^=head1/ { on = $0 == heading } on && /^=item B<[a-z]/' "$1" |
		grep -v '^=item B<\(help\|top\|events\)>' | sed -E 's/^=item //; s/, /\n/g; s/=I<[^>]*>//g; s/[][]//g; s/[BI]<([^>]*)>/\1/g' | sort
}

# own_commands: the same from query-commands in $tmp/commands, of the core or of the type
own_commands()
{
	jq -r --argjson core "$1" '.[] | select(.name | IN($core[])) |
		([.name] + [.arguments[].name]) | join(" ")' "$tmp/commands" | sort
}

client=("${builddir_abs:-$PWD}/tests/cli/vhost-client")
core='["query-commands","query-metrics","query-schema","query-stats","query-status","quit","set-log-level"]'
is "the schema knows the core's commands" "$(jq -c '.properties | keys' "$srcdir/schema/commands.json")" "$core"

run "$vum" ctl --help
is "ctl --help: status" "$status$err" 0
like "ctl --help" "$out" '^Usage: .*ctl PATH COMMAND'
for args in "" "$tmp/none" "$tmp/none top interval=x" "$tmp/none query-status x"; do
	# shellcheck disable=SC2086 # words on purpose
	run "$vum" ctl $args
	like "ctl '$args': fails" "$status $err" '^[12] .*'
done

for type in $(list DEVICE); do
	type_options "$type"
	ok "$type: starts" start || continue
	is "$type: mode of the socket" "$(stat -c %a "$control")" 600

	# every command, its answer by the schema
	for name in query-commands query-metrics query-schema query-stats query-status set-log-level; do
		args=()
		[ $name != set-log-level ] || args=(level=info)
		run ctl $name "${args[@]}"
		is "$type: $name" "$status$err" 0
		case $name in
		query-metrics) jq -R -s '{"query-metrics": .}' "$tmp/out" ;;
		set-log-level) echo '{"set-log-level": {}}' ;;
		*) jq --arg name $name '{($name): .}' "$tmp/out" ;;
		esac >"$tmp/$name.answer"
		ok "$type: $name: the answer is what the schema says" valid commands "$tmp/$name.answer"
		[ $name != query-commands ] || cp "$tmp/out" "$tmp/commands"
		[ $name != query-schema ] || cp "$tmp/out" "$tmp/requests.json"
	done
	is "$type: query-status: type" "$(jq -r '.["query-status"].type' "$tmp/query-status.answer")" "$type"
	is "$type: features have names" "$(jq -r '.["query-status"]["offered-device-features"][] | select(test("^bit-"))' \
		"$tmp/query-status.answer")" ""
	is "$type: set-log-level has an effect" "$(ctl query-status | jq -r '.["log-level"]')" info
	run ctl set-log-level level=loud
	like "$type: set-log-level: a wrong level" "$status $err" '^1 .*loud.*debug'

	# the schema of requests, the manual page and the help say the same as the table
	is "$type: query-schema has each command once" \
		"$(jq -r '.oneOf[].properties.execute.const' "$tmp/requests.json" | sort)" \
		"$(jq -r '.[].name' "$tmp/commands" | sort)"
	is "$type: no command hides another" "$(jq -r '.[].name' "$tmp/commands" | sort | uniq -d)" ""
	is "$type: the core's commands are those of the main man page" "$(own_commands "$core")" \
		"$(pod_commands "$srcdir/data/vhost-user-multi.pod" 'CONTROL SOCKET')"
	is "$type: its commands are those of its man page" \
		"$(own_commands "$(jq -c --argjson core "$core" '[.[].name] - $core' "$tmp/commands")")" \
		"$(pod_commands "$srcdir/devices/$type.pod" COMMANDS)"
	run ctl help
	is "$type: help: status" "$status$err" 0
	is "$type: help shows them all" "$(grep -E '^  [a-z]' <<<"$out" | tr -d ' ')" "$(jq -r '.[].name' "$tmp/commands")"
	run ctl help quit
	is "$type: help for one" "$out" "$(printf '  quit\n      end the process in good order')"

	# every command without arguments, and with one that it does not have: an answer, never the end (but by quit)
	for name in $(jq -r '.[].name' "$tmp/commands"); do
		[ "$name" != quit ] || continue
		answer=$(raw "{\"execute\":\"$name\",\"id\":1}")
		echo "$answer" >"$tmp/answer"
		ok "$type: $name without arguments is answered" valid control "$tmp/answer"
		answer=$(raw "{\"execute\":\"$name\",\"arguments\":{\"no-such-thing\":1}}")
		like "$type: $name refuses an unknown argument" "$answer" '"InvalidArgument".*no-such-thing'
		answer=$(raw "{\"execute\":\"$name\",\"arguments\":[]}")
		like "$type: $name refuses arguments that are no object" "$answer" '"InvalidArgument"'
		for arg in $(jq -r --arg name "$name" '.[] | select(.name == $name) | .arguments[].name' "$tmp/commands"); do
			answer=$(raw "{\"execute\":\"$name\",\"arguments\":{\"$arg\":{}}}")
			like "$type: $name refuses a wrong $arg" "$answer" "\"InvalidArgument\".*$arg"
		done
	done

	# what is broken is answered, and the connection goes on
	answers=$(raw '{"execute"' '[]' '}' '' '{"execute":"none"}' '{"execute":"query-stats","id":"x"}')
	is "$type: broken JSON is answered, line by line" "$(jq -r '.error.class // .id' <<<"$answers" | tr '\n' ' ')" \
		"BadRequest BadRequest BadRequest CommandNotFound x "
	answers=$(raw --long=1000000 '{"execute":"query-stats","id":"x"}')
	is "$type: a huge line is answered once" "$(jq -r '.error.desc // .id' <<<"$answers" | tr '\n' ' ')" \
		"the line is too long x "

	# a hundred at a time
	for i in {1..100}; do
		ctl query-stats >"$tmp/client.$i" 2>&1 &
		clients[i]=$!
	done
	failed=0
	for i in {1..100}; do
		wait "${clients[i]}" || failed=$((failed + 1))
	done
	is "$type: a hundred clients" $failed 0

	run ctl top count=2 interval=10ms
	is "$type: top: status" "$status$err" 0
	like "$type: top: a heading" "$out" 'request/s'
	run ctl no-such-command x=1
	like "$type: an unknown command" "$status $err" '^1 .*no-such-command'
	run ctl query-stats nonsense
	like "$type: an argument without a value" "$status $err" '^2 .*nonsense'

	# two processes on one path
	run timeout $((10 * patience)) "$vum" "$type" "${needs[@]}" --socket-path="$sock.2" --control-path="$control"
	like "$type: a live control socket is refused" "$status $err" "^1 .*--control-path=$control: another"
	ok "$type: which leaves no socket" test ! -e "$sock.2"
	ok "$type: and the first one alone" ctl query-status
	run timeout $((10 * patience)) "$vum" "$type" "${needs[@]}" --socket-path="$sock.2" --control-path="$sock.2"
	like "$type: both on one path are refused" "$status $err" '^2 .*--control-path'

	# a crash leaves a dead socket, and the next process replaces it
	kill -KILL "${child_pid[b]}"
	wait "${child_pid[b]}" 2>/dev/null
	unset "child_pid[b]"
	ok "$type: a crash leaves the control socket" test -S "$control"
	run ctl query-status
	like "$type: nobody answers there" "$status $err" '^1 .*refused'
	ok "$type: a dead control socket is replaced" start
	ok "$type: and answers" ctl query-status

	# events until the end
	spawn events "$vum" ctl "$control" events count=1
	"${client[@]}" hello "$sock" >/dev/null
	await 10 hello_until_gone
	ok "$type: events come" reap events 10
	head -n 1 "$tmp/events.log" >"$tmp/event"
	ok "$type: as the schema says" valid control "$tmp/event"
	: >"$tmp/events.log"

	run ctl quit
	is "$type: quit: status" "$status$err" 0
	reap b 10
	is "$type: quit: exit status" $? 0
	ok "$type: quit: the sockets are removed" test ! -e "$control" -a ! -e "$sock"

	# several sockets: each command about one of them says which
	"$vum" "$type" --help | grep -q 'may be given several times' || continue
	spawn_server b "$sock.2" "$vum" "$type" "${needs[@]}" --socket-path="$sock" --socket-path="$sock.2" \
		--control-path="$control"
	for name in query-commands query-metrics query-schema query-stats query-status; do
		args=()
		[[ $name != query-stat* ]] || args=(socket=1)
		run ctl $name "${args[@]}"
		is "$type: two sockets: $name" "$status$err" 0
		case $name in
		query-metrics) jq -R -s '{"query-metrics": .}' "$tmp/out" ;;
		*) jq --arg name $name '{($name): .}' "$tmp/out" ;;
		esac >"$tmp/$name.answer"
		ok "$type: two sockets: $name: the answer is what the schema says" valid commands "$tmp/$name.answer"
		[ $name != query-commands ] || cp "$tmp/out" "$tmp/commands"
		[ $name != query-schema ] || cp "$tmp/out" "$tmp/requests.json"
	done
	is "$type: two sockets: the status says which one it is" "$(jq -r '.["query-status"]["socket-path"]' \
		"$tmp/query-status.answer")" "$sock.2"
	is "$type: two sockets: which commands need no socket" "$(jq -r '.[] | select(.arguments[0].name != "socket").name' \
		"$tmp/commands" | sort | xargs)" "query-commands query-metrics query-schema quit set-log-level"
	is "$type: two sockets: query-schema has them as well" "$(jq -r '.oneOf[] |
		select(.properties.arguments.properties | has("socket") | not).properties.execute.const' \
		"$tmp/requests.json" | sort | xargs)" "query-commands query-metrics query-schema quit set-log-level"
	run ctl query-status
	like "$type: two sockets: a command without one" "$status $err" '^1 .*argument socket: missing'
	run ctl query-status socket=2
	like "$type: two sockets: one that is not there" "$status $err" '^1 .*2 is none of 0 to 1'
	run ctl top count=1 socket=1
	is "$type: two sockets: top: status" "$status$err" 0
	spawn events "$vum" ctl "$control" events count=1
	sock=$sock.2 await 10 hello_until_gone
	reap events 10
	head -n 1 "$tmp/events.log" >"$tmp/event"
	ok "$type: two sockets: events come as the schema says" valid control "$tmp/event"
	is "$type: two sockets: and say which one" "$(jq .socket "$tmp/event")" 1
	: >"$tmp/events.log"
	run ctl quit
	reap b 10
	is "$type: two sockets: quit: exit status" $? 0
done
done_testing
