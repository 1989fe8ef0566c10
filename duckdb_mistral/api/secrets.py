"""Keeping the API key out of what is shown and kept, even if the server repeats it."""

from __future__ import annotations

import hashlib

from duckdb_mistral.runtime.hiding import Hider

HIDDEN = "[API key]"


class KeyHider(Hider):
    """Replaces one key by HIDDEN."""

    def __init__(self, key: str) -> None:
        """Hide `key`."""
        super().__init__(key, HIDDEN)


def account_of(key: str) -> str:
    """Return a short hash that tells keys apart; the key cannot be recovered from it."""
    return hashlib.sha256(f"duckdb_mistral {key}".encode()).hexdigest()[:12]
