"""Result lines as they came, whatever is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from duckdb_mistral.duck.jsonl import BATCH_BYTES, raw_lines

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "data",
    [b"", b"a", b"a\n", b"a\nb", b"\n\n", "é\u2028\u0085\x0b\x0c\r\n日本\n".encode(), b"\xff\n\xfe", b"a\x00b\n"],
)
def test_raw_lines(tmp_path: Path, data: bytes) -> None:
    """Lines are cut at newline bytes alone, each with the byte that it starts at."""
    path = tmp_path / "lines"
    path.write_bytes(data)
    found = [
        (text, start) for batch in raw_lines(path) for text, start in zip(*batch.to_pydict().values(), strict=True)
    ]
    expected = [part for part in data.replace(b"\n", b"\n\0SPLIT").split(b"\0SPLIT") if part]
    assert [text for text, _ in found] == [part.decode(errors="replace") for part in expected]
    assert [start for _, start in found] == [sum(map(len, expected[:number])) for number in range(len(expected))]


def test_raw_lines_of_several_batches(tmp_path: Path) -> None:
    """A file larger than a batch is cut between lines."""
    path = tmp_path / "lines"
    each = b"x" * 99_999 + b"\n"
    count = BATCH_BYTES // len(each) * 2 + 3
    path.write_bytes(each * count)
    batches = list(raw_lines(path))
    assert len(batches) > 1
    starts = [start for batch in batches for start in batch.column("start").to_pylist()]
    assert starts == [number * len(each) for number in range(count)]
