# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Sourced by the tests of the command line, instead of functions.sh: the lists of
# types, validation against a schema.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/functions.sh"
export LC_ALL=C

# list DEVICE|PLANNED: the names from devices/list.h
list()
{
	sed -n "s/^$1(\(.*\))\$/\1/p" "$srcdir/devices/list.h" | tr _ -
}

# valid SCHEMA FILE: is FILE valid by schema/SCHEMA.json?
valid()
{
	"$python" -W ignore -m jsonschema -i "$2" "$srcdir/schema/$1.json"
}

# requires_schema: finds a Python that has the validator
requires_schema()
{
	for python in /usr/bin/python3 python3; do
		"$python" -c 'import jsonschema' 2>/dev/null && return
	done
	lacking "no python3-jsonschema here"
}

# run COMMAND [ARG...]: sets $status, $out and $err
# shellcheck disable=SC2034 # used by the tests
run()
{
	status=0
	"$@" >"$tmp/out" 2>"$tmp/err" </dev/null || status=$?
	out=$(<"$tmp/out")
	err=$(<"$tmp/err")
}

# type_options TYPE: what TYPE needs to start, besides a socket; sets $needs
# shellcheck disable=SC2034 # used by the tests
type_options()
{
	case $1 in
	9p) needs=(--path="$tmp") ;;
	block) needs=(--null=1M) ;;
	input)
		[ -p "$tmp/events" ] || mkfifo "$tmp/events"
		needs=(--source="$tmp/events")
		;;
	scsi) needs=(--null=1M) ;;
	*) needs=() ;;
	esac
}
