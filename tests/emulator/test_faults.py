"""Misbehaving by rules: every part of a rule, and which requests it meets."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from emulator.calling import Caller, chats

from duckdb_mistral.emulator import Emulator, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

#: HTTP, files and threads, which are the same whatever the version of DuckDB.
pytestmark = pytest.mark.newest

JOBS = "/v1/batch/jobs"
LIST: dict[str, Any] = {"method": "GET", "path": JOBS}


def test_instead_of_an_answer(caller: Caller, emulator: Emulator) -> None:
    """A status, with headers and a body, stands in for the answer, and the work is not done."""
    emulator.faults(
        Rule(method="POST", path=JOBS, status=429, headers={"Retry-After": "7"}, body='{"message": "slow"}')
    )
    document = {"input_files": [caller.upload(chats("a"))], "endpoint": "/v1/chat/completions", "model": "m"}
    answer = caller.post(JOBS, document)
    assert (answer.status, answer.headers["retry-after"], answer.json()) == (429, "7", {"message": "slow"})
    assert answer.headers["content-type"] == "application/json"
    assert caller.get(JOBS).json()["total"] == 0
    assert caller.post(JOBS, document).status == 200


def test_after(caller: Caller, emulator: Emulator) -> None:
    """With `after`, the work is done and only its answer is lost."""
    emulator.faults(Rule(method="POST", path=JOBS, status=502, after=True))
    document = {"input_files": [caller.upload(chats("a"))], "endpoint": "/v1/chat/completions", "model": "m"}
    assert caller.post(JOBS, document).status == 502
    assert caller.get(JOBS).json()["total"] == 1


@pytest.mark.parametrize("after", [False, True])
def test_close(caller: Caller, emulator: Emulator, after: bool) -> None:
    """A closed connection has no answer at all; whether the work is done is told by `after`."""
    emulator.faults(Rule(method="POST", path=JOBS, close=True, after=after))
    document = {"input_files": [caller.upload(chats("a"))], "endpoint": "/v1/chat/completions", "model": "m"}
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        caller.post(JOBS, document)
    assert caller.get(JOBS).json()["total"] == int(after)


def test_cut(caller: Caller, emulator: Emulator) -> None:
    """A cut answer ends after so many bytes, short of the length that was told."""
    content = b"x" * 300_000
    file_id = caller.upload(content)
    path = f"/v1/files/{file_id}/content"
    emulator.faults(Rule(method="GET", path=path, cut=100_000))
    with pytest.raises(http.client.IncompleteRead) as caught:
        caller.get(path)
    assert len(caught.value.partial) == 100_000
    assert caller.get(path).content == content


@pytest.mark.parametrize("cut", [0, 10])
def test_cut_of_little(caller: Caller, emulator: Emulator, cut: int) -> None:
    """An answer may be cut before its first byte, and one that is shorter than the cut arrives whole."""
    file_id = caller.upload(b"short")
    emulator.faults(Rule(method="GET", path="/v1/files/.*/content", cut=cut))
    if cut:
        assert caller.get(f"/v1/files/{file_id}/content").content == b"short"
    else:
        with pytest.raises(http.client.IncompleteRead):
            caller.get(f"/v1/files/{file_id}/content")


def test_raw(caller: Caller, emulator: Emulator) -> None:
    """Raw bytes are the whole answer, and the connection ends cleanly."""
    emulator.faults(Rule(**LIST, raw="HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<h1>gateway</h1>"))
    answer = caller.get(JOBS)
    assert (answer.status, answer.headers["content-type"], answer.content) == (200, "text/html", b"<h1>gateway</h1>")


def test_change(caller: Caller, emulator: Emulator) -> None:
    """Members of a JSON answer are changed, added and taken out; its length is told anew."""
    emulator.faults(Rule(**LIST, change={"total": 7, "extra": ["x"], "object": None}))
    answer = caller.get(JOBS)
    assert answer.json() == {"data": [], "total": 7, "extra": ["x"]}
    assert answer.headers["content-length"] == str(len(answer.content))


def test_delay(caller: Caller, emulator: Emulator) -> None:
    """A delay comes first, and the answer as ever afterwards."""
    emulator.faults(Rule(**LIST, delay=0.3))
    started = time.monotonic()
    assert caller.get(JOBS).status == 200
    assert time.monotonic() - started >= 0.3


def test_which_requests(caller: Caller, emulator: Emulator) -> None:
    """A rule passes over the first `skip` requests of its method and whole path and acts on the next `times`."""
    emulator.faults(Rule(**LIST, status=500, skip=1, times=2))
    assert caller.get("/v1/files").status == 200
    assert caller.get(f"{JOBS}/x").status == 422
    assert [caller.get(JOBS).status for _ in range(4)] == [200, 500, 500, 200]


def test_first_rule_that_acts(caller: Caller, emulator: Emulator) -> None:
    """Of several rules the first that acts decides, and later ones wait for their turn."""
    emulator.faults(Rule(**LIST, status=500), Rule(**LIST, status=503))
    assert [caller.get(JOBS).status for _ in range(3)] == [500, 503, 200]


def test_behave_again(caller: Caller, emulator: Emulator) -> None:
    """New rules replace the old ones, and no rules are good behaviour."""
    emulator.faults(Rule(**LIST, status=500, times=9))
    assert caller.get(JOBS).status == 500
    emulator.faults()
    assert caller.get(JOBS).status == 200


def test_rules_over_http(caller: Caller) -> None:
    """Another process sets rules by a POST and takes them away by a DELETE."""
    assert caller.post("/_emulator/faults", [LIST | {"status": 418, "times": 5}]).json() == {}
    assert caller.get(JOBS).status == 418
    assert caller.ask("DELETE", "/_emulator/faults").status == 200
    assert caller.get(JOBS).status == 200


@pytest.mark.parametrize("rules", ["not json", [{"method": "GET"}], [LIST | {"stutter": 3}], 5])
def test_bad_rules(caller: Caller, rules: Mapping[str, Any] | str) -> None:
    """Rules that are none are refused, with what is wrong."""
    body = rules if isinstance(rules, str) else json.dumps(rules)
    answer = caller.ask("POST", "/_emulator/faults", body=body)
    assert (answer.status, bool(answer.json()["detail"])) == (422, True)
    assert caller.get("/_emulator/unknown").status == 404
