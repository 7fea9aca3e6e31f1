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
  OTHER='' PLANTED=no
  trap clean_up EXIT
  others_listen
  plant_configuration
  "$REPO/scripts/quickstart" --once --program "$program" 2>&1 | tee "$WORK/said"
  grep -q '^quickstart: port 7070 is taken' "$WORK/said" || die "the quickstart has not seen that port 7070 is taken"
  grep -Eq '^  accelerator +(kvm|tcg: .+)' "$WORK/said" || die "the table does not say the accelerator, and why it is tcg"
  ! grep -q 'the reason is in the log' "$WORK/said" || die "the table does not find the reason for tcg in the log"
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

# As root only: a plain user cannot, and a file that is there is not touched.
plant_configuration() {
  if ((EUID != 0)) || [[ -e $SYSTEM_FILE ]]; then
    return
  fi
  mkdir -p -- "${SYSTEM_FILE%/*}"
  PLANTED=yes
  printf '[server]\nlisten = ""\n[host]\nqemu = "/nonexistent"\n' >"$SYSTEM_FILE"
}

clean_up() {
  [[ -z $OTHER ]] || kill "$OTHER" 2>/dev/null || true
  if [[ $PLANTED == yes ]]; then
    rm -f -- "$SYSTEM_FILE"
    rmdir --ignore-fail-on-non-empty -- "${SYSTEM_FILE%/*}"
  fi
  rm -rf -- "$WORK"
}

main "$@"
