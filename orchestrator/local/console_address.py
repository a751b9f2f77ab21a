"""One-time addresses of the web console.

The part of an address behind `#` is a token, which is signed with the secret of the home. Jobs do not know this secret,
so they cannot make an address. Browsers do not send the part behind `#`, so no log, proxy or `Referer` header contains
the token. The console's own script sends the token to the server, which accepts it once.
"""

import hmac
import re
import secrets
import time
from pathlib import Path
from typing import NamedTuple

CONSOLE_PATH = "/_microjobs/console/"
"""Path of the console. No bucket can have this path, because names of buckets contain no `_`."""
CHANGES_PATH = f"{CONSOLE_PATH}api/changes"
"""Path of the feed: the stream of changes that the console receives."""

LIFETIME_SECONDS = 15 * 60

_TOKEN_PATTERN = re.compile(r"(?P<expiry>[0-9]{1,12})\.(?P<nonce>[0-9a-f]{32})\.(?P<mac>[0-9a-f]{64})")


class Token(NamedTuple):
    """The token of an address."""

    nonce: str
    expiry: int
    """Seconds since 1970."""


def make_console_address(url: str, key: str, home: Path, pid: int) -> str:
    """Return an address that opens the console once.

    Args:
        url: address of the server.
        key: the secret of the home.
        pid: process id of the server.
    """
    token = Token(secrets.token_hex(16), int(time.time()) + LIFETIME_SECONDS)
    return f"{url}{CONSOLE_PATH}#token={token.expiry}.{token.nonce}.{_sign(token, key, home, pid)}"


def read_token(text: str, key: str, home: Path, pid: int) -> Token | None:
    """Return the token if it was made for this server process and this home, and has not expired; otherwise None."""
    match = _TOKEN_PATTERN.fullmatch(text)
    if match is None:
        return None
    token = Token(match["nonce"], int(match["expiry"]))
    is_genuine = hmac.compare_digest(match["mac"], _sign(token, key, home, pid))
    now = time.time()
    return token if is_genuine and now < token.expiry <= now + LIFETIME_SECONDS + 1 else None


def _sign(token: Token, key: str, home: Path, pid: int) -> str:
    text = "\n".join(("microjobs console", token.nonce, str(token.expiry), str(pid), str(home.resolve())))
    return hmac.new(key.encode(), text.encode(), "sha256").hexdigest()
