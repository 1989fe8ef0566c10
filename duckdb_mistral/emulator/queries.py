"""The parameters of a query string or a form, read as the API reads them: a bad value is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from duckdb_mistral.emulator.checks import Refused, detail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")


def whole(query: Mapping[str, Any], name: str, default: int, *, place: str = "query") -> int:
    """Return a number that is not negative."""
    try:
        number = int(query.get(name, default))
    except (ValueError, TypeError):
        number = -1
    if number < 0:
        raise Refused(422, detail(name, "Input should be a valid integer", kind="int_parsing", place=place))
    return number


def boolean(query: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Return a truth value."""
    text = query.get(name)
    if text is None:
        return default
    if text.lower() not in TRUE + FALSE:
        raise Refused(422, detail(name, "Input should be a valid boolean", kind="bool_parsing", place="query"))
    return text.lower() in TRUE


def moment(query: Mapping[str, str], name: str) -> float:
    """Return a moment as seconds since 1970, 0 if none is given; without a zone it is in UTC."""
    text = query.get(name)
    if text is None:
        return 0.0
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        message = "Input should be a valid datetime"
        raise Refused(422, detail(name, message, kind="datetime_parsing", place="query")) from None


def chosen(given: Sequence[str], name: str, allowed: Sequence[str], *, place: str = "query") -> Sequence[str]:
    """Return the given values; raise Refused unless all of them are allowed."""
    if not set(given) <= set(allowed):
        message = f"Input should be one of {', '.join(allowed)}"
        raise Refused(422, detail(name, message, kind="enum", place=place))
    return given


def page_of(found: Sequence[Any], query: Mapping[str, str]) -> list[Any]:
    """Return the requested page; pages are counted from 0 and have 100 entries by default."""
    page, size = whole(query, "page", 0), whole(query, "page_size", 100)
    return list(found[page * size : (page + 1) * size])


def among(value: str, wanted: Sequence[str]) -> bool:
    """Tell whether a value is among those wanted; an empty list wants all."""
    return not wanted or value in wanted
