#!/bin/sh
# Process 1 of the emulated host of scripts/kvm-lab: makes it a host on which vmint can run, runs the tests that are
# listed in /lab/jobs, says on the second serial port how many failed, and turns the host off.
# Each line of /lab/jobs: the accelerator, the program in /lab, the name of one test in it.

# What one test may take. Everything is emulated twice here.
JOB_SECONDS=300

prepare() {
  mount -t proc proc /proc
  mount -t sysfs sys /sys
  mount -t devtmpfs dev /dev
  mkdir -p /dev/pts /dev/shm
  mount -t devpts devpts /dev/pts
  mount -t tmpfs -o mode=1777 shm /dev/shm
  mount -t tmpfs -o mode=0755 run /run
  ip link set lo up
  hostname kvm-lab
  while read -r _ modules; do
    for module in $modules; do
      insmod "$module" || echo "kvm-lab: cannot load $module"
    done
  done </etc/vmint/modules
  # As udev does it. Who may open /dev/vhost-vsock is root: QEMU gets it opened.
  chgrp kvm /dev/kvm && chmod 0660 /dev/kvm
}

# run ACCELERATOR PROGRAM TEST
run() {
  begun=$(cut -d . -f 1 /proc/uptime)
  # With either setting it is KVM that must be found here.
  VMINT_TEST_ACCEL=$1 VMINT_TEST_EXPECT_ACCEL=kvm VMINT_TEST_EXPECT_VSOCK=yes timeout -s KILL "$JOB_SECONDS" "/lab/$2" --exact "$3" >/run/output 2>&1
  code=$?
  took=$(($(cut -d . -f 1 /proc/uptime) - begun))
  # A name that no test has is no success.
  if [ "$code" = 0 ] && grep -q '^test result: ok\. 1 passed' /run/output; then
    echo "kvm-lab: ok      accel=$1 $2 $3 ($took s)"
    return 0
  fi
  cat /run/output
  dmesg | tail -n 20
  echo "kvm-lab: FAILED  accel=$1 $2 $3 ($took s, code $code)"
  return 1
}

main() {
  prepare
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root VMINT_GUEST_DIR=/lab/guest
  echo "kvm-lab: the emulated host is up after $(cut -d ' ' -f 1 /proc/uptime) s: kernel $(uname -r), $(ls -l /dev/kvm)"
  failed=0
  while read -r accel program name; do
    run "$accel" "$program" "$name" </dev/null || failed=$((failed + 1))
  done </lab/jobs
  echo "$failed failed" >/dev/ttyS1
  poweroff -f
}

main
