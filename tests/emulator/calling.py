"""Plain HTTP to a local batch server, so that these tests see what any client would."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from duckdb_mistral.emulator import Emulator

BOUNDARY = "the-line-between-the-parts"
DEADLINE_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.content)


class Caller:
    """One client with one key; each request has a connection of its own."""

    def __init__(self, emulator: Emulator, key: str | None = "a-key") -> None:
        """Talk to `emulator`."""
        self.emulator = emulator
        self.key = key

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Any = None,
        body: bytes | str | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and read the whole answer."""
        connection = http.client.HTTPConnection(urlsplit(self.emulator.url).netloc, timeout=DEADLINE_SECONDS)
        given = ({"Authorization": f"Bearer {self.key}"} if self.key is not None else {}) | dict(headers or {})
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        try:
            connection.request(method, target, body=body, headers=given)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Answer:
        """GET `path`."""
        return self.ask("GET", path, query=query)

    def post(self, path: str, document: Any) -> Answer:
        """POST a JSON document."""
        return self.ask("POST", path, body=json.dumps(document), headers={"Content-Type": "application/json"})

    def post_form(self, *parts: tuple[str, bytes]) -> Answer:
        """Upload a form of parts, each the text that follows `form-data; ` and its content."""
        body = b"".join(
            b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (BOUNDARY.encode(), head.encode(), content)
            for head, content in parts
        )
        return self.ask(
            "POST",
            "/v1/files",
            body=body + f"--{BOUNDARY}--\r\n".encode(),
            headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
        )

    def upload(self, content: bytes, *, purpose: str = "batch", name: str = "requests.jsonl") -> str:
        """Upload a file and return its id."""
        answer = self.post_form(('name="purpose"', purpose.encode()), (f'name="file"; filename="{name}"', content))
        assert answer.status == 200, answer.content
        identifier: str = answer.json()["id"]
        return identifier

    def create(self, content: bytes, **fields: Any) -> dict[str, Any]:
        """Upload requests and create a job of them."""
        document = {"input_files": [self.upload(content)], "endpoint": "/v1/chat/completions", "model": "a-model"}
        answer = self.post("/v1/batch/jobs", document | fields)
        assert answer.status == 200, answer.content
        job: dict[str, Any] = answer.json()
        return job

    def ended(self, job: dict[str, Any]) -> dict[str, Any]:
        """Wait until a job has ended and return it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            job = self.get(f"/v1/batch/jobs/{job['id']}").json()
            if job["status"] in ("SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED"):
                return job
            time.sleep(0.01)
        raise AssertionError(job)

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        """Return the lines of a results file, by custom_id; of no file, none."""
        if file_id is None:
            return []
        answer = self.get(f"/v1/files/{file_id}/content")
        assert answer.status == 200, answer.content
        found = [json.loads(line) for line in answer.content.splitlines()]
        return sorted(found, key=lambda line: str(line["custom_id"]))

    def bodies(self, *bodies: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
        """Run a job of these request bodies and return the bodies of its answers, in order."""
        job = self.ended(self.create(requests_of(*bodies), **fields))
        assert job["status"] == "SUCCESS", job
        return [line["response"]["body"] for line in self.lines(job["output_file"])]


def requests_of(*bodies: dict[str, Any]) -> bytes:
    """Return the input file of these request bodies; their custom_ids are numbers of three digits."""
    lines = ({"custom_id": f"{number:03}", "body": body} for number, body in enumerate(bodies))
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def chats(*texts: str, **fields: Any) -> bytes:
    """Return the input file of one chat request per text."""
    return requests_of(*({"messages": [{"role": "user", "content": text}]} | fields for text in texts))
