"""What a plan will cost, and the refusal of one that may cost more than its caller allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duckdb_mistral.pricing.estimate import estimate, refuse_above
from duckdb_mistral.pricing.measures import measure
from duckdb_mistral.pricing.prices import load_prices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.requests.spool import SpooledPart
    from duckdb_mistral.settings import Settings


def estimate_plan(
    plan: Plan, measured: Sequence[Mapping[str, Any]], settings: Settings, unsent: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the row of mistral_batch_estimate for measured requests, as `estimate` does; raise above `max_cost`."""
    row = estimate(plan.models, plan.endpoint, measured, settings, load_prices(settings.prices), unsent)
    if plan.max_cost is not None:
        refuse_above(plan.max_cost, row)
    return row


def check_cost(plan: Plan, sent: Sequence[SpooledPart], settings: Settings) -> None:
    """Raise ArgumentError if the requests about to be sent may cost more than the plan's `max_cost`."""
    if plan.max_cost is not None:
        estimate_plan(plan, measure(plan.endpoint, sent), settings)
