"""Result lines that are nearly JSON: what is plainly an answer's text is read, and only the rest is an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ended_job, write_results

from duckdb_mistral.results.convert import ResultFiles
from duckdb_mistral.results.mending import finite, mended

if TYPE_CHECKING:
    from pathlib import Path


def line(custom_id: str, content: bytes) -> bytes:
    """Return a result line whose content is written with these bytes."""
    body = b'{"model":"m","choices":[{"finish_reason":"stop","message":{"role":"assistant","content":"%s"}}]}' % content
    head = b'{"custom_id":"%s","response":{"status_code":200,"body":%s},"error":null}'
    return head % (custom_id.encode(), body)


def read(directory: Path, data: bytes, *submitted: str) -> dict[str, dict[str, Any]]:
    """Return the results of a file, by custom_id."""
    answers, requests, target = (directory / name for name in ("answers.jsonl", "requests.jsonl", "results.parquet"))
    answers.write_bytes(data)
    requests.write_text("".join(json.dumps({"custom_id": custom_id}) + "\n" for custom_id in submitted))
    write_results(ended_job(len(submitted)), ResultFiles(answers=(answers,), submitted=requests), target, partial=False)
    with duckdb.connect() as engine:
        result = engine.execute(f"FROM read_parquet('{target}')")
        names = [column[0] for column in result.description or ()]
        return {row[0]: dict(zip(names, row, strict=True)) for row in result.fetchall()}


CONTENTS: dict[str, tuple[bytes, str]] = {
    "half a pair": (rb"a\ud800b", "a\ufffdb"),
    "the other half": (rb"a\uDC00b", "a\ufffdb"),
    "halves the wrong way round": (rb"\ude00\ud83d", "\ufffd\ufffd"),
    "half a pair at the end": (rb"cut \ud83d", "cut \ufffd"),
    "half a pair before a whole one": (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
    "what looks like half a pair behind a backslash": (rb"\\ud800\ud800\\\ud800", "\\ud800\ufffd\\\ufffd"),
    "half a pair beside good escapes": (rb"\"\\\n\u00e9\ud83d\ude00\/\udfff", '"\\\né\U0001f600/\ufffd'),
    "a raw tab": (b"a\tb", "a\tb"),
    "raw control bytes": (
        bytes(range(1, 10)) + bytes(range(11, 32)),
        "".join(map(chr, [*range(1, 10), *range(11, 32)])),
    ),
    "a raw NUL": (b"a\0b", "a\0b"),
    "an escaped NUL beside a raw tab": (b"a\\u0000b\t", "a\0b\t"),
    "an escape of JavaScript": (rb"\x41\xe9\'", "Aé'"),
    "an escape of nobody": (rb"\alpha \( \u12 \_", r"\alpha \( \u12 \_"),
    "invalid UTF-8 beside a raw tab": (b"\xff\t", "\ufffd\t"),
    "an id in the text": (b'a\tb \\"custom_id\\": \\"3\\"', 'a\tb "custom_id": "3"'),
    "NaN as a word beside half a pair": (rb"NaN, \ud800}", "NaN, \ufffd}"),
}


@pytest.mark.fault("F30")
@pytest.mark.parametrize(("written", "content"), CONTENTS.values(), ids=CONTENTS)
def test_text_is_read(tmp_path: Path, written: bytes, content: str) -> None:
    """An answer is read although JSON would have its text written otherwise, and its response is JSON."""
    lines = [line("1", b"first"), line("2", written), line("3", rb"third \\ud800")]
    found = read(tmp_path, b"\n".join(lines), "1", "2", "3")
    assert {custom_id: (row["outcome"], row["content"]) for custom_id, row in found.items()} == {
        "1": ("ok", "first"),
        "2": ("ok", content),
        "3": ("ok", "third \\ud800"),
    }
    assert json.loads(found["2"]["response"])["choices"][0]["message"]["content"] == content


@pytest.mark.fault("F30")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\xef\xbb\xbf", b""),
        (b"\t ", b" \t\r"),
        (b"\x0b", b"\x0c"),
        (b"", b"\0\0"),
        (b"\xef\xbb\xbf \t", b"\r"),
    ],
    ids=["byte order mark", "tabs", "other blanks", "NULs", "several"],
)
def test_around_a_line(tmp_path: Path, before: bytes, after: bytes) -> None:
    """What stands around a document is no part of it, in any line, also beside a raw tab in its text."""
    lines = [line("1", b"first"), before + line("2", b"a\tb") + after, before + line("3", b"third") + after]
    found = read(tmp_path, b"\n".join(lines) + b"\n", "1", "2", "3")
    assert [found[custom_id]["content"] for custom_id in "123"] == ["first", "a\tb", "third"]


@pytest.mark.fault("F30")
def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Only the line that is no JSON whatever is done is an error, and says at which byte it starts."""
    first = line("1", b"a\tb") + b"\n"
    found = read(tmp_path, first + line("2", b"cut \\ud83d")[:-30] + b"\n" + line("3", b"c"), "1", "2", "3")
    assert found["1"]["outcome"] == found["3"]["outcome"] == "ok"
    assert found["2"]["error"] == f"its result line is not valid JSON (byte {len(first)} of the file)"


@pytest.mark.fault("F30")
def test_keys_that_are_there_twice(tmp_path: Path) -> None:
    """Of a key that is there twice in a line the first counts, and no other line is lost."""
    twice = line("2", b"two").replace(b'"error"', b'"custom_id":"3","error"')
    found = read(tmp_path, twice + b"\n" + line("3", b"three"), "2", "3")
    assert [found[custom_id]["content"] for custom_id in "23"] == ["two", "three"]


@pytest.mark.fault("F30")
def test_something_else_in_place_of_a_response(tmp_path: Path) -> None:
    """What a proxy said in place of a response is the row's error."""
    page = b"<html><head><title>502 Bad\\nGateway</title></head><body>\\n</body></html>"
    data = b'{"custom_id":"1","response":"%s"}\n{"custom_id":"2","response":["no"]}\n' % page
    found = read(tmp_path, data + line("3", b"three"), "1", "2", "3")
    assert [(row["outcome"], row["error"]) for row in found.values() if row["custom_id"] < "3"] == [
        ("error", "502 Bad Gateway"),
        ("error", "no"),
    ]


@pytest.mark.fault("F30")
def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    """A response is JSON that any program reads: null stands in it for NaN and the infinities."""
    odd = line("1", rb"NaN, -Infinity \" NaN").replace(
        b'"model":"m"', b'"model":"m","logprobs":[NaN,-Infinity,1,{"a":NaN}]'
    )
    found = read(tmp_path, odd, "1")
    response = json.loads(found["1"]["response"], parse_constant=pytest.fail)
    assert response["logprobs"] == [None, None, 1, {"a": None}]
    assert (found["1"]["outcome"], found["1"]["content"]) == ("ok", 'NaN, -Infinity " NaN')


@given(value=st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
@settings(max_examples=150, deadline=None)
def test_good_json_stays_what_it_is(value: Any) -> None:
    """JSON that has nothing wrong in it is the same JSON once it is mended; half a pair alone is not."""
    with duckdb.connect() as engine:
        select = f"SELECT {mended('text')}, {finite('text::JSON')} FROM (SELECT $text AS text)"
        plain = json.dumps(value)
        if duckdb.execute("SELECT json_valid($text)", {"text": plain}).fetchone() == (True,):
            for made in engine.execute(select, {"text": plain}).fetchone() or ():
                assert json.loads(made) == value
