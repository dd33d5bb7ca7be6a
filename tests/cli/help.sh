#!/bin/bash
# SPDX-License-Identifier: MIT
#
# --help, --list and --version; every option that --help shows is in the man
# page, and the other way round; completion offers the same.

limit=60
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
requires podchecker

# help_options HEADING: from the help on standard input, "--name=VALUE" each, under one heading
help_options()
{
	awk -v heading="$1:" '/^[^ ].*:$/ { on = $0 == heading } on' |
		grep -oE '^  (-., )?--[a-z0-9-]+(=[^ ]+)?' | sed -E 's/^ +//; s/^-., //' | sort
}

# pod_options FILE HEADING: the same from a man page, all "=item" lines under one heading
pod_options()
{
	awk -v heading="=head1 $2" '/^=head1/ { on = $0 == heading } on && /^=item.*--/' "$1" |
		sed -E 's/^=item //; s/^B<-.>, //; s/[BI]<([^>]*)>/\1/g' | sort
}

run "$vum" --list
is "--list: status" "$status$err" 0
is "--list: the built types" "$(cut -d ' ' -f 1 "$tmp/out")" "$(list DEVICE)"
while read -r type summary; do
	like "--list: $type has a summary" "$summary" '^[A-Za-z0-9].*[^.]$'
done <<<"$out"

run "$vum" --version
like "--version" "$status $out" '^0 vhost-user-multi [0-9]+\.[0-9]+'
version=$out

run "$vum" --help
is "--help: status" "$status$err" 0
for type in $(list DEVICE); do
	like "--help names $type" "$out" "(^|[[:space:]])$type "
done

man=$srcdir/data/vhost-user-multi.pod
for type in $(list DEVICE); do
	pod=$srcdir/devices/$type.pod
	run "$vum" "$type" --help
	is "$type --help: status" "$status$err" 0
	is "$type: its options are those of its man page" "$(help_options 'Options of this type' <<<"$out")" \
		"$(pod_options "$pod" OPTIONS)"
	is "$type: the common options are those of the main man page" "$(help_options 'Options of all types' <<<"$out")" \
		"$(pod_options "$man" OPTIONS)"
	is "$type: every option has a help text" "$(grep -E '^  .*--[^ ]+$' -A1 <<<"$out" | grep -E '^ *$')" ""
	ok "$type: the man page is well-formed" podchecker "$pod"
	ok "$type: the man page has the usual sections" grep -q '^=head1 SYNOPSIS' "$pod"
	is "$type --version" "$("$vum" "$type" --version)" "$version"
done
run "$vum" discover --help
is "discover --help: status" "$status$err" 0
is "discover: its options are those of the main man page" \
	"$(help_options Options <<<"$out" | grep -v '^--help$')" "$(pod_options "$man" 'FINDING A BACKEND')"
ok "the main man page is well-formed" podchecker "$man"

for args in --help --list --version "rng --help" "discover --help"; do
	status=0
	# shellcheck disable=SC2086 # words on purpose
	"$vum" $args >/dev/full 2>/dev/null || status=$?
	is "$args: a full disk is an error" $status 1
done

# complete WORD...: what completion offers for the last word, on one line
complete_words()
{
	(
		PATH=$tmp:$PATH
		# shellcheck source=data/vhost-user-multi.bash
		. "$srcdir/data/vhost-user-multi.bash"
		COMP_WORDS=("$@")
		COMP_CWORD=$(($# - 1))
		_vhost_user_multi "$1" 2>/dev/null
		echo "${COMPREPLY[*]}"
	)
}

ln -s "$(realpath "$vum")" "$tmp/vhost-user-multi"
ln -s vhost-user-multi "$tmp/vhost-user-rng"
is "completion: a type" "$(complete_words vhost-user-multi rn)" rng
is "completion: an option" "$(complete_words vhost-user-multi rng --socket-p)" --socket-path=
is "completion: an option through a link" "$(complete_words vhost-user-rng --socket-p)" --socket-path=
is "completion: a choice" "$(complete_words vhost-user-rng --log-level = de)" debug
is "completion: a choice, all of them" "$(complete_words vhost-user-rng --log-level =)" "error warn info debug"
is "completion: discover" "$(complete_words vhost-user-multi discover --fea)" --feature=
touch "$tmp/a-file"
is "completion: a path" "$(complete_words vhost-user-rng --socket-path = "$tmp/a-fi")" "$tmp/a-file"
done_testing
