"""The arguments of the SQL functions: defaults, every good form, and what a sentence shows of a bad one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.functions.arguments import metadata, metadata_filter, statuses, submit_arguments, timeout_seconds
from duckdb_mistral.jobs.plan import Plan

#: What the macro passes where the caller gives nothing but the source.
DEFAULTS: dict[str, Any] = {
    "source": "staging",
    "model": None,
    "endpoint": "/v1/chat/completions",
    "system": None,
    "params": None,
    "output": None,
    "metadata": None,
    "timeout_hours": 24,
    "reuse": "submission",
    "max_cost": None,
    "force": False,
}


def plan(**changes: Any) -> Plan:
    """Return the plan of a submit with `changes`."""
    return submit_arguments(DEFAULTS | changes, "default-model").plan


def test_defaults() -> None:
    """A submit of a source alone has the contract's defaults and the setting's model."""
    arguments = submit_arguments(DEFAULTS, "default-model")
    assert arguments.plan == Plan(endpoint="/v1/chat/completions", models=("default-model",))
    assert (arguments.source, arguments.system, dict(arguments.params)) == ("staging", None, {})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "chat/completions", "/chat/completions/"])
def test_endpoint(path: str) -> None:
    """An endpoint is its path, or the short name of it."""
    assert plan(endpoint=path).endpoint == "/v1/chat/completions"


@pytest.mark.parametrize(("given", "models"), [("a", ("a",)), (["a"], ("a",)), (["b", "a"], ("b", "a"))])
def test_model(given: Any, models: tuple[str, ...]) -> None:
    """A model is a name or a list of names, in the caller's order."""
    assert plan(model=given).models == models


@pytest.mark.parametrize(("text", "seconds"), [(None, None), ("0", 0), ("2.5", 2.5), ("inf", math.inf), ("-1", 0)])
def test_timeout_of_a_wait(text: str | None, seconds: float | None) -> None:
    """A wait may take any number of seconds, or as long as it takes."""
    assert timeout_seconds(text) == seconds


@pytest.mark.parametrize("text", ["00:05:00", "true", "nan", "soon"])
def test_no_timeout_of_a_wait(text: str) -> None:
    """What is no number of seconds is refused, and named."""
    with pytest.raises(ArgumentError, match=f"must be a number of seconds, such as 300, but is '{text}'"):
        timeout_seconds(text)


@pytest.mark.parametrize("hours", [1, 24, 168])
def test_timeout_hours(hours: int) -> None:
    """The hours that the API takes are taken."""
    assert plan(timeout_hours=hours).timeout_hours == hours


@pytest.mark.parametrize("hours", [0, -1, 169, 10**9, 1.0, True, None, "24"])
def test_timeout_hours_out_of_range(hours: Any) -> None:
    """Other hours are refused."""
    with pytest.raises(ArgumentError, match="a whole number from 1 to 168"):
        plan(timeout_hours=hours)


@pytest.mark.parametrize(
    ("given", "pairs"),
    [
        (None, ()),
        ({}, ()),
        ({"team": "search", "nothing": None}, (("team", "search"),)),
        ({"number": 7, "share": 0.5, "flag": True}, (("number", "7"), ("share", "0.5"), ("flag", "true"))),
        ('{"team": "é"}', (("team", "é"),)),
        ({"k" * 32: "v" * 512}, (("k" * 32, "v" * 512),)),
    ],
)
def test_metadata(given: Any, pairs: tuple[tuple[str, str], ...]) -> None:
    """Metadata is a STRUCT, a MAP or JSON, its values as text, within the API's limits."""
    assert metadata(given) == pairs
    assert plan(metadata=given).metadata == pairs


@pytest.mark.parametrize(
    "given",
    [
        {"k" * 33: "v"},
        {"": "v"},
        {"k": ""},
        {"k": "v" * 513},
        {"k": ["v"]},
        {"k": {"a": "b"}},
        {"duckdb_mistral_submission": "x"},
        {"duckdb_mistral_part": "x"},
        "team",
        "[1]",
        5,
        ["a"],
    ],
)
def test_metadata_beyond_the_limits(given: Any) -> None:
    """Metadata that the API would refuse is refused here, in a sentence."""
    with pytest.raises(ArgumentError, match=r"metadata.*Nothing was sent\."):
        metadata(given)


@pytest.mark.parametrize("name", ["params", "metadata"])
def test_what_json_cannot_hold(name: str) -> None:
    """A value that would make the request no JSON is refused."""
    with pytest.raises(ArgumentError, match=f"{name} holds what JSON cannot hold"):
        submit_arguments(DEFAULTS | {name: '{"a": NaN}'}, "m")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"endpoint": None}, "but is NULL"),
        ({"force": None}, "but is NULL"),
        ({"force": "it's"}, "but is 'it''s'"),
        ({"system": True}, "but is true"),
        ({"model": ["a", None]}, 'but is ["a", null]'),
        ({"params": 5}, "but is 5"),
        ({"model": {"a": "x" * 500}}, "…"),
    ],
)
def test_values_are_shown_in_sql(changes: dict[str, Any], shown: str) -> None:
    """A sentence shows a value as SQL writes it, and cut short."""
    with pytest.raises(ArgumentError) as caught:
        plan(**changes)
    assert shown in str(caught.value)
    assert len(str(caught.value)) < 300


def test_filters_of_jobs() -> None:
    """The filters of jobs take one status or several, and metadata of any value as text."""
    assert statuses(None) is None
    assert statuses("queued") == ["QUEUED"]
    assert statuses(["QUEUED", "running"]) == ["QUEUED", "RUNNING"]
    assert metadata_filter({"team": "search", "number": 7}) == (("team", "search"), ("number", "7"))
    assert metadata_filter(None) == ()
