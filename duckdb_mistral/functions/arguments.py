"""The arguments of the SQL functions: checked before anything is built, sent or written."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.endpoints import OUTPUT_FIELDS, Endpoint, endpoint_of, usual_model
from duckdb_mistral.duck.quoting import quoted
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.jobs.plan import Plan
from duckdb_mistral.jobs.tags import KEYS
from duckdb_mistral.results.output import Output, declared
from duckdb_mistral.runtime.json_text import given_json
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Schema BatchJobIn: propertyNames and additionalProperties of metadata.
LONGEST_METADATA_KEY = 32
LONGEST_METADATA_VALUE = 512

#: The API's pages: "lower than 7 days".
LONGEST_TIMEOUT_HOURS = 168

#: A pilot is paid at the ordinary price and waited for.
MOST_PILOTS = 1000
REUSE = ("submission", "requests")
#: Said if an argument is true, false or NULL, as a comparison would be.
COMPARED = (
    "An argument is true, false or NULL, which means nothing there. Was it named with =, which compares? Name "
    "arguments with :=, as in model := 'mistral-small-latest' or partial := true. Nothing was sent."
)


@dataclass(frozen=True, kw_only=True)
class SubmitArguments:
    """What mistral_batch_submit or mistral_batch_preview was called with."""

    source: str
    endpoint: Endpoint
    plan: Plan
    system: str | None
    params: Mapping[str, Any]
    output: Output | None
    #: How many requests an estimate sends to the ordinary endpoint.
    pilot: int | None = None


def submit_arguments(given: Mapping[str, Any], default_model: str) -> SubmitArguments:
    """Check the arguments of a submit; raise ArgumentError with a sentence on the first that cannot be used."""
    endpoint = _endpoint(given.get("endpoint"))
    system = text("system", given.get("system"))
    if system is not None and not endpoint.takes_system:
        raise ArgumentError(f"{endpoint.path} takes no system message. Leave system out. Nothing was sent.")
    models = _models(given.get("model"), usual_model(endpoint, default_model, Settings.model))
    output = _output(given.get("output"))
    return SubmitArguments(
        source=_source(given.get("source")),
        endpoint=endpoint,
        system=system,
        params=_with_output(endpoint, _object("params", given.get("params")), output),
        output=output,
        pilot=_pilot(given.get("pilot")),
        plan=Plan(
            endpoint=endpoint.path,
            models=models,
            timeout_hours=_timeout_hours(given.get("timeout_hours")),
            metadata=metadata(given.get("metadata")),
            output=None if output is None else output.text,
            max_cost=_max_cost(given.get("max_cost")),
            reuse_requests=_reuses_requests(given.get("reuse"), models),
            force=boolean("force", given.get("force")),
        ),
    )


def metadata(value: Any) -> tuple[tuple[str, str], ...]:
    """Check the metadata of a job against the API's limits (schema BatchJobIn)."""
    pairs = []
    for key, entry in _object("metadata", value).items():
        if entry is None:
            continue
        if isinstance(entry, dict | list):
            raise ArgumentError(f"metadata {key!r} is a list or a struct; a job's metadata is text. Nothing was sent.")
        text = entry if isinstance(entry, str) else json.dumps(entry)
        if key in KEYS:
            raise ArgumentError(f"metadata cannot use the key {key!r}: the package finds jobs by it. Nothing was sent.")
        if not 1 <= len(key) <= LONGEST_METADATA_KEY:
            raise ArgumentError(
                f"The metadata key {key!r} has {len(key)} characters; the API takes 1 to {LONGEST_METADATA_KEY}. "
                "Nothing was sent."
            )
        if not 1 <= len(text) <= LONGEST_METADATA_VALUE:
            raise ArgumentError(
                f"The metadata value of {key!r} has {len(text)} characters; the API takes 1 to "
                f"{LONGEST_METADATA_VALUE}. Nothing was sent."
            )
        pairs.append((key, text))
    return tuple(pairs)


def metadata_filter(value: Any) -> tuple[tuple[str, str], ...]:
    """Return the metadata that listed jobs must carry; the values as text."""
    return tuple(
        (key, entry if isinstance(entry, str) else json.dumps(entry))
        for key, entry in _object("metadata", value).items()
    )


def statuses(value: Any) -> list[str] | None:
    """Return the statuses to list: one word, a list of words, or None for all."""
    if value is None:
        return None
    words = value if isinstance(value, list) else [value]
    return [str(word).upper() for word in words]


def _endpoint(value: Any) -> Endpoint:
    if not isinstance(value, str):
        raise ArgumentError(
            f"endpoint must be text such as '/v1/chat/completions', but is {_shown(value)}. Nothing was sent."
        )
    return endpoint_of(value)


def _reuses_requests(value: Any, models: tuple[str, ...]) -> bool:
    if value not in REUSE:
        raise ArgumentError(f"reuse must be 'submission' or 'requests', but is {_shown(value)}. Nothing was sent.")
    if value == "requests" and len(models) > 1:
        raise ArgumentError(
            "reuse := 'requests' takes one model: what was answered before differs from model to model, and all "
            "models of a submission run on the same file. Submit once per model. Nothing was sent."
        )
    return bool(value == "requests")


def _output(value: Any) -> Output | None:
    if isinstance(value, dict):  # a STRUCT that is a JSON schema
        value = json.dumps(value)
    given = text("output", value)
    return None if given is None else declared(given)


def _with_output(endpoint: Endpoint, params: Mapping[str, Any], output: Output | None) -> Mapping[str, Any]:
    """Return the body fields of every row, with the declared output among them."""
    if output is None:
        return params
    field = OUTPUT_FIELDS.get(endpoint.path)
    if field is None:
        raise ArgumentError(
            f"{endpoint.path} gives no structured output; {' and '.join(OUTPUT_FIELDS)} do. Nothing was sent."
        )
    if any(name.lower() == field for name in params):
        raise ArgumentError(f"params sets {field}, and so does output. Leave one of them out. Nothing was sent.")
    return {**params, field: output.response_format}


def _source(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(
            "source must be the name of a table or view, or the text of one SELECT, such as 'staging' or "
            "'SELECT id AS custom_id, body AS prompt FROM tickets'. Nothing was sent."
        )
    return value


def _models(value: Any, default: str) -> tuple[str, ...]:
    models = [default] if value is None else value if isinstance(value, list) else [value]
    if not models or not all(isinstance(model, str) and model.strip() for model in models):
        raise ArgumentError(
            f"model must be a model's name, or a list of them, but is {_shown(value)}. Nothing was sent."
        )
    if len(set(models)) < len(models):
        raise ArgumentError(f"model names a model twice: {', '.join(models)}. Nothing was sent.")
    return tuple(models)


def _timeout_hours(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LONGEST_TIMEOUT_HOURS:
        raise ArgumentError(
            f"timeout_hours must be a whole number from 1 to {LONGEST_TIMEOUT_HOURS}, or 7 days, but is "
            f"{_shown(value)}. Nothing was sent."
        )
    return int(value)


def timeout_seconds(text: str | None) -> float | None:
    """Return how long a wait may take, from its text; None without a limit."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:  # an INTERVAL, true
        seconds = math.nan
    if math.isnan(seconds):
        raise ArgumentError(f"timeout_seconds must be a number of seconds, such as 300, but is {_shown(text)}.")
    return max(seconds, 0.0)


def boolean(name: str, value: Any) -> bool:
    """Return an argument that is true or false; raise ArgumentError for another one."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be true or false, but is {_shown(value)}. Nothing was sent.")
    return value


def _max_cost(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ArgumentError(f"max_cost must be US dollars, a number of at least 0, but is {value!r}. Nothing was sent.")
    return float(value)


def _pilot(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_PILOTS):
        raise ArgumentError(
            f"pilot must be a number of requests from 1 to {MOST_PILOTS:,}, but is {value!r}. Nothing was sent."
        )
    return value


def text(name: str, value: Any) -> str | None:
    """Return an argument that has to be text, or None."""
    if value is None or isinstance(value, str):
        return value
    raise ArgumentError(f"{name} must be text, but is {_shown(value)}. Nothing was sent.")


def _shown(value: Any, most: int = 120) -> str:
    """Return an argument in SQL's words, for a sentence about it."""
    if value is None:
        return "NULL"
    text = quoted(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else text[:most] + "…"


def _object(name: str, value: Any) -> Mapping[str, Any]:
    """Return a STRUCT or MAP, or JSON text of an object."""
    value = given_json(name, value)
    if value is None:
        return {}
    if isinstance(value, list) and all(isinstance(pair, dict) and pair.keys() == {"key", "value"} for pair in value):
        value = {str(pair["key"]): pair["value"] for pair in value}  # a MAP in a VARIANT
    if not isinstance(value, dict):
        raise ArgumentError(
            f"{name} must be a STRUCT or a JSON object, such as {{'key': 'value'}}, but is {_shown(value)}. "
            "Nothing was sent."
        )
    return value
