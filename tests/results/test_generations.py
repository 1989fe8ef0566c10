"""What results leave to be done, found in request files of any order and line length."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import duckdb
import pytest

from duckdb_mistral.duck import jsonl
from duckdb_mistral.requests.spool import Spool
from duckdb_mistral.results.columns import COLUMNS
from duckdb_mistral.results.generations import spool_left, union_of
from duckdb_mistral.results.responses import register_lines

if TYPE_CHECKING:
    from pathlib import Path

IDS = [f"id {number}" for number in range(7000)]


def request_of(custom_id: str, text: str = "x") -> str:
    """Return a request line as another program may write it."""
    return json.dumps({"body": {"prompt": f"{custom_id} {text}"}, "custom_id": custom_id, "url": "/v1/chat"})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return results in which the first of IDS is answered and all others are missing."""
    path = tmp_path / "results.parquet"
    nulls = ", ".join(
        f"NULL::{kind} AS {name}" for name, kind in COLUMNS.items() if name not in ("custom_id", "outcome")
    )
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT 'id ' || range AS custom_id, if(range = 0, 'ok', 'missing') AS outcome, {nulls} "
            f"FROM range({len(IDS)})) TO '{path}' (FORMAT parquet)"
        )
    return path


def left(tmp_path: Path, name: str, texts: list[str], results: Path) -> tuple[str | None, list[str]]:
    """Return the fingerprint of what is left of request files with these texts, and its lines."""
    paths = [tmp_path / f"{name}-{number}.jsonl" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    spool = Spool(tmp_path / name, max_requests=100_000, max_bytes=512_000_000)
    found = spool_left(paths, [[results]], spool)
    return found, [line for part in spool.finish() for line in part.path.read_text(encoding="utf-8").splitlines()]


def test_what_is_left_has_one_fingerprint(tmp_path: Path, results: Path) -> None:
    """The same requests have the same fingerprint in any order of lines and files, and others have another."""
    requests = [request_of(custom_id) for custom_id in IDS]
    first, written = left(tmp_path, "first", ["\n".join(requests)], results)
    assert sorted(json.loads(line)["custom_id"] for line in written) == sorted(IDS[1:])
    assert json.loads(written[0]).keys() == {"custom_id", "body"}
    halves = ["\n".join(requests[:100:-1]), "\r\n\n".join(requests[:101]) + "\n"]
    second, again = left(tmp_path, "second", halves, results)
    assert first is not None
    assert (second, sorted(again)) == (first, sorted(written))
    assert left(tmp_path, "fewer", ["\n".join(requests[:-1])], results)[0] != first
    assert left(tmp_path, "other", ["\n".join([*requests[:-1], request_of(IDS[-1], "y")])], results)[0] != first


def test_nothing_is_left(tmp_path: Path, results: Path) -> None:
    """Where every request has its answer, there is no fingerprint and no line."""
    assert left(tmp_path, "nothing", [request_of(IDS[0])], results) == (None, [])


OUTCOMES = ("ok", "truncated", "error", "missing")


@pytest.mark.parametrize("count", [2, 3])
def test_an_answer_counts_whenever_it_came(tmp_path: Path, count: int) -> None:
    """Of all generations the latest that has an answer counts or, where none has, the latest; each id comes once."""
    told = list(itertools.product((None, *OUTCOMES), repeat=count))
    files = [[tmp_path / f"{number}.parquet"] for number in range(count)]
    with duckdb.connect() as con:
        nulls = ", ".join(
            f"NULL::{kind} AS {name}"
            for name, kind in COLUMNS.items()
            if name not in ("custom_id", "outcome", "content")
        )
        for number, (path,) in enumerate(files):
            con.execute("CREATE OR REPLACE TABLE one (custom_id VARCHAR, outcome VARCHAR, content VARCHAR)")
            con.executemany(
                "INSERT INTO one VALUES (?, ?, ?)",
                [(f"id {key}", one[number], str(number)) for key, one in enumerate(told) if one[number] is not None],
            )
            con.execute(f"COPY (SELECT *, {nulls} FROM one) TO '{path}' (FORMAT parquet)")
        register_lines(con)
        found = con.execute(union_of(files, "custom_id, outcome, content")).fetchall()
    expected = []
    for key, one in enumerate(told):
        there = [(outcome in ("ok", "truncated"), number) for number, outcome in enumerate(one) if outcome is not None]
        if there:
            _, number = max(there)
            expected.append((f"id {key}", one[number], str(number)))
    assert sorted(found) == sorted(expected)


def test_lines_longer_than_a_batch(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is longer than what is read at a time is written whole."""
    monkeypatch.setattr(jsonl, "REQUEST_BYTES", 1000)
    requests = [
        request_of(custom_id, "x" * length) for custom_id, length in zip(IDS, (5, 999, 100_000, 3), strict=False)
    ]
    _, written = left(tmp_path, "long", ["\n".join(requests)], results)
    assert sorted(len(json.loads(line)["body"]["prompt"]) for line in written) == [8, 1004, 100_005]
