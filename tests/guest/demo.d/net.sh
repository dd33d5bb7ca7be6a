# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

serve net 1 --user --pcap="$tmp/capture"

in_guest <<'GUEST'
interface=$(basename "$device"/net/*)
cat >/tmp/lease <<'SCRIPT'
[ "$1" = bound ] || exit 0
ip addr add "$ip/24" dev "$interface"
echo "$ip, router $router" >/tmp/leased
SCRIPT
chmod +x /tmp/lease
ip link set "$interface" up
udhcpc -i "$interface" -f -n -q -t 5 -s /tmp/lease >/dev/null 2>&1
row "interface" "$interface, $(cat /sys/class/net/"$interface"/address)"
row "by DHCP" "$(cat /tmp/leased)"
answer=$(ping -c 1 -W 20 10.0.2.2 | sed -n 's/.*time=/after /p')
row "the router answers" "${answer:-not}"
[ -n "$answer" ]
confirm $? "there is a network"
GUEST

demo_capture()
{
	[ "$(stat -c %s "$tmp/capture")" -gt 500 ]
	confirm $? "frames were captured"
}
afterwards demo_capture
