"""Strict reader of a request's header fields.

It refuses malformed fields, and repeated fields that can have only one value: an unsigned value could replace the
signed value. It accepts `X_Amz_Target`: WSGI would give it the same variable as `X-Amz-Target`, but `listener` makes no
variable for a name with an underscore.
"""

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping

from werkzeug.http import is_hop_by_hop_header

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")

_SINGLE_VALUE_HEADERS = frozenset(
    {
        *("authorization", "date", "expect", "expires", "from", "host", "if-modified-since", "if-range"),
        *("if-unmodified-since", "max-forwards", "origin", "range", "referer", "transfer-encoding", "user-agent"),
    }
)
_SINGLE_VALUE_PREFIXES = ("content-", "sec-", "x-amz-", "x-amzn-")
_REPEATABLE_PREFIXES = ("x-amz-meta-", "x-amz-object-attributes", "x-amz-optional-object-attributes")
"""Headers of Amazon that may be repeated: some SDKs send one header per item."""


def parse_headers(head: bytes) -> dict[bytes, bytes] | None:
    """Return the fields up to the empty line, as `read_headers` does; None if `read_headers` must parse them.

    It must parse them if a field is malformed or repeated.
    """
    fields = _FIELD.findall(head)
    headers = {name.title(): value.strip(b" \t") for name, value in fields}
    # `findall` skips malformed lines. If it has skipped none, the head consists of the fields, each with a colon and a
    # line end, and the empty line.
    size = sum([len(name) + len(value) + 3 for name, value in fields]) + 2
    return headers if len(headers) == len(fields) and size == len(head) else None


def read_headers(read_line: Callable[[], bytes], headers: MutableMapping[bytes, bytes]) -> None:
    """Read the fields up to the empty line into `headers`, with names in title case, as cheroot expects them.

    Repeated fields are joined by commas, as for signatures of version 4, unless the field can have only one value.

    Raises:
        ValueError: a field is malformed, or is repeated although it can have only one value.
    """
    while (line := read_line()) != b"\r\n":
        if not line.endswith(b"\r\n"):
            raise ValueError("Headers must end with an empty line, and each line with CR LF.")
        name, value = _parse_field(line[:-2])
        key = name.title()
        if key in headers:
            if _allows_only_one_value(name.decode().lower()):
                raise ValueError(f"The header {name.decode()} is repeated; send it once.")
            value = headers[key] + b"," + value
        headers[key] = value


def _parse_field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):  # also folded lines, and spaces before the colon
        raise ValueError(f"The header line {_quote(line)} must start with a name of ASCII letters and a colon.")
    value = value.strip(b" \t")
    if _CONTROL_CHARACTER.search(value):
        raise ValueError(f"The header {name.decode()} contains a control character.")
    return name, value


def _allows_only_one_value(name: str) -> bool:
    return name in _SINGLE_VALUE_HEADERS or (
        name.startswith(_SINGLE_VALUE_PREFIXES) and not name.startswith(_REPEATABLE_PREFIXES)
    )


def check_framing(protocol: bytes, headers: Mapping[bytes, bytes]) -> None:
    """Raise ValueError if a proxy and this server could disagree about the end of the request, or about its host."""
    length, coding = headers.get(b"Content-Length"), headers.get(b"Transfer-Encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise ValueError(f"Content-Length is {_quote(length)}; it must be a number of bytes in decimal digits.")
    if coding is not None and (length is not None or protocol != b"HTTP/1.1"):
        raise ValueError("Transfer-Encoding cannot be combined with Content-Length or HTTP/1.0.")
    if protocol == b"HTTP/1.1" and b"Host" not in headers:
        raise ValueError("The header Host is missing.")


def drop_headers(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the headers without those in `names` and without hop-by-hop headers."""
    dropped = {*names, "proxy-connection", *(name.strip().lower() for name in headers.get("Connection", "").split(","))}
    items = headers.items()
    return {name: value for name, value in items if not (name.lower() in dropped or is_hop_by_hop_header(name))}


def _quote(text: bytes) -> str:
    return repr(text[:40].decode("latin-1"))
