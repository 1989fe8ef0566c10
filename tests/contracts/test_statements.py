"""The statements that calls stand for, as golden files: what a change of this package's code does to them is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from duckdb_mistral.api.endpoints import CHAT, CONVERSATIONS, EMBEDDINGS, OCR
from duckdb_mistral.batches.collect import Family
from duckdb_mistral.functions.compile import compile_call
from duckdb_mistral.functions.session import Session
from duckdb_mistral.functions.statements import results_statement

GOLDEN = Path(__file__).parents[1] / "golden" / "statements"
#: The defaults of the macro's parameters.
DEFAULTS = {
    "model": "a-model",
    "endpoint": "/v1/chat/completions",
    "system": None,
    "params": None,
    "output": None,
    "metadata": None,
    "timeout_hours": 24,
    "reuse": "submission",
    "max_cost": None,
    "force": False,
    "pilot": None,
}
#: Calls whose statements stand for their kind.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"submit{path.removeprefix('/v1').replace('/', '_')}": ("submit", {"source": "staging", "endpoint": path})
        for path in (CHAT, CONVERSATIONS, EMBEDDINGS, OCR)
    },
    "submit_with_all": (
        "submit",
        {
            "source": "SELECT 1 AS custom_id, 'it''s' AS prompt",
            "model": ["one", "two"],
            "system": "Be brief.",
            "params": {"max_tokens": 5, "stop": ["a", "b"]},
            "output": "STRUCT(mood VARCHAR, score DOUBLE)",
            "metadata": {"team": "x"},
            "max_cost": 1.5,
        },
    ),
    "estimate": ("estimate", {"source": "staging", "pilot": 3}),
    "refusal": ("submit", {"source": "staging", "timeout_hours": 0}),
}


@pytest.mark.newest
@pytest.mark.parametrize("name", CALLS)
def test_compiled_statement(name: str, request: pytest.FixtureRequest) -> None:
    """The statement that a call stands for is that of the golden file."""
    function, given = CALLS[name]
    held_to_golden(name, compile_call(Session({"home": "/home"}), function, json.dumps(DEFAULTS | given)), request)


@pytest.mark.newest
def test_compiled_results(request: pytest.FixtureRequest) -> None:
    """The scan of results, with and without retries, copies and a declared output, is that of the golden file."""
    alone = Family(model="one", generations=((Path("results/1.parquet"), Path("results/2.parquet")),))
    retried = Family(
        model="two", generations=((Path("results/3.parquet"),), (Path("results/4.parquet"),)), submission_id="an-id"
    )
    copied = Family(
        model="three", generations=((Path("results/5.parquet"),),), copies=Path("results/copies-three.parquet")
    )
    statements = [
        results_statement([]),
        results_statement([alone], "STRUCT(mood VARCHAR)"),
        results_statement([alone, retried, copied]),
    ]
    held_to_golden("results", "\n\n".join(statements), request)


def held_to_golden(name: str, found: str, request: pytest.FixtureRequest) -> None:
    """Compare a statement with its golden file, or write that anew with --golden."""
    path = GOLDEN / f"{name}.sql"
    if request.config.getoption("--golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{found}\n", encoding="utf-8")
    assert f"{found}\n" == path.read_text(encoding="utf-8"), "if that is meant: make golden, and read the diff"
