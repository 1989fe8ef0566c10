"""Who may talk to the server: programs of this machine, and no web page."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from emulator.calling import Caller, chats

from duckdb_mistral.emulator.door import LONGEST_PATH, check_rules, refusal

if TYPE_CHECKING:
    from duckdb_mistral.emulator import Emulator

#: HTTP, which is the same whatever the version of DuckDB.
pytestmark = pytest.mark.newest

PLAIN = {"Content-Type": "text/plain"}


@pytest.fixture
def caller(emulator: Emulator) -> Caller:
    """Return a client of the server."""
    return Caller(emulator)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@x", ""]
)
@pytest.mark.parametrize("path", ["/v1/batch/jobs", "/v1/files", "/_emulator/witness"])
def test_another_host(caller: Caller, host: str, path: str) -> None:
    """A page whose name was made to lead to this machine reads nothing."""
    caller.create(chats("secret"))
    answer = caller.ask("GET", path, headers={"Host": host})
    assert answer.status == 403
    assert b"secret" not in answer.content
    assert "Host" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST:9999", "[::1]:1"])
def test_this_machine(caller: Caller, host: str) -> None:
    """The names of this machine are taken, whatever the port that leads here."""
    assert caller.ask("GET", "/v1/batch/jobs", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_page_in_a_browser(caller: Caller, headers: dict[str, str]) -> None:
    """A page of another site neither sets rules nor asks for anything."""
    rules = '[{"method": "GET", "path": ".*", "status": 500, "times": 9}]'
    assert caller.ask("POST", "/_emulator/faults", body=rules, headers=PLAIN | headers).status == 403
    assert caller.ask("POST", "/v1/batch/jobs", body="{}", headers=PLAIN | headers).status == 403
    assert caller.get("/v1/batch/jobs").status == 200


def test_typed_address(caller: Caller) -> None:
    """An address that a person typed into a browser is answered."""
    assert caller.ask("GET", "/_emulator/witness", headers={"Sec-Fetch-Site": "none"}).status == 200


def test_two_hosts() -> None:
    """A request that names two hosts, or none, is refused, whichever would count."""
    assert refusal([(b"host", b"localhost"), (b"Host", b"evil.example")]) is not None
    assert refusal([]) is not None
    assert refusal([(b"Host", b"localhost")]) is None


@pytest.mark.parametrize(
    "pattern",
    [
        r"(/+)+x",
        r"(a|a)*",
        r"(.*)*",
        r".*.*.*.*x",
        r"(?:a?){30}",
        "a{1,9999}",
        r"(a|b?)+",
        "x" * 201,
        r"(?=a)",
        r"\1",
        5,
    ],
)
def test_slow_patterns(caller: Caller, pattern: object) -> None:
    """A rule from outside whose pattern could keep the server busy is refused in words."""
    answer = caller.post("/_emulator/faults", [{"method": "GET", "path": pattern}])
    assert answer.status == 422
    assert "pattern of plain characters" in answer.json()["detail"]


@pytest.mark.parametrize(
    "pattern",
    [".*", "/v1/files/[^/]+/content", "/v1/batch/jobs.*", r"/v1/files/.+\.x", "/v1/(files|models)"],
)
def test_patterns_of_rules(pattern: str) -> None:
    """The patterns that tests of other programs need are taken."""
    check_rules([{"method": "GET|POST", "path": pattern}])


def test_long_path_of_a_slow_pattern() -> None:
    """The slowest pattern that is taken answers for a long path at once, in a process that is killed otherwise."""
    code = f"""
from duckdb_mistral.emulator.door import check_rules
from duckdb_mistral.emulator.faults import Rule
rule = {{"method": "GET", "path": ".*.*.*x"}}
check_rules([rule])
assert not Rule(**rule).meets("GET", "/" * {LONGEST_PATH})
assert not Rule(**rule).meets("GET", "/" * 60_000)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
