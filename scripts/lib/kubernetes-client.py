"""Kubernetes' own client for Python (the package `kubernetes`) against a running vmint, on vmint's own URL.

usage: kubernetes-client.py URL
"""

import json
import sys
import time
import urllib.request

from kubernetes.client import Configuration
from kubernetes.stream.ws_client import RESIZE_CHANNEL, STDIN_CHANNEL, WSClient, get_websocket_url

# The deadline of everything that is waited for.
LONG_S = 120


def call(method, url, body=None):
    """One request to the service; returns its JSON, if there is any."""
    request = urllib.request.Request(url, method=method)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=LONG_S) as answer:
        content = answer.read()
    return json.loads(content) if content else None


def connect(url, *params, binary=False):
    return WSClient(Configuration(), get_websocket_url(url, list(params)), {}, True, binary=binary)


def command(sandbox, *argv, binary=False, **options):
    """A command with its streams open. Options are written as the client's generated calls write them."""
    params = [("command", list(argv)), *((name, str(value)) for name, value in options.items())]
    return connect(f"{sandbox}/exec", *params, binary=binary)


def ended(client):
    client.run_forever(timeout=LONG_S)
    assert not client.is_open(), "the command does not end"
    return client.returncode


def until_shown(client, text):
    """Reads standard output until it has this."""
    seen, deadline = "", time.monotonic() + LONG_S
    while text not in seen:
        assert client.is_open() and time.monotonic() < deadline, f"no {text!r} in {seen!r}"
        seen += client.read_channel(1, timeout=1)
    return seen


def text_is_input(sandbox):
    script = 'read line; echo "got $line"; echo no >&2; exit 3'
    client = command(sandbox, "sh", "-c", script, stdin=True, stdout=True, stderr=True)
    client.write_stdin("hällo\n")
    code = ended(client)
    got = (client.read_stdout(), client.read_stderr(), code)
    assert got == ("got hällo\n", "no\n", 3), got


def bytes_are_input(sandbox):
    content = bytes(range(256)) * 100
    client = command(sandbox, "cat", binary=True, stdin=True, stdout=True)
    client.write_stdin(content)
    client.close_channel(STDIN_CHANNEL)
    code = ended(client)
    assert (client.read_stdout(), code) == (content, 0), code


def a_terminal_is_resized(sandbox):
    client = command(sandbox, "sh", stdin=True, stdout=True, tty=True)
    client.write_channel(RESIZE_CHANNEL, json.dumps({"Width": 97, "Height": 31}))
    client.write_stdin("stty size\n")
    until_shown(client, "31 97")
    client.write_stdin("exit 7\n")
    assert ended(client) == 7


def a_process_is_attached_to(sandbox):
    script = 'while read line; do echo "got $line"; done; exit 5'
    body = {"argv": ["sh", "-c", script], "stdin": True}
    process = call("POST", f"{sandbox}/processes", body)["id"]
    url = f"{sandbox}/processes/{process}/attach"
    first = connect(url)
    first.write_stdin("one\n")
    until_shown(first, "got one")
    first.close()
    second = connect(url, ("replay", "true"))
    until_shown(second, "got one")
    second.close_channel(STDIN_CHANNEL)
    assert ended(second) == 5


def main():
    (url,) = sys.argv[1:]
    # A lease for all of it; the rest of the service is as it was afterwards.
    request = {"ttl_s": 2 * LONG_S, "wait_ms": LONG_S * 1000}
    sandbox = f"{url}/v1/sandboxes/{call('POST', f'{url}/v1/sandboxes', request)['id']}"
    for check in (text_is_input, bytes_are_input, a_terminal_is_resized, a_process_is_attached_to):
        check(sandbox)
    call("DELETE", sandbox)
    print("Kubernetes' client works", file=sys.stderr)


main()
