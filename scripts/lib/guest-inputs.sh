# shellcheck shell=bash
# The record of what went into a guest. A build is current while the record, made anew, says the same.
#
#   format 2                                    the layout of this text
#   kernel-release 6.1.0-56-amd64
#   package NAME VERSION sha256:DIGEST          one a package of the distribution
#   source PATH sha256:DIGEST                   one a file of this repository
#   compiler rustc 1.95.0 (...)
#   agent sha256:DIGEST
#   output NAME sha256:DIGEST                   what was built

INPUTS_FORMAT=2

# inputs_write OUT AGENT
inputs_write() {
  local out=$1 agent=$2
  {
    inputs_head "$KERNEL_RELEASE"
    packages_lines "$PACKAGES_RECORDS" "${PACKAGES_USED[@]}"
    printf 'agent sha256:%s\n' "$(sha256sum <"$agent" | cut -d ' ' -f 1)"
    inputs_outputs "$out"
  } >"$out/inputs"
}

# inputs_head KERNEL_RELEASE: what needs no package list.
inputs_head() {
  printf 'format %s\nkernel-release %s\ncompiler %s\n' "$INPUTS_FORMAT" "$1" "$(agent_compiler)"
  inputs_sources
}

inputs_sources() {
  (
    cd -- "$REPO" || exit
    find scripts/guest scripts/lib guest -type f \
      \( -path scripts/guest -o -path 'scripts/lib/guest*' -o -path 'guest/src/*.rs' -o -path guest/Cargo.toml -o -path guest/Cargo.lock \
        -o -path 'guest/protocol/src/*.rs' -o -path guest/protocol/Cargo.toml \) -print0 |
      sort -z | xargs -0 sha256sum | awk '{ print "source", $2, "sha256:" $1 }'
  )
}

inputs_outputs() {
  local files=(vmlinuz initrd.img)
  (cd -- "$1" && sha256sum "${files[@]}" | awk '{ print "output", $2, "sha256:" $1 }')
}

# inputs_current DIRECTORY: whether what is there is whole, and made of what a build would take now.
inputs_current() {
  local dir=$1 inputs=$1/inputs packages
  [[ -f $inputs && -f $dir/vmlinuz && -f $dir/initrd.img ]] || return 1
  inputs_same "$inputs" '^(format|kernel-release|compiler|source) ' "$(inputs_head "$(awk '$1 == "kernel-release" { print $2 }' "$inputs")")" || return 1
  inputs_same "$inputs" '^output ' "$(inputs_outputs "$dir")" || return 1
  mapfile -t packages < <(awk '$1 == "package" { print $2 }' "$inputs")
  local now
  now=$(packages_lines "$(packages_show "${packages[@]}")" "${packages[@]}")
  if [[ -z $now ]]; then
    say "apt has no package lists: keeping the packages of the last build"
    return 0
  fi
  inputs_same "$inputs" '^package ' "$now"
}

# inputs_same FILE PATTERN TEXT: whether the file's lines of this kind are exactly the text.
inputs_same() {
  [[ $(grep -E "$2" "$1") == "$3" ]]
}
