"""Keeping the API key out of what is shown and kept, even if the server repeats it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

HIDDEN = "[API key]"
#: A shorter key, as people make up for a local server, may be part of an ordinary word: only whole words are hidden.
SHORT = 8


class KeyHider:
    """Replaces one key by HIDDEN, whether it is plain or as JSON writes it."""

    def __init__(self, key: str) -> None:
        """Hide `key`."""
        forms = {key, *(json.dumps(key, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))}
        anywhere = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        # What stands before a colon in JSON is the name of a field.
        whole = rf'(?<![\w-])(?:{anywhere})(?![\w-])(?!"\s*:)'
        self._pattern = re.compile(whole if len(key) < SHORT else anywhere)

    def text(self, text: str) -> str:
        """Return a text without the key."""
        return self._pattern.sub(HIDDEN, text)

    def body(self, body: Any) -> Any:
        """Return a JSON value without the key, wherever it occurs."""
        written = json.dumps(body, ensure_ascii=False)
        return json.loads(self.text(written)) if self._pattern.search(written) else body


def account_of(key: str) -> str:
    """Return a short hash that tells keys apart; the key cannot be recovered from it."""
    return hashlib.sha256(f"duckdb_mistral {key}".encode()).hexdigest()[:12]
