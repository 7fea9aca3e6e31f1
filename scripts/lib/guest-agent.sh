# shellcheck shell=bash
# vmint's own program in the guest: the crate in guest/, built static and the same wherever the repository lies.

AGENT_TARGET=x86_64-unknown-linux-gnu
# What it may weigh: each clone's first commands run code that is read, and under emulation translated, once for each.
AGENT_MAX_BYTES=1500000
AGENT_FLAGS=(-C target-feature=+crt-static -C relocation-model=static)

# agent_build FILE
agent_build() {
  local build_dir cargo_home flags
  build_dir=$(target_dir)/guest-build
  cargo_home=${CARGO_HOME:-$HOME/.cargo}
  flags=("${AGENT_FLAGS[@]}" "--remap-path-prefix=$REPO/guest=/vmint/guest" "--remap-path-prefix=$cargo_home=/cargo")
  say "building the agent"
  # The environment's flags would change the bytes: they are replaced. The separator lets paths have spaces.
  (
    cd -- "$REPO/guest"
    unset RUSTFLAGS
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}") CARGO_TARGET_DIR=$build_dir \
      cargo build --quiet --release --locked --target "$AGENT_TARGET" >&2
  ) || die "the agent (guest/) does not build; cargo's reason is above"
  install -m 0755 -- "$build_dir/$AGENT_TARGET/release/vmint-agent" "$1"
  agent_check_size "$1"
}

# agent_check_size FILE
agent_check_size() {
  local bytes
  bytes=$(stat -c %s -- "$1")
  ((bytes <= AGENT_MAX_BYTES)) || die "the agent has $bytes bytes, and may have $AGENT_MAX_BYTES: look for what a new dependency brings along (cargo bloat, nm --size-sort)"
}

agent_compiler() {
  (cd -- "$REPO/guest" && rustc --version)
}
