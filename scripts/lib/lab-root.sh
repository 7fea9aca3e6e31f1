# shellcheck shell=bash
# The emulated host of scripts/kvm-lab as an initrd of two archives, one behind the other: the host itself (busybox,
# the modules of KVM, this machine's own QEMU), which seldom changes and is kept; and what is tried in it, packed anew
# each time.

# Raised when the layout changes.
LAB_FORMAT=1
# Where QEMU looks for its firmware. A VM without a display needs these files only.
LAB_FIRMWARE=(/usr/share/qemu/*.bin /usr/share/qemu/*.rom /usr/share/seabios/bios*.bin /usr/lib/ipxe/qemu/efi-virtio.rom)

# lab_host DIRECTORY GUEST: makes vmlinuz and host.cpio in the directory, if they are not those of today's inputs.
lab_host() {
  local dir=$1 guest=$2 now work
  now=$(lab_inputs "$guest")
  if [[ -f $dir/inputs && -f $dir/vmlinuz && -f $dir/host.cpio && $(<"$dir/inputs") == "$now" ]]; then
    return
  fi
  say "packing the emulated host"
  work=$dir/work
  rm -rf -- "$dir"
  mkdir -p -- "$work/packages" "$work/rootfs"
  packages_find_kernel
  local package
  for package in "${KERNEL_PACKAGES[@]}" busybox-static; do
    packages_unpack "$package" "$work/packages"
  done
  modules_find_release "$work/packages"
  rootfs_skeleton "$work/rootfs"
  rootfs_busybox "$work/packages" "$work/rootfs"
  # What modules_install reads.
  # shellcheck disable=SC2034
  BOOT_MODULES=(kvm_amd vhost_vsock) DEVICE_MODULES=()
  modules_install "$work/rootfs"
  lab_users "$work/rootfs"
  lab_qemu "$work/rootfs"
  install -m 0755 -- "$REPO/scripts/lib/lab-init.sh" "$work/rootfs/init"
  lab_pack "$work/rootfs" "$dir/host.cpio"
  kernel_install "$work/packages" "$work"
  mv -- "$work/vmlinuz" "$dir/vmlinuz"
  rm -rf -- "$work"
  # Last: what has no record is made again.
  printf '%s\n' "$now" >"$dir/inputs"
}

# Everything that decides what is in the host. The guest's record has the packages.
lab_inputs() {
  printf 'format %s\n' "$LAB_FORMAT"
  grep '^package ' "$1/inputs"
  (cd -- "$REPO" && sha256sum scripts/lib/lab-*.sh scripts/lib/guest-*.sh)
  lab_qemu_files | xargs -d '\n' sha256sum
}

# QEMU's user, in the group that the device belongs to.
lab_users() {
  printf '%s\n' 'vmint:x:990:990::/nonexistent:/bin/false' 'vmint-build:x:989:989::/nonexistent:/bin/false' \
    >>"$1/etc/passwd"
  printf '%s\n' 'vmint:x:990:' 'vmint-build:x:989:' 'kvm:x:108:vmint,vmint-build' >>"$1/etc/group"
}

lab_qemu_files() {
  local qemu file
  qemu=$(command -v qemu-system-x86_64) || die "qemu-system-x86_64 is not in PATH: scripts/install brings it"
  printf '%s\n' "$qemu"
  lab_libraries "$qemu"
  for file in "${LAB_FIRMWARE[@]}"; do
    [[ ! -e $file ]] || printf '%s\n' "$file"
  done
}

# The files that the dynamic linker would load, itself included.
lab_libraries() {
  ldd "$1" | grep -o '/[^ ]*' | sort -u
}

# QEMU lies at one place in the host, wherever it lies here.
lab_qemu() {
  local root=$1 file
  lab_qemu_files | while read -r file; do
    case $file in
      */qemu-system-x86_64) lab_program "$file" "$root/usr/bin/qemu-system-x86_64" ;;
      *) install -D -m 0644 -- "$file" "$root$file" ;;
    esac
  done
  # The programs are loaded by it.
  chmod 0755 -- "$root"/lib64/ld-linux*
}

# lab_program FILE PLACE: a program without what only debuggers read.
lab_program() {
  mkdir -p -- "${2%/*}"
  strip --strip-debug -o "$2" -- "$1"
  chmod 0755 -- "$2"
}

# lab_pack ROOT FILE
lab_pack() {
  (cd -- "$1" && find . -mindepth 1 -print0 | cpio --quiet -0 -o -H newc -R +0:+0) >"$2"
}
