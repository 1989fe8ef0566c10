"""What is refused before anything is sent: columns that look like misspelt ones, and rows that cannot be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from duckdb_mistral.api.endpoints import CHAT, endpoint_of
from duckdb_mistral.errors import SourceError
from duckdb_mistral.requests.checks import check_columns, check_rows
from duckdb_mistral.requests.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT = endpoint_of(CHAT)


@pytest.mark.parametrize(
    "names",
    [
        ["custom_id", "prompt"],
        ["CUSTOM_ID", "Prompt"],
        ["messages", "custom_id", "system"],
        ["custom_id", "body"],
        ["custom_id", "prompt", *ENDPOINT.option_fields],
        ["custom_id", "prompt", "id", "text", "price", "tokens", "user", "date", "topic", "step", "none", "note", "to"],
        ["custom_id", "prompt", "customer_id", "message_id", "model_name", "created_at", "response", "tool", "format"],
    ],
)
def test_good_columns(names: list[str]) -> None:
    """Columns that mean something, in any case, and ordinary others are taken."""
    check_columns(ENDPOINT, names)


@pytest.mark.parametrize("field", [name for name in ENDPOINT.option_fields if len(name) >= 6])
def test_every_field_misspelt(field: str) -> None:
    """Each longer field with a letter left out, doubled, or written as one word is taken for misspelt."""
    for name in (field[:-1], field + field[-1], field.replace("_", "") + "_", field.upper() + "S"):
        with pytest.raises(SourceError, match="looks like a misspelt"):
            check_columns(ENDPOINT, ["custom_id", "prompt", name])


def spooled(directory: Path, *custom_ids: str) -> Spool:
    """Return a spool of lines with these custom_ids."""
    spool = Spool(directory / "spool", max_requests=2, max_bytes=1000)
    lines = [f'{{"custom_id":"{custom_id}","body":{{}}}}\n' for custom_id in custom_ids]
    names = pa.array(custom_ids, pa.string())
    hashes = pa.array([len(custom_id) + ord(custom_id[-1]) for custom_id in custom_ids], pa.uint64())
    spool.write(pa.array(lines, pa.string()), names, names, pa.chunked_array([hashes]))
    spool.finish()
    return spool


def summary(**changes: Any) -> dict[str, Any]:
    """Return what DuckDB counts of good rows."""
    return {"rows": 3, "custom_ids": 3, "problems": [], "examples": None, "fingerprint": "x"} | changes


def test_good_rows(tmp_path: Path) -> None:
    """Rows without a problem pass."""
    check_rows(summary(), spooled(tmp_path, "a", "b", "c"))
    check_rows(summary(problems=None), spooled(tmp_path / "another", "a", "b", "c"))


def test_hashes_that_are_the_same(tmp_path: Path) -> None:
    """Different custom_ids with the same hash are no repeats."""
    spool = spooled(tmp_path, "bb", "c")
    assert spool.may_repeat()
    check_rows(summary(rows=2, custom_ids=2), spool)


def test_no_rows(tmp_path: Path) -> None:
    """No rows are refused."""
    with pytest.raises(SourceError, match="has no rows"):
        check_rows(summary(rows=0, custom_ids=0), spooled(tmp_path))


def test_problems_are_counted_and_named(tmp_path: Path) -> None:
    """Each problem is told with its count, and some rows by their custom_id."""
    problems = [("no prompt", 1200), ("both prompt and messages", 1)]
    with pytest.raises(SourceError) as caught:
        check_rows(summary(problems=problems, examples=["no prompt: a: b"]), spooled(tmp_path))
    assert str(caught.value) == (
        "The source cannot be sent: 1 row has both prompt and messages; 1,200 rows have no prompt. "
        "For example custom_id a: b (no prompt). Nothing was sent."
    )


def test_repeats_over_several_parts(tmp_path: Path) -> None:
    """Repeated custom_ids are named with their counts, wherever they lie, at most five of them."""
    spool = spooled(tmp_path, "a", "b", "a", "c", "c", "c", *"defgdefg")
    with pytest.raises(SourceError) as caught:
        check_rows(summary(rows=14, custom_ids=7), spool)
    assert "repeats 7 of its 14 custom_ids: a (2 times), c (3 times), d (2 times), e (2 times), f (2 times)." in str(
        caught.value
    )
