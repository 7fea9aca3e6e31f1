#!/usr/bin/env python3
"""A small runtime: runs one command in a fresh sandbox, over plain HTTP and with nothing but the standard library.

    docs/examples/runtime.py [--url http://127.0.0.1:7070] sh -c 'hostname; echo $((6 * 7))'

What a runtime has to get right, and where it is done here:

- a checkout that is sent again must not check out twice: the same Idempotency-Key goes with every try (`checkout`);
- 429 and 503 say when to come back: `Retry-After` is waited for, within a deadline (`call`);
- a command is not sent again: it may have run (`patience_s` is for the checkout alone);
- whatever happens, the sandbox is given back (`with sandbox(...)`), and a runtime that dies has a short lease.
"""

import argparse
import base64
import contextlib
import json
import sys
import time
import urllib.error
import urllib.request
import uuid

# Answers that another try may change. 502 is a guest that failed: the next one is another guest.
PASSING = {429, 502, 503}
# How long one request may take: longer than `wait_ms` and than the command's own deadline.
TIMEOUT_S = 90
# How long a checkout is tried again.
PATIENCE_S = 30


class Problem(Exception):
    """What the service said: RFC 9457."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body.get('code')}: {body.get('detail')}")
        self.status = status
        self.code = body.get("code")


def call(base, method, path, body=None, headers=(), patience_s=0):
    """One request, tried again while the service says that that may help and `patience_s` lasts."""
    deadline = time.monotonic() + patience_s
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, method=method, headers=dict(headers))
    if data is not None:
        request.add_header("Content-Type", "application/json")
    while True:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            pause_s = float(error.headers.get("Retry-After", 1))
            if error.code not in PASSING or time.monotonic() + pause_s > deadline:
                raise Problem(error.code, json.loads(error.read() or b"{}")) from None
            time.sleep(pause_s)


def checkout(base, **wanted):
    """A sandbox. Sent twice, it is the same one: the key says that it is one request."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    return call(base, "POST", "/v1/sandboxes", wanted, key, PATIENCE_S)


@contextlib.contextmanager
def sandbox(base, **wanted):
    """A sandbox that is given back, whatever happens meanwhile."""
    leased = checkout(base, **wanted)
    try:
        yield leased
    finally:
        call(base, "DELETE", f"/v1/sandboxes/{leased['id']}")


def output(result, name):
    """A stream of a command as bytes: text where it was UTF-8, base64 where it was not."""
    text = result.get(name)
    return text.encode() if text is not None else base64.b64decode(result[f"{name}_b64"])


def main():
    parser = argparse.ArgumentParser(description="Runs one command in a fresh sandbox.")
    parser.add_argument("--url", default="http://127.0.0.1:7070")
    parser.add_argument("argv", nargs=argparse.REMAINDER, help="the command")
    args = parser.parse_args()
    note = base64.b64encode(b"written at checkout\n").decode()
    wanted = {
        "ttl_s": 60,
        "wait_ms": 5000,
        "hostname": "job-17",
        "env": {"JOB": "17"},
        "files": [{"path": "/run/job/note", "content_b64": note, "mode": "0600"}],
        "metadata": {"runtime": "example-py"},
    }
    with sandbox(args.url, **wanted) as leased:
        print(f"{leased['id']} from the {leased['source']} in {leased['checkout_ms']} ms", file=sys.stderr)
        result = call(args.url, "POST", f"/v1/sandboxes/{leased['id']}/exec", {"argv": args.argv, "timeout_ms": 30000})
    sys.stdout.buffer.write(output(result, "stdout"))
    sys.stderr.buffer.write(output(result, "stderr"))
    return result["exit_code"] if result["signal"] is None else 128 + result["signal"]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        sys.exit(f"runtime.py: {problem}")
