#!/bin/bash
# SPDX-License-Identifier: MIT
#
# make install into a staging directory: what is there works, is valid, and is for
# built types only; management software finds it; make uninstall leaves nothing.

limit=300
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
requires jq man
requires_schema

builddir=${builddir_abs:-$(pwd)}
[ -f "$builddir/Makefile" ] || lacking "not a build directory: $builddir"
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

dest=$tmp/dest
ok "make install" make -C "$builddir" DESTDIR="$dest" install || exit 1

# variable NAME: the value that the build has for it
variable()
{
	make -s -C "$builddir" -f - print <<<"include Makefile
print: ; @echo '\$($1)'" 2>/dev/null
}

bindir=$dest$(variable bindir)
backenddir=$dest$(variable backenddir)
descriptiondir=$dest$(variable descriptiondir)
mandir=$dest$(variable man1dir)

is "one program" "$(ls "$bindir")" vhost-user-multi
is "a link for each built type" "$(ls "$backenddir")" "$(list DEVICE | sed 's/^/vhost-user-/')"
is "a description file for each built type" "$(find "$descriptiondir" -mindepth 1 -printf '%f\n' |
	sed 's/^[0-9][0-9]-vhost-user-multi-//; s/\.json$//' | sort)" "$(list DEVICE)"
is "man pages" "$(ls "$mandir")" "$( (list DEVICE; echo multi) | sed 's/.*/vhost-user-&.1/' | sort)"

for file in "$descriptiondir"/*; do
	name=$(basename "$file")
	type=$(jq -r .type "$file")
	binary=$dest$(jq -r .binary "$file")
	ok "$name: valid" valid description "$file"
	is "$name: its program is the link" "$binary" "$backenddir/vhost-user-$type"
	is "$name: the link leads to the program" "$(realpath "$binary")" "$(realpath "$bindir/vhost-user-multi")"
	run "$binary" --print-capabilities
	is "$name: its program answers" "$status $(jq -r .type <"$tmp/out")" "0 $type"
	ok "$name: the answer is valid" valid capabilities "$tmp/out"
	# as if it were installed for real
	mkdir -p "$tmp/real"
	jq --arg b "$binary" '.binary = $b' "$file" >"$tmp/real/$name"
	XDG_DATA_DIRS=$tmp/none VHOST_USER_CONF_DIR=$tmp/real XDG_CONFIG_HOME=$tmp/none run "$vum" discover --type "$type"
	is "$name: discover finds it" "$status $out" "0 $binary"
done

for page in "$mandir"/*; do
	name=$(basename "$page" .1)
	LC_ALL=C.UTF-8 MANWIDTH=80 run man -E UTF-8 --warnings -l "$page"
	# A long prefix is a word that does not fit into a line, and no fault of the page.
	is "$name.1: no warnings" "$status$(grep -v "can't break line" <<<"$err")" 0
	like "$name.1: the program's name" "$out" "$name - "
	is "$name.1: nothing left to fill in" "$(grep -c '@[a-z]*@' "$page")" 0
done

ok "make uninstall" make -C "$builddir" DESTDIR="$dest" uninstall
is "leaves nothing" "$(find "$dest" ! -type d)" ""
done_testing
