#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Folders with owners beside the files change hands between QEMU's own 9p and ours: what a guest of QEMU made is the same
# for a guest of ours, and what that changed is so for QEMU's again.

limit=300
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires_qemu
models=(mapped-xattr mapped-file)
devices=()

# for all guests: what is in a folder, line by line
# shellcheck disable=SC2016
tools='
listing()
{
	(cd "$1" && find . | sort | while read -r name; do
		stat -c "%n: %F %u:%g %a %t:%T" "$name"
		[ ! -f "$name" ] || sha256sum <"$name"
		[ ! -L "$name" ] || readlink "$name"
	done)
}
'

# qemu_guest NAME: its script is in the standard input; the folders are the tags "mapped-xattr" and "mapped-file"
qemu_guest()
{
	local model arguments=()
	for model in "${models[@]}"; do
		arguments+=(-fsdev "local,id=$model,path=$tmp/$model,security_model=$model"
			-device "virtio-9p-pci,fsdev=$model,mount_tag=$model")
	done
	{
		echo "$tools"
		echo 'modprobe 9pnet_virtio; modprobe 9p'
		cat
	} >"$tmp/$1.script"
	qemu_start "$1" 120 "${arguments[@]}" <"$tmp/$1.script"
	guest_wait "$1"
}

# listed NAME MODEL: what the guest listed of it
listed()
{
	sed -n "s/^$2: //p" "$tmp/$1/out"
}

mkdir "$tmp/mapped-xattr" "$tmp/mapped-file"
qemu_guest qemu-first <<'GUEST'
for model in mapped-xattr mapped-file; do
	check "$model: mount" mount -t 9p -o trans=virtio,version=9p2000.L,posixacl $model /mnt || break
	cd /mnt
	chown 5:6 .
	mknod null c 1 3
	mknod disk b 8 17
	mkfifo fifo
	ln -s /etc/target link
	mkdir -m 1777 dir
	echo content >dir/file
	chown 1234:5678 dir/file
	chmod 4711 dir/file
	ln dir/file hard
	echo old >dir/old
	chmod 604 dir/old
	mv dir/old moved
	mkdir gone
	chown 9:9 gone
	touch gone/file
	listing . | sed "s/^/$model: /"
	[ $model != mapped-xattr ] || check "ACLs" filetest acl .
	cd /
	check "$model: umount" umount /mnt
done
GUEST
for model in "${models[@]}"; do
	ok "$model: QEMU's guest has its files" test "$(listed qemu-first "$model" | grep -c "^\./.*:")" -ge 10
	backend "$model" 9p --path="$tmp/$model" --tag="$model" --security="$model"
	devices+=("virtio_uml.device=$socket:9")
done

uml_start guest 120 "${devices[@]}" <<GUEST
$tools
$(cat <<'REST'
for model in mapped-xattr mapped-file; do
	check "$model: mount" mount -t 9p -o trans=virtio,version=9p2000.L,posixacl $model /mnt || break
	cd /mnt
	if [ $model = mapped-xattr ]; then
		check "the ACL is there" filetest readers acl
		rm -r acl acldir
	fi
	listing . >/host/$model.found
	check "$model: the fifo works" eval '(echo through >fifo) & [ "$(cat fifo)" = through ]'
	check "$model: so does the node" eval 'echo x >null'
	check "$model: remove" rm -r gone
	check "$model: rename a file" mv moved dir/renamed
	check "$model: rename a directory" mv dir folder
	check "$model: change the owner" chown 77:88 folder/renamed
	check "$model: and the mode" chmod 2750 folder/renamed
	check "$model: a directory" mkdir -m 2775 new
	check "$model: its owner" chown 3:4 new
	mknod new/zero c 1 5
	ln -s ../away new/link
	mkfifo new/fifo
	echo ours >new/file
	chown 1:2 new/file
	ln new/file new/hard
	chown 50:60 .
	listing . >/host/$model.left
	[ $model != mapped-xattr ] || check "ACLs" filetest acl .
	cd /
	check "$model: umount" umount /mnt
done
REST
)
GUEST
guest_wait guest
for model in "${models[@]}"; do
	is "$model: what QEMU's guest made" "$(cat "$tmp/guest/$model.found")" "$(listed qemu-first "$model")"
	ok "$model: the back-end ends at SIGTERM" stop "$model"
done

qemu_guest qemu-second <<'GUEST'
for model in mapped-xattr mapped-file; do
	check "$model: mount" mount -t 9p -o trans=virtio,version=9p2000.L,posixacl $model /mnt || break
	if [ $model = mapped-xattr ]; then
		check "the ACL is there" filetest readers /mnt/acl
		rm -r /mnt/acl /mnt/acldir
	fi
	listing /mnt | sed "s/^/$model: /"
	check "$model: remove all" eval 'cd /mnt && rm -r ./* && cd /'
	check "$model: umount" umount /mnt
done
GUEST
for model in "${models[@]}"; do
	is "$model: what our guest left" "$(listed qemu-second "$model")" "$(cat "$tmp/guest/$model.left")"
done
done_testing
