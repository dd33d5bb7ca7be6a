# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Bash completion. What there is to complete is asked from the program itself.

_vhost_user_multi()
{
	local program=$1 name=${1##*/} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local -a command=("$program")
	local help line option

	COMPREPLY=()
	# readline takes '=' as a word of its own
	[ "$cur" = = ] && cur=
	if [ "$prev" = = ]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	if [ "$name" = vhost-user-multi ]; then
		if [ "$COMP_CWORD" -eq 1 ]; then
			mapfile -t COMPREPLY < <(compgen -W \
				"$("$program" --list 2>/dev/null | cut -d ' ' -f 1) ctl discover --list --help --version" -- "$cur")
			return
		fi
		command+=("${COMP_WORDS[1]}")
	fi
	help=$("${command[@]}" --help 2>/dev/null) || return

	if [[ $prev == --* ]]; then
		line=$(grep -oE -- "(^|[ ,])$prev=[^ ]+" <<<"$help" | head -n 1)
		case $line in
		*=*\|*)
			line=${line#*=}
			mapfile -t COMPREPLY < <(compgen -W "${line//|/ }" -- "$cur")
			return
			;;
		*=PATH | *=FILE)
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			compopt -o filenames 2>/dev/null
			return
			;;
		*=TYPE)
			mapfile -t COMPREPLY < <(compgen -W "$("$program" --list 2>/dev/null | cut -d ' ' -f 1)" -- "$cur")
			return
			;;
		*=*)
			return
			;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$(grep -oE '^  (-., )?--[a-z0-9-]+=?' <<<"$help" | grep -oE -- '--.*')" -- "$cur")
	for option in "${COMPREPLY[@]}"; do
		[[ $option == *= ]] && compopt -o nospace 2>/dev/null
	done
	return 0
}

complete -F _vhost_user_multi vhost-user-multi
for _vhost_user_type in $(vhost-user-multi --list 2>/dev/null | cut -d ' ' -f 1); do
	complete -F _vhost_user_multi "vhost-user-$_vhost_user_type"
done
unset _vhost_user_type
