"""Proof of a server that it knows the secret of its home.

After a crash any user of the machine can listen on the server's port and answer `/health`. The server therefore
answers a fresh random number with a MAC over it. The port, the process and the home are part of what is signed, so
nobody can pass the question on to another server and return its answer.
"""

import hmac
import re
import secrets
from collections.abc import Callable
from pathlib import Path

NONCE = re.compile(r"[0-9a-f]{64}")

Prover = Callable[[str, str], str]
"""Takes a nonce and the port that was asked; returns the proof."""


def make_nonce() -> str:
    return secrets.token_hex(32)


def prove(key: str, home: Path, pid: int, nonce: str, port: str) -> str:
    """The MAC in hexadecimal digits."""
    text = "\n".join(("microjobs server", nonce, port, str(pid), str(home.resolve())))
    return hmac.new(key.encode(), text.encode(), "sha256").hexdigest()
