"""The server against the API's own OpenAPI text: generated requests, and every answer in the shape it promises."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from emulator.calling import Caller, chats
from hypothesis import HealthCheck, Phase, given, settings

from duckdb_mistral.emulator import Emulator

schemathesis = pytest.importorskip("schemathesis", reason="it needs newer packages than the oldest environment has")

if TYPE_CHECKING:
    from collections.abc import Iterator

OPENAPI = Path(__file__).parent.parent / "data" / "mistral-openapi-extract.yaml"
#: What the server has; the text also describes the endpoints whose requests a batch is made of.
OPERATIONS = [
    ("GET", "/v1/models"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files"),
    ("GET", "/v1/files/{file_id}"),
    ("DELETE", "/v1/files/{file_id}"),
    ("GET", "/v1/files/{file_id}/content"),
    ("GET", "/v1/files/{file_id}/url"),
    ("GET", "/v1/batch/jobs"),
    ("POST", "/v1/batch/jobs"),
    ("GET", "/v1/batch/jobs/{job_id}"),
    ("POST", "/v1/batch/jobs/{job_id}/cancel"),
]


@cache
def api() -> Any:
    """Return the API's text, read once."""
    return schemathesis.openapi.from_path(str(OPENAPI))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Yield a server that all generated requests of this file go to."""
    with Emulator(tmp_path_factory.mktemp("openapi")) as emulator:
        yield emulator


def make_usable(case: Any, job: dict[str, Any]) -> None:
    """Put what exists on the server into a generated request: a generated id is never that of a file or a job."""
    for name, identifier in (("file_id", job["output_file"]), ("job_id", job["id"])):
        if name in case.path_parameters:
            case.path_parameters[name] = identifier
    if isinstance(case.body, dict) and "endpoint" in case.body:
        case.body |= {"input_files": job["input_files"], "requests": None, "model": "a-model"}


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_generated_requests(server: Emulator, method: str, path: str, mode: str) -> None:
    """No generated request, good or bad, breaks the server, and every answer is as the OpenAPI text has it."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

    caller = Caller(server)
    job = caller.ended(caller.create(chats("a")))
    operation = api()[path][method]
    checks = [not_a_server_error, response_schema_conformance, content_type_conformance]
    statuses = set()

    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: Any) -> None:
        if mode == "positive":
            make_usable(case, job)
        response = case.call(base_url=server.url, headers={"Authorization": "Bearer a-key"})
        statuses.add(response.status_code)
        case.validate_response(response, checks=checks)

    run()
    assert 200 in statuses or mode == "negative"
    assert statuses - {200, 401} or mode == "positive" or operation.path == "/v1/models"
