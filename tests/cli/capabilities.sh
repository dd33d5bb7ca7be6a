#!/bin/bash
# SPDX-License-Identifier: MIT
#
# --print-capabilities of every type: wins over everything else, takes nothing,
# creates nothing, is valid by the schema. Types that are not built say so.

limit=60
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
requires jq
requires_schema

mkdir "$tmp/links"
ln -s "$(realpath "$vum")" "$tmp/program"

# shellcheck disable=SC2317 # called through run
as_nobody()
{
	if [ "$(id -u)" -eq 0 ]; then
		setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs -- "$@"
	else
		"$@"
	fi
}

for type in $(list DEVICE); do
	run "$vum" "$type" --print-capabilities
	is "$type: status" "$status" 0
	is "$type: nothing on standard error" "$err" ""
	is "$type: one line" "$(wc -l <"$tmp/out")" 1
	cp "$tmp/out" "$tmp/plain.json"
	ok "$type: valid by the schema" valid capabilities "$tmp/plain.json"
	is "$type: says its type" "$(jq -r .type "$tmp/plain.json")" "$type"

	ln -s ../program "$tmp/links/vhost-user-$type"
	run "$tmp/links/vhost-user-$type" --print-capabilities
	is "$type: the same through a link" "$status $out" "0 $(<"$tmp/plain.json")"

	run "$vum" "$type" --nonsense --fd=99 --fd=x --socket-path="$tmp/none" --blk-file=/nonexistent more \
		--print-capabilities --help --socket-path
	is "$type: everything else is ignored" "$status $out$err" "0 $(<"$tmp/plain.json")"
	ok "$type: no socket was made" test ! -e "$tmp/none"

	chmod 755 "$tmp"
	run as_nobody env -i "$vum" "$type" --print-capabilities
	# A user who may not reach the program cannot run it.
	[ $status -eq 126 ] || is "$type: without rights or environment" "$status $(jq -r .type <"$tmp/out")" "0 $type"

	status=0
	"$vum" "$type" --print-capabilities >/dev/full 2>"$tmp/err" || status=$?
	is "$type: a full disk is an error" "$status" 1
	like "$type: which is named" "$(<"$tmp/err")" 'standard output: '
	status=0
	"$vum" "$type" --print-capabilities >&- 2>"$tmp/err" || status=$?
	is "$type: a closed standard output is an error" "$status" 1
done

ln -s ../program "$tmp/links/vhost-user-blk"
run "$tmp/links/vhost-user-blk" --print-capabilities
is "an alias is the same type" "$status $(jq -r .type <"$tmp/out")" "0 block"
is "an alias as an argument too" "$("$vum" blk --print-capabilities)" "$out"

for type in $(list PLANNED); do
	ln -s ../program "$tmp/links/vhost-user-$type"
	for args in --print-capabilities "--socket-path=$tmp/none" --help --version ""; do
		# shellcheck disable=SC2086 # an empty one is no argument
		run "$vum" "$type" $args
		is "$type $args: not built yet" "$status $out $err" \
			"1  vhost-user-multi: $type: this device type is not built yet"
	done
	run "$tmp/links/vhost-user-$type" --print-capabilities
	is "$type: nor through a link" "$status $out $err" \
		"1  vhost-user-multi: $type: this device type is not built yet"
done

is "fifteen types in all" "$( (list DEVICE; list PLANNED) | sort | tr '\n' ' ')" \
	"$(jq -r '.properties.type.enum | sort | .[]' "$srcdir/schema/description.json" | sort | tr '\n' ' ')"
done_testing
