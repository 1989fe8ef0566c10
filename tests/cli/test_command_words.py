"""Errors on the command line advise what can be typed there."""

from __future__ import annotations

import pytest

from duckdb_mistral.cli.command_words import in_command_words


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        (
            "has ended: FROM mistral_batch_wait('a-1') waits for it.",
            "`duckdb-mistral wait a-1` waits for it.",
        ),
        ("use mistral_batch_results('a-1', partial := true).", "use `duckdb-mistral results a-1 --partial`."),
        ("mistral_batch_status() lists your submissions", "`duckdb-mistral status` lists your submissions"),
        ("give the part up with mistral_batch_cancel('a').", "with `duckdb-mistral cancel a`."),
        ("Until then partial := true reads the results", "Until then --partial reads the results"),
        ("Submit the same rows with force := true: what", "with --force: what"),
        ("Without reuse := 'requests' they are not needed.", "Without --reuse requests they are not needed."),
        ("or leave max_cost out.", "or leave --max-cost out."),
        ("which is more than max_cost, 1", "which is more than max_cost, 1"),
        ("the statement around mistral_batch_submit, so", "the statement around mistral_batch_submit, so"),
    ],
)
def test_advice(said: str, typed: str) -> None:
    """Calls become commands, and arguments options; what is no advice stays as it is."""
    assert in_command_words(said).endswith(typed)
