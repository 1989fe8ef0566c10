"""Who may talk to the server: programs on this machine, but no web page that is open in a browser on it.

A page can send requests to 127.0.0.1. If its own name is made to resolve to this machine (DNS rebinding), it could read
prompts and answers too, but then the browser names that host. Any other page's requests carry Origin or Sec-Fetch-Site.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: The names of this machine, the only one on which the server listens; a forwarded port may be a different one.
_HERE = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
#: Longer paths are not matched against rules.
LONGEST_PATH = 200
MOST_REPETITIONS = 3
_ATOM = r"(?:\\[^A-Za-z0-9]|\\[dw]|\[\^?[^\[\]\\]+\]|[^()\[\]*+?{}|\\])"
#: A group of alternatives, an atom that may be repeated, or an alternative outside a group.
_PIECE = re.compile(rf"\((?:\?:)?(?:{_ATOM}|\|)*\)(?![*+?{{])|{_ATOM}(?P<repeated>[*+?])?(?![*+?{{])|\|")


def refusal(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return why a request with these headers is not answered, or None."""
    given = [(name.lower(), value) for name, value in headers]
    hosts = [value for name, value in given if name == b"host"]
    if len(hosts) != 1 or not _HERE.fullmatch(hosts[0]):
        return "This server answers only requests to 127.0.0.1 and localhost; the header Host names another host."
    for name, value in given:
        # An address typed into the browser has Sec-Fetch-Site: none.
        if name == b"origin" or (name == b"sec-fetch-site" and value != b"none"):
            return "This server answers programs, not web pages: the request comes from a page in a browser."
    return None


def check_rules(rules: Any) -> None:
    """Refuse rules from outside whose regular expressions could keep the server busy; raise ValueError."""
    for rule in rules:
        if not isinstance(rule, Mapping):
            raise ValueError("a rule is an object")  # noqa: TRY004  the answer says that the value is wrong
        for name in ("method", "path"):
            if name in rule and not _is_quick(rule[name]):
                raise ValueError(
                    f"{name} must be a pattern of plain characters, at most {MOST_REPETITIONS} repetitions such as .* "
                    "or [^/]+, and groups of alternatives without repetitions; the Python API takes any regular "
                    "expression"
                )


def _is_quick(pattern: object) -> bool:
    """Tell whether a pattern is fast for every path that is short enough."""
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
