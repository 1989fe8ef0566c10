"""The price table: US dollars per million tokens, per page and per minute of audio, as data with a date.

The package's own table was collected from public pages; where they differed, the higher price was taken. Another file
of the same form (the setting `prices`) adds models and replaces what it names.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import TYPE_CHECKING, Any

from duckdb_mistral.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MILLION = 1_000_000
_KINDS = ("input", "output", "page", "audio_minute")


@dataclass(frozen=True)
class Price:
    """What a model costs, in US dollars, before the batch discount; None where it is not sold so."""

    #: Per million tokens.
    input: float | None = None
    output: float | None = None
    #: Per page of a document.
    page: float | None = None
    #: Per minute of audio.
    audio_minute: float | None = None


@dataclass(frozen=True)
class Prices:
    """A price table of one day."""

    date: date
    #: The share of a price that a batch leaves out: 0.5 is half.
    batch_discount: float
    models: Mapping[str, Price]

    def of(self, model: str) -> Price | None:
        """Return what a model costs, or None where the table does not know it."""
        return self.models.get(model)

    @property
    def batch_share(self) -> float:
        """What is left of a price in a batch."""
        return 1 - self.batch_discount


def load_prices(path: Path | None = None) -> Prices:
    """Return the package's prices, with those of the file `path` over them; the file's date counts.

    Raises SettingError where the file cannot be read or is no price table.
    """
    own = _read((resources.files("duckdb_mistral") / "prices.json").read_text(encoding="utf-8"))
    if path is None:
        return own
    try:
        given = _read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingError(
            f"The price table {path} (the setting prices) cannot be used: {error}. It is JSON such as "
            '{"date": "2026-07-04", "batch_discount": 0.5, "models": {"a-model": {"input": 0.1, "output": 0.3}}}, '
            "in US dollars per million tokens (page and audio_minute: per page and per minute)."
        ) from None
    return Prices(given.date, given.batch_discount, {**own.models, **given.models})


def _read(text: str) -> Prices:
    table = json.loads(text)
    if not isinstance(table, dict) or not isinstance(table.get("models"), dict):
        raise TypeError("it is no JSON object with models")
    discount = _number("batch_discount", table.get("batch_discount", 0.5))
    models = {str(name): _price(name, entry) for name, entry in table["models"].items()}
    if discount > 1:
        raise ValueError("batch_discount is a share, between 0 and 1")
    return Prices(date.fromisoformat(table["date"]), discount, models)


def _price(model: str, entry: Any) -> Price:
    if not isinstance(entry, dict):
        raise TypeError(f"{model} is {entry!r}, not prices by kind")
    for kind in entry:
        if kind not in _KINDS:
            raise ValueError(f"{model} has a price per {kind}; there are {', '.join(_KINDS)}")
    return Price(**{kind: _number(f"{model} {kind}", value) for kind, value in entry.items()})


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{what} is {value!r}, not a number of at least 0")
    return float(value)
