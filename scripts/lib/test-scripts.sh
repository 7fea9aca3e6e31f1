#!/usr/bin/env bash
# The scripts on machines that lack something: what they say, in one line, before anything is installed. Nothing is
# installed here, and no virtual machine is started.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

SCRIPTS=(quickstart install guest soak test kvm-lab)

main() {
  WORK=$(mktemp -d)
  trap 'rm -rf -- "$WORK"' EXIT
  mkdir -- "$WORK/bin"
  no_qemu_is_no_error
  backports_come_from_the_sources_that_are_there
  versions_are_compared
  the_first_free_port_is_taken
  no_rust_is_said_in_one_line
  old_rust_is_said_in_one_line
  rust_of_the_user_behind_sudo_is_used
  an_agent_that_is_too_big_is_refused
  rust_without_its_parts_for_tests_is_said_in_one_line
  the_hint_is_for_the_user_who_has_the_service
  an_interrupt_stops_the_service_with_one_signal
  say "what the scripts say is as it should be"
}

# On a machine that has none, the look for its version must not end the installation before it has begun.
no_qemu_is_no_error() {
  # shellcheck source=scripts/lib/qemu.sh
  (source "$REPO/scripts/lib/qemu.sh" && version=$(PATH=/nonexistent qemu_version) && [[ -z $version ]]) || die "a machine without QEMU"
}

# In either format, whether there are files of the other one or not.
backports_come_from_the_sources_that_are_there() {
  local mirror=http://mirror.example/debian format
  for format in deb822 one-line; do
    mkdir -p -- "$WORK/$format/sources.list.d"
  done
  printf 'Types: deb\nURIs: %s\nSuites: bookworm bookworm-updates\nComponents: main\n' "$mirror" >"$WORK/deb822/sources.list.d/debian.sources"
  printf 'deb [trusted=yes] %s bookworm main\n' "$mirror" >"$WORK/one-line/sources.list"
  for format in deb822 one-line; do
    # A shell of its own: in front of `||` this one would not end where `set -e` ends the script.
    # shellcheck disable=SC2016
    "$BASH" -euo pipefail -c '
      source "$1/common.sh"; source "$1/qemu.sh"
      APT_DIR=$2
      as_root() { "$@"; }
      add_suite bookworm bookworm-backports' sh "$REPO/scripts/lib" "$WORK/$format" 2>"$WORK/said" ||
      die "$format: no source is added: $(cat "$WORK/said")"
  done
  grep -qx 'Suites: bookworm-backports' "$WORK/deb822/sources.list.d/vmint-backports.sources" || die "deb822: another suite"
  grep -qx "deb \[trusted=yes\] $mirror bookworm-backports main" "$WORK/one-line/sources.list.d/vmint-backports.list" || die "one-line: another suite"
}

# Each build of the guest checks it.
an_agent_that_is_too_big_is_refused() {
  local bytes
  for bytes in 1500000 1500001; do
    truncate -s "$bytes" -- "$WORK/agent"
    # A shell of its own, whose `die` is that of the guest's build.
    # shellcheck disable=SC2016
    "$BASH" -euo pipefail -c 'source "$1/guest-say.sh"; source "$1/guest-agent.sh"; agent_check_size "$2"' \
      sh "$REPO/scripts/lib" "$WORK/agent" 2>"$WORK/said" && [[ $bytes == 1500000 ]] ||
      grep -q "has $bytes bytes, and may have 1500000" "$WORK/said" || die "an agent of $bytes bytes"
  done
}

versions_are_compared() {
  local pair
  for pair in '1.88.0 1.88' '1.88 1.88' '1.100.0 1.88' '2.0 1.88'; do
    # shellcheck disable=SC2086
    version_at_least $pair || die "$pair: it is new enough"
  done
  for pair in '1.63.0 1.88' '1.85.0 1.88' '1.9 1.88'; do
    # shellcheck disable=SC2086
    ! version_at_least $pair || die "$pair: it is too old"
  done
  [[ $(rust_minimum) == 1.* ]] || die "no rust-version in Cargo.toml"
}

# The functions of the quickstart, without its main.
the_first_free_port_is_taken() {
  local first second
  # Two that listen; the kernel chooses which.
  coproc OTHERS { exec python3 -c '
import socket, sys
listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in listening), flush=True)
sys.stdin.read()'; }
  read -r first second <&"${OTHERS[0]}"
  (
    eval "$(sed '/^main "\$@"$/d; /^source /d; /^set -/d' "$REPO/scripts/quickstart")"
    # shellcheck disable=SC2034 # The quickstart's functions use them.
    PORTS=("$first" "$second" 1)
    [[ $(free_port 2>"$WORK/said") == 1 ]] || die "the first free port is not taken"
    grep -q "port $first is taken" "$WORK/said" || die "a taken port is not named"
    # shellcheck disable=SC2034
    PORTS=("$first" "$second")
    ! (free_port) 2>"$WORK/said" || die "no port is free"
    grep -q "all taken" "$WORK/said" || die "it does not say that all are taken"
    # The one that listens is another process.
    # shellcheck disable=SC2034
    URL=http://127.0.0.1:$first
    ! listens $$ || die "another process' socket counts"
    listens "$OTHERS_PID" || die "a process' own socket does not count"
  )
  kill "$OTHERS_PID"
}

# fails_in_one_line WORDS SCRIPT ARGUMENT...: with the PATH of $WORK/bin alone; apt-get there would leave a trace.
fails_in_one_line() {
  local words=$1 script=$2
  shift 2
  if PATH=$WORK/bin env -u SUDO_USER "$BASH" "$REPO/scripts/$script" "$@" >"$WORK/said" 2>&1; then
    die "$script: it succeeds without Rust"
  fi
  [[ $(wc -l <"$WORK/said") == 1 ]] || die "$script: more than one line: $(cat "$WORK/said")"
  grep -q "$words" "$WORK/said" || die "$script: no $words in: $(cat "$WORK/said")"
  [[ ! -e $WORK/installed ]] || die "$script: something was installed before"
}

# A machine with everything that the scripts use until then, and nothing else.
tools() {
  local tool
  rm -rf -- "${WORK:?}/bin" && mkdir -- "$WORK/bin"
  for tool in awk cat cut dirname env getent grep head id mkdir pgrep printf realpath sed sort tr; do
    ln -s -- "$(command -v "$tool")" "$WORK/bin/$tool"
  done
  printf '#!/bin/sh\ntouch %s/installed\nexit 1\n' "$WORK" | tee "$WORK/bin/apt-get" "$WORK/bin/sudo" >/dev/null
  chmod +x "$WORK/bin/apt-get" "$WORK/bin/sudo"
}

no_rust_is_said_in_one_line() {
  local script
  tools
  for script in "${SCRIPTS[@]}"; do fails_in_one_line 'Rust is missing' "$script"; done
}

old_rust_is_said_in_one_line() {
  local script
  tools
  printf '#!/bin/sh\necho "rustc 1.63.0 (4b91a6ea7 2022-08-08) (built from a source tarball)"\n' | tee "$WORK/bin/cargo" "$WORK/bin/rustc" >/dev/null
  chmod +x "$WORK/bin/cargo" "$WORK/bin/rustc"
  for script in "${SCRIPTS[@]}"; do fails_in_one_line "Rust is 1.63.0 .*$(rust_minimum) or newer is needed" "$script"; done
}

# Only root is another's sudo.
rust_of_the_user_behind_sudo_is_used() {
  ((EUID == 0)) || return 0
  tools
  mkdir -p -- "$WORK/home/.cargo/bin"
  printf '#!/bin/sh\necho "rustc 1.%s.0 (x)"\n' 999 | tee "$WORK/home/.cargo/bin/cargo" "$WORK/home/.cargo/bin/rustc" >/dev/null
  chmod +x "$WORK/home/.cargo/bin/cargo" "$WORK/home/.cargo/bin/rustc"
  # shellcheck disable=SC2016 # It is the argument of that program.
  printf '#!/bin/sh\necho "$2:x:1000:1000::%s/home:/bin/sh"\n' "$WORK" >"$WORK/getent"
  chmod +x "$WORK/getent" && mv -- "$WORK/getent" "$WORK/bin/getent"
  (
    unset CARGO_HOME RUSTUP_HOME
    PATH=$WORK/bin SUDO_USER=someone
    need_rust
    [[ $(command -v cargo) == "$WORK/home/.cargo/bin/cargo" && $RUSTUP_HOME == "$WORK/home/.rustup" ]]
  ) 2>"$WORK/said" || die "the Rust of the user behind sudo is not used: $(cat "$WORK/said")"
}

# rustup's proxies are there for parts that are not installed.
rust_without_its_parts_for_tests_is_said_in_one_line() {
  tools
  cat >"$WORK/bin/cargo" <<'SH'
#!/bin/sh
case $1 in fmt | clippy) echo "error: 'cargo-$1' is not installed" >&2; exit 1 ;; esac
echo "rustc 1.999.0 (x)"
SH
  # What the guest needs is asked for on the way.
  ln -s -- "$BASH" "$WORK/bin/bash"
  cp -- "$WORK/bin/cargo" "$WORK/bin/rustc" && chmod +x "$WORK/bin/cargo" "$WORK/bin/rustc"
  fails_in_one_line 'rustup component add' install --tests
}

# The lines of a shell that has the quickstart's functions, without its main.
# shellcheck disable=SC2016
QUICKSTART='source "$REPO/scripts/lib/common.sh"; eval "$(sed "/^main \"\$@\"\$/d; /^source /d; /^set -/d" "$REPO/scripts/quickstart")"'

the_hint_is_for_the_user_who_has_the_service() {
  local hint
  hint=$(SUDO_USER=someone REPO=$REPO "$BASH" -c "$QUICKSTART; as_the_same_user")
  [[ $hint == "$( ((EUID != 0)) || echo 'sudo ')" ]] || die "after sudo the hint begins with '$hint'"
  hint=$(env -u SUDO_USER REPO="$REPO" "$BASH" -c "$QUICKSTART; as_the_same_user")
  [[ -z $hint ]] || die "without sudo the hint begins with '$hint'"
}

# Ctrl-C goes to every process of the terminal's group. The service, for which a second signal means "at once", gets one.
an_interrupt_stops_the_service_with_one_signal() {
  cat >"$WORK/service" <<PY
#!/usr/bin/env python3
import signal, sys
def told(number, _):
    with open("$WORK/signals", "a") as signals:
        print(signal.Signals(number).name, file=signals)
    if number == signal.SIGTERM:
        sys.exit(0)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, told)
print("up", flush=True)
while True:
    signal.pause()
PY
  chmod +x "$WORK/service"
  # No shell between: one that ignores interrupts could not be made to take one.
  REPO=$REPO VMINT=$WORK/service python3 - "$BASH" "$QUICKSTART" <<'PY' || die "an interrupt does not end the quickstart as it should"
import os, signal, subprocess, sys
bash, functions = sys.argv[1:]
script = functions + """
free_port() { echo 1; }
wait_ready() { until grep -q up "$LOG"; do sleep 0.05; done; }
start_service; echo started; wait "$SERVICE"
"""
shell = subprocess.Popen(
    [bash, "-euo", "pipefail", "-c", script], stdout=subprocess.PIPE, start_new_session=True,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
assert shell.stdout.readline() == b"started\n"
os.killpg(shell.pid, signal.SIGINT)
code = shell.wait(timeout=60)
sys.exit(0 if code == 130 else f"it ended with {code}")
PY
  [[ $(<"$WORK/signals") == SIGTERM ]] || die "the service was sent: $(xargs <"$WORK/signals")"
}

main "$@"
