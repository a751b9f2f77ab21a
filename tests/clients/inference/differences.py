"""Intended differences between serve and AWS's toolkit: the status of the response of serve, by program and request."""

from tests.clients.inference.cases import ACCEPT_TYPES, BODY_REQUESTS, CSV, JSON, LINES

NO_PICKLE = {
    **{(f"predict_fn {name}", "npy"): 500 for name in (
        "label-objects", "mixed-objects", "list-of-dicts", "dict", "dict-with-numbers-as-keys",
        "dict-with-tuples-as-keys",
        "none", "set", "huge-integer", "object",
    )},
    ("body npy", "pickle"): 400,
}  # fmt: skip
"""The image serve neither pickles nor unpickles arrays of objects. The toolkit runs the code in a client's pickle."""

MALFORMED_BODIES = {
    **{(f"body {JSON}", text): 400 for text in ("[[1], [1, 2]]", "[1,]", "{", "x")},
    **{(f"body {JSON}", text): 400 for text in ("[[[[[[[[[…140", "[[[[[[[[[…10000", "999999999…5000")},
    (f"body {CSV}", "1,2\n3"): 400,
    **{("body npy", name): 400 for name in ("truncated", "nonsense", "trailing")},
    ("body other", "no-utf-8"): 400,
    ("body other", "npz-nonsense"): 400,
}  # fmt: skip
"""A malformed body gets status 400. The toolkit responds with 500, and ignores bytes after an array."""

UNSUPPORTED_TYPES = {
    ("Accept", "image/png"): 406,
    ("body other", "unknown"): 415,
    **{(f"{name} raises unsupported", ""): 415 for name in ("input_fn", "predict_fn", "transform_fn")},
    ("output_fn raises unsupported", ""): 406,
}
"""UnsupportedFormatError becomes 415 or 406. The toolkit responds with 500."""

SUPPORTED_TYPES = {
    **{("Accept", name): 200 for name in ("text/html, */*", f"{JSON};q=0.9", "application/*", "Text/CSV", LINES)},
    (f"body {JSON}", "\ufeff[1]"): 200,
    (f"body {CSV}", "\ufeff1,2"): 200,
    **{("body other", name): 200 for name in ("parameters", "capitals", "absent", "lines")},
    **{
        (f"{name} returns pair-without-type", request): 200
        for name in ("output_fn", "transform_fn")
        for request in BODY_REQUESTS
    },
}
"""Cases that the toolkit does not support, but serve does: requests and results without a media type; parameters,
capitals, ranges and qualities of media types; byte order marks; JSON lines."""

UNSERIALISABLE_VALUES = {
    (f"{name} returns {case}", request): 500
    for name in ("output_fn", "transform_fn")
    for case in ("object", "set")
    for request in BODY_REQUESTS
}
"""A result that is neither text, bytes nor JSON gets status 500. The toolkit responds with 503; clients then retry."""

STREAMED_RESPONSES = {("predict_fn generator", name): 200 for name in ACCEPT_TYPES}
"""The image serve sends the parts of a generator as a response stream. The parts are not in the response's `body`."""
DIFFERENCES = (
    NO_PICKLE | MALFORMED_BODIES | UNSUPPORTED_TYPES | SUPPORTED_TYPES | UNSERIALISABLE_VALUES | STREAMED_RESPONSES
)

REJECTED_AT_START = {
    *(f"{name} takes too {case}" for name in ("input_fn", "predict_fn", "output_fn") for case in ("little", "much")),
    "predict_fn is None",
}
"""Programs that cannot answer any request: serve does not start with them. The toolkit loads them, and responds to each
request with 500."""
