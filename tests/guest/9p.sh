#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our shared folder: what either side does with files is seen by the other, and the folder cannot be
# left.

limit=900
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires sha256sum git make cc dbench flock

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
uml_start guest 300 virtio_uml.device="$socket:9" data_sum="$data_sum" <<'GUEST'
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

check "rules of POSIX" filetest posix /mnt
check "random input and output" filetest random /mnt/random 1500 1
check "extended attributes" filetest xattr /mnt/file
check "ACLs" filetest acl /mnt

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
check "random input and output through the cache" filetest random /mnt/random 800 2
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

# ---- two mounts of one folder: locks, races; and the host's own programs, with the folder as their work place ----

both=$tmp/both
mkdir -p "$both/d" "$tmp/outside"
echo -n inside >"$both/d/f"
echo -n secret >"$tmp/outside/f"
ln -s "$tmp/outside" "$both/link"
echo locked >"$both/lock"
mkdir "$tmp/project"
cat >"$tmp/project/main.c" <<'C'
#include <stdio.h>
#include "greet.h"
int main(void) { return puts(greet()) < 0; }
C
cat >"$tmp/project/greet.c" <<'C'
#include "greet.h"
const char *greet(void) { return "made in the guest"; }
C
echo 'const char *greet(void);' >"$tmp/project/greet.h"
cat >"$tmp/project/Makefile" <<'M'
project: main.o greet.o
	cc -o project main.o greet.o
main.o greet.o: greet.h
M
ok "a repository" git -c init.defaultBranch=main init -q "$tmp/project"
ok "with a commit" env -C "$tmp/project" sh -c \
	'git add . && git -c user.name=x -c user.email=x@localhost commit -q -m project && git clone -q --bare . ../both/project.git'

# the guest's kernel has no shared memory and semaphores of System V, which dbench wants to start all at once; loaded from the folder too
cat >"$tmp/shm.c" <<'C'
#include <stddef.h>
#include <sys/mman.h>
#define GETZCNT 15
static void *memory;
int shmget(int key, size_t size, int flags)
{
	(void)key, (void)flags;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? -1 : 1;
}
void *shmat(int id, const void *at, int flags) { (void)id, (void)at, (void)flags; return memory; }
int shmctl(int id, int cmd, void *buf) { (void)id, (void)cmd, (void)buf; return 0; }
int semget(int key, int n, int flags) { (void)key, (void)n, (void)flags; return 1; }
int semctl(int id, int n, int cmd, ...) { (void)id, (void)n; return cmd == GETZCNT ? 2 : 0; } /* all are waiting */
int semop(int id, void *ops, size_t n) { (void)id, (void)ops, (void)n; return 0; }
C
ok "a stand-in for them" cc -shared -fPIC -o "$both/shm.so" "$tmp/shm.c"

backend first 9p --path="$both" --tag=first
first=$socket
backend second 9p --path="$both" --tag=second
guest_memory=160M uml_start guest-two 300 virtio_uml.device="$first:9" virtio_uml.device="$socket:9" <<'GUEST'
mkdir /tmp/a /tmp/b
check "the first mount" mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 first /tmp/a
check "the second mount" mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 second /tmp/b

mkfifo /tmp/end
(filetest hold /tmp/a/lock 10 10 </tmp/end >/tmp/held) &
exec 4>/tmp/end
await 10 test -s /tmp/held
filetest try /tmp/b/lock 15 1
is "the lock is seen by the other mount" $? 2
filetest whose /tmp/b/lock 15 1
is "and it can be asked for" $? 2
check "another range is free" filetest try /tmp/b/lock 20 10
(filetest wait /tmp/b/lock 0 0 && echo got >/tmp/got) 4>&- &
usleep 300000
refuse "one who waits, waits" test -e /tmp/got
is "meanwhile the mount works" "$(cat /tmp/b/lock)" locked
exec 4>&-
check "and gets it when it is given back" await 10 test -e /tmp/got

# one that waits is killed: the lock is not taken for it
mkfifo /tmp/end2
(filetest hold /tmp/a/lock 10 10 </tmp/end2 >/tmp/held2) &
exec 4>/tmp/end2
await 10 test -s /tmp/held2
filetest wait /tmp/b/lock 0 0 4>&- &
pid=$!
usleep 300000
kill -9 $pid
wait $pid
exec 4>&-
check "after that the lock is free" await 10 filetest try /tmp/a/lock 0 0

(filetest swap /tmp/a 4) &
check "links that come and go lead nowhere else" filetest peek /tmp/b 4
wait

mount -t hostfs -o / none /root
mount -t tmpfs none /root/tmp
mount -t devtmpfs none /root/dev
mount -t proc none /root/proc
mkdir /root/tmp/w /root/tmp/other
mount -o bind /tmp/a /root/tmp/w
mount -o bind /tmp/b /root/tmp/other
export HOME=/tmp GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
check "git clone" chroot /root git clone -q /tmp/w/project.git /tmp/w/clone
check "git is content" chroot /root git -C /tmp/w/clone fsck
check "make" chroot /root make -s -C /tmp/w/clone
is "what was made runs" "$(chroot /root /tmp/w/clone/project)" "made in the guest"
is "git sees no change but that" "$(chroot /root git -C /tmp/w/clone status --short | xargs)" \
	"?? greet.o ?? main.o ?? project"
check "dbench" chroot /root env LD_PRELOAD=/tmp/w/shm.so dbench -c /usr/share/dbench/client.txt -t 2 -D /tmp/w 2
# the process that took it must live: Linux's client makes it one of fcntl(2), which end with their process
check "flock holds for the other mount" chroot /root flock -n /tmp/w/lock sh -c '! flock -n /tmp/other/lock true'
check "and is given back" chroot /root flock -w 10 /tmp/other/lock true
umount /root/tmp/w /root/tmp/other
check "umount" umount /tmp/a
check "umount" umount /tmp/b
GUEST
guest_wait guest-two
is "what the guest made runs here" "$("$both/clone/project")" "made in the guest"
ok "the first back-end ends at SIGTERM" stop first
ok "the second back-end ends at SIGTERM" stop second

# ---- owners beside the files ----

for model in mapped-xattr mapped-file; do
	mkdir "$tmp/$model"
	backend "$model" 9p --path="$tmp/$model" --security=$model
	uml_start "guest-$model" 200 virtio_uml.device="$socket:9" <<'GUEST'
check "mount" mount -t 9p -o trans=virtio,version=9p2000.L,posixacl share /mnt
check "device node" mknod /mnt/null c 1 3
check "it is the guest's" eval 'echo nothing >/mnt/null'
check "fifo" mkfifo /mnt/fifo
check "symlink" ln -s target /mnt/link
is "target" "$(readlink /mnt/link)" target
check "mkdir" mkdir /mnt/dir
echo x >/mnt/dir/file
chown 12:34 /mnt/dir/file
chmod 4711 /mnt/dir/file
check "rename" mv /mnt/dir/file /mnt/dir/moved
check "umount" umount /mnt
check "mount again" mount -t 9p -o trans=virtio,version=9p2000.L,posixacl share /mnt
is "owner and mode" "$(stat -c '%u %g %a' /mnt/dir/moved)" "12 34 4711"
is "kinds" "$(stat -c '%n %F' /mnt/* | sed 's|/mnt/||' | xargs)" \
	"dir directory fifo fifo link symbolic link null character special file"
is "the device's number" "$(stat -c '%t %T' /mnt/null)" "1 3"
check "ACLs" filetest acl /mnt
check "rules of POSIX" filetest posix /mnt
check "remove all" rm -r /mnt/dir /mnt/fifo /mnt/link /mnt/null /mnt/acl /mnt/acldir /mnt/p
is "nothing is left" "$(ls -A /mnt)" ""
check "umount" umount /mnt
GUEST
	await 180 test -f "$tmp/$model/dir/moved"
	is "$model: the host has a plain file" "$(stat -c '%F %a' "$tmp/$model/dir/moved")" "regular file 600"
	is "$model: and no device node" "$(stat -c %F "$tmp/$model/null" | cut -d ' ' -f 1)" regular
	guest_wait "guest-$model"
	ok "$model: the back-end ends at SIGTERM" stop "$model"
done

# ---- read-only ----

backend readonly 9p --path="$share" --read-only
uml_start guest-ro 200 virtio_uml.device="$socket:9" data_sum="$data_sum" <<'GUEST'
check "mount" mount -t 9p -o trans=virtio,version=9p2000.L share /mnt
is "data" "$(sha /mnt/data)" "$data_sum"
refuse "no new file" touch /mnt/new
refuse "no removal" rm -f /mnt/data
refuse "no writing" eval 'echo x >>/mnt/data'
refuse "no mode" chmod 0 /mnt/data
check "umount" umount /mnt
GUEST
guest_wait guest-ro
ok "the back-end ends at SIGTERM" stop readonly
is "the host's data is untouched" "$(sha "$share/data")" "$data_sum"

done_testing
