#!/bin/bash
# SPDX-License-Identifier: MIT
#
# discover: levels of directories, override by name, hiding, order, features, and
# files and programs that are broken, slow or loud.

limit=120
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
requires jq

export XDG_DATA_DIRS=$tmp/local:$tmp/share VHOST_USER_CONF_DIR=$tmp/etc XDG_CONFIG_HOME=$tmp/home/.config HOME=$tmp/home
general=$tmp/share/qemu/vhost-user
local=$tmp/local/qemu/vhost-user
etc=$tmp/etc
own=$tmp/home/.config/qemu/vhost-user
mkdir -p "$tmp/bin"

# describe FILE TYPE PROGRAM [MEMBER...]
describe()
{
	mkdir -p "${1%/*}"
	printf '{"description": "%s", "type": "%s", "binary": "%s"%s}\n' "${1##*/}" "$2" "$tmp/bin/$3" "${4-}" >"$1"
}

# program NAME <SCRIPT
program()
{
	{
		echo '#!/bin/sh'
		cat
	} >"$tmp/bin/$1"
	chmod +x "$tmp/bin/$1"
}

# prints NAME JSON: a program that prints it
prints()
{
	program "$1" <<<"echo '$2'"
}

# finds NAME WANTED ARG...: the program that discover chooses; empty for none
finds()
{
	local name=$1 wanted=$2
	shift 2
	run "$vum" discover "$@"
	if [ -n "$wanted" ]; then
		is "$name" "$status ${out#"$tmp/bin/"}" "0 $wanted"
	else
		is "$name" "$status $out" "1 "
	fi
}

fresh()
{
	rm -rf "${tmp:?}"/{share,local,etc,home}
}

prints rng '{"type": "rng"}'
prints other '{"type": "rng"}'
prints gpu '{"type": "gpu", "features": ["render-node"]}'
prints virgl '{"type": "gpu", "features": ["virgl", "render-node"]}'

fresh
finds "nothing anywhere" "" --type rng
like "which is said" "$err" 'no backend program of type rng found'

describe "$general/60-a.json" rng rng
finds "in XDG_DATA_DIRS" rng --type rng
finds "without a type" rng
finds "--type=T" rng --type=rng
finds "not of this type" "" --type gpu
describe "$local/60-a.json" rng other
finds "the first of XDG_DATA_DIRS is the more specific" other --type rng
describe "$etc/60-a.json" rng rng
finds "/etc is more specific" rng --type rng
describe "$own/60-a.json" rng other
finds "XDG_CONFIG_HOME is most specific" other --type rng
: >"$own/60-a.json"
finds "an empty file hides all of its name" "" --type rng
ln -sf /dev/null "$own/60-a.json"
finds "a link to /dev/null does too" "" --type rng
rm "$own/60-a.json"
unset XDG_CONFIG_HOME
describe "$own/60-a.json" rng other
finds "HOME/.config is the default" other --type rng
XDG_CONFIG_HOME=$tmp/home/.config
export XDG_CONFIG_HOME

fresh
describe "$own/60-z.json" rng other
describe "$general/60-a.json" rng rng
finds "the name decides, not the directory" rng --type rng
describe "$general/50-z.json" rng other
finds "a smaller number comes first" other --type rng
describe "$general/.40-z.json" rng rng
mkdir "$general/10-directory"
mkfifo "$general/11-fifo"
finds "hidden files, directories and FIFOs are left out" other --type rng
describe "$general/45-any-suffix" rng rng
finds "any suffix will do" rng --type rng

fresh
describe "$general/50-gpu.json" gpu gpu
describe "$general/60-virgl.json" gpu virgl
finds "no features wanted" gpu --type gpu
finds "one feature" gpu --type gpu --feature render-node
finds "a feature that the first one lacks" virgl --type gpu --feature=virgl
finds "two features" virgl --type gpu --feature virgl --feature render-node
finds "a feature that nobody has" "" --type gpu --feature virgl --feature x
like "which is said" "$err" 'no backend program of type gpu that has all features found'
run "$vum" discover --type gpu --feature virgl -v
like "-v says why one lost" "$err" "50-gpu.json: [^:]*gpu lacks the feature \"virgl\""
like "-v says which one won" "$err" "60-virgl.json: taken"
describe "$general/70-late.json" gpu virgl
describe "$general/80-rng.json" rng rng
run "$vum" discover --type gpu --feature virgl --verbose --json
is "--json: the winner" "$(jq -c '[.file, .type, .binary, .description, .tags, .features]' "$tmp/out")" \
	"[\"$general/60-virgl.json\",\"gpu\",\"$tmp/bin/virgl\",\"60-virgl.json\",[],[\"virgl\",\"render-node\"]]"
is "--json: the others" "$(jq -r '.rejected[] | (.file | split("/") | last) + ": " + .reason' "$tmp/out")" \
	"50-gpu.json: $tmp/bin/gpu lacks the feature \"virgl\"
70-late.json: comes after 60-virgl.json
80-rng.json: type is \"rng\""
run "$vum" discover --type net --json
is "--json: nothing" "$status $(jq -c . "$tmp/out")" "1 {}"

# Broken files are reported and left out, whatever is looked for.
fresh
describe "$general/90-good.json" rng rng
broken()
{
	mkdir -p "$general"
	printf %s "$2" >"$general/10-broken.json"
	finds "$1: left out" rng --type rng
	like "$1: reported" "$err" "10-broken.json: $3"
}
broken "no JSON" '{"type": ' 'not valid JSON: '
broken "no object" '[1]' 'array, not an object'
broken "two values" '{} {}' 'not valid JSON: '
broken "no binary" '{"description": "d", "type": "rng"}' '"binary" is missing'
broken "a number as type" '{"description": "d", "type": 1, "binary": "/b"}' '"type" is number'
broken "no description" '{"type": "rng", "binary": "/b"}' '"description" is missing'
broken "an unknown type" '{"description": "d", "type": "sound", "binary": "/b"}' 'unknown type "sound"'
broken "a relative binary" '{"description": "d", "type": "rng", "binary": "b"}' '"binary" is not an absolute path'
broken "bad tags" '{"description": "d", "type": "rng", "binary": "/b", "tags": [1]}' '"tags" is not an array of strings'
broken "deep nesting" "$(printf '[%.0s' {1..1000})" 'not valid JSON: nested too deeply'
truncate -s 2M "$general/10-broken.json"
finds "too long: left out" rng --type rng
like "too long: reported" "$err" '10-broken.json: longer than 1 MiB'
rm "$general/10-broken.json"
ln -s /nonexistent "$general/10-broken.json"
finds "a dangling link: left out" rng --type rng
like "a dangling link: reported" "$err" '10-broken.json: No such file'
rm "$general/10-broken.json"

describe "$general/10-newer.json" rng newer ', "x": 1'
prints newer '{"type": "rng"}'
finds "an unknown member: taken all the same" newer --type rng
like "an unknown member: reported" "$err" '10-newer.json: unknown member "x"'
rm "$general/10-newer.json"

# Programs that are no good lose against the next one.
loses()
{
	describe "$general/10-bad.json" rng bad
	finds "$1: loses" rng --type rng --timeout="${3-60s}" -v
	like "$1: says why" "$err" "10-bad.json: $tmp/bin/bad$2"
	rm -f "$general/10-bad.json" "$tmp/bin/bad"
}
loses "no such program" ' --print-capabilities: No such file'
prints bad '{"type": "gpu", "features": []}'
loses "another type" ' says that it is of type "gpu"'
prints bad '{"features": []}'
loses "no type" ' prints no "type"'
prints bad '{"type": "rng", "features": [1]}'
loses "bad features" ': "features" is not an array of strings'
prints bad 'rng'
loses "no JSON" ' prints no valid JSON: '
program bad <<<'echo "{\"type\": \"rng\"}"; exit 3'
loses "a bad exit status" ' --print-capabilities: exit status 3'
program bad <<<'kill -SEGV $$'
loses "a crash" ' --print-capabilities: killed by signal 11'
program bad <<<'yes'
loses "endless output" ' --print-capabilities: writes too much'

# A program that hangs is ended in time, with all that it started.
program bad <<<"sleep 1000 & echo \$! >$tmp/child; wait"
start=${EPOCHREALTIME/[^0-9]/}
loses "a program that hangs" ' --print-capabilities: does not answer in time' 3s
took=$((${EPOCHREALTIME/[^0-9]/} - start))
ok "a program that hangs costs its time limit only ($took us)" test $took -ge 3000000 -a $took -lt 60000000
# shellcheck disable=SC2317 # called by await
child_gone()
{
	local state
	state=$(ps -o stat= -p "$(<"$tmp/child")") || return 0
	[[ $state == Z* ]]
}
ok "its children are ended too" await 5 child_gone

# One that leaves a child behind, which keeps the pipe open, has answered all the same.
program bad <<<'sleep 1000 & echo "{\"type\": \"rng\"}"'
describe "$general/10-bad.json" rng bad
finds "a child that keeps the pipe open" bad --type rng --timeout=60s
rm "$general/10-bad.json"

# Arguments
for args in "--type sound" "--type" "--nonsense" "word" "--feature=" "--timeout=0" "--json=1"; do
	# shellcheck disable=SC2086 # words on purpose
	run "$vum" discover $args
	is "wrong usage: discover $args" "$status $out" "2 "
done

# The program itself
ln -s "$(realpath "$vum")" "$tmp/bin/vhost-user-rng"
describe "$general/10-own.json" rng vhost-user-rng
finds "our own program" vhost-user-rng --type rng
done_testing
