# shellcheck shell=bash
# Rust is the one thing that must be there already. It is looked for, and its version, before anything is installed.
# Needs $REPO and die.

# need_rust: dies in one line where there is no Rust, or one that is too old.
need_rust() {
  rust_of_sudo
  local tool minimum have
  for tool in cargo rustc; do
    command -v "$tool" >/dev/null ||
      die "Rust is missing ($tool is not in PATH): install $(rust_minimum) or newer with rustup (https://rustup.rs), then run this again"
  done
  minimum=$(rust_minimum)
  have=$(rust_version) || die "rustc --version fails: look at it, then run this again"
  version_at_least "$have" "$minimum" ||
    die "Rust is $have ($(command -v rustc)), and $minimum or newer is needed: install it with rustup (https://rustup.rs), then run this again"
}

# The version that the workspace's Cargo.toml declares.
rust_minimum() {
  sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$REPO/Cargo.toml"
}

# A `rustup` without a toolchain answers with an error of its own, which is shown.
rust_version() {
  local text
  text=$(rustc --version) || return 1
  text=${text#rustc }
  text=${text%%[ -]*}
  [[ -n $text ]] && printf '%s\n' "$text"
}

version_at_least() {
  [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]
}

# Under sudo, PATH is root's, and rustup's Rust is the invoking user's: it is used as it is, with its own toolchains.
rust_of_sudo() {
  local home
  if command -v cargo >/dev/null || ((EUID != 0)) || [[ -z ${SUDO_USER-} ]]; then
    return 0
  fi
  home=$(getent passwd "$SUDO_USER" | cut -d : -f 6)
  [[ -n $home && -x $home/.cargo/bin/cargo ]] || return 0
  PATH=$home/.cargo/bin:$PATH
  # What root downloads stays root's.
  export PATH RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup} CARGO_HOME=${CARGO_HOME:-${HOME:-/root}/.cargo}
  say "using the Rust of $SUDO_USER ($home/.cargo/bin)"
}
