#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The layers of the source: a file includes headers of its own layer and of those
# below, never of those above. Devices see device.h and what belongs to it.

limit=30
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"

# layer FILE: of a file in src, by its name without suffix
layer()
{
	case $1 in
	util | le | log) echo 0 ;;
	cursor | library | loop | options | json | stats | shmem | sockpath | command) echo 1 ;;
	message | guestmem | dirtylog | inflight | iotlb | pool | uring | probe | term) echo 2 ;;
	vring | vring-* | virtqueue | postcopy) echo 3 ;;
	device | device-state | config | backchannel | session | session-* | listener | control) echo 4 ;;
	backend | backend-* | sandbox | capabilities | ctl | discover) echo 5 ;;
	main) echo 6 ;;
	*) return 1 ;;
	esac
}

# includes FILE: the headers that it includes by "…"
includes()
{
	sed -nE 's/^#[[:space:]]*include "([^"]*)".*/\1/p' "$1"
}

# What a device may include of src: device.h, what that includes, and the helpers for host input, output and libraries.
device_headers=" device.h $(includes "$srcdir/src/device.h" | tr '\n' ' ') pool.h uring.h library.h sockpath.h "

cd "$srcdir" || exit 1
for file in src/*.[ch]; do
	name=$(basename "${file%.*}")
	breaches=
	if ! own=$(layer "$name"); then
		result 1 "$file has a layer"
		note "say in $0 to which layer it belongs"
		continue
	fi
	for header in $(includes "$file"); do
		case $name:$header in
		main:table.h | main:config.h) continue ;; # the only file of src that knows the devices
		esac
		if [ ! -e "src/$header" ]; then
			breaches+=" $header(not of src)"
		elif ! of=$(layer "${header%.h}") || [ "$of" -gt "$own" ]; then
			breaches+=" $header(layer ${of:-none})"
		elif [ "$header" = vring.h ] && [[ $name != vring* && $name != virtqueue && $name != session* ]]; then
			breaches+=" $header(private)"
		fi
	done
	is "$file (layer $own) includes nothing above it" "$breaches" ""
done

for file in devices/*.[ch]; do
	name=$(basename "${file%.*}")
	breaches=
	for header in $(includes "$file"); do
		case $name:$header in
		table:table.h | table:list.h) continue ;;
		"$name:$name.h" | "${name%%-*}:${name%%-*}"*.h | *:port.h | *:port-line.h | *:port-state.h | *:disk.h | *:user-net.h) [ -e "devices/$header" ] && continue ;;
		disk*:disk*.h | port*:port*.h | "$name:${name%%-*}"-*.h | "$name:${name%%-*}.h") [ -e "devices/$header" ] && continue ;;
		esac
		[[ $device_headers == *" $header "* ]] || breaches+=" $header"
	done
	is "$file includes only what a device may see" "$breaches" ""
done

# The test itself must be able to find something.
is "a device header is not in reach of a device by accident" "$(for h in session.h message.h guestmem.h vring.h sandbox.h; do
	[[ $device_headers == *" $h "* ]] && echo "$h"
done)" ""
done_testing
