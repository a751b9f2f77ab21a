"""Proof of a server that it knows the secret of its home.

After a crash any user of the machine can listen on the server's port and answer `/health`. A client therefore sends a
random nonce, and the server returns a MAC of it. The MAC includes the port, the process and the home, so that another
program cannot forward the nonce to the real server and return its MAC.
"""

import hmac
import re
import secrets
from collections.abc import Callable
from pathlib import Path

NONCE = re.compile(r"[0-9a-f]{64}")

Prover = Callable[[str, str], str]
"""Takes a nonce and the port of the request; returns the proof."""


def make_nonce() -> str:
    return secrets.token_hex(32)


def prove(key: str, home: Path, pid: int, nonce: str, port: str) -> str:
    """Return the MAC in hexadecimal digits."""
    text = "\n".join(("microjobs server", nonce, port, str(pid), str(home.resolve())))
    return hmac.new(key.encode(), text.encode(), "sha256").hexdigest()
