# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

serve vsock 19 --guest-cid=33 --uds-path="$tmp/host"
spawn echo "$(dirname "$vum")/tests/guest/vsockio" serve "unix:$tmp/host_1000"

in_guest <<'GUEST'
vsockio bulk vsock:2:1000 16
confirm $? "16 MiB to a program of the host and back, unharmed"
vsockio refused vsock:2:1001
confirm $? "a port where nobody listens refuses"
GUEST
