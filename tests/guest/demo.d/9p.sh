# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

demo_share=$tmp/share
mkdir "$demo_share"
head -c 2M /dev/urandom >"$demo_share/from-the-host"
cp "$demo_share/from-the-host" "$tmp/demo.shared"
serve 9p 9 --path="$demo_share" --tag=share

in_guest <<'GUEST'
row "mount tag" "$(tr -d '\0' <"$device/mount_tag")"
mkdir -p /tmp/share
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share /tmp/share
confirm $? "mounted"
row "the host's 2 MiB" "$(sha /tmp/share/from-the-host)"
mkdir /tmp/share/dir && cp /tmp/share/from-the-host /tmp/share/dir/back && sha /tmp/share/dir/back >/host/9p.sum
ln -s /etc/passwd /tmp/share/dir/link
confirm $? "copied back"
umount /tmp/share
GUEST

demo_9p_after()
{
	cmp -s "$tmp/demo.shared" "$demo_share/dir/back"
	confirm $? "same bytes in share/dir"
	[ "$(readlink "$demo_share/dir/link")" = /etc/passwd ]
	confirm $? "the link is a link"
}
afterwards demo_9p_after
