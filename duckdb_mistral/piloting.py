"""A pilot: a few of a job's requests, answered by the ordinary endpoint, tell what all of them will use."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from duckdb_mistral.endpoints import TRANSCRIPTIONS
from duckdb_mistral.errors import ApiError, ArgumentError, AuthenticationError
from duckdb_mistral.estimate import cost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb_mistral.client import BatchClient
    from duckdb_mistral.jobs import Plan
    from duckdb_mistral.prices import Prices

#: Requests that are under way at a time.
AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What came of a pilot on one model: the usage of each answer, and the first failure in words."""

    model: str
    asked: int
    used: tuple[Mapping[str, Any], ...]
    failure: str | None


def run(client: BatchClient, plan: Plan, bodies: Sequence[str]) -> list[Pilot]:
    """Send request bodies to the ordinary endpoint, once per model; each is paid at the ordinary price.

    Raises ArgumentError for an endpoint whose requests are no JSON there, AuthenticationError for a refused key.
    """
    if plan.endpoint == TRANSCRIPTIONS:
        raise ArgumentError(f"There is no pilot for {plan.endpoint}: outside batches it takes forms, not JSON.")
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pilot") as pool:
        return [
            _pilot(model, list(pool.map(lambda body, model=model: _ask(client, plan.endpoint, model, body), bodies)))
            for model in plan.models
        ]


def with_pilot(row: Mapping[str, Any], pilots: Sequence[Pilot], prices: Prices) -> dict[str, Any]:
    """Return the row of an estimate with what its pilots make of it: expected_cost, in US dollars, in a batch."""
    notes = [row["note"]] if row["note"] else []
    each = row["requests"] // max(len(pilots), 1)
    expected: float | None = 0.0
    for pilot in pilots:
        if pilot.failure is not None:
            failed = pilot.asked - len(pilot.used)
            notes.append(f"{failed} of {pilot.asked} pilot requests failed on {pilot.model}: {pilot.failure}")
        paid = [cost(pilot.model, used, prices) for used in pilot.used]
        notes += dict.fromkeys(note for _, note in paid if note)
        known = [amount for amount, _ in paid if amount is not None]
        if not known or expected is None:
            expected = None
            continue
        expected += sum(known) / len(known) * each
    asked = sum(pilot.asked for pilot in pilots)
    return dict(row) | {"pilot_requests": asked, "expected_cost": expected, "note": "; ".join(notes) or None}


def fingerprint(server_url: str, plan: Plan, bodies: Sequence[str]) -> str:
    """Return what makes two pilots the same, so that a relation that is printed twice asks once."""
    said = json.dumps([server_url, plan.endpoint, plan.models, list(bodies)])
    return hashlib.sha256(said.encode()).hexdigest()


def _ask(client: BatchClient, endpoint: str, model: str, body: str) -> Mapping[str, Any] | str:
    """Return what one answer has used, or why there is none."""
    try:
        answer = client.ask(endpoint, {"model": model} | json.loads(body))
    except AuthenticationError:
        raise
    except ApiError as error:
        return str(error)
    usage, pages = answer.get("usage") or {}, answer.get("usage_info") or {}
    return {
        "prompt_tokens": _count(usage.get("prompt_tokens")),
        "completion_tokens": _count(usage.get("completion_tokens")),
        "pages": _count(pages.get("pages_processed")),
        "audio_seconds": _count(usage.get("prompt_audio_seconds")),
    }


def _pilot(model: str, answers: Sequence[Mapping[str, Any] | str]) -> Pilot:
    failures = [answer for answer in answers if isinstance(answer, str)]
    used = tuple(answer for answer in answers if not isinstance(answer, str))
    return Pilot(model=model, asked=len(answers), used=used, failure=failures[0] if failures else None)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
