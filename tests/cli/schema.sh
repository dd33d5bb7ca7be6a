#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The description templates of all fifteen types are valid by the schema, and the
# schemas refuse what management software would stumble over.

limit=60
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
requires jq
requires_schema

# refused SCHEMA JSON
refused()
{
	echo "$2" >"$tmp/refused.json"
	refuses "$1 refuses $2" valid "$1" "$tmp/refused.json"
}

accepted()
{
	echo "$2" >"$tmp/accepted.json"
	ok "$1 accepts $2" valid "$1" "$tmp/accepted.json"
}

# Management software stumbles over a directory with anything else in it.
is "a template per type" "$(cd "$srcdir/data" && echo ./*.json.in | tr ' ' '\n' | sed 's/.*-vhost-user-multi-//; s/\.json\.in//' |
	sort | tr '\n' ' ')" "$( (list DEVICE; list PLANNED) | sort | tr '\n' ' ')"

for file in "$srcdir"/data/*.json.in; do
	name=$(basename "$file" .in)
	type=${name#??-vhost-user-multi-}
	type=${type%.json}
	sed 's|@backenddir@|/usr/libexec|' "$file" >"$tmp/$name"
	ok "$name: valid" valid description "$tmp/$name"
	is "$name: type and binary" "$(jq -r '.type + " " + .binary' "$tmp/$name")" "$type /usr/libexec/vhost-user-$type"
	case $type in
	fs) prefix=90 ;;
	*) prefix=60 ;;
	esac
	is "$name: order" "${name%%-*}" $prefix
done

accepted description '{"description": "d", "type": "rng", "binary": "/b"}'
refused description '{"description": "d", "type": "rng"}'
refused description '{"type": "rng", "binary": "/b"}'
refused description '{"description": "d", "type": "sound", "binary": "/b"}'
refused description '{"description": "d", "type": "rng", "binary": "b"}'
refused description '{"description": "d", "type": "rng", "binary": "/b", "tags": "x"}'
refused description '{"description": "d", "type": "rng", "binary": "/b", "args": ["-x"]}'
refused description '[]'

accepted capabilities '{"type": "rng"}'
accepted capabilities '{"type": "block"}'
accepted capabilities '{"type": "block", "features": ["read-only", "blk-file"]}'
accepted capabilities '{"type": "gpu", "features": []}'
accepted capabilities '{"type": "input", "features": ["no-grab"]}'
refused capabilities '{"type": "rng", "features": []}'
refused capabilities '{"type": "gpu"}'
refused capabilities '{"type": "input"}'
refused capabilities '{"type": "block", "features": ["virgl"]}'
refused capabilities '{"type": "gpu", "features": ["virgl", "virgl"]}'
refused capabilities '{"type": "sound"}'
refused capabilities '{}'
done_testing
