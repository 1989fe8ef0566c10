"""What people type every day, in every client."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import duckdb
import pytest
from support import asked_for_money, connect, environment_of

from duckdb_mistral.emulator import Emulator

from . import clients

LINES = Path(__file__).with_name("ordinary.sql").read_text(encoding="utf-8").splitlines()
STATEMENTS = [line.removesuffix(";") for line in LINES if line and not line.startswith("--")]
#: The first of those that are mistakes.
MISTAKE = "FROM mistral_batch_submit('SELECT 1 AS custom_id')"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[clients.Answer], tuple[int, int]]:
    """Return what Python's own functions answer, and what that cost."""
    folder = tmp_path_factory.mktemp("expected")
    with (
        pytest.MonkeyPatch.context() as patch,
        Emulator(folder / "server") as emulator,
        connect(emulator, folder / "home") as con,
    ):
        patch.chdir(folder)
        return clients.with_connection(con, STATEMENTS), asked_for_money(emulator)


def check(answers: list[clients.Answer], expected: list[clients.Answer]) -> None:
    """Compare statement by statement, so that a failure names the one."""
    for statement, answer, wanted in zip_longest(STATEMENTS, answers, expected):
        assert (statement, answer) == (statement, wanted)


def test_in_python(expected: tuple[list[clients.Answer], tuple[int, int]]) -> None:
    """Python's own functions answer all but the mistakes, which each are a sentence."""
    answers, money = expected
    first_mistake = STATEMENTS.index(MISTAKE)
    assert len(STATEMENTS) >= 60
    assert [answer.error for answer in answers[:first_mistake]] == [None] * first_mistake
    mistakes = zip(STATEMENTS[first_mistake:-2], answers[first_mistake:-2], strict=True)
    assert [statement for statement, answer in mistakes if answer.error is None] == []
    assert money == (9, 9)


def test_in_the_shell(
    shell: str,
    emulator: Emulator,
    home: Path,
    tmp_path: Path,
    expected: tuple[list[clients.Answer], tuple[int, int]],
) -> None:
    """The official shell answers every statement as Python does, and pays as much."""
    answers = clients.with_shell(STATEMENTS, environment_of(emulator, home), tmp_path)
    check(answers, expected[0])
    assert asked_for_money(emulator) == expected[1]


def test_in_a_duckdb_without_python_functions(
    statements: str,
    emulator: Emulator,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: tuple[list[clients.Answer], tuple[int, int]],
) -> None:
    """After LOAD and the macros, a plain connection answers every statement as a registered one does."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment_of(emulator, home).items():
        monkeypatch.setenv(name, value)
    with duckdb.connect(":memory:", config={"allow_unsigned_extensions": "true"}) as con:
        con.execute(statements)
        check(clients.with_connection(con, STATEMENTS), expected[0])
    assert asked_for_money(emulator) == expected[1]


def test_in_node(
    statements: str,
    emulator: Emulator,
    home: Path,
    tmp_path: Path,
    expected: tuple[list[clients.Answer], tuple[int, int]],
) -> None:
    """Node's client of DuckDB answers every statement as Python does."""
    modules = clients.node_modules()
    if modules is None:
        pytest.skip(
            "neither Node nor its client of DuckDB is in this environment: make test-newest installs the client"
        )
    answers = clients.with_node(STATEMENTS, statements, environment_of(emulator, home), tmp_path, modules)
    check(answers, expected[0])
    assert asked_for_money(emulator) == expected[1]
