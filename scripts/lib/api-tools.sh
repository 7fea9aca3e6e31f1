# shellcheck shell=bash
# What the API is checked with, from PyPI, in a folder of its own.

# The document's checkers, and a client of others that must work.
API_TOOLS=('schemathesis>=4.32,<5' 'openapi-spec-validator>=0.9,<1' 'kubernetes>=37,<38')

api_tools_dir() {
  printf '%s/check-api\n' "$(target_dir)"
}

install_api_tools() {
  local folder wanted
  folder=$(api_tools_dir)
  wanted="$(python3 --version): ${API_TOOLS[*]}"
  # Written last: an installation that broke off has none, and other tools or another python have another one.
  [[ $(cat -- "$folder/installed" 2>/dev/null) == "$wanted" && -x $folder/bin/st ]] && return
  say "installing ${API_TOOLS[*]}"
  rm -rf -- "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "${API_TOOLS[@]}"
  printf '%s\n' "$wanted" >"$folder/installed"
}
