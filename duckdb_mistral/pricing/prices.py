"""The price table: US dollars per million tokens, per page and per minute of audio, as data with dates.

The package's own table was collected from public pages; if they differed, the higher price was taken. Another file in
the same format (the setting `prices`) adds models and replaces those that it names.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from duckdb_mistral.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MILLION = 1_000_000
_KINDS = ("input", "output", "cached_input", "page", "annotated_page", "audio_minute")
_DATES = ("checked", "until", "retired")
_TEXTS = ("alias_of", "note")


@dataclass(frozen=True)
class Price:
    """What a model costs, in US dollars, before the batch discount; None for units that it is not sold by."""

    #: Per million tokens.
    input: float | None = None
    output: float | None = None
    #: Per million tokens of a prompt that was found in the API's cache.
    cached_input: float | None = None
    #: Per page of a document, and per page that is annotated.
    page: float | None = None
    annotated_page: float | None = None
    #: Per minute of audio.
    audio_minute: float | None = None
    #: The day on which the price was looked up; by default the table's own.
    checked: date | None = None
    #: The last day of a promotional price.
    until: date | None = None
    #: The day from which the API refuses the model.
    retired: date | None = None
    #: The model that an alias stood for on the day `checked`.
    alias_of: str | None = None
    #: Any other remark on the price.
    note: str | None = None

    @property
    def free(self) -> bool:
        """Whether every unit that the model is sold by is free."""
        return not any(getattr(self, kind) for kind in _KINDS)

    def remarks(self, model: str, today: date) -> Iterator[str]:
        """Yield what a person who reads a cost of `model` on the day `today` should know."""
        if self.until is not None:
            past = today > self.until
            yield (
                f"the price of {model} {'was' if past else 'is'} promotional until {self.until}"
                f"{', and it may cost more now' if past else ''}"
            )
        if self.note is not None:
            yield self.note


@dataclass(frozen=True)
class Prices:
    """A price table as of one day."""

    date: date
    #: The share of a price that a batch saves: 0.5 is half.
    batch_discount: float
    models: Mapping[str, Price]

    def of(self, model: str) -> Price | None:
        """Return what a model costs, or None if the table does not know it."""
        return self.models.get(model)

    @property
    def batch_share(self) -> float:
        """The share of a price that is paid in a batch."""
        return 1 - self.batch_discount


def today() -> date:
    """Return today's date, in UTC."""
    return datetime.now(UTC).date()


def load_prices(path: Path | None = None) -> Prices:
    """Return the package's prices, overridden by those in the file `path`; each keeps the date of its own table.

    Raises SettingError if the file cannot be read or is not a price table.
    """
    own = _read((resources.files("duckdb_mistral.pricing") / "prices.json").read_text(encoding="utf-8"))
    if path is None:
        return replace(own, models=_resolved(own.models))
    try:
        given = _read(path.read_text(encoding="utf-8"))
        return replace(given, models=_resolved({**own.models, **given.models}))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingError(
            f"The price table {path} (the setting prices) cannot be used: {error}. It is JSON such as "
            '{"date": "2026-07-04", "batch_discount": 0.5, "models": {"a-model": {"input": 0.1, "output": 0.3}}}, '
            "in US dollars per million tokens (page, annotated_page and audio_minute: per page and per minute)."
        ) from None


def _read(text: str) -> Prices:
    """Return a table as written: aliases have no price yet."""
    table = json.loads(text)
    if not isinstance(table, dict) or not isinstance(table.get("models"), dict):
        raise TypeError("it is not a JSON object with models")
    discount = _number("batch_discount", table.get("batch_discount", 0.5))
    day = date.fromisoformat(table["date"])
    models = {str(name): _price(name, entry, day) for name, entry in table["models"].items()}
    if discount > 1:
        raise ValueError("batch_discount is a share, between 0 and 1")
    return Prices(day, discount, models)


def _resolved(models: Mapping[str, Price]) -> dict[str, Price]:
    """Return the models, with each alias priced as the model that it stands for."""
    return {name: price if price.alias_of is None else _meant(name, price, models) for name, price in models.items()}


def _meant(name: str, alias: Price, models: Mapping[str, Price]) -> Price:
    meant = models.get(str(alias.alias_of))
    if meant is None or meant.alias_of is not None:
        raise ValueError(f"{name} is an alias of {alias.alias_of}, which is not a model with a price in the table")
    return replace(
        meant,
        alias_of=alias.alias_of,
        retired=alias.retired,
        until=alias.until or meant.until,
        note="; ".join(filter(None, (alias.note, meant.note))) or None,
    )


def _price(model: str, entry: Any, day: date) -> Price:
    if not isinstance(entry, dict):
        raise TypeError(f"{model} is {entry!r}, not prices by kind")
    known = {field.name for field in fields(Price)}
    for kind in entry:
        if kind not in known:
            raise ValueError(f"{model} has a price per {kind}; there are {', '.join(_KINDS)}")
    if "alias_of" in entry and any(kind in entry for kind in _KINDS):
        raise ValueError(f"{model} is an alias, which costs what its model costs, but has a price of its own")
    given: dict[str, Any] = {kind: _number(f"{model} {kind}", entry[kind]) for kind in _KINDS if kind in entry}
    given |= {name: date.fromisoformat(entry[name]) for name in _DATES if name in entry}
    given |= {name: _text(f"{model} {name}", entry[name]) for name in _TEXTS if name in entry}
    return Price(**{"checked": day} | given)


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{what} is {value!r}, not a number of at least 0")
    return float(value)


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is {value!r}, not text")
    return value
