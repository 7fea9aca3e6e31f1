# shellcheck shell=bash
# The guest's root file system, which is its initrd: a merged /usr, as Debian has it, with busybox and vmint's own program.

# rootfs_skeleton ROOT
rootfs_skeleton() {
  local root=$1 link
  mkdir -p -- "$root"/{dev,etc/vmint,home,mnt,opt,proc,root,run,srv,sys,tmp,usr/{bin,lib,lib64,sbin,local/{bin,sbin}},var/{lib,log,tmp}}
  chmod 0700 -- "$root/root"
  chmod 1777 -- "$root/tmp" "$root/var/tmp"
  for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
  ln -s /run "$root/var/run"
  ln -s /proc/self/mounts "$root/etc/mtab"
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/nonexistent:/bin/false' >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'tty:x:5:' 'nogroup:x:65534:' >"$root/etc/group"
  printf '%s\n' '127.0.0.1 localhost' '::1 localhost' '127.0.1.1 vmint-template' >"$root/etc/hosts"
  printf 'vmint-template\n' >"$root/etc/hostname"
  # A valid one, which no clone keeps.
  printf '%032d\n' 0 >"$root/etc/machine-id"
  printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' >"$root/etc/nsswitch.conf"
  printf '%s\n' /bin/sh /bin/ash >"$root/etc/shells"
  printf '%s\n' 'ID=vmint' 'NAME="vmint guest"' 'PRETTY_NAME="vmint guest"' >"$root/etc/os-release"
}

# rootfs_find PACKAGES PATH...: the first that exists; distributions merge /usr at different times.
rootfs_find() {
  local packages=$1 path
  shift
  for path; do
    if [[ -e $packages/$path ]]; then
      printf '%s\n' "$packages/$path"
      return
    fi
  done
  die "the packages have no $1"
}

# rootfs_busybox PACKAGES ROOT
rootfs_busybox() {
  local root=$2 busybox applet
  busybox=$(rootfs_find "$1" usr/bin/busybox bin/busybox)
  install -m 0755 -- "$busybox" "$root/usr/bin/busybox"
  while read -r applet; do
    case $applet in
      # vmint's own program is that.
      */init | linuxrc) continue ;;
      usr/*) ;;
      *) applet=usr/$applet ;;
    esac
    [[ -d $root/${applet%/*} && ! -e $root/$applet ]] || continue
    ln -s /usr/bin/busybox "$root/$applet"
  done < <("$busybox" --list-full)
}

# rootfs_agent AGENT ROOT: process 1 and the agent are one program.
rootfs_agent() {
  install -m 0755 -- "$1" "$2/usr/sbin/vmint-agent"
  ln -s /usr/sbin/vmint-agent "$2/init"
}

# rootfs_pack PACKAGES ROOT FILE: the same bytes for the same files, whoever builds and whenever.
rootfs_pack() {
  local packages=$1 root=$2 file=$3
  find "$root" -exec touch -h -d @0 -- {} +
  (cd -- "$root" && find . -mindepth 1 -print0 | sort -z | cpio --quiet -0 -o -H newc -R +0:+0 --reproducible) >"$file.cpio"
  # zstd is smaller than gzip and boots no slower than an unpacked one; xz is smaller still and boots slower.
  if kernel_config "$packages" CONFIG_RD_ZSTD; then
    zstd -q -19 -c -- "$file.cpio" >"$file"
  else
    gzip -9 -n -c -- "$file.cpio" >"$file"
  fi
  rm -- "$file.cpio"
}
