"""Detects package locks (`*.lock`) that do not match their `.in` files. With such a lock, an image would lack the
packages that were added to the `.in` file.

    python3 locks.py check SOURCE...    fails, with one sentence for each lock that was not made from its .in file
    python3 locks.py stamp SOURCE       writes the digest of the requirements into the lock of an .in file

Builds run this file before anything is installed, so it needs only the standard library.
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

DIGEST_PREFIX = "# Made from requirements with the digest "


def explain_stale_lock(source: Path) -> str:
    """Return a sentence with the command that updates the lock of an .in file; empty if the lock is up to date."""
    lock = source.with_suffix(".lock")
    if lock.read_text(encoding="utf-8").partition("\n")[0] == DIGEST_PREFIX + compute_digest(source):
        return ""
    folder = source.absolute().parent.name
    command = "make lock" if folder == "shared" else f"make lock/{folder}"
    return f"{source} was changed, and {lock.name} was not made from it: run `{command}`"


def stamp(source: Path) -> None:
    """Write the digest of an .in file into the first line of its lock."""
    lock = source.with_suffix(".lock")
    lines = lock.read_text(encoding="utf-8").splitlines(keepends=True)
    content = "".join(line for line in lines if not line.startswith(DIGEST_PREFIX))
    lock.write_text(f"{DIGEST_PREFIX}{compute_digest(source)}\n{content}", encoding="utf-8")


def compute_digest(source: Path) -> str:
    """Return the digest of all requirements of an .in file, independent of their order and of comments."""
    content = "\n".join(sorted(_read_requirements(source)))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _read_requirements(source: Path) -> Iterator[str]:
    for line in source.read_text(encoding="utf-8").splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if match := re.fullmatch(r"(?:-r|--requirement)[\s=]+(\S+)", text):
            yield from _read_requirements(source.parent / match[1])
        elif text:
            yield re.sub(r"\s+", "", text)


def main(command: str, *sources: str) -> int:
    if command == "stamp":
        stamp(Path(sources[0]))
        return 0
    reasons = [reason for source in sources if (reason := explain_stale_lock(Path(source)))]
    for reason in reasons:
        print(f"lock: {reason}", file=sys.stderr)
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
