"""Compares the decoders of serve with the fastest ways to parse the same bodies into an array of floats."""

import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import simdjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "shared"))

from microjobs.hosting import formats

Parse = Callable[[bytes], Any]
ROW_COUNTS = (10, 1000)


def report() -> None:
    print("\nMicroseconds per body. The ratio is our time divided by the shortest other time.")
    print("The other parsers do not validate the rows.\n")
    print("| format | rows | ours | others | ratio |\n|---|---|---|---|---|")
    for row_count in ROW_COUNTS:
        for name, (body, ours, parsers) in make_cases(row_count).items():
            timings = {parser: measure_fastest(parse, body) for parser, parse in (("ours", ours), *parsers.items())}
            our_time = timings.pop("ours")
            timing_list = ", ".join(f"{parser} {seconds * 1e6:.1f}" for parser, seconds in timings.items())
            ratio = our_time / min(timings.values())
            print(f"| {name} | {row_count} | {our_time * 1e6:.1f} | {timing_list} | {ratio:.2f} |")


def make_cases(row_count: int) -> Mapping[str, tuple[bytes, Parse, Mapping[str, Parse]]]:
    rows = np.random.default_rng(1).normal(size=(row_count, 13)).round(4)
    lists, npy = rows.tolist(), io.BytesIO()
    np.save(npy, rows.astype(np.float32))
    csv = "".join(",".join(map(str, row)) + "\n" for row in lists).encode()
    lines = "".join(json.dumps(row) + "\n" for row in lists).encode()
    return {
        "JSON": (json.dumps({"instances": lists}).encode(), make_decoder("application/json"), JSON_PARSERS),
        "CSV": (csv, make_decoder("text/csv"), CSV_PARSERS),
        "JSON lines": (lines, make_decoder("application/jsonlines"), LINES_PARSERS),
        "npy": (npy.getvalue(), make_decoder("application/x-npy"), {"numpy": lambda body: np.load(io.BytesIO(body))}),
    }


def make_decoder(media_type: str) -> Parse:
    return lambda body: formats.decode(body, media_type)


_parser = simdjson.Parser()


def _parse_rows(body: bytes) -> Any:
    content: Any = _parser.parse(body)
    return np.frombuffer(content.as_buffer(of_type="d")).reshape(-1, 13)


def _parse_instances(body: bytes) -> Any:
    content: Any = _parser.parse(body)
    return np.frombuffer(content["instances"].as_buffer(of_type="d")).reshape(-1, 13)


def _convert_csv_to_json(body: bytes) -> bytes:
    return b"[[" + body.strip().replace(b"\n", b"],[") + b"]]"


def _convert_lines_to_json(body: bytes) -> bytes:
    return b"[" + body.strip().replace(b"\n", b",") + b"]"


JSON_PARSERS: Mapping[str, Parse] = {
    "simdjson": _parse_instances,
    "orjson": lambda body: np.array(orjson.loads(body)["instances"]),
    "json": lambda body: np.array(json.loads(body)["instances"]),
}
CSV_PARSERS: Mapping[str, Parse] = {
    "simdjson": lambda body: _parse_rows(_convert_csv_to_json(body)),
    "orjson": lambda body: np.array(orjson.loads(_convert_csv_to_json(body))),
    "numpy": lambda body: np.loadtxt(io.BytesIO(body), delimiter=","),
}
LINES_PARSERS: Mapping[str, Parse] = {
    "simdjson": lambda body: _parse_rows(_convert_lines_to_json(body)),
    "orjson": lambda body: np.array(orjson.loads(_convert_lines_to_json(body))),
}


def measure_fastest(parse: Parse, body: bytes, rounds: int = 15) -> float:
    """Return the seconds per call in the fastest round. Other programs on the machine can only slow a round down."""
    repeats = max(1, 200_000 // len(body))
    best = float("inf")
    for _ in range(rounds):
        start_time = time.perf_counter()
        for _ in range(repeats):
            parse(body)
        best = min(best, (time.perf_counter() - start_time) / repeats)
    return best


if __name__ == "__main__":
    report()
