#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our shared folder: what either side does with files is seen by the other, and the folder cannot be
# left.

limit=180
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires sha256sum

sha()
{
	sha256sum "$1" | cut -d ' ' -f 1
}

# ---- files and directories ----

share=$tmp/share
mkdir "$share"
echo "from the host" >"$share/file"
head -c 10M /dev/urandom >"$share/data"
data_sum=$(sha "$share/data")
echo secret >"$tmp/secret"
ln -s "$tmp/secret" "$share/escape"
ln -s ../secret "$share/escape-up"

backend share 9p --path="$share" --tag=hostdir --security=none
uml_start guest 90 virtio_uml.device="$socket:9" data_sum="$data_sum" <<'GUEST'
is "the tag" "$(tr -d '\0' </sys/bus/virtio/devices/virtio0/mount_tag)" hostdir
check "mount" mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,posixacl hostdir /mnt
is "a file of the host" "$(cat /mnt/file)" "from the host"
is "its data" "$(sha /mnt/data)" "$data_sum"
check "copy" cp /mnt/data /mnt/copy
is "data of the copy" "$(sha /mnt/copy)" "$data_sum"

check "mkdir" mkdir /mnt/dir
check "symlink" ln -s ../file /mnt/dir/link
is "through the symlink" "$(cat /mnt/dir/link)" "from the host"
check "hard link" ln /mnt/file /mnt/dir/hard
is "two names" "$(stat -c %h /mnt/file)" 2
echo one >/mnt/one
echo two >/mnt/two
check "rename over" mv /mnt/one /mnt/two
is "the new content" "$(cat /mnt/two)" one
refuse "the old name is gone" test -e /mnt/one
check "chown" chown 1000:1001 /mnt/two
check "chmod" chmod 4751 /mnt/two
is "owner and mode" "$(stat -c '%u %g %a' /mnt/two)" "1000 1001 4751"
check "fifo" mkfifo /mnt/fifo
(echo through >/mnt/fifo) &
is "a fifo works" "$(cat /mnt/fifo)" through
check "device node" mknod /mnt/null c 1 3
check "the node is the guest's" eval 'echo nothing >/mnt/null'
check "time" touch -d '2001-02-03 04:05:06' /mnt/file
is "time" "$(stat -c %Y /mnt/file)" "$(date -d '2001-02-03 04:05:06' +%s)"
check "grow" truncate -s 5000 /mnt/two
is "size" "$(stat -c %s /mnt/two)" 5000
check "df" df /mnt

# an open file that is unlinked
exec 3<>/mnt/unlinked
echo before >&3
rm /mnt/unlinked
echo after >&3
is "an unlinked file" "$(cat /proc/self/fd/3)" "before
after"
exec 3<&-

# what leads out leads to the guest's own files
refuse "a link to the host's file" cat /mnt/escape
refuse "a link upwards" cat /mnt/escape-up

check "10,000 files" eval 'mkdir /mnt/many; cd /mnt/many; seq 10000 | xargs touch; cd /'
is "all are listed" "$(ls /mnt/many | wc -l)" 10000
is "all names are right" "$(ls /mnt/many | sort -n | md5sum)" "$(seq 10000 | md5sum)"
check "remove every second" eval 'cd /mnt/many; seq 1 2 10000 | xargs rm; cd /'
is "the others are left" "$(ls /mnt/many | wc -l)" 5000

check "umount" umount /mnt
check "mount again" mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose hostdir /mnt
is "data through the cache" "$(sha /mnt/copy)" "$data_sum"
check "write through the cache" cp /mnt/copy /mnt/cached
check "umount" umount /mnt
check "the old dialect" mount -t 9p -o trans=virtio,version=9p2000.u hostdir /mnt
is "data" "$(sha /mnt/cached)" "$data_sum"
check "mkdir" mkdir /mnt/old
check "write" eval 'echo old >/mnt/old/file'
check "rename" mv /mnt/old/file /mnt/old/renamed
check "symlink" ln -s target /mnt/old/link
is "target" "$(readlink /mnt/old/link)" target
check "hard link" ln /mnt/old/renamed /mnt/old/hard
check "chmod" chmod 600 /mnt/old/hard
is "listed" "$(ls /mnt/old | xargs)" "hard link renamed"
check "remove" rm /mnt/old/hard
check "umount" umount /mnt
check "a directory below" mount -t 9p -o trans=virtio,version=9p2000.L,aname=/dir hostdir /mnt
is "its files" "$(ls /mnt | xargs)" "hard link"
check "umount" umount /mnt
GUEST
guest_wait guest
ok "the back-end ends at SIGTERM" stop share
is "the host has the same data" "$(sha "$share/copy")" "$data_sum"
is "and through the cache" "$(sha "$share/cached")" "$data_sum"
is "hard link" "$(stat -c %h "$share/dir/hard")" 2
is "symlink" "$(readlink "$share/dir/link")" ../file
is "fifo" "$(stat -c %F "$share/fifo")" fifo
is "renamed" "$(cat "$share/old/renamed")" old
is "5000 files" "$(find "$share/many" -type f | wc -l)" 5000
is "nothing got out" "$(cat "$tmp/secret")" secret

done_testing
