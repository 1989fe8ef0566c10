"""The dbt plugin: the example project, built by dbt itself as a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pytest
from support import asked_for_money, clean_environment, environment_of

from duckdb_mistral.emulator import Emulator

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "dbt_project"
WAITING = ("--vars", "wait_for_answers: true")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the example project, which a test may change."""
    return shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("target", "logs", "*.duckdb"))


def dbt(project: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run dbt in `project`, as a person would."""
    environment = clean_environment() | environment | {"NO_COLOR": "1", "DBT_USE_COLORS": "false"}
    return subprocess.run(
        [str(Path(sys.executable).with_name("dbt")), *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def read(project: Path, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query on the database that dbt built."""
    with duckdb.connect(str(project / "addresses.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


ANSWERED = """
    SELECT count(*), count(*) FILTER (outcome = 'ok' AND contains(summary, opening))
    FROM {answers} JOIN {seed} USING (id)
"""


def test_too_early_again_and_with_new_rows(project: Path, tmp_path: Path, home: Path) -> None:
    """A build while the batch goes on says how far it is; after waiting, a build goes through and sends nothing twice.

    Each row then has the answer to its own prompt. The next build sends the rows that were added, and no others.
    """
    with Emulator(tmp_path / "server", job_seconds=3600) as slow:
        environment = environment_of(slow, home)
        early = dbt(project, environment, "build")
        assert asked_for_money(slow) == (2, 2)
    assert early.returncode == 1
    sentence = r"Job [0-9a-f-]{36} is (QUEUED|RUNNING): \d+ of 20 requests are done\. There are results once"
    assert re.search(sentence, early.stdout), early.stdout
    assert "Traceback" not in early.stdout + early.stderr

    with Emulator(tmp_path / "server", port=urlsplit(slow.url).port or 0) as server:
        waited = dbt(project, environment, "run-operation", "wait_for_answers")
        assert waited.returncode == 0, waited.stdout
        assert re.search(r"submitted: job [0-9a-f-]{36} ended SUCCESS, 20 of 20 answered", waited.stdout)
        late = dbt(project, environment, "build")
        assert late.returncode == 0, late.stdout
        assert "ERROR=0 SKIP=0" in late.stdout
        assert asked_for_money(server) == (0, 0)
        before = server.witness()["rows_accepted"]
        assert read(project, ANSWERED.format(answers="summaries", seed="addresses")) == [(20, 20)]
        assert read(project, ANSWERED.format(answers="recent_summaries", seed="recent_addresses")) == [(12, 12)]

        with (project / "seeds" / "recent_addresses.csv").open("a", encoding="utf-8") as seed:
            seed.write("901,2022,Somebody,An opening that is new.\n")
            seed.write("902,2023,Somebody,\"Another, with a 'quote' and $$.\"\n")
        build = dbt(project, environment, "build", *WAITING)
        assert build.returncode == 0, build.stdout
        assert asked_for_money(server) == (1, 1)
        assert server.witness()["rows_accepted"] - before == 2
    assert read(project, ANSWERED.format(answers="recent_summaries", seed="recent_addresses")) == [(14, 14)]
    assert read(project, "SELECT len(custom_ids) FROM recent_submitted ORDER BY ALL") == [(2,), (12,)]
    (answer,) = read(project, "SELECT summary FROM recent_summaries WHERE id = 902")
    assert "Another, with a 'quote' and $$." in str(answer[0])


@pytest.mark.newest
def test_settings_of_the_profile(project: Path, emulator: Emulator, home: Path) -> None:
    """The plugin's config takes the settings, beside DuckDB's own settings of the profile."""
    profile = project / "profiles.yml"
    text = profile.read_text(encoding="utf-8")
    given = {"model": "ministral-8b-latest", "api_key": "a-key-of-the-profile", "server_url": emulator.url}
    config = ", ".join(f"{name}: '{value}'" for name, value in given.items())
    text = re.sub(r"config:\n +model: .*\n", f"config: {{{config}}}\n", text)
    profile.write_text(text.replace("threads: 2", "threads: 2\n      settings: {TimeZone: UTC}"), encoding="utf-8")
    others = {"DUCKDB_MISTRAL_HOME": str(home)}
    run = dbt(project, others, "build", "--select", "+submitted")
    assert run.returncode == 0, run.stdout
    assert read(project, "SELECT model FROM submitted") == [("ministral-8b-latest",)]
    assert "a-key-of-the-profile" not in "".join(
        (Path(folder) / name).read_text(encoding="utf-8", errors="replace")
        for folder, _, names in os.walk(project)
        for name in names
        if name != "profiles.yml"
    )


@pytest.mark.newest
def test_unknown_setting(project: Path, emulator: Emulator, home: Path) -> None:
    """A misspelt setting is told by name, without a traceback, and nothing is sent."""
    profile = project / "profiles.yml"
    profile.write_text(profile.read_text(encoding="utf-8").replace("model:", "modle:"), encoding="utf-8")
    run = dbt(project, environment_of(emulator, home), "build")
    assert run.returncode != 0
    assert "There is no setting modle; the settings are api_key, server_url," in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
    assert emulator.witness()["requests"] == {}


@pytest.mark.newest
def test_missing_key(project: Path, emulator: Emulator, home: Path) -> None:
    """Without a key, the model that submits fails with the sentence that names the variable."""
    environment = environment_of(emulator, home)
    del environment["MISTRAL_API_KEY"]
    run = dbt(project, environment, "build")
    assert run.returncode == 1
    assert "No API key is set: set MISTRAL_API_KEY" in run.stdout
    assert emulator.witness()["requests"] == {}
