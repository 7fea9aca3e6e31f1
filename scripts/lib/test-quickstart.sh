#!/usr/bin/env bash
# The quickstart on a machine that is in use: another service answers at the first ports and says that it is ready, and
# /etc/vmint/vmint.toml is one with which nothing could start. Neither may matter.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

SYSTEM_FILE=/etc/vmint/vmint.toml
LISTENS_DEADLINE_S=30

main() {
  local program=$1
  WORK=$(mktemp -d)
  OTHER=''
  trap clean_up EXIT
  others_listen
  with_configuration "$REPO/scripts/quickstart" --once --program "$program" 2>&1 | tee "$WORK/said"
  grep -q '^quickstart: port 7070 is taken' "$WORK/said" || die "the quickstart has not seen that port 7070 is taken"
  grep -Eq '^  accelerator +(kvm|tcg: .+)' "$WORK/said" || die "the table does not say the accelerator, and why it is tcg"
  ! grep -q 'the reason is in the log' "$WORK/said" || die "the table does not find the reason for tcg in the log"
  grep -q "^quickstart: stopped; .*$program clean$" "$WORK/said" || die "the quickstart does not say what it leaves, and how that goes"
  ! pgrep -f "$program serve --drain-on-exit --config ${TMPDIR:-/tmp}/vmint-quickstart-" >/dev/null || die "the quickstart's service still runs"
}

# A server that answers 200 to everything, at 7070. Where the port is taken already, that will do.
others_listen() {
  local deadline=$((SECONDS + LISTENS_DEADLINE_S))
  python3 - >"$WORK/other" 2>&1 <<'PY' &
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    do_POST = do_DELETE = do_GET

ThreadingHTTPServer(("127.0.0.1", 7070), Ready).serve_forever()
PY
  OTHER=$!
  until curl --silent --max-time 5 --output /dev/null http://127.0.0.1:7070/readyz; do
    ((SECONDS < deadline)) || die "nothing listens at 7070: $(cat "$WORK/other")"
    sleep 0.1
  done
}

# with_configuration COMMAND...: with a file of the system that nothing could start with, for this command alone: in a name
# space of mounts of its own, so that the machine has no such file whatever becomes of this test. As root only, and where
# mounting is allowed; elsewhere as it is.
with_configuration() {
  local folder=${SYSTEM_FILE%/*}
  if ((EUID != 0)) || ! unshare --mount true 2>/dev/null; then
    say "not tried: a configuration of the system (this needs root, and a right to mount)"
    "$@"
    return
  fi
  mkdir -p -- "$WORK/etc" "$folder"
  chmod 755 "$WORK" "$WORK/etc"
  printf '[server]\nlisten = ""\n[host]\nqemu = "/nonexistent"\n' >"$WORK/etc/${SYSTEM_FILE##*/}"
  # shellcheck disable=SC2016 # The inner shell's own parameters.
  unshare --mount "$BASH" -euo pipefail -c 'mount --bind -- "$0" "$1"; [[ -f $1/vmint.toml ]]; shift; exec "$@"' "$WORK/etc" "$folder" "$@"
}

clean_up() {
  [[ -z $OTHER ]] || kill "$OTHER" 2>/dev/null || true
  if ((EUID == 0)) && [[ -d ${SYSTEM_FILE%/*} ]]; then
    rmdir --ignore-fail-on-non-empty -- "${SYSTEM_FILE%/*}"
  fi
  rm -rf -- "$WORK"
}

main "$@"
