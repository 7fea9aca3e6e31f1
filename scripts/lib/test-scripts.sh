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
  the_service_gets_a_port_and_nothing_of_this_machine
  only_its_own_process_is_ready
  the_table_says_the_accelerator
  the_table_waits_for_what_is_measured
  system_users_are_for_root_alone
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
    [[ ${PORTS[*]} == "$(seq -s ' ' 7070 7079)" ]] || die "the ports are ${PORTS[*]}"
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

# With a file of its own, /etc/vmint/vmint.toml is not read; in that one stands the port, and no more.
the_service_gets_a_port_and_nothing_of_this_machine() {
  local words
  cat >"$WORK/service" <<SH
#!/bin/sh
printf '%s ' "\$1" "\$2" "\$3" >"$WORK/words"
cat -- "\$4" >"$WORK/configuration"
: >"$WORK/up"
exec sleep 600
SH
  chmod +x "$WORK/service"
  # shellcheck disable=SC2016 # The inner shell's own.
  REPO=$REPO VMINT=$WORK/service "$BASH" -euo pipefail -c "$QUICKSTART"'
    say() { :; }
    free_port() { echo 7; }
    wait_ready() { until [[ -e $0/up ]]; do kill -0 "$SERVICE"; sleep 0.05; done; }
    start_service
    kill "$SERVICE" && wait "$SERVICE" || true
    SERVICE=' "$WORK" 2>"$WORK/said" || die "the quickstart's service does not start: $(cat "$WORK/said")"
  words=$(<"$WORK/words")
  [[ $words == 'serve --drain-on-exit --config ' ]] || die "the service is started with: $words"
  [[ $(<"$WORK/configuration") == $'[server]\nlisten = "127.0.0.1:7"' ]] || die "its configuration: $(cat "$WORK/configuration")"
}

# Another process answers at the port, and says that it is ready. What counts is the one that was started.
only_its_own_process_is_ready() {
  local port
  coproc READY { exec python3 -c '
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Ready)
print(server.server_address[1], flush=True)
server.serve_forever()'; }
  read -r port <&"${READY[0]}"
  (
    eval "$(sed '/^main "\$@"$/d; /^source /d; /^set -/d' "$REPO/scripts/quickstart")"
    # shellcheck disable=SC2030,SC2034 # The quickstart's functions use them, in this shell.
    URL=http://127.0.0.1:$port LOG=$WORK/said READY_DEADLINE_S=1 SERVICE=$$
    : >"$LOG"
    ! (wait_ready) 2>"$WORK/words" || die "another process is ready, and the quickstart goes on"
    grep -q 'not ready after 1 s' "$WORK/words" || die "a service that never is ready: $(cat "$WORK/words")"
    # shellcheck disable=SC2034
    SERVICE=$READY_PID
    (wait_ready) || die "its own process does not count"
    true & SERVICE=$!
    wait "$SERVICE"
    ! (wait_ready) 2>"$WORK/words" || die "a service that has ended is ready"
    grep -q 'has ended' "$WORK/words" || die "a service that has ended: $(cat "$WORK/words")"
  )
  kill "$READY_PID"
}

# The figures are another magnitude under emulation: the table says so, and why it is emulation.
the_table_says_the_accelerator() {
  [[ $(accelerator_row kvm) == kvm ]] || die "under KVM the table says of the accelerator: $(accelerator_row kvm)"
  [[ $(accelerator_row tcg) == 'tcg: /dev/kvm: no right to it' ]] ||
    die "under emulation the table says of the accelerator: $(accelerator_row tcg)"
}

# A first look finds nothing measured yet.
the_table_waits_for_what_is_measured() {
  local row
  row=$(table_row kvm 'private memory of each of 2 clones')
  [[ $row == '0.5 MiB' ]] || die "two clones have 1 MiB, and the table says of each: $row"
}

accelerator_row() { table_row "$1" accelerator; }

# table_row ACCEL NAME: a row in the table of a service whose current generation has this accelerator.
table_row() (
  # shellcheck source=scripts/lib/quickstart-tour.sh
  source "$REPO/scripts/lib/quickstart-tour.sh"
  # shellcheck disable=SC2034 # The tour's functions use them.
  ACCEL=$1 LOG=$WORK/said URL=http://localhost LOOKS=$WORK/looks
  rm -f -- "$LOOKS"
  echo 'INFO the host is ready qemu=10 accel=tcg reason="/dev/kvm: no right to it"' >"$LOG"
  request() {
    case $2 in
      /v1/templates/*) jq -n --arg accel "$ACCEL" '{current: "b", generations: [
        {generation: "a", accel: "another"}, {generation: "b", accel: $accel, phases_ms: {total: 1, first_exec: 2}}]}' ;;
      *) echo '{"ready": 1, "leased": 1}' ;;
    esac
  }
  curl() {
    local private=1048576
    [[ -e $LOOKS ]] || private=0
    : >"$LOOKS"
    printf '%s\n' 'vmint_template_memory_bytes 1048576' "vmint_clone_private_bytes $private"
  }
  print_table '{"template": "default", "startup_ms": {"total": 1}, "checkout_ms": 1}' '{"elapsed_ms": 1}' |
    sed -n "s/^  $2  *//p"
)

# A plain user's service runs QEMU as that user: with sudo within reach, too, no other is made.
system_users_are_for_root_alone() {
  local made script
  tools
  printf '#!/bin/sh\nexit 1\n' >"$WORK/none" && chmod +x "$WORK/none"
  # shellcheck disable=SC2016
  printf '#!/bin/sh\nfor user; do :; done; echo "$user"\n' >"$WORK/useradd" && chmod +x "$WORK/useradd"
  mv -f -- "$WORK/none" "$WORK/bin/id" && cp -- "$WORK/bin/id" "$WORK/getent" && mv -f -- "$WORK/getent" "$WORK/bin/getent"
  mv -- "$WORK/useradd" "$WORK/bin/useradd"
  printf '#!/bin/sh\nexec "$@"\n' >"$WORK/bin/sudo"
  chmod 755 "$WORK" "$WORK/bin"
  script=$(sed '/^main "\$@"$/d; /^source /d; /^set -/d' "$REPO/scripts/install" "$REPO/scripts/lib/common.sh" | sed '/^REPO=/d')
  local as_plain=()
  ((EUID != 0)) || as_plain=("$(command -v setpriv)" --reuid 65534 --regid 65534 --clear-groups)
  made=$(PATH=$WORK/bin "${as_plain[@]}" "$BASH" -euo pipefail -c "$script"$'\nmake_users' 2>"$WORK/said") || die "as a plain user: $(cat "$WORK/said")"
  [[ -z $made ]] || die "as a plain user these users are made: $made"
  ((EUID == 0)) || return 0
  made=$(PATH=$WORK/bin "$BASH" -euo pipefail -c "$script"$'\nmake_users' 2>"$WORK/said") || die "as root: $(cat "$WORK/said")"
  [[ $made == $'vmint\nvmint-build' ]] || die "as root these users are made: $made"
}

main "$@"
