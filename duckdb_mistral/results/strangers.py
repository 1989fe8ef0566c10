"""Answers to what was never sent: how they are told, and counted."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from duckdb_mistral.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

#: So many are named.
MOST = 5


def sentence(job_id: str | None, count: int, named: Sequence[tuple[str | None, str | None]]) -> str:
    """Return a sentence about `count` custom_ids; `named` are some, each with one that was sent and is nearly it."""
    were = "1 answer to a custom_id that was" if count == 1 else f"{count:,} answers to custom_ids that were"
    names = [_name(*each) for each in named]
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    return f"The result files of job {job_id} hold {were} never sent: {', '.join(names)}{more}."


def counted(message: str) -> int:
    """Return how many a sentence of `sentence` is about."""
    found = re.search(r"hold ([\d,]+) answer", message)
    return int(found[1].replace(",", "")) if found else 1


def _name(custom_id: str | None, meant: str | None) -> str:
    if custom_id is None:
        return "one without a custom_id"
    if meant is None:
        return printable(_quoted(custom_id, ascii_alone=False))
    # So that two do not look the same, what is not ASCII is escaped.
    return f"{_quoted(custom_id)} ({_quoted(meant)} was sent)"


def _quoted(custom_id: str, *, ascii_alone: bool = True, most: int = 60) -> str:
    shortened = custom_id if len(custom_id) <= most else custom_id[:most] + "…"
    return json.dumps(shortened, ensure_ascii=ascii_alone)
