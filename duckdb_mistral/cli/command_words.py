"""Translates the advice in errors from SQL statements and arguments to commands and options."""

from __future__ import annotations

import re

#: Arguments of functions, and the equivalent options.
_OPTIONS = {
    "partial := true": "--partial",
    "force := true": "--force",
    "reuse := 'requests'": "--reuse requests",
    "leave max_cost out": "leave --max-cost out",
    "leave system out": "leave --system out",
}
_CALL = re.compile(
    r"(?:FROM )?mistral_batch_(wait|status|results|cancel|retry|cost)\((?:'([\w-]+)')?(?:, partial := (true))?\)"
)


def in_command_words(message: str) -> str:
    """Return a sentence that advises commands and options instead of calls and arguments."""
    message = _CALL.sub(_command, message)
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    return message


def _command(found: re.Match[str]) -> str:
    words = ("duckdb-mistral", found[1], found[2], "--partial" if found[3] else None)
    return f"`{' '.join(filter(None, words))}`"
