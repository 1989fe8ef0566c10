"""The witness: counts of what was asked and of what would be paid for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from emulator.calling import Caller, chats

from duckdb_mistral.emulator import Emulator, Rule

if TYPE_CHECKING:
    from pathlib import Path


def test_counts(caller: Caller, emulator: Emulator) -> None:
    """Requests are counted by what they ask, and uploads and jobs by what was stored."""
    content = chats("a", "b")
    job = caller.ended(caller.create(content))
    caller.post("/v1/batch/jobs", {"endpoint": "nonsense"})
    caller.lines(job["output_file"])
    Caller(emulator, "another key").get("/v1/models")
    counts = emulator.witness()
    asked = counts["requests"]
    assert (asked["upload"], asked["create"], asked["download"], asked["models"]) == (1, 2, 1, 1)
    assert asked["job"] >= 1
    assert (counts["creates_received"], counts["jobs_stored"], counts["uploads_stored"]) == (2, 1, 1)
    assert counts["bytes_uploaded"] == len(content)
    assert (counts["rows_accepted"], counts["rows_accepted_more_than_once"]) == (2, 0)
    assert counts["keys_seen"] == 2
    assert caller.get("/_emulator/witness").json() == emulator.witness()


def test_refused_without_reaching_the_api(caller: Caller, emulator: Emulator) -> None:
    """A request that a rule answers in the API's place is not counted, and one that is lost afterwards is."""
    emulator.faults(
        Rule(method="GET", path="/v1/models", status=500),
        Rule(method="GET", path="/v1/models", status=500, after=True),
    )
    caller.get("/v1/models")
    assert emulator.witness()["requests"] == {}
    caller.get("/v1/models")
    assert emulator.witness()["requests"] == {"models": 1}


def test_rows_paid_twice(caller: Caller, emulator: Emulator) -> None:
    """Rows that stand in two jobs of the same model and endpoint are paid twice; of another model they are others."""
    caller.create(chats("a", "b"))
    caller.create(chats("a", "x"))
    caller.create(chats("a", "b"), model="another")
    counts = emulator.witness()
    assert (counts["rows_accepted"], counts["rows_accepted_more_than_once"]) == (6, 1)


def test_row_twice_in_one_file(caller: Caller, emulator: Emulator) -> None:
    """A line that stands in one file twice is paid twice."""
    caller.create(chats("a") * 2)
    counts = emulator.witness()
    assert (counts["rows_accepted"], counts["rows_accepted_more_than_once"]) == (2, 1)


def test_deleted_and_broken_inputs(caller: Caller, emulator: Emulator) -> None:
    """A deleted input file still counts, and so does a line that is no JSON."""
    job = caller.ended(caller.create(chats("a")))
    caller.ask("DELETE", f"/v1/files/{job['input_files'][0]}")
    caller.create(chats("it's b") + b"no json\n", model="the model's name")
    assert emulator.witness()["rows_accepted"] == 3


def test_peak_of_pending_requests(caller: Caller, emulator: Emulator) -> None:
    """The most requests that were pending at once are remembered."""
    for _ in range(2):
        slow = caller.create(chats(*"abc"), metadata={"emulate": "seconds 3600"})
    caller.post(f"/v1/batch/jobs/{slow['id']}/cancel", None)
    caller.ended(slow)
    caller.create(chats("a"))
    assert emulator.witness()["peak_pending_requests"] == 6


def test_restart(tmp_path: Path) -> None:
    """Rows of earlier runs of the server are still counted after a restart; requests are not."""
    with Emulator(tmp_path) as emulator:
        Caller(emulator).create(chats("a"))
    with Emulator(tmp_path) as emulator:
        Caller(emulator).create(chats("a", "b"))
        counts = emulator.witness()
    assert (counts["rows_accepted"], counts["rows_accepted_more_than_once"], counts["jobs_stored"]) == (3, 1, 1)


def test_create_that_was_cut_off(emulator: Emulator) -> None:
    """A create whose body did not arrive, as of a process that was killed meanwhile, does not count as received."""
    host, port = emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/batch/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer key\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
    caller = Caller(emulator)
    caller.create(chats("a"))
    counts = emulator.witness()
    assert (counts["creates_received"], counts["jobs_stored"]) == (1, 1)
