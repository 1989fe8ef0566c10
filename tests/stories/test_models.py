"""Several models over one upload: counted at the server, told apart in the results, compared by a self-join."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import answered, asked_for_money, make_staging, rows, submitted

if TYPE_CHECKING:
    import duckdb

    from duckdb_mistral.emulator import Emulator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODELS = ["mistral-small-latest", "ministral-8b-latest"]


def test_one_upload_and_a_job_per_model(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A list of models uploads the requests once and creates one job for each."""
    make_staging(con, 4)
    found = rows(con, f"FROM mistral_batch_submit('staging', model := {MODELS})")
    assert [row["model"] for row in found] == MODELS
    assert len({row["submission_id"] for row in found}) == 1
    assert len({row["job_id"] for row in found}) == 2
    assert asked_for_money(emulator) == (1, 2)
    witness = emulator.witness()
    assert (witness["uploads_stored"], witness["jobs_stored"]) == (1, 2)
    assert (witness["rows_accepted"], witness["rows_accepted_more_than_once"]) == (8, 0)


def test_parts_and_models(emulator: Emulator, home: Path) -> None:
    """Each part is uploaded once, and each model runs on each part."""
    from support import connect

    with connect(emulator, home, max_requests_per_job=3) as con:
        make_staging(con, 7)
        found = rows(con, f"FROM mistral_batch_submit('staging', model := {MODELS})")
        assert sorted((row["part"], row["model"], row["total_requests"]) for row in found) == sorted(
            (part, model, count) for part, count in ((1, 3), (2, 3), (3, 1)) for model in MODELS
        )
        assert asked_for_money(emulator) == (3, 6)
        assert len(answered(con, found[0]["submission_id"])) == 14


def test_results_carry_the_model(con: duckdb.DuckDBPyConnection) -> None:
    """Every custom_id comes back once per model, and one job's results by the job's id."""
    make_staging(con, 3)
    submission_id = submitted(con, arguments=f"model := {MODELS}")
    found = answered(con, submission_id)
    assert sorted((row["custom_id"], row["model"]) for row in found) == sorted(
        (str(number), model) for number in range(3) for model in MODELS
    )
    job_ids = {row["model"]: row["job_id"] for row in found}
    assert len(set(job_ids.values())) == 2
    for model, job_id in job_ids.items():
        assert {row["model"] for row in rows(con, f"FROM mistral_batch_results('{job_id}')")} == {model}


def test_the_same_models_again(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """The same list again costs nothing; another list is another submission."""
    make_staging(con, 2)
    first = submitted(con, arguments=f"model := {MODELS}")
    assert submitted(con, arguments=f"model := {MODELS}") == first
    assert asked_for_money(emulator) == (1, 2)
    assert submitted(con, arguments=f"model := {MODELS[:1]}") != first


@pytest.mark.parametrize("models", ["[]", "['a', 'a']", "['a', NULL]", "['']", "3"])
def test_refused_lists(con: duckdb.DuckDBPyConnection, emulator: Emulator, models: str) -> None:
    """A list without models, with one twice, or with something else is refused."""
    make_staging(con, 1)
    with pytest.raises(Exception, match=r"model must be|model names a model twice"):
        submitted(con, arguments=f"model := {models}")
    assert asked_for_money(emulator) == (0, 0)


def test_example(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """The example that compares two models runs as it stands, on one upload."""
    for statement in con.extract_statements((EXAMPLES / "compare_models.sql").read_text(encoding="utf-8")):
        result = con.execute(statement)
    compared = result.fetchall()
    assert [row[:4] for row in compared] == [(str(number), "good", "good", True) for number in (1, 2, 3)]
    assert asked_for_money(emulator) == (1, 2)
