"""The plan of a submission, which travels through DuckDB as JSON."""

from __future__ import annotations

import pytest

from duckdb_mistral.jobs.plan import Plan


@pytest.mark.parametrize(
    "plan",
    [
        Plan(endpoint="/v1/ocr", models=("m",)),
        Plan(
            endpoint="/v1/chat/completions",
            models=("a", "b"),
            timeout_hours=1,
            metadata=(("team", 'it\'s "x" é'), ("k", "")),
            output="STRUCT(a VARCHAR)",
            max_cost=0.5,
            reuse_requests=True,
            force=True,
            retry_of="1",
        ),
    ],
)
def test_plan_comes_back_as_it_was(plan: Plan) -> None:
    """What is written as JSON is read as the same plan."""
    assert Plan.from_json(plan.to_json()) == plan


def test_plan_of_an_older_version() -> None:
    """A plan without what was added since has the defaults of that."""
    assert Plan.from_json('{"endpoint": "/v1/ocr", "models": ["m"], "metadata": []}') == Plan(
        endpoint="/v1/ocr", models=("m",)
    )
