"""What the client needs of the API: held against the local server always, and against the real API with `-m live`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support import KEY

from duckdb_mistral.batches.context import Context
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.errors import AuthenticationError, NotFoundError
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb_mistral.api.client import BatchClient

#: Read before the environment is cleaned; only `-m live` uses it.
LIVE_KEY = os.environ.get("MISTRAL_API_KEY")
MODEL = "mistral-small-latest"
CHAT = "/v1/chat/completions"
LINES = "".join(
    f'{{"custom_id":"{number}","body":{{"max_tokens":5,"messages":[{{"role":"user","content":"Say {number}."}}]}}}}\n'
    for number in range(2)
)
NOBODY = "3f2a9c1e-0000-4000-8000-000000000000"


@pytest.fixture(params=["emulator", pytest.param("api", marks=pytest.mark.live)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Yield the settings of a workspace: the local server's, or the real one's."""
    if request.param == "api":
        if not LIVE_KEY:
            pytest.skip("MISTRAL_API_KEY is not set")
        yield Settings.resolve({"api_key": LIVE_KEY, "home": tmp_path / "home"})
        return
    with Emulator(tmp_path / "server", job_seconds=60, api_keys=(KEY,)) as emulator:
        yield Settings.resolve({"api_key": KEY, "server_url": emulator.url, "home": tmp_path / "home"})


@pytest.fixture
def client(settings: Settings) -> Iterator[BatchClient]:
    """Yield a client of the workspace."""
    with Context(settings).client as one:
        yield one


@pytest.fixture
def file_id(client: BatchClient, tmp_path: Path) -> str:
    """Return the id of an uploaded file of two requests."""
    path = tmp_path / "part-00001.jsonl"
    path.write_text(LINES, encoding="utf-8")
    return client.upload(path, f"{tmp_path.name}.jsonl")


def test_models(client: BatchClient) -> None:
    """The default model is among those that a key may use."""
    assert MODEL in {card["id"] for card in client.models()}


def test_uploaded_file_is_found(client: BatchClient, file_id: str, tmp_path: Path) -> None:
    """An uploaded file is there by its id, by its name and size, and comes back byte for byte."""
    assert client.file_exists(file_id)
    assert client.find_file(f"{tmp_path.name}.jsonl", len(LINES)) == file_id
    assert client.find_file(f"{tmp_path.name}.jsonl", len(LINES) + 1) is None
    client.download(file_id, tmp_path / "copy")
    assert (tmp_path / "copy").read_text(encoding="utf-8") == LINES


def test_job_is_listed_with_its_metadata(client: BatchClient, file_id: str, tmp_path: Path) -> None:
    """A created job is read by its id and listed with its metadata; cancelling it twice is no error."""
    metadata = {"duckdb_mistral_submission": tmp_path.name[:30], "team": "tests"}
    job = client.create(file_id=file_id, endpoint=CHAT, model=MODEL, metadata=metadata, timeout_hours=24)
    assert dict(job.metadata).items() >= metadata.items()
    assert job.input_files == (file_id,)
    assert job.created_at is not None
    assert client.get(job.job_id).job_id == job.job_id
    listed = {report.job_id: report for report in client.jobs(created_after=job.created_at - 60_000_000)}
    assert dict(listed[job.job_id].metadata).items() >= metadata.items()
    assert client.server_time is not None
    for _ in range(2):
        assert client.cancel(job.job_id).status in ("CANCELLATION_REQUESTED", "CANCELLED", "SUCCESS")


def test_unknown_ids(client: BatchClient) -> None:
    """What the workspace does not have is said to be unknown, and not to be forbidden."""
    with pytest.raises(NotFoundError):
        client.get(NOBODY)
    assert not client.file_exists(NOBODY)


def test_create_of_an_unknown_file(client: BatchClient) -> None:
    """A job over a file that is not there is refused, so it is certain that there is none."""
    with pytest.raises(NotFoundError):
        client.create(file_id=NOBODY, endpoint=CHAT, model=MODEL, metadata={}, timeout_hours=24)


def test_wrong_key(settings: Settings) -> None:
    """A wrong key is told as one."""
    wrong = Settings.resolve({"api_key": "wrong", "server_url": settings.server_url, "home": settings.home})
    with Context(wrong).client as client, pytest.raises(AuthenticationError, match="Check MISTRAL_API_KEY"):
        client.models()
