"""How objects become the bodies of requests."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.local.jobs.records import RecordTooLargeError, bodies

MIXED = b"one\r\n\ntwo\nlast without an end"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "object").write_bytes(MIXED)
    return tmp_path / "object"


def test_single_records_are_lines_with_their_ends(file: Path) -> None:
    found = list(bodies(file, split="Line", strategy="SingleRecord", most=100))
    assert found == [b"one\r\n", b"\n", b"two\n", b"last without an end"]


def test_multiple_records_fill_a_body(file: Path) -> None:
    assert list(bodies(file, split="Line", strategy="MultiRecord", most=20)) == [MIXED[:10], MIXED[10:]]


def test_without_a_split_the_object_is_the_body(file: Path) -> None:
    assert list(bodies(file, split="None", strategy="MultiRecord", most=len(MIXED))) == [MIXED]


@pytest.mark.parametrize(("split", "what"), [("None", "the object"), ("Line", "line 4")])
def test_too_large_a_record_is_named(file: Path, split: str, what: str) -> None:
    with pytest.raises(RecordTooLargeError, match=f"{what} is larger"):
        list(bodies(file, split=split, strategy="SingleRecord", most=18))


@given(
    content=st.binary(max_size=60).map(lambda data: data.replace(b"\x01", b"\n")), strategy=st.sampled_from(["S", "M"])
)
def test_nothing_is_lost_and_no_line_is_split(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, strategy: str
) -> None:
    file = tmp_path_factory.mktemp("records") / "object"
    file.write_bytes(content)
    name = "SingleRecord" if strategy == "S" else "MultiRecord"
    found = list(bodies(file, split="Line", strategy=name, most=64))
    assert b"".join(found) == content
    assert all(body.endswith(b"\n") for body in found[:-1])
