# shellcheck shell=bash
# Finds or installs a QEMU that is new enough. Debian 12's own is 7.2: there it comes from backports.

QEMU_MINIMUM=8.2
QEMU_PACKAGE=qemu-system-x86
# Where apt's sources are.
APT_DIR=/etc/apt

install_qemu() {
  local have
  have=$(qemu_version)
  if [[ -n $have ]] && at_least "$have" "$QEMU_MINIMUM"; then
    return
  fi
  update_lists_once
  if at_least "$(candidate_version)" "$QEMU_MINIMUM"; then
    say "installing $QEMU_PACKAGE"
    apt_install "$QEMU_PACKAGE"
  else
    install_qemu_from_backports
  fi
  have=$(qemu_version)
  at_least "${have:-0}" "$QEMU_MINIMUM" || die "QEMU is ${have:-missing} after the installation, and $QEMU_MINIMUM is needed"
}

# The version of the QEMU in PATH; nothing when there is none.
qemu_version() {
  command -v qemu-system-x86_64 >/dev/null || return 0
  qemu-system-x86_64 --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p'
}

# The version that the package lists offer by default, without epoch and revision.
candidate_version() {
  local version
  version=$(LC_ALL=C apt-cache policy "$QEMU_PACKAGE" | sed -n 's/^ *Candidate: //p')
  version=${version#*:}
  printf '%s\n' "${version%%[+-]*}"
}

at_least() {
  [[ $1 != "(none)" && -n $1 ]] && dpkg --compare-versions "$1" ge "$2"
}

install_qemu_from_backports() {
  local release suite
  release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME-}")
  suite=$release-backports
  if ! apt-cache policy | grep -q "n=$suite\b\|a=$suite\b"; then
    add_suite "$release" "$suite"
    as_root apt-get update -q >&2
  fi
  say "installing $QEMU_PACKAGE from $suite"
  apt_install -t "$suite" "$QEMU_PACKAGE" ||
    die "$suite has no QEMU $QEMU_MINIMUM or newer that installs (an old release's backports leave the mirrors): install one by hand and put it in PATH"
}

# Adds a suite from the very source that this machine has its release from: mirrors, proxies and keys stay.
add_suite() {
  local release=$1 suite=$2 file=$APT_DIR/sources.list.d/vmint-backports.sources text
  text=$(deb822_source "$release" "$suite")
  if [[ -z $text ]]; then
    file=$APT_DIR/sources.list.d/vmint-backports.list
    text=$(one_line_source "$release" "$suite")
  fi
  [[ -n $text ]] || die "no package source for $release was found in $APT_DIR: add $suite by hand"
  say "adding $suite to the package sources ($file)"
  as_root tee "$file" >/dev/null <<<"$text"
}

# The first paragraph of a .sources file that has the release, with the suite in place of its own.
deb822_source() {
  local release=$1 suite=$2
  # A machine may have files of one kind alone, or of neither.
  { find "$APT_DIR/sources.list.d" -name '*.sources' -exec cat {} + 2>/dev/null || true; } |
    awk -v release="$release" -v suite="$suite" '
      BEGIN { RS = ""; FS = "\n" }
      !done && $0 ~ "\nSuites:[^\n]*[ \t]" release "([ \t\n]|$)" {
        for (i = 1; i <= NF; i++) {
          if ($i ~ /^Suites:/) print "Suites: " suite
          else if ($i !~ /^#/) print $i
        }
        done = 1
      }'
}

# The same for the older format of one line.
one_line_source() {
  local release=$1 suite=$2
  { cat "$APT_DIR/sources.list" "$APT_DIR"/sources.list.d/*.list 2>/dev/null || true; } |
    awk -v release="$release" -v suite="$suite" '
      !done && $1 == "deb" {
        for (i = 2; i <= NF; i++) if ($i == release) { $i = suite; print; done = 1; break }
      }'
}
