# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Programs out of Debian's packages, without installing them and without a change
# to the system's apt.
#
# The archive is the one that the system's apt uses for its release; only lists
# and packages of our own are fetched from there. die() is the caller's.

# packages_archive [SUFFIX]: its address, for the release or release-SUFFIX, and the file with its keys
packages_archive()
{
	local codename keys
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
	keys=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -r "$keys" ] || die "no $keys"
	# shellcheck disable=SC2016 # for apt
	apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
		awk -v codename="$codename" -v keys="$keys" -v suffix="${1-}" \
			'$2 == codename && $3 == "main" { print "deb [signed-by=" keys "] " $1 " " codename suffix " main"; exit }'
}

# packages_unpack SUFFIX PACKAGE...: into root/ of the current directory
packages_unpack()
{
	local options package suffix=$1
	shift
	mkdir -p apt/lists/partial apt/cache/archives/partial
	packages_archive "$suffix" >apt/sources.list
	[ -s apt/sources.list ] || die "apt does not say where its release comes from"
	options=(-q -o "Dir::State::Lists=$PWD/apt/lists" -o "Dir::Cache=$PWD/apt/cache"
		-o "Dir::Etc::SourceList=$PWD/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o Acquire::Languages=none)
	apt-get "${options[@]}" update >apt/log 2>&1 || die "apt-get update: $(tail -n 3 apt/log)"
	apt-get "${options[@]}" download "$@" >apt/log 2>&1 || die "apt-get download: $(tail -n 3 apt/log)"
	for package in ./*.deb; do
		dpkg -x "$package" root
	done
	rm -rf apt ./*.deb
}
