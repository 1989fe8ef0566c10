"""The key in what a server says: hidden everywhere, and nothing else with it."""

from __future__ import annotations

import json

import pytest

from duckdb_mistral.api.secrets import HIDDEN, KeyHider, account_of
from duckdb_mistral.runtime.hiding import SHORT

LONG = "a-key-of-the-usual-length-0123456789"


@pytest.mark.parametrize("key", [LONG, 'a "key" with \\ and \u00e9, which JSON escapes'])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_key_in_a_text(key: str, ascii_only: bool) -> None:
    """A key is hidden in a text, plain or as JSON writes it, beside whatever stands."""
    told = KeyHider(key).text(f"<{key}>, x{key}x, {json.dumps({key: key}, ensure_ascii=ascii_only)}")
    assert told == f'<{HIDDEN}>, x{HIDDEN}x, {{"{HIDDEN}": "{HIDDEN}"}}'


def test_key_in_a_body() -> None:
    """A key is hidden in names, values and lists of an answer, and an answer without it stays as it is."""
    body = {"id": "1", LONG: [f"x{LONG}", {"deep": LONG}], "n": 0.1}
    assert KeyHider(LONG).body(body) == {"id": "1", HIDDEN: [f"x{HIDDEN}", {"deep": HIDDEN}], "n": 0.1}
    untouched = {"id": "1"}
    assert KeyHider(LONG).body(untouched) is untouched


@pytest.mark.parametrize("key", ["a", "k", "id", "test", "key", "API", "0"])
def test_short_key(key: str) -> None:
    """A key that somebody made up for a local server is hidden where it is a word, and spoils no other one."""
    assert len(key) < SHORT
    hider = KeyHider(key)
    body = {
        "id": "0a1-a-0b",
        "model": "mistral-small-latest",
        "status": "QUEUED",
        "errors": [{"key": f"no {key} here"}],
    }
    assert hider.body(body) == body | {"errors": [{"key": f"no {HIDDEN} here"}]}
    assert hider.text(f"{key} is not known, {key}s are") == f"{HIDDEN} is not known, {key}s are"


def test_account() -> None:
    """An account is told apart by its key, and does not tell it."""
    assert account_of(LONG) == account_of(LONG) != account_of(f"{LONG}0")
    assert LONG not in account_of(LONG)
