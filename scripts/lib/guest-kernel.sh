# shellcheck shell=bash
# The kernel, as it comes in its package.

# kernel_install PACKAGES OUT
kernel_install() {
  local packages=$1 out=$2
  install -m 0644 -- "$packages/boot/vmlinuz-$KERNEL_RELEASE" "$out/vmlinuz"
}

# kernel_config PACKAGES OPTION: whether it is built in.
kernel_config() {
  grep -qx "$2=y" "$1/boot/config-$KERNEL_RELEASE"
}
