"""The price table: what the package's own says, its dates, aliases and retired models, and files of the same form."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import rows

import duckdb_mistral
from duckdb_mistral.errors import SettingError
from duckdb_mistral.pricing import estimate, prices
from duckdb_mistral.pricing.prices import Price, load_prices

if TYPE_CHECKING:
    from pathlib import Path


def table(directory: Path, **models: Any) -> Path:
    """Write a price table of 2026-01-02."""
    path = directory / "prices.json"
    path.write_text(json.dumps({"date": "2026-01-02", "models": models}), encoding="utf-8")
    return path


def estimated(model: str, path: Path | None = None, endpoint: str = "chat/completions") -> dict[str, Any]:
    """Return the estimate of one request of a model."""
    column = "input" if endpoint == "moderations" else "prompt"
    source = f"SELECT 1 AS custom_id, 'x' AS {column}"
    call = f"FROM mistral_batch_estimate($${source}$$, model := $model, endpoint := $endpoint)"
    with duckdb_mistral.connect(settings={"prices": path} if path else None) as con:
        (row,) = rows(con, call, {"model": model, "endpoint": endpoint})
    return row


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        ("magistral-medium-latest", {"input": 1.5, "output": 7.5}),
        ("magistral-small-latest", {"input": 0.15, "output": 0.6}),
        ("mistral-ocr-latest", {"page": 0.004, "annotated_page": 0.005}),
        ("mistral-moderation-2603", {"input": 0.0, "output": 0.0}),
        ("mistral-moderation-latest", {"input": 0.0, "output": 0.0}),
        ("mistral-large-4", {"input": 1.36, "output": 4.18}),
        ("mistral-large-latest", {"input": 1.36, "output": 4.18}),
        ("mistral-small-latest", {"input": 0.15, "output": 0.6, "cached_input": 0.015}),
        ("voxtral-mini-latest", {"audio_minute": 0.0035}),
        ("voxtral-small-latest", {"input": 0.1, "output": 0.4, "audio_minute": 0.004}),
    ],
)
def test_own_table(model: str, kinds: dict[str, float]) -> None:
    """The package's table has the prices of its date, and the higher one where sources differ."""
    own = load_prices()
    price = own.of(model)
    assert price is not None
    assert {kind: getattr(price, kind) for kind in kinds} == kinds
    assert price.checked == own.date == date(2026, 11, 28)


@pytest.mark.parametrize(
    "model",
    [
        "mistral-large-2411",
        "pixtral-large-latest",
        "devstral-latest",
        "mistral-small-2506",
        "mistral-medium-2508",
        "open-mistral-nemo",
    ],
)
def test_retired_models(model: str) -> None:
    """An estimate for a model that the API refuses by now says so, and when that began."""
    assert f"{model} was retired on 2026-0" in estimated(model)["note"]
    assert "and the API refuses it" in estimated(model)["note"]


def test_sources_that_differ() -> None:
    """An estimate says where its price is the higher of two."""
    assert "sources differ on mistral-large-4-0" in estimated("mistral-large-4-0")["note"]


def test_what_is_free() -> None:
    """A model that is free costs nothing, which is known."""
    assert estimated("mistral-moderation-2603", endpoint="moderations")["cost"] == 0


def test_an_alias(tmp_path: Path) -> None:
    """An alias costs what it stands for, also where a file names a new price for that."""
    path = table(
        tmp_path, **{"mistral-small-2603": {"input": 9.0, "output": 9.0}, "mine": {"alias_of": "mistral-embed-2312"}}
    )
    given = load_prices(path)
    assert given.models["mistral-small-latest"].input == 9.0
    assert given.models["mine"].input == 0.1
    assert estimated("mistral-small-latest", path)["prices_date"] == date(2026, 1, 2)
    assert estimated("mine", path)["prices_date"] == date(2026, 11, 28)


@pytest.mark.parametrize(
    ("day", "said"),
    [
        (date(2026, 1, 31), "the price of offer is promotional until 2026-01-31"),
        (date(2026, 2, 1), "the price of offer was promotional until 2026-01-31, and it may cost more now"),
    ],
)
def test_promotional_prices(day: date, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promotional price is told as such, and past its last day that it may be higher."""
    monkeypatch.setattr(estimate, "today", lambda: day)
    row = estimated("offer", table(tmp_path, offer={"input": 1.0, "output": 1.0, "until": "2026-01-31"}))
    assert said in row["note"].split("; ")


def test_a_model_that_is_to_be_retired() -> None:
    """Before its last day a model is told to end, not to be refused."""
    price = Price(input=1.0, output=1.0, retired=date(2026, 1, 31))
    own = prices.Prices(date(2026, 1, 2), 0.5, {"a": price})
    (said,) = estimate._remarks({"a": None}, own, date(2026, 1, 2))
    assert said == "a will be retired on 2026-01-31"


@pytest.mark.parametrize(
    "entry",
    [
        {"alias_of": "nobody"},
        {"alias_of": "mistral-small-latest"},
        {"alias_of": "mistral-embed-2312", "input": 1.0},
        {"alias_of": 3},
        {"input": 1.0, "until": "soon"},
        {"input": 1.0, "until": 20260131.5},
        {"input": 1.0, "note": 3},
        {"cached_input": True},
    ],
)
def test_refused_entries(entry: dict[str, Any], tmp_path: Path) -> None:
    """An entry that cannot be used is refused with the file's path."""
    with pytest.raises(SettingError, match=r"prices\.json \(the setting prices\) cannot be used"):
        load_prices(table(tmp_path, a=entry))
    with (
        duckdb_mistral.connect(settings={"prices": tmp_path / "prices.json"}) as con,
        pytest.raises(duckdb.Error, match="cannot be used"),
    ):
        con.execute("FROM mistral_batch_estimate($$SELECT 1 AS custom_id, 'x' AS prompt$$)").fetchall()
