# shellcheck shell=bash
# vmint's own program in the guest: the crate in guest/, built static and the same wherever the repository lies.

HELPER_TARGET=x86_64-unknown-linux-gnu
HELPER_FLAGS=(-C target-feature=+crt-static -C relocation-model=static)

# helper_build FILE
helper_build() {
  local build_dir cargo_home flags
  build_dir=$(target_dir)/guest-build
  cargo_home=${CARGO_HOME:-$HOME/.cargo}
  flags=("${HELPER_FLAGS[@]}" "--remap-path-prefix=$REPO/guest=/vmint/guest" "--remap-path-prefix=$cargo_home=/cargo")
  say "building the helper"
  # The environment's flags would change the bytes: they are replaced. The separator lets paths have spaces.
  (
    cd -- "$REPO/guest"
    unset RUSTFLAGS
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}") CARGO_TARGET_DIR=$build_dir \
      cargo build --quiet --release --locked --target "$HELPER_TARGET" >&2
  ) || die "the helper (guest/) does not build; cargo's reason is above"
  install -m 0755 -- "$build_dir/$HELPER_TARGET/release/helper" "$1"
}

helper_compiler() {
  (cd -- "$REPO/guest" && rustc --version)
}
