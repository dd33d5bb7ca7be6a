#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The demonstration that ./bootstrap demo gives.

limit=120
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
ok "it runs and finds all well" env VUM="$vum" "$guestdir/demo"
done_testing
