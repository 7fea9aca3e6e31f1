# shellcheck shell=bash
# The kernel, in both of its forms: vmlinuz as it comes, and the same kernel unpacked. QEMU starts the unpacked one
# through its PVH entry, and the guest need not unpack it: under emulation that is more than half of a boot.

# kernel_install PACKAGES OUT
kernel_install() {
  local packages=$1 out=$2
  install -m 0644 -- "$packages/boot/vmlinuz-$KERNEL_RELEASE" "$out/vmlinuz"
  if kernel_unpack "$out/vmlinuz" >"$out/vmlinux" 2>/dev/null && kernel_has_pvh_entry "$out/vmlinux"; then
    return
  fi
  rm -f -- "$out/vmlinux"
  say "kernel $KERNEL_RELEASE cannot be started unpacked: there is no vmlinux, and templates boot slower under emulation"
}

# kernel_number FILE OFFSET BYTES: a little-endian number of the boot header (Documentation/arch/x86/boot.rst in Linux).
kernel_number() {
  od -An -v -t "u$3" -j "$2" -N "$3" -- "$1" | tr -d ' '
}

kernel_unpack() {
  local file=$1 setup_sectors payload_offset payload_size start
  setup_sectors=$(kernel_number "$file" $((0x1f1)) 1)
  payload_offset=$(kernel_number "$file" $((0x248)) 4)
  payload_size=$(kernel_number "$file" $((0x24c)) 4)
  start=$(((setup_sectors + 1) * 512 + payload_offset))
  # All but gzip have the unpacked size behind the payload, which is none of their own.
  case $(od -An -t x1 -j "$start" -N 4 -- "$file" | tr -d ' ') in
    fd377a58) kernel_cut "$file" "$start" $((payload_size - 4)) | xz -dc ;;
    28b52ffd) kernel_cut "$file" "$start" $((payload_size - 4)) | zstd -dcq ;;
    1f8b*) kernel_cut "$file" "$start" "$payload_size" | gzip -dc ;;
    *) return 1 ;;
  esac
}

# kernel_cut FILE START SIZE
kernel_cut() {
  dd if="$1" iflag=skip_bytes,count_bytes skip="$2" count="$3" bs=1M status=none
}

# XEN_ELFNOTE_PHYS32_ENTRY is note 18.
kernel_has_pvh_entry() {
  readelf -nW "$1" 2>/dev/null | grep -Eq 'Xen .*\(0x0*12\)'
}

# kernel_config PACKAGES OPTION: whether it is built in.
kernel_config() {
  grep -qx "$2=y" "$1/boot/config-$KERNEL_RELEASE"
}
