"""Text from anywhere, made safe for a terminal."""

from __future__ import annotations

import re

#: Control characters other than tab and line feed, with which text could move the cursor, set the title or hide other
#: text, and characters that change the direction of all text after them.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return `text` with control characters as escapes, such as \x1b, and half surrogate pairs as ?."""
    return _CONTROLS.sub(_escaped, text).encode(errors="replace").decode()


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
