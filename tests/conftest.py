"""The fixtures of all tests: a clean environment, a local server, a connection to it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import google_server
import pytest
from object_server import ObjectServer, serving
from support import connect

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption("--golden", action="store_true", help="write the golden files anew instead of comparing")
    parser.addoption("--schedules", type=int, default=40, help="how many random schedules of faults are run")
    parser.addoption("--team-schedules", type=int, default=4, help="how many random schedules of a team are run")
    parser.addoption("--rounds", type=int, default=10, help="how often each race for a ledger is run")
    parser.addoption("--every", type=int, default=3, help="kill at every how manieth step; 1 is all of them")
    parser.addoption("--seed", type=int, default=1, help="the seed of the first random schedule")
    parser.addoption("--fault-table", action="store_true", help="print which tests have run for which fault")


def pytest_configure() -> None:
    """Let the programs that tests start hear Ctrl-C: what a shell runs in the background ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which versions are tested, and with which seeds."""
    from importlib.metadata import version

    names = ("duckdb", "mistralai", "pyarrow", "sqlalchemy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{versions}; schedules --seed {config.getoption('--seed')} --schedules {config.getoption('--schedules')}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note the faults that a test is about, for the table."""
    for marker in item.iter_markers("fault"):
        item.user_properties.extend(("fault", name) for name in marker.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the schedules met, and the table of faults: each with its tests and what came of them."""
    _print_schedules(terminalreporter)
    if not config.getoption("--fault-table"):
        return
    told = [
        (name, report.nodeid.rpartition("::")[2], outcome)
        for outcome in ("passed", "failed", "skipped")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call"
        for kind, name in report.user_properties
        if kind == "fault"
    ]
    terminalreporter.section("faults")
    for name, test, outcome in sorted(told):
        terminalreporter.write_line(f"| {name} | {test} | {outcome} |")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what costs money only when it is asked for by name."""
    if "live" not in config.getoption("-m"):
        skip = pytest.mark.skip(reason="runs on the real API: -m live, with MISTRAL_API_KEY")
        for item in items:
            if "live" in item.keywords:
                item.add_marker(skip)


def _print_schedules(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the random schedules met and checked, all together."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "schedules" and report.when == "call":
                counts.update(value)
    if counts:
        terminalreporter.write_line(", ".join(f"{name}: {count:,}" for name, count in counts.items()))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the developer's own key, server and state out of every test."""
    for name in list(os.environ):
        if name.startswith(("MISTRAL_", "DUCKDB_MISTRAL_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DUCKDB_MISTRAL_HOME", str(tmp_path / "default-home"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the state directory of a test."""
    return tmp_path / "home"


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    """Yield a local batch server of its own."""
    with Emulator(tmp_path / "server") as server:
        yield server


@pytest.fixture
def con(emulator: Emulator, home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection whose functions talk to `emulator`."""
    with connect(emulator, home) as connection:
        yield connection


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """Yield a server of the S3 API that all tests of a session share, each with buckets of its own."""
    with serving() as server:
        yield server


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new bucket, at a server that this process and its children find."""
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{object_server.bucket()}/prefix"


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[google_server.GoogleServer]:
    """Yield a server of Google's storage API that all tests of a session share, each with buckets of its own."""
    with google_server.serving(tmp_path_factory.mktemp("google")) as server:
        yield server


@pytest.fixture
def google_bucket(google: google_server.GoogleServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new bucket of Google's, for which this process and its children have the credentials."""
    for name, value in google.environment.items():
        monkeypatch.setenv(name, value)
    return google.url(google.bucket())
