"""What an id of the API's looks like. Ids go into URLs and into file names, so nothing else may pass for one."""

from __future__ import annotations

from uuid import UUID


def is_id(value: str) -> bool:
    """Tell whether a text is a UUID."""
    try:
        UUID(value)
    except ValueError:
        return False
    return True
