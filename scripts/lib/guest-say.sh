# shellcheck shell=bash
# What scripts/guest tells the person who runs it, on stderr.

say() {
  printf 'guest: %s\n' "$*" >&2
}

die() {
  say "error: $*"
  exit 1
}
