"""The dbt plugin and its page: the example project, built by dbt itself as a process of its own."""

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

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "dbt_project"
PAGE = (ROOT / "docs" / "dbt.md").read_text(encoding="utf-8")
#: A file that the page shows, with its name in the first line.
FILE = re.compile(r"```(?:yaml|jinja)\n((?:#|--) ([\w./]+)\n.*?)```", re.DOTALL)
COMMANDS = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the example project, which a test may change."""
    copy = shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("target", "logs", "*.duckdb"))
    (copy / "packages.yml").write_text(f"packages: [{{local: {ROOT / 'dbt_package'}}}]", encoding="utf-8")
    (copy / "dbt_packages").mkdir(exist_ok=True)
    (copy / "dbt_packages" / "duckdb_mistral").symlink_to(ROOT / "dbt_package", target_is_directory=True)
    return copy


def dbt(project: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run dbt in `project`, as a person would."""
    return run(project, environment, f"dbt {' '.join(arguments)}")


def run(project: Path, environment: dict[str, str], command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the shell in `project`, with the programs of this Python's environment."""
    others = {
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_USE_COLORS": "false",
        "NO_COLOR": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.run(
        ["sh", "-c", command],
        cwd=project,
        env=clean_environment() | environment | others,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def read(project: Path, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query on the database that dbt built."""
    with duckdb.connect(str(project / "tickets.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_the_page_is_the_example() -> None:
    """Every file of the example that a user writes stands in the page word for word, and the page shows no other."""
    shown = {name: text for text, name in FILE.findall(PAGE)}
    written = {
        str(path.relative_to(EXAMPLE)): path.read_text(encoding="utf-8")
        for path in EXAMPLE.rglob("*")
        if path.suffix in (".sql", ".yml") and not {"dbt_packages", "target"} & set(path.parts)
    }
    del written["packages.yml"]  # which a command writes
    written.pop("package-lock.yml", None)
    assert shown == written


@pytest.mark.newest
def test_the_page_from_an_empty_directory(tmp_path: Path, home: Path) -> None:
    """The files and the commands of the page, typed in an empty directory, lead to a green build with answers."""
    project = tmp_path / "empty"
    for text, name in FILE.findall(PAGE):
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (commands,) = (block for block in COMMANDS.findall(PAGE) if "dbt deps" in block)
    before, after = commands.split("dbt run-operation mistral_wait", 1)
    with Emulator(tmp_path / "server", job_seconds=3600) as slow:
        for command in before.splitlines():
            early = run(project, environment_of(slow, home), command)
            assert early.returncode == 0, early.stdout + early.stderr
        assert re.search(r"moods: 3 rows are pending\. Job [0-9a-f-]{36} is (QUEUED|RUNNING)", early.stdout), (
            early.stdout
        )
        assert asked_for_money(slow) == (2, 2)
    with Emulator(tmp_path / "server", port=urlsplit(slow.url).port or 0) as server:
        for command in f"dbt run-operation mistral_wait{after}".splitlines():
            late = run(project, environment_of(server, home), command)
            assert late.returncode == 0, late.stdout + late.stderr
        assert asked_for_money(server) == (0, 0)
    assert "|  3 | ok      | echo |   0.5 |" in late.stdout, late.stdout
    assert read(project, "SELECT id, outcome, mood, score FROM moods") == [(n, "ok", "echo", 0.5) for n in (1, 2, 3)]
    assert read(project, "SELECT id, outcome, summary FROM summaries WHERE id = 3") == [
        (3, "ok", "echo: Where is my parcel?")
    ]


@pytest.mark.newest
def test_settings_of_the_profile(project: Path, emulator: Emulator, home: Path) -> None:
    """The plugin's config takes the settings, beside DuckDB's own settings of the profile."""
    profile = project / "profiles.yml"
    text = profile.read_text(encoding="utf-8")
    given = {"model": "ministral-8b-latest", "api_key": "a-key-of-the-profile", "server_url": emulator.url}
    config = ", ".join(f"{name}: '{value}'" for name, value in given.items())
    text = text.replace("module: duckdb_mistral.dbt", f"module: duckdb_mistral.dbt\n          config: {{{config}}}")
    profile.write_text(text.replace("threads: 4", "threads: 4\n      settings: {TimeZone: UTC}"), encoding="utf-8")
    others = {"DUCKDB_MISTRAL_HOME": str(home)}
    (project / "dbt_project.yml").write_text("name: tickets\nprofile: tickets\nmodels: {+materialized: table}\n")
    built = dbt(project, others, "build", "--select", "+submitted", "+moods")
    assert built.returncode == 0, built.stdout
    assert read(project, "SELECT model FROM submitted") == [("ministral-8b-latest",)]
    assert read(project, "SELECT DISTINCT split_part(asked, ' ', 3) FROM moods__mistral") == [("ministral-8b-latest",)]
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
    wrong = "module: duckdb_mistral.dbt\n          config: {modle: mistral-small-latest}"
    text = profile.read_text(encoding="utf-8").replace("module: duckdb_mistral.dbt", wrong)
    profile.write_text(text, encoding="utf-8")
    failed = dbt(project, environment_of(emulator, home), "build")
    assert failed.returncode != 0
    assert "There is no setting modle; the settings are api_key, server_url," in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    assert emulator.witness()["requests"] == {}


@pytest.mark.newest
def test_missing_key(project: Path, emulator: Emulator, home: Path) -> None:
    """Without a key, the models that submit fail with the sentence that names the variable."""
    environment = environment_of(emulator, home)
    del environment["MISTRAL_API_KEY"]
    failed = dbt(project, environment, "build")
    assert failed.returncode == 1
    assert "No API key is set: set MISTRAL_API_KEY" in failed.stdout
    assert emulator.witness()["requests"] == {}
