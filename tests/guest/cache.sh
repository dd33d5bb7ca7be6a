# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# The cache of things that take minutes to make: guest kernels, initramfs.
#
# An entry is a directory whose name holds a hash of all that went into it, so
# it is never stale, only unused. It is made in a directory beside it and
# renamed when complete: whoever is interrupted leaves no half entry. A lock per
# name makes a second builder wait for the first one and take its result.
#
# When one is made, older ones of its kind (the first word of the name) are
# removed, but for the newest, those used in the last hour and those held.

cache_dir=${VHOST_USER_MULTI_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/vhost-user-multi}
cache_keep=2 # of each kind

# cache_hash FILE...: a short hash of the contents of the files and of standard input
cache_hash()
{
	cat -- "$@" - | sha256sum | cut -c 1-16
}

# cache_hold PATH: the entry that PATH is in stays as long as this shell lives, or what it starts
cache_hold()
{
	local entry=${1#"$cache_dir"/} fd
	entry=$cache_dir/${entry%%/*}
	touch -c "$entry"
	exec {fd}<"$entry" && flock -s "$fd"
}

# cache_prune KIND
cache_prune()
{
	local entries entry fd i tmp
	mapfile -t entries < <(find "$cache_dir" -mindepth 1 -maxdepth 1 -name "$1-*" -printf '%T@ %p\n' | sort -rn)
	for ((i = cache_keep; i < ${#entries[@]}; i++)); do
		entry=${entries[i]#* }
		[ -n "$(find "$entry" -maxdepth 0 -mmin +60)" ] || continue
		exec {fd}<"$entry" || continue
		tmp=$cache_dir/.${entry##*/}.tmp.old
		if flock -n "$fd" && mv -T "$entry" "$tmp"; then
			rm -rf "$tmp"
		fi
		exec {fd}<&-
	done
}

# cache_make NAME COMMAND [ARG...]: runs COMMAND (a program: set -e does not reach a function here) in an
# empty directory unless the entry exists already; sets $cache_entry to its directory
cache_make()
{
	local name=$1 lock tmp rc=0
	shift
	cache_entry=$cache_dir/$name
	touch -c "$cache_entry"
	[ -d "$cache_entry" ] && return 0
	mkdir -p "$cache_dir" || return
	exec {lock}>"$cache_dir/.$name.lock" || return
	if ! flock -n "$lock"; then
		echo "waiting for another build of $name" >&2
		flock "$lock" || return
	fi
	if [ ! -d "$cache_entry" ]; then
		rm -rf "$cache_dir/.$name".tmp.*
		tmp=$(mktemp -d "$cache_dir/.$name.tmp.XXXXXX") &&
			chmod 755 "$tmp" &&
			(cd "$tmp" && "$@") &&
			mv -T "$tmp" "$cache_entry" || rc=$?
		if [ $rc -eq 0 ]; then
			cache_prune "${name%%-*}"
		else
			rm -rf "$tmp"
		fi
	fi
	exec {lock}>&-
	return $rc
}
