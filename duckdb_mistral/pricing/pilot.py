"""A pilot: a few of a job's requests, answered by the ordinary endpoint, predict the usage of all of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.endpoints import TRANSCRIPTIONS
from duckdb_mistral.errors import ApiError, ArgumentError, AuthenticationError
from duckdb_mistral.pricing.estimate import cost
from duckdb_mistral.runtime.parallel import together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb_mistral.api.client import BatchClient
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.pricing.prices import Prices

#: Requests under way at a time.
AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """The outcome of a pilot on one model: the usage of each answer, and the first failure in words."""

    model: str
    asked: int
    used: tuple[Mapping[str, Any], ...]
    failure: str | None


def run(client: BatchClient, plan: Plan, bodies: Sequence[str]) -> list[Pilot]:
    """Send request bodies to the ordinary endpoint, once per model; each is paid at the ordinary price.

    Raises ArgumentError for an endpoint that does not take JSON outside batches, AuthenticationError for a refused key.
    """
    if plan.endpoint == TRANSCRIPTIONS:
        raise ArgumentError(f"There is no pilot for {plan.endpoint}: outside batches it takes forms, not JSON.")
    return [_pilot(model, _answers(client, plan.endpoint, model, bodies)) for model in plan.models]


def with_pilot(row: Mapping[str, Any], pilots: Sequence[Pilot], prices: Prices) -> dict[str, Any]:
    """Return the row of an estimate with expected_cost from its pilots, in US dollars at batch price."""
    notes = [row["note"]] if row["note"] else []
    each = row["requests"] // max(len(pilots), 1)
    expected: float | None = 0.0
    for pilot in pilots:
        if pilot.failure is not None:
            failed = pilot.asked - len(pilot.used)
            notes.append(f"{failed} of {pilot.asked} pilot requests failed on {pilot.model}: {pilot.failure}")
        paid = [cost(used["model"] or pilot.model, used, prices) for used in pilot.used]
        notes += [note for note in dict.fromkeys(told for _, told in paid) if note and note not in (row["note"] or "")]
        known = [amount for amount, _ in paid if amount is not None]
        if not known or expected is None:
            expected = None
            continue
        expected += sum(known) / len(known) * each
    asked = sum(pilot.asked for pilot in pilots)
    return dict(row) | {"pilot_requests": asked, "expected_cost": expected, "note": "; ".join(notes) or None}


def fingerprint(server_url: str, plan: Plan, bodies: Sequence[str]) -> str:
    """Return what identifies a pilot, so that a relation that is printed twice runs it only once."""
    said = json.dumps([server_url, plan.endpoint, plan.models, list(bodies)])
    return hashlib.sha256(said.encode()).hexdigest()


def _answers(client: BatchClient, endpoint: str, model: str, bodies: Sequence[str]) -> list[Mapping[str, Any] | str]:
    """Return what the answers to some bodies used, in their order, or why there is none."""
    found: dict[int, Mapping[str, Any] | str] = {}
    together(
        range(len(bodies)),
        lambda number: _ask(client, endpoint, model, bodies[number]),
        lambda number, used: found.update({number: used}),
        threads=AT_ONCE,
        daemon=True,
    )
    return [found[number] for number in range(len(bodies))]


def _ask(client: BatchClient, endpoint: str, model: str, body: str) -> Mapping[str, Any] | str:
    """Return what one answer used, or why there is none."""
    try:
        answer = client.ask(endpoint, {"model": model} | json.loads(body))
    except AuthenticationError:
        raise
    except ApiError as error:
        return str(error)
    return _usage(answer)


def _usage(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage that an answer reports, as the template `used` reads it, and the model that gave it."""
    usage, paged = (said if isinstance(said := answer.get(name), dict) else {} for name in ("usage", "usage_info"))
    prompt, completion, seconds = (
        _count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens", "prompt_audio_seconds")
    )
    pages, annotated = (_count(paged.get(name)) for name in ("pages_processed", "pages_processed_annotation"))
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else usage.get("num_cached_tokens")
    told = any(count is not None for count in (prompt, seconds, pages, annotated))
    return {
        "model": model if isinstance(model := answer.get("model"), str) else None,
        "prompt_tokens": prompt or 0,
        "completion_tokens": completion or 0,
        "cached_tokens": _count(cached) or 0,
        "pages": pages or 0,
        "annotated_pages": annotated or 0,
        "audio_seconds": seconds or 0,
        "unmetered": 0 if told else 1,
        "unwritten": 1 if prompt is not None and completion is None else 0,
    }


def _pilot(model: str, answers: Sequence[Mapping[str, Any] | str]) -> Pilot:
    failures = [answer for answer in answers if isinstance(answer, str)]
    used = tuple(answer for answer in answers if not isinstance(answer, str))
    return Pilot(model=model, asked=len(answers), used=used, failure=failures[0] if failures else None)


def _count(value: Any) -> int | None:
    return max(value, 0) if isinstance(value, int) and not isinstance(value, bool) else None
