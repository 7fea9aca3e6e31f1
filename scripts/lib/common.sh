# shellcheck shell=bash
# What the scripts have in common: how they speak, and how they become root.

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
export REPO

say() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
  say "error: $*"
  exit 1
}

# Runs a command as root: as it is, or with sudo.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root, and there is no sudo: run as root: $*"
  fi
}

# shellcheck source=scripts/lib/rust.sh
source "$REPO/scripts/lib/rust.sh"

target_dir() {
  realpath -m -- "${CARGO_TARGET_DIR:-$REPO/target}"
}
