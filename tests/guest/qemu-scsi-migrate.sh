#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Live migration of a guest that writes to our SCSI disk: see qemu-migrate.sh.

migrates=scsi
# shellcheck source=tests/guest/qemu-migrate.sh
. "$(dirname "$0")/qemu-migrate.sh"
