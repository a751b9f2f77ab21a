"""Error messages about definitions."""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from microjobs_orchestrator.local.errors import ValidationError

MAX_QUOTED_CHARACTERS = 100
"""Maximum number of characters of a value that an error message quotes."""
MAX_LISTED_NAMES = 20
MAX_COMPARED_NAMES = 2000
"""Maximum number of known names that are compared with an unknown name. It limits the time for the search."""


def make_error(place: str, problem: str) -> ValidationError:
    """Return an error about a part of a definition, such as `step 'Train', member DependsOn`."""
    return ValidationError(f"Invalid pipeline definition: {place}: {problem}")


def make_text_error(problem: str) -> ValidationError:
    """Return an error about the whole text of a definition, for example that it is not JSON."""
    return ValidationError(f"Invalid pipeline definition: {problem}")


def make_name_hint(name: str, known_names: Iterable[str]) -> str:
    """Return a hint for an unknown name: the most similar known name, or a list of known names if none is similar."""
    names = list(known_names)
    similar_names = get_close_matches(name[:MAX_QUOTED_CHARACTERS], names[:MAX_COMPARED_NAMES], n=1)
    if similar_names:
        return f"did you mean {similar_names[0]}?"
    ellipsis = ", …" if len(names) > MAX_LISTED_NAMES else ""
    return f"known: {', '.join(names[:MAX_LISTED_NAMES]) or 'none'}{ellipsis}"


def quote(value: Any) -> str:
    """Return a value as short JSON."""
    text = json.dumps(value, default=str)
    return text if len(text) <= MAX_QUOTED_CHARACTERS else f"{text[:MAX_QUOTED_CHARACTERS]}..."


def get_type_name(value: Any) -> str:
    """Return the name of a JSON value's type."""
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a Boolean"),
        (int, "an Integer"),
        (float, "a Float"),
        (str, "a String"),
        (list, "an array"),
        (dict, "an object"),
    )
    return next((name for python_type, name in names if isinstance(value, python_type)), "null")
