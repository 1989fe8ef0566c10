"""Who may talk to the server: programs of this machine, and no web page that is open in a browser on it.

A page can send requests to 127.0.0.1. Where its own name is made to lead here (DNS rebinding), it could read prompts
and answers too, and its browser then names that host; any other page's requests carry Origin or Sec-Fetch-Site.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: The names of this machine, on which alone the server listens; the port may be another where it is forwarded.
_HERE = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
#: No more characters of a path are held against a rule from outside.
LONGEST_PATH = 200
MOST_REPETITIONS = 3
_ATOM = r"(?:\\[^A-Za-z0-9]|\\[dw]|\[\^?[^\[\]\\]+\]|[^()\[\]*+?{}|\\])"
#: A group of alternatives, an atom that may be repeated, or an alternative outside of a group.
_PIECE = re.compile(rf"\((?:\?:)?(?:{_ATOM}|\|)*\)(?![*+?{{])|{_ATOM}(?P<repeated>[*+?])?(?![*+?{{])|\|")


def refusal(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return why a request with these headers is not answered, or None."""
    given = [(name.lower(), value) for name, value in headers]
    hosts = [value for name, value in given if name == b"host"]
    if len(hosts) != 1 or not _HERE.fullmatch(hosts[0]):
        return "This server answers requests to 127.0.0.1 and localhost alone; the header Host names another."
    for name, value in given:
        # What a person types into the address bar has Sec-Fetch-Site: none.
        if name == b"origin" or (name == b"sec-fetch-site" and value != b"none"):
            return "This server answers programs, not web pages: the request comes from a page in a browser."
    return None


def check_rules(rules: Any) -> None:
    """Refuse rules from outside whose regular expressions could keep the server busy; raise ValueError."""
    for rule in rules:
        if not isinstance(rule, Mapping):
            raise ValueError("a rule is an object")  # noqa: TRY004  what is answered is that the value is wrong
        for name in ("method", "path"):
            if name in rule and not _is_quick(rule[name]):
                raise ValueError(
                    f"{name} is a pattern of plain characters, at most {MOST_REPETITIONS} repetitions such as .* or "
                    "[^/]+, and groups of alternatives without any; the Python API takes every regular expression"
                )


def _is_quick(pattern: object) -> bool:
    """Tell whether a pattern takes little time for every path that is short enough."""
    if not isinstance(pattern, str) or len(pattern) > LONGEST_PATH:
        return False
    position = repetitions = 0
    while position < len(pattern):
        piece = _PIECE.match(pattern, position)
        if piece is None:
            return False
        repetitions += piece["repeated"] is not None
        position = piece.end()
    return repetitions <= MOST_REPETITIONS
