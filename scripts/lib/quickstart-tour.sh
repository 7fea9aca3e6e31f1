# shellcheck shell=bash
# The tour of scripts/quickstart: one sandbox over HTTP, and a table of what was measured on the way.
# Uses $URL of the running service.

tour() {
  local sandbox id first second
  sandbox=$(request POST /v1/sandboxes '{}')
  id=$(jq -r .id <<<"$sandbox")
  first=$(run "$id" '["uname", "-a"]')
  say "the sandbox $id says: $(jq -r .stdout <<<"$first")"
  second=$(run "$id" '["sh", "-c", "cat /proc/sys/kernel/random/uuid; hostname"]')
  say "its random UUID and host name: $(jq -r .stdout <<<"$second" | xargs)"
  print_table "$sandbox" "$first"
  request DELETE "/v1/sandboxes/$id" >/dev/null
}

# Calls the service; an error's text is shown as the service gives it.
request() {
  local method=$1 path=$2 body=${3-} answer
  local args=(--silent --show-error --max-time 120 --request "$method" --write-out '\n%{http_code}')
  [[ -z $body ]] || args+=(--header 'Content-Type: application/json' --data "$body")
  answer=$(curl "${args[@]}" "$URL$path")
  [[ ${answer##*$'\n'} == 2* ]] || die "$method $path: ${answer%$'\n'*}"
  printf '%s\n' "${answer%$'\n'*}"
}

run() {
  request POST "/v1/sandboxes/$1/exec" "{\"argv\": $2}"
}

# Every figure is measured in this run, or by the template's build (its manifest keeps the cold boot).
print_table() {
  local sandbox=$1 first=$2 template pool metrics
  template=$(request GET "/v1/templates/$(jq -r .template <<<"$sandbox")")
  pool=$(request GET "/v1/pools/$(jq -r .template <<<"$sandbox")")
  metrics=$(measured_metrics)
  local shared private clones
  shared=$(metric vmint_template_memory_bytes <<<"$metrics")
  private=$(metric vmint_clone_private_bytes <<<"$metrics")
  clones=$(jq '.ready + .leased' <<<"$pool")
  printf '\n'
  row 'accelerator' "$(accel <<<"$template")"
  row 'cold boot of the template' "$(cold_ms total <<<"$template") ms"
  row 'cold boot to the first command' "$(cold_ms first_exec <<<"$template") ms"
  row 'clone, ready to be handed out' "$(jq -r '.startup_ms.total' <<<"$sandbox" | rounded) ms"
  row 'checkout from the pool' "$(jq -r '.checkout_ms' <<<"$sandbox") ms"
  row 'first command in the sandbox' "$(jq -r '.elapsed_ms' <<<"$first" | rounded) ms"
  row 'guest memory shared by all clones' "$(mib "$shared") MiB"
  row "private memory of each of $clones clones" "$(awk -v b="$private" -v n="$clones" 'BEGIN { printf "%.1f", b / n / 1048576 }') MiB"
  printf '\n'
}

# The service measures its clones every two seconds: until it has, the sum is 0.
MEASURED_WITHIN_S=20
measured_metrics() {
  local metrics give_up=$((SECONDS + MEASURED_WITHIN_S))
  while metrics=$(curl --silent --fail --max-time 30 "$URL/metrics"); do
    if [[ $(metric vmint_clone_private_bytes <<<"$metrics") != 0 ]] || ((SECONDS >= give_up)); then
      printf '%s\n' "$metrics"
      return
    fi
    sleep 0.2
  done
  return 1
}

# Which of the two, and why it is emulation where it is: the figures are another magnitude then.
accel() {
  local accel reason
  accel=$(jq -r '.current as $now | .generations[] | select(.generation == $now) | .accel')
  if [[ $accel != tcg ]]; then
    printf '%s\n' "$accel"
    return
  fi
  reason=$(sed -n 's/.*the host is ready.* accel=tcg reason="\(.*\)"$/\1/p' "$LOG" | head -n 1)
  printf 'tcg: %s\n' "${reason:-the reason is in the log}"
}

row() {
  printf '  %-38s %14s\n' "$1" "$2"
}

rounded() {
  awk '{ printf "%.1f", $1 }'
}

mib() {
  awk -v b="$1" 'BEGIN { printf "%.1f", b / 1048576 }'
}

# The sum of a gauge over its labels.
metric() {
  awk -v name="$1" 'index($1, name) == 1 { sum += $2 } END { print sum + 0 }'
}

# What the current generation's manifest says of the template's own boot.
cold_ms() {
  jq -r --arg what "$1" '.current as $now | .generations[] | select(.generation == $now) | .phases_ms
    | if $what == "first_exec" then .total + .first_exec else .[$what] end' | rounded
}
