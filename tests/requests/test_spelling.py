"""Names that look like a misspelt field or column."""

from __future__ import annotations

import pytest

from duckdb_mistral.requests.spelling import nearest


@pytest.mark.parametrize(
    ("name", "candidates", "meant"),
    [
        ("Custom ID", ["custom_id"], "custom_id"),
        ("max_token", ["max_tokens", "n"], "max_tokens"),
        ("n", ["stop"], None),
        ("stops", ["stop"], None),
        ("price", ["temperature"], None),
        ("", ["custom_id"], None),
    ],
)
def test_nearest(name: str, candidates: list[str], meant: str | None) -> None:
    """A name is near to what it was probably meant to be, and short names are near to nothing."""
    assert nearest(name, candidates) == meant
