"""The dbt package: its integration project, run by dbt on the local server, where uploads and creates are counted."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import duckdb
import pytest
from dbt_session import DbtSession
from postgres import is_there, shared_server
from support import asked_for_money, clean_environment, environment_of

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dbt_package"
LEFT_OUT = shutil.ignore_patterns("target", "logs", "dbt_packages", "package-lock.yml", "*.duckdb")


@pytest.fixture(scope="module")
def session() -> Iterator[DbtSession]:
    """Yield the process that runs this file's dbt commands."""
    with DbtSession() as running:
        yield running


class Project:
    """A copy of the integration project with a database of its own."""

    def __init__(self, session: DbtSession, directory: Path, environment: dict[str, str]) -> None:
        """Copy the project, and the package to where `dbt deps` would put it."""
        self.directory = shutil.copytree(PACKAGE / "integration_tests", directory, ignore=LEFT_OUT)
        (directory / "dbt_packages").mkdir()
        (directory / "dbt_packages" / "duckdb_mistral").symlink_to(PACKAGE, target_is_directory=True)
        self.database = directory / "integration.duckdb"
        self._environment = environment
        self._session = session

    def dbt(self, *arguments: str, home: Path | None = None, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of dbt."""
        given = [f"{{{', '.join(f'{name}: {value}' for name, value in variables.items())}}}"] if variables else []
        others = {} if home is None else {"DUCKDB_MISTRAL_HOME": str(home)}
        return self._session.run(
            self.directory, self.environment | others, *arguments, *(["--vars", *given] if given else [])
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the project's commands."""
        return clean_environment() | self._environment | {"INTEGRATION_DATABASE": str(self.database)}

    def write(self, model: str, text: str) -> None:
        """Write a model's SQL."""
        (self.directory / "models" / f"{model}.sql").write_text(text, encoding="utf-8")

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the database that dbt built."""
        with duckdb.connect(str(self.database), read_only=True) as connection:
            return connection.execute(query).fetchall()

    def outcomes(self, model: str = "moods") -> dict[str, int]:
        """Return how many rows of a model there are per outcome."""
        return dict(self.read(f"SELECT outcome, count(*) FROM {model} GROUP BY outcome"))


@pytest.fixture
def project(session: DbtSession, emulator: Emulator, tmp_path: Path, home: Path) -> Project:
    """Return a project whose batches end at once."""
    return Project(session, tmp_path / "project", environment_of(emulator, home))


def slow(tmp_path: Path) -> Emulator:
    """Return a server whose batches run on."""
    return Emulator(tmp_path / "server", job_seconds=3600)


def ended(tmp_path: Path, server: Emulator) -> Emulator:
    """Return the same server, where the batches have ended."""
    return Emulator(tmp_path / "server", port=urlsplit(server.url).port or 0)


def accepted(server: Emulator) -> int:
    """Return how many requests the server has taken in all its life."""
    return int(server.witness()["rows_accepted"])


def test_every_run_converges(session: DbtSession, tmp_path: Path, home: Path) -> None:
    """Each request is sent once: its row is pending while the batch runs, and then keeps its answer, come what may.

    Rows that are new or whose request changed are sent, those that left the source leave the table, and the answers are
    there without the home and the server that gave them, also with --full-refresh and where other columns changed.
    """
    with slow(tmp_path) as server:
        project = Project(session, tmp_path / "project", environment_of(server, home))
        early = project.dbt("build")
        assert early.returncode == 0, early.stdout
        assert re.search(
            r"moods: 20 rows are pending\. Job [0-9a-f-]{36} is (QUEUED|RUNNING): \d+ of 20 requests are done\. A "
            r"later run has their answers: `dbt run-operation mistral_wait` waits for them\.",
            early.stdout,
        ), early.stdout
        assert re.search(r"summaries: Job [0-9a-f-]{36} is (QUEUED|RUNNING)", early.stdout)
        assert [project.outcomes(model) for model in ("moods", "checked", "summaries")] == [{"pending": 20}] * 3
        assert (asked_for_money(server), accepted(server)) == ((3, 3), 60)
    with ended(tmp_path, server) as later:
        late = project.dbt("build")
        assert late.returncode == 0, late.stdout
        assert "pending" not in late.stdout
        assert [project.outcomes(model) for model in ("moods", "checked", "summaries")] == [{"ok": 20}] * 3
        assert project.read("DESCRIBE SELECT * EXCLUDE answered_at FROM moods") == [
            (name, kind, "YES", None, None, None)
            for name, kind in [
                ("id", "BIGINT"), ("prompt", "VARCHAR"), ("product", "VARCHAR"), ("outcome", "VARCHAR"),
                ("content", "VARCHAR"), ("mood", "VARCHAR"), ("score", "DOUBLE"), ("error", "VARCHAR"),
                ("total_tokens", "BIGINT"),
            ]
        ]  # fmt: skip
        assert asked_for_money(later) == (0, 0)
        answers = "SELECT id, content, answered_at FROM moods WHERE id BETWEEN 5 AND 19 ORDER BY id"
        before = project.read(answers)

        grown = project.dbt("run", "--select", "+moods", first=2, changed=5, last=22, while_running="wait")
        assert grown.returncode == 0, grown.stdout
        assert project.outcomes() == {"ok": 20}
        assert project.read("SELECT id FROM moods") == [(number,) for number in range(2, 22)]
        assert project.read(answers) == before
        assert (asked_for_money(later), accepted(later)) == ((1, 1), 65)
    changed = {"first": 2, "changed": 5, "last": 22, "product": "gadget"}
    again = project.dbt("run", "--select", "+moods", "--full-refresh", home=tmp_path / "new-home", **changed)
    assert again.returncode == 0, again.stdout
    assert project.outcomes() == {"ok": 20}
    assert project.read(answers) == before
    assert project.read("SELECT DISTINCT product FROM moods") == [("gadget",)]


def test_nothing_else_sends(session: DbtSession, tmp_path: Path, home: Path) -> None:
    """Of dbt's commands only those that build a model send: on a fresh database, and while a batch runs."""
    with slow(tmp_path) as server:
        project = Project(session, tmp_path / "project", environment_of(server, home))
        for command in (
            ["compile"],
            ["docs", "generate"],
            ["show", "--select", "submitted"],
            ["run-operation", "mistral_status"],
            ["run-operation", "mistral_wait"],
            ["run-operation", "mistral_cost"],
            ["build", "--empty"],
            ["test", "--select", "test_type:unit"],
        ):
            fresh = project.dbt(*command)
            assert fresh.returncode == 0, fresh.stdout
            if command[0] == "run-operation":
                assert re.search("Nothing|No submitted batch", fresh.stdout), fresh.stdout
        assert project.outcomes() == project.outcomes("summaries") == {}
        assert asked_for_money(server) == (0, 0)
        assert project.dbt("run").returncode == 0
        assert asked_for_money(server) == (3, 3)
        for command in (
            ["compile"],
            ["show", "--select", "moods"],
            ["show", "--select", "summaries"],
            ["test"],
            ["snapshot"],
            ["run-operation", "mistral_status"],
        ):
            running = project.dbt(*command)
            assert running.returncode == 0, running.stdout
        assert (
            len(re.findall(r"job [0-9a-f-]{36} is (?:QUEUED|RUNNING), 0 of 20 requests are done", running.stdout)) == 3
        )
        assert "pending" in project.dbt("show", "--select", "summaries").stdout
        assert asked_for_money(server) == (3, 3)


def test_an_empty_source(project: Project, emulator: Emulator) -> None:
    """A source without rows makes no job and no row, and its answers come back with the rows, unpaid."""
    assert project.dbt("run", last=3, while_running="wait").returncode == 0
    before = asked_for_money(emulator)
    empty = project.dbt("build", last=0)
    assert empty.returncode == 0, empty.stdout
    assert [project.read(f"SELECT count(*) FROM {model}") for model in ("moods", "submitted", "summaries")] == [
        [(0,)]
    ] * 3
    assert project.dbt("run", last=3).returncode == 0
    assert project.outcomes() == project.outcomes("summaries") == {"ok": 3}
    assert asked_for_money(emulator) == before


def test_an_error_while_it_runs(session: DbtSession, tmp_path: Path, home: Path) -> None:
    """With while_running 'error' the model fails, and what it sent is remembered without the home."""
    with slow(tmp_path) as server:
        project = Project(session, tmp_path / "project", environment_of(server, home))
        for state in (home, tmp_path / "new-home"):
            failed = project.dbt("run", "--select", "+moods", home=state, while_running="error")
            assert failed.returncode == 1
            assert "20 rows are pending. Job" in failed.stdout
            assert "The table is unchanged." in failed.stdout
            assert "Traceback" not in failed.stdout
        assert project.read("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'moods'") == [(0,)]
        assert asked_for_money(server) == (1, 1)
    with ended(tmp_path, server) as later:
        built = project.dbt("run", "--select", "+moods", home=tmp_path / "newer-home", while_running="error")
        assert built.returncode == 0, built.stdout
        assert asked_for_money(later) == (0, 0)
    assert project.outcomes() == {"ok": 20}


@pytest.mark.newest
def test_a_part_that_waited_for_room(session: DbtSession, tmp_path: Path, home: Path) -> None:
    """A part that was not created yet is sent by a later run, also where the home is lost that knew of it; once."""
    limits = {"DUCKDB_MISTRAL_MAX_REQUESTS_PER_JOB": "10", "DUCKDB_MISTRAL_MAX_PENDING_REQUESTS": "10"}
    with slow(tmp_path) as server:
        project = Project(session, tmp_path / "project", environment_of(server, home) | limits)
        held = project.dbt("run", "--select", "+moods")
        assert held.returncode == 0, held.stdout
        assert "20 rows are pending. Of 2 jobs" in held.stdout
        assert accepted(server) == 10
    with ended(tmp_path, server) as later:
        built = project.dbt("run", "--select", "+moods", home=tmp_path / "new-home", while_running="wait")
        assert built.returncode == 0, built.stdout
        assert (accepted(later), later.witness()["rows_accepted_more_than_once"]) == (20, 0)
    assert project.outcomes() == {"ok": 20}


def test_what_failed_is_retried(project: Project, emulator: Emulator) -> None:
    """What `retry` names is sent again, alone, so many times; without it, a row that failed stays as it is."""
    body = "CASE WHEN range % 4 = 0 THEN '[[error 422]] ' ELSE 'fine ' END || range"
    project.write("tickets", f"SELECT range AS id, {body} AS body, 'widget' AS product FROM range(8)")
    command = ("run", "--select", "+moods")
    counted = []
    once, twice = {"retry": "[error]", "retry_times": "1"}, {"retry": "{outcomes: [error], times: 2}"}
    for retry in ({}, {}, once, once, twice):
        run = project.dbt(*command, **{"while_running": "wait", **retry})  # type: ignore[arg-type]
        assert run.returncode == 0, run.stdout
        counted.append((asked_for_money(emulator), accepted(emulator)))
    assert counted == [((1, 1), 8), ((1, 1), 8), ((2, 2), 10), ((2, 2), 10), ((3, 3), 12)]
    assert project.outcomes() == {"ok": 6, "error": 2}
    tested = project.dbt("test", "--select", "moods,test_type:generic")
    assert tested.returncode == 1
    assert "Got 2 results, configured to fail if != 0" in tested.stdout
    stored = "main_dbt_test__audit.duckdb_mistral_mistral_answered_moods_outcome__ignore"
    assert project.read(f"SELECT id, outcome FROM {stored}") == [(0, "error"), (4, "error")]


REFUSALS = {
    "repeated": (
        "SELECT 7 AS id, 'x' AS prompt FROM range(3)",
        "",
        "repeats values of its column id, .* 7 \\(3 times\\)",
    ),
    "no_id": ("SELECT 'x' AS prompt", "", "The model has no column id\\."),
    "own_column": ("SELECT 7 AS id, 'x' AS prompt, 'y' AS mood", "", "The model has its own column mood"),
    "while": (
        "SELECT 7 AS id, 'x' AS prompt",
        "while_running='later'",
        "must be 'keep', 'wait' or 'error', but is 'later'",
    ),
    "retry": ("SELECT 7 AS id, 'x' AS prompt", "retry=['ok']", "but holds 'ok'"),
    "results": ("SELECT 7 AS id, 'x' AS prompt", "results=['tokens']", "The results have no column 'tokens'"),
    "output": ("SELECT 7 AS id, 'x' AS prompt", "endpoint='/v1/ocr'", "/v1/ocr takes no system message"),
    "params": ("SELECT 7 AS id, 'x' AS prompt", "params={'max_token': 5}", "looks like a misspelt max_tokens"),
    "cost": ("SELECT 7 AS id, 'x' AS prompt", "max_cost=0, params={'max_tokens': 5}", "max_cost"),
}


@pytest.mark.newest
def test_refusals(project: Project, emulator: Emulator) -> None:
    """What cannot be sent is refused with a sentence of its own before anything is sent, and the run goes on."""
    for name, (select, config, _) in REFUSALS.items():
        fixed = "materialized='mistral_batch', custom_id='id', output='STRUCT(mood VARCHAR)'"
        project.write(name, f"{{{{ config({', '.join(filter(None, [fixed, config]))}) }}}}\n{select}")
    (project.directory / "models" / "checked.sql").write_text(
        (PACKAGE / "integration_tests" / "models" / "checked.sql")
        .read_text(encoding="utf-8")
        .replace("VARCHAR", "INTEGER"),
        encoding="utf-8",
    )
    run = project.dbt("run", "--select", "tickets", "checked", *REFUSALS)
    assert run.returncode == 1
    assert "PASS=1 WARN=0 ERROR=10" in run.stdout, run.stdout
    for _, _, sentence in REFUSALS.values():
        assert re.search(sentence, run.stdout.replace("\n  ", " ")), sentence
    assert "This model has an enforced contract that failed." in run.stdout
    assert "Traceback" not in run.stdout
    assert asked_for_money(emulator) == (0, 0)


@pytest.mark.newest
def test_all_that_a_submit_takes(project: Project, emulator: Emulator) -> None:
    """Several models, another endpoint, metadata, params, JSON output and force can be configured, as in a submit."""
    project.write(
        "several",
        """{{ config(materialized='mistral_batch', model=['mistral-small-latest', 'mistral-large-latest'],
             results=['job_id'] + var('more', []), metadata={'team': 'support'},
             params={'temperature': 0}, timeout_hours=2) }}
           SELECT 'a' AS custom_id, 'Hello' AS prompt UNION ALL SELECT 'b', 'Hello'""",
    )
    project.write(
        "embedded",
        """{{ config(materialized='mistral_batch', endpoint='/v1/embeddings',
             meta={'mistral': {'model': 'mistral-embed'}}) }}
           SELECT 'a' AS custom_id, 'Hello' AS input""",
    )
    project.write(
        "by_prompt",
        """{{ config(materialized='mistral_batch', custom_id='prompt', output={'type': 'object', 'properties': {}},
             reuse='submission', force=var('force', false)) }}
           SELECT 'Hello' AS prompt, 7 AS custom_id""",
    )
    config = (project.directory / "dbt_project.yml").read_text(encoding="utf-8")
    (project.directory / "dbt_project.yml").write_text(config.replace("+system: Judge the mood.", ""), encoding="utf-8")
    run = project.dbt("run", "--select", "several", "embedded", "by_prompt", while_running="wait")
    assert run.returncode == 0, run.stdout
    assert accepted(emulator) == 4
    by_row = "SELECT custom_id, count(DISTINCT job_id), bool_and(outcome = 'ok') FROM several GROUP BY 1 ORDER BY 1"
    assert project.read(by_row) == [("a", 2, True), ("b", 2, True)]
    assert project.read("SELECT outcome, len(embedding) > 0 FROM embedded") == [("ok", True)]
    assert project.read("SELECT prompt, custom_id, outcome, json_valid(output) FROM by_prompt") == [
        ("Hello", 7, "ok", True)
    ]
    assert project.dbt("run", "--select", "by_prompt", "several", force="true", more="[response]").returncode == 0
    assert accepted(emulator) == 5
    assert project.read("SELECT DISTINCT response->>'$.object' FROM several") == [("chat.completion",)]


@pytest.mark.newest
def test_two_projects_at_once(session: DbtSession, project: Project, emulator: Emulator, tmp_path: Path) -> None:
    """Two runs at the same time on two databases, with eight threads each, pay for a request once under one home."""
    other = Project(session, tmp_path / "other", project.environment)
    command = [str(Path(sys.executable).with_name("dbt")), "run", "--threads", "8", "--vars", "{while_running: wait}"]
    for one in (project, other):
        for number in range(3):
            shutil.copy(one.directory / "models" / "moods.sql", one.directory / "models" / f"moods_{number}.sql")

    def run(one: Project) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=one.directory, env=one.environment, capture_output=True, text=True, timeout=200, check=False
        )

    with ThreadPoolExecutor() as pool:
        for ran in pool.map(run, (project, other)):
            assert ran.returncode == 0, ran.stdout
    assert project.outcomes("moods_2") == other.outcomes("moods") == {"ok": 20}
    assert (accepted(emulator), emulator.witness()["rows_accepted_more_than_once"]) == (60, 0)


def test_the_path_of_the_package() -> None:
    """`duckdb-mistral dbt-package` prints the directory that packages.yml names."""
    printed = subprocess.run(
        [sys.executable, "-m", "duckdb_mistral", "dbt-package"],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert Path(printed.strip()) == PACKAGE
    assert (PACKAGE / "dbt_project.yml").exists()


@pytest.mark.newest
@pytest.mark.parametrize("shared", [False, True], ids=["with nothing but the key", "with a ledger and a store"])
def test_each_run_on_a_new_disk(session: DbtSession, tmp_path: Path, *, shared: bool) -> None:
    """Where each run of a project has a new disk, all of them together send each request once.

    With a ledger and a store the answers are there even after the provider has deleted its files.
    """
    others: dict[str, str] = {}
    if shared:
        if not is_there():
            pytest.skip("no PostgreSQL is installed here")
        (tmp_path / "store").mkdir()
        others = {
            "DUCKDB_MISTRAL_LEDGER": shared_server().new_url(),
            "DUCKDB_MISTRAL_STORE": f"file://{tmp_path}/store",
        }

    def build(server: Emulator) -> dict[str, int]:
        disk = tmp_path / f"disk-{len(list(tmp_path.iterdir()))}"
        disk.mkdir()
        project = Project(session, disk / "project", environment_of(server, disk / "home") | others)
        done = project.dbt("build")
        assert done.returncode == 0, done.stdout
        found = project.outcomes()
        shutil.rmtree(disk)
        return found

    with slow(tmp_path) as server:
        assert build(server) == {"pending": 20}
    with ended(tmp_path, server) as later:
        assert build(later) == {"ok": 20}
        if shared:
            later.faults({"method": "GET", "path": "/v1/files/.*", "status": 404, "times": 10_000})
        assert build(later) == {"ok": 20}
        assert asked_for_money(later) == (0, 0)
        assert accepted(later) == 60
