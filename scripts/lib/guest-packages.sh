# shellcheck shell=bash
# The distribution's packages, as files: which version is the candidate, where its file is, what is in it.
# Nothing is installed. Files are kept by their digest, so that a fresh clone of the repository downloads nothing again.

DEBS=${XDG_CACHE_HOME:-${HOME:?HOME must be set}/.cache}/vmint/debs

# Every package that went in, in the order it was asked for.
PACKAGES_USED=()
# What carries the kernel image and its modules: set by packages_find_kernel.
KERNEL_PACKAGES=()

# What may go in: these, and what they depend on. The kernel's meta package has another name on Ubuntu.
PACKAGES_WANTED=(linux-image-amd64 linux-image-generic busybox-static)
# apt's records of all of them, asked for once: each question to apt costs up to a second.
PACKAGES_RECORDS=

# The candidates' records. A package that apt does not know is left out.
packages_show() {
  apt-cache show --no-all-versions -- "$@" 2>/dev/null || true
}

packages_load_records() {
  local names
  mapfile -t names < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
    -- "${PACKAGES_WANTED[@]}" 2>/dev/null | grep -E '^[a-z0-9]' | sort -u)
  PACKAGES_RECORDS=$(packages_show "${names[@]}")
}

# packages_field FIELD PACKAGE: empty when there is no such package.
packages_field() {
  awk -v field="$1:" -v package="$2" '
    $1 == "Package:" { here = $2 == package }
    here && $1 == field { sub(/^[^ ]+ /, ""); print; exit }' <<<"$PACKAGES_RECORDS"
}

# packages_lines RECORDS PACKAGE...: "package NAME VERSION sha256:DIGEST" for each, in the order given.
packages_lines() {
  local records=$1
  shift
  awk -v order="$*" '
    $1 == "Package:" { name = $2 }
    $1 == "Version:" { version[name] = $2 }
    $1 == "SHA256:"  { digest[name] = $2 }
    END {
      count = split(order, names, " ")
      for (i = 1; i <= count; i++) if (names[i] in digest)
        print "package", names[i], version[names[i]], "sha256:" digest[names[i]]
    }' <<<"$records"
}

# Names of a package's dependencies: of alternatives the first one.
packages_dependencies() {
  { packages_field Pre-Depends "$1"; packages_field Depends "$1"; } |
    tr ',' '\n' | sed -E 's/^[[:space:]]*([^[:space:](:|]+).*/\1/' | awk 'NF && !seen[$1]++ { print $1 }'
}

packages_known() {
  [[ -n $(packages_field Package "$1") ]]
}

# Fetches apt's lists where there are none. Only root can.
packages_need_lists() {
  packages_load_records
  packages_known busybox-static && return
  if ((EUID == 0)); then
    say "fetching apt's package lists"
    apt-get -q=2 update >&2 || die "apt-get update failed (its reason is above)"
    packages_load_records
    packages_known busybox-static && return
    die "apt knows no package busybox-static. Add the distribution's main archive (on Ubuntu: universe too) to apt's sources"
  fi
  die "apt has no package lists, or none with busybox-static. Run this as root: apt-get update"
}

# The generic kernel's meta package leads to the real, versioned one.
packages_find_kernel() {
  packages_need_lists
  local meta image
  for meta in linux-image-amd64 linux-image-generic; do
    packages_known "$meta" || continue
    image=$(packages_dependencies "$meta" | grep -E '^linux-image-(unsigned-)?[0-9]' | head -n 1) || continue
    KERNEL_PACKAGES=("$image")
    # Ubuntu has the modules in a package of their own.
    local modules=linux-modules-${image#linux-image-}
    if packages_known "$modules"; then KERNEL_PACKAGES+=("$modules"); fi
    PACKAGES_USED+=("$meta")
    return
  done
  die "apt knows neither linux-image-amd64 nor linux-image-generic. Add the distribution's main archive to apt's sources"
}

# Prints the file of a package's candidate version, downloaded if need be.
packages_file() {
  local package=$1 line version digest file fresh
  line=$(packages_lines "$PACKAGES_RECORDS" "$package")
  [[ -n $line ]] || die "apt knows no package $package. Run apt-get update, and look at apt's sources"
  read -r _ _ version digest <<<"$line"
  digest=${digest#sha256:}
  file=$DEBS/${package}_${version//:/%3a}_${digest:0:16}.deb
  if [[ ! -e $file ]]; then
    mkdir -p -- "$DEBS"
    fresh=$(mktemp -d -- "$DEBS/new.XXXXXX")
    say "downloading $package $version ($(($(packages_field Size "$package") / 1024)) KiB)"
    # The sandbox user of apt cannot write here, and says so on each download.
    (cd -- "$fresh" && apt-get -q=2 -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$package=$version" >&2) ||
      { rm -rf -- "$fresh"; die "cannot download $package $version. If the archive has a newer one by now, run apt-get update as root"; }
    mv -T -- "$fresh"/*.deb "$fresh/deb"
    sha256sum --quiet -c - <<<"$digest  $fresh/deb" >&2 || { rm -rf -- "$fresh"; die "$package $version: the downloaded file is not the one that apt's lists promise"; }
    mv -T -- "$fresh/deb" "$file"
    rmdir -- "$fresh"
  fi
  printf '%s\n' "$file"
}

# packages_unpack PACKAGE DIRECTORY
packages_unpack() {
  local file
  file=$(packages_file "$1")
  dpkg-deb --fsys-tarfile "$file" | tar -x --no-same-owner --exclude='./usr/share' -C "$2" || die "cannot unpack $file: delete it and run this again"
  PACKAGES_USED+=("$1")
}
