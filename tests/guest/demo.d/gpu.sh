# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

screen=$(dirname "$vum")/demo-screen.png
rm -f "$screen"
mkdir "$tmp/shots"
serve gpu 16 --display=800x600 --screenshot-dir="$tmp/shots" --screenshot-interval=100

in_guest <<'GUEST'
row "preferred mode" "$(head -n 1 /sys/class/drm/card0-Virtual-1/modes)"
gpudraw bars >/tmp/drawn &
until grep -q drawn /tmp/drawn 2>/dev/null; do
	kill -0 $! || break
	usleep 10000
done
grep -q drawn /tmp/drawn
confirm $? "colour bars are drawn"
GUEST

demo_screen()
{
	await 5 cp "$tmp/shots/scanout-0.png" "$screen" 2>/dev/null
	confirm $? "its screen is kept"
	row "look at it" "$screen"
}
afterwards demo_screen
