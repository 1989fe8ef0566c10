"""Keeping a secret out of what is shown and kept, whoever repeats it."""

from __future__ import annotations

import json
import re
from typing import Any

#: A shorter secret, as people make up for a local server, may be part of an ordinary word: only whole words are hidden.
SHORT = 8


class Hider:
    """Replaces one secret by other words, whether it is plain or as JSON writes it."""

    def __init__(self, secret: str, shown: str) -> None:
        """Show `shown` in place of `secret`."""
        forms = {secret, *(json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))}
        anywhere = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        # What stands before a colon in JSON is the name of a field.
        whole = rf'(?<![\w-])(?:{anywhere})(?![\w-])(?!"\s*:)'
        self._pattern = re.compile(whole if len(secret) < SHORT else anywhere)
        self._shown = shown

    def text(self, text: str) -> str:
        """Return a text without the secret."""
        return self._pattern.sub(lambda _: self._shown, text)

    def body(self, body: Any) -> Any:
        """Return a JSON value without the secret, wherever it occurs."""
        written = json.dumps(body, ensure_ascii=False)
        return json.loads(self.text(written)) if self._pattern.search(written) else body
