# shellcheck shell=bash
# Kernel modules of the guest: found with what they depend on, put in the order of loading, and listed for its init
# (guest/src/init/modules.rs reads the list).

# Loaded at every boot: the buses (the second is microvm's), the port that the agent talks through, and the drivers of what
# is plugged into a clone: they are in the template then, and no clone waits for them.
BOOT_MODULES=(virtio_pci virtio_mmio virtio_console virtio_net virtio_blk)
# Loaded when such a device is plugged in. Each is small; file systems are left to a custom initrd.
DEVICE_MODULES=(virtio_balloon virtio-rng vmw_vsock_virtio_transport)

# Set by modules_find_release.
KERNEL_RELEASE=
MODULES_SOURCE=

modules_find_release() {
  local images=("$1"/boot/vmlinuz-*) tree
  [[ -e ${images[0]} ]] || die "no kernel image in ${KERNEL_PACKAGES[*]}"
  KERNEL_RELEASE=${images[0]##*/vmlinuz-}
  for tree in "$1/lib/modules/$KERNEL_RELEASE" "$1/usr/lib/modules/$KERNEL_RELEASE"; do
    if [[ -d $tree ]]; then
      MODULES_SOURCE=$tree
      return
    fi
  done
  die "no modules of $KERNEL_RELEASE in ${KERNEL_PACKAGES[*]}"
}

# modules_install ROOT
modules_install() {
  local root=$1 module
  MODULES_TREE=$root/usr/lib/modules/$KERNEL_RELEASE
  mkdir -p -- "$MODULES_TREE" "$root/etc/vmint"
  {
    modules_line boot "${BOOT_MODULES[@]}"
    for module in "${DEVICE_MODULES[@]}"; do
      modules_line "$(modules_virtio_alias "$module")" "$module"
    done
  } >"$root/etc/vmint/modules"
  modules_index
}

# modules_line WORD MODULE...: the word, and the files to load. No line where the kernel has all of it built in.
modules_line() {
  local word=$1 module
  shift
  ORDER=()
  declare -gA VISITED=()
  for module; do modules_visit "${module//-/_}"; done
  ((${#ORDER[@]} == 0)) && return
  printf '%s' "$word"
  printf " /usr/lib/modules/$KERNEL_RELEASE/%s.ko" "${ORDER[@]}"
  printf '\n'
}

# Adds a module to ORDER, behind what it depends on.
modules_visit() {
  local module=$1 dependency
  [[ -z ${VISITED[$module]-} ]] || return 0
  VISITED[$module]=yes
  modules_place "$module" || return 0
  for dependency in $(modules_field "$module" depends | tr ',' ' '); do modules_visit "${dependency//-/_}"; done
  ORDER+=("$module")
}

# Copies a module to the guest, unpacked. Fails where the kernel has it built in.
modules_place() {
  local module=$1 file
  [[ ! -e $MODULES_TREE/$module.ko ]] || return 0
  file=$(modules_find "$module")
  case $file in
    '')
      modules_built_in "$module" && return 1
      die "kernel $KERNEL_RELEASE has no module $module, and has it not built in" ;;
    *.ko) cat -- "$file" ;;
    *.ko.xz) xz -dc -- "$file" ;;
    *.ko.zst) zstd -dcq -- "$file" ;;
    *) die "$file is packed in a way that is not known here" ;;
  esac >"$MODULES_TREE/$module.ko"
}

# File names have hyphens or underscores, the kernel does not mind.
modules_find() {
  find "$MODULES_SOURCE" -type f -name "${1//_/[-_]}.ko*" | sort | head -n 1
}

modules_built_in() {
  grep -q "/${1//_/[-_]}\.ko$" "$MODULES_SOURCE/modules.builtin"
}

# modules_field MODULE FIELD: from the module's own description.
modules_field() {
  tr '\0' '\n' <"$MODULES_TREE/$1.ko" | sed -n "s/^$2=//p"
}

modules_virtio_alias() {
  local module=${1//-/_}
  modules_place "$module" || return 0
  modules_field "$module" alias | grep '^virtio:' | head -n 1
}

# What busybox's modprobe looks dependencies up in: all of them, those to load first last, as depmod writes them.
modules_index() {
  local file module at
  for file in "$MODULES_TREE"/*.ko; do
    module=$(basename -- "$file" .ko)
    ORDER=()
    VISITED=()
    modules_visit "$module"
    printf '%s.ko:' "$module"
    for ((at = ${#ORDER[@]} - 2; at >= 0; at--)); do printf ' %s.ko' "${ORDER[at]}"; done
    printf '\n'
  done >"$MODULES_TREE/modules.dep"
}
