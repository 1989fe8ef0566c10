"""The HTTP of the batch server: files, batch jobs and models, in the shapes of the API's OpenAPI text."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from duckdb_mistral.emulator.answers import BadInputError, count_requests
from duckdb_mistral.emulator.checks import Refused, checked_job, detail
from duckdb_mistral.emulator.store import Document, Store, count_lines
from duckdb_mistral.emulator.witness import Witness
from duckdb_mistral.emulator.work import PENDING, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.requests import Request

#: The API's text: "The size of individual files can be a maximum of 512 MB."
LARGEST_FILE = 512 * 1024 * 1024
PURPOSES = ("fine-tune", "batch", "ocr", "audio")
COPY_BYTES = 1 << 20
MODELS = {
    "mistral-small-latest": "completion_chat",
    "mistral-medium-latest": "completion_chat",
    "mistral-large-latest": "completion_chat",
    "ministral-8b-latest": "completion_chat",
    "ministral-3b-latest": "completion_chat",
    "codestral-latest": "completion_fim",
    "mistral-embed": None,
    "mistral-moderation-latest": "moderation",
    "mistral-ocr-latest": "ocr",
    "voxtral-mini-latest": "audio_transcription",
}


class Server:
    """The routes over one store."""

    def __init__(
        self,
        store: Store,
        worker: Worker,
        *,
        api_keys: tuple[str, ...] | None = None,
        separate_workspaces: bool = False,
        max_pending_requests: int = 1_000_000,
        max_requests_per_job: int = 1_000_000,
    ) -> None:
        """Serve `store`; any key is taken unless `api_keys` are given, and all see one workspace unless separate."""
        self.store = store
        self.worker = worker
        self.witness = Witness(store)
        self._api_keys = api_keys
        self._separate = separate_workspaces
        self._max_pending_requests = max_pending_requests
        self._max_requests_per_job = max_requests_per_job

    def app(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/files", self.upload, methods=["POST"]),
            Route("/v1/files", self.list_files, methods=["GET"]),
            Route("/v1/files/{file_id}", self.file, methods=["GET", "DELETE"]),
            Route("/v1/files/{file_id}/content", self.content, methods=["GET"]),
            Route("/v1/files/{file_id}/url", self.url, methods=["GET"]),
            Route("/v1/batch/jobs", self.create, methods=["POST"]),
            Route("/v1/batch/jobs", self.list_jobs, methods=["GET"]),
            Route("/v1/batch/jobs/{job_id}", self.job, methods=["GET"]),
            Route("/v1/batch/jobs/{job_id}/cancel", self.cancel, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={Refused: _refused, HTTPException: _no_route})

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        self._workspace(request, "models")
        wanted = request.query_params.get("model")
        cards = [
            {
                "id": name,
                "object": "model",
                "created": 1_756_746_619,
                "owned_by": "mistralai",
                "capabilities": {ability: True} if ability else {},
                "name": name,
                "max_context_length": 131_072,
                "aliases": [],
                "type": "base",
            }
            for name, ability in MODELS.items()
            if wanted in (None, name)
        ]
        return JSONResponse({"object": "list", "data": cards})

    async def upload(self, request: Request) -> Response:
        """`POST /v1/files`: the form's file is streamed to disk."""
        workspace = self._workspace(request, "upload")
        try:
            form = await request.form()
        except (HTTPException, UnicodeDecodeError) as error:
            raise Refused(422, detail("body", "the form cannot be read")) from error
        file, purpose = form.get("file"), form.get("purpose", "fine-tune")
        if not isinstance(file, UploadFile):
            raise Refused(422, detail("file", "Field required", kind="missing"))
        if purpose not in PURPOSES:
            raise Refused(422, detail("purpose", f"Input should be one of {', '.join(PURPOSES)}", kind="enum"))
        path = self.store.scratch()
        await run_in_threadpool(_save, file, path)
        await form.close()
        if path.stat().st_size > LARGEST_FILE:
            path.unlink()
            raise Refused(413, {"object": "error", "message": "The file is larger than 512 MB.", "code": "413"})
        document = await run_in_threadpool(
            lambda: self.store.add_file(
                path,
                name=file.filename or "file.jsonl",
                purpose=str(purpose),
                workspace=workspace,
                sample_type="batch_request" if purpose == "batch" else "instruct",
            )
        )
        self.witness.uploaded(document)
        return JSONResponse(_told_file(document))

    async def list_files(self, request: Request) -> Response:
        """`GET /v1/files`, paged and filtered."""
        workspace = self._workspace(request, "list_files")
        query = request.query_params
        found = [
            document
            for document in self.store.all("files")
            if document["workspace"] == workspace
            and query.get("purpose") in (None, document["purpose"])
            and query.get("search", "") in document["filename"]
            and (not query.getlist("sample_type") or document["sample_type"] in query.getlist("sample_type"))
            and (not query.getlist("source") or _source(document) in query.getlist("source"))
        ]
        page = [_told_file(document) for document in _page(found, query)]
        total = len(found) if query.get("include_total", "true").lower() != "false" else None
        return JSONResponse({"data": page, "object": "list", "total": total})

    async def file(self, request: Request) -> Response:
        """`GET` and `DELETE /v1/files/{file_id}`."""
        workspace = self._workspace(request, "delete_file" if request.method == "DELETE" else "file")
        document = self._find("files", request.path_params["file_id"], workspace)
        if request.method == "DELETE":
            self.store.delete("files", document["id"])
            return JSONResponse({"id": document["id"], "object": "file", "deleted": True})
        return JSONResponse(_told_file(document) | {"deleted": False})

    async def content(self, request: Request) -> Response:
        """`GET /v1/files/{file_id}/content`, with the length told."""
        token = request.query_params.get("token")
        file_id = request.path_params["file_id"]
        if token is None:
            document = self._find("files", file_id, self._workspace(request, "download"))
        else:
            document = self._signed(file_id, token)
        response = FileResponse(self.store.content(document["id"]), media_type="application/octet-stream")
        response.chunk_size = COPY_BYTES
        return response

    async def url(self, request: Request) -> Response:
        """`GET /v1/files/{file_id}/url`: an address that needs no key."""
        document = self._find("files", request.path_params["file_id"], self._workspace(request, "url"))
        _whole(request.query_params, "expiry", 24)
        address = request.url.replace(path=f"/v1/files/{document['id']}/content", query=f"token={_token(document)}")
        return JSONResponse({"url": str(address)})

    async def create(self, request: Request) -> Response:
        """`POST /v1/batch/jobs`."""
        workspace = self._workspace(request, "create")
        try:
            body = await request.json()
        except ValueError:
            raise Refused(422, detail("body", "JSON decode error", kind="json_invalid")) from None
        fields = checked_job(body)
        if fields["requests"] is not None:
            fields["input_files"] = [self._inline_file(fields["requests"], workspace)]
        del fields["requests"]
        for file_id in fields["input_files"]:
            document = self._find("files", file_id, workspace)
            if document["purpose"] != "batch":
                raise Refused(400, _error(400, f"File {file_id} was not uploaded with purpose batch."))
        total = await run_in_threadpool(self._total, fields["input_files"])
        if total > self._max_requests_per_job:
            raise Refused(400, _error(400, f"A job takes {self._max_requests_per_job} requests, not {total}."))
        pending = self._pending(workspace)
        if pending + total > self._max_pending_requests:
            raise Refused(
                429,
                _error(429, f"The workspace has {pending} of {self._max_pending_requests} requests pending."),
            )
        job = self.worker.create(fields, workspace=workspace, total=total)
        self.witness.created(job, pending + total)
        return JSONResponse(self.worker.report(job))

    async def list_jobs(self, request: Request) -> Response:
        """`GET /v1/batch/jobs`, paged and filtered."""
        workspace = self._workspace(request, "list_jobs")
        query = request.query_params
        if query.get("order_by", "-created") not in ("created", "-created"):
            raise Refused(
                422, detail("order_by", "Input should be 'created' or '-created'", kind="enum", place="query")
            )
        after = _time(query)
        found = [
            report
            for job in self.store.all("jobs")
            if job["workspace"] == workspace and job["made_at"] >= after
            for report in [self.worker.report(job)]
            if query.get("model") in (None, report["model"])
            and query.get("agent_id") in (None, report["agent_id"])
            and (not query.getlist("status") or report["status"] in query.getlist("status"))
        ]
        if query.get("order_by") == "created":
            found.reverse()
        return JSONResponse({"data": _page(found, query), "object": "list", "total": len(found)})

    async def job(self, request: Request) -> Response:
        """`GET /v1/batch/jobs/{job_id}`."""
        job = self._find("jobs", request.path_params["job_id"], self._workspace(request, "job"))
        report = self.worker.report(job)
        if request.query_params.get("inline", "").lower() == "true" and report["output_file"]:
            lines = self.store.content(report["output_file"]).read_text(encoding="utf-8").split("\n")
            report["outputs"] = [json.loads(line) for line in lines if line]
        return JSONResponse(report)

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/batch/jobs/{job_id}/cancel`."""
        job = self._find("jobs", request.path_params["job_id"], self._workspace(request, "cancel"))
        return JSONResponse(self.worker.report(self.worker.cancel(job)))

    def _workspace(self, request: Request, route: str) -> str:
        """Count the request and return the workspace that its key belongs to; refuse it without a key."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        self.witness.asked(route, key)
        if scheme.lower() != "bearer" or not key or (self._api_keys is not None and key not in self._api_keys):
            raise Refused(401, {"detail": "Unauthorized"})
        return self.witness.pseudonym(key) if self._separate else "workspace"

    def _find(self, kind: str, identifier: str, workspace: str) -> Document:
        try:
            identifier = str(UUID(identifier))
        except ValueError:
            raise Refused(
                422, detail("id", "Input should be a valid UUID", kind="uuid_parsing", place="path")
            ) from None
        document = self.store.get(kind, identifier)
        if document is None or document["workspace"] != workspace:
            raise Refused(404, {"detail": f"No {kind.removesuffix('s')} {identifier}"})
        return document

    def _signed(self, file_id: str, token: str) -> Document:
        document = self.store.get("files", file_id)
        if document is None or token != _token(document):
            raise Refused(404, {"detail": "No such signed address"})
        return document

    def _total(self, file_ids: list[str]) -> int:
        """Count the requests of a job; a file with a bad line is counted by lines, and its job will fail."""
        paths = [self.store.content(file_id) for file_id in file_ids]
        try:
            return count_requests(paths)
        except BadInputError:
            return sum(count_lines(path) for path in paths)

    def _pending(self, workspace: str) -> int:
        jobs = [job for job in self.store.all("jobs") if job["workspace"] == workspace]
        return sum(job["total"] for job in jobs if self.worker.report(job)["status"] in PENDING)

    def _inline_file(self, requests: list[dict[str, Any]], workspace: str) -> str:
        path = self.store.scratch()
        path.write_text("".join(json.dumps(request) + "\n" for request in requests), encoding="utf-8")
        document = self.store.add_file(
            path, name="inline.jsonl", purpose="batch", workspace=workspace, sample_type="batch_request"
        )
        identifier: str = document["id"]
        return identifier


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, status_code=error.status)


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)


def _save(file: UploadFile, path: Path) -> None:
    with path.open("wb") as target:
        while block := file.file.read(COPY_BYTES):
            target.write(block)


def _told_file(document: Document) -> dict[str, Any]:
    """Return a file as the API tells it (schema FileSchema)."""
    return {
        "id": document["id"],
        "object": "file",
        "bytes": document["bytes"],
        "created_at": int(document["made_at"]),
        "filename": document["filename"],
        "purpose": document["purpose"],
        "sample_type": document["sample_type"],
        "num_lines": document["num_lines"],
        "mimetype": "application/jsonl",
        "source": _source(document),
        "signature": None,
        "expires_at": None,
        "visibility": "workspace",
    }


def _source(document: Document) -> str:
    return "mistral" if document["sample_type"] in ("batch_result", "batch_error") else "upload"


def _token(document: Document) -> str:
    import hashlib

    return hashlib.sha256(f"{document['id']} {document['made_at']}".encode()).hexdigest()[:32]


def _error(status: int, message: str) -> dict[str, Any]:
    return {
        "object": "error",
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": str(status),
    }


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        number = int(query.get(name, default))
    except ValueError:
        number = -1
    if number < 0:
        raise Refused(422, detail(name, "Input should be a valid integer", kind="int_parsing", place="query"))
    return number


def _page(found: list[Any], query: Mapping[str, str]) -> list[Any]:
    page, size = _whole(query, "page", 0), _whole(query, "page_size", 100)
    return found[page * size : (page + 1) * size]


def _time(query: Mapping[str, str]) -> float:
    text = query.get("created_after")
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise Refused(
            422,
            detail("created_after", "Input should be a valid datetime", kind="datetime_parsing", place="query"),
        ) from None
