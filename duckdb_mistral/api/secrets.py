"""Keeping the API key out of what is shown and kept, even if the server repeats it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

HIDDEN = "[API key]"


def without_key(text: str, key: str) -> str:
    """Return `text` with HIDDEN in place of the key, whether plain or as JSON writes it."""
    for form in (key, *(json.dumps(key, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))):
        text = text.replace(form, HIDDEN)
    return text


def body_without_key(body: Any, key: str) -> Any:
    """Return a JSON value with HIDDEN in place of the key, wherever it occurs."""
    written = json.dumps(body, ensure_ascii=False)
    form = json.dumps(key, ensure_ascii=False)[1:-1]
    return json.loads(written.replace(form, HIDDEN)) if form in written else body


def account_of(key: str) -> str:
    """Return a short hash that tells keys apart; the key cannot be recovered from it."""
    return hashlib.sha256(f"duckdb_mistral {key}".encode()).hexdigest()[:12]
