"""The HTTP routes of the batch server: files, batch jobs and models, in the shapes of the API's OpenAPI text."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from duckdb_mistral.emulator.checks import Refused, checked_job, detail
from duckdb_mistral.emulator.queries import among, boolean, chosen, moment, page_of, whole
from duckdb_mistral.emulator.shapes import MODELS, token, told_error, told_file, told_model
from duckdb_mistral.emulator.uploads import received
from duckdb_mistral.emulator.witness import Witness
from duckdb_mistral.emulator.work import PENDING, STATUSES, Worker

if TYPE_CHECKING:
    from starlette.requests import Request

    from duckdb_mistral.emulator.store import Document, Store

#: From the API's documentation: "The size of individual files can be a maximum of 512 MB."
LARGEST_FILE = 512 * 1024 * 1024
#: The OpenAPI text names the first three in its schema and all four in its description.
PURPOSES = ("fine-tune", "batch", "ocr", "audio")
VISIBILITIES = ("workspace", "user")
SAMPLE_TYPES = ("pretrain", "instruct", "batch_request", "batch_result", "batch_error")
SOURCES = ("upload", "repository", "mistral")


class Download(FileResponse):
    """A file sent in larger pieces than Starlette's default, which halves the time."""

    chunk_size = 1 << 20


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
        """Serve `store`, as one workspace for all keys unless separate; with `api_keys`, accept only those."""
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
        cards = [told_model(name) for name in MODELS if wanted in (None, name)]
        return JSONResponse({"object": "list", "data": cards})

    async def upload(self, request: Request) -> Response:
        """`POST /v1/files`: the form's file is streamed to disk."""
        workspace = self._workspace(request, "upload")
        path = self.store.scratch()
        try:
            form = await received(request, path, LARGEST_FILE)
            if form.filename is None:
                raise Refused(422, detail("file", "Field required", kind="missing"))
            (purpose,) = chosen([form.fields.get("purpose", "fine-tune")], "purpose", PURPOSES, place="body")
            visibility = form.fields.get("visibility", "workspace")
            chosen([visibility], "visibility", VISIBILITIES, place="body")
            hours = whole(form.fields, "expiry", 0, place="body")
            if form.size > LARGEST_FILE:
                raise Refused(413, told_error(413, "The file is larger than 512 MB."))
            document = self.store.add_file(
                path,
                name=form.filename or "file.jsonl",
                purpose=purpose,
                workspace=workspace,
                sample_type="batch_request" if purpose == "batch" else "instruct",
                num_lines=form.lines,
                visibility=visibility,
                expires_at=int(time.time()) + hours * 3600 if hours else None,
            )
        except (ValueError, ClientDisconnect) as error:
            raise Refused(422, detail("body", str(error))) from error
        finally:
            path.unlink(missing_ok=True)
        self.witness.uploaded(document)
        return JSONResponse(told_file(document))

    async def list_files(self, request: Request) -> Response:
        """`GET /v1/files`, paged and filtered."""
        workspace = self._workspace(request, "list_files")
        query = request.query_params
        sample_types = chosen(query.getlist("sample_type"), "sample_type", SAMPLE_TYPES)
        sources = chosen(query.getlist("source"), "source", SOURCES)
        purposes = chosen(query.getlist("purpose"), "purpose", PURPOSES)
        with_total = boolean(query, "include_total", default=True)
        found = [
            told
            for document in self.store.all("files")
            if document["workspace"] == workspace and query.get("search", "") in document["filename"]
            for told in [told_file(document)]
            if among(told["purpose"], purposes)
            and among(told["sample_type"], sample_types)
            and among(told["source"], sources)
            and among(told["mimetype"], query.getlist("mimetypes"))
        ]
        return JSONResponse(
            {"data": page_of(found, query), "object": "list", "total": len(found) if with_total else None}
        )

    async def file(self, request: Request) -> Response:
        """`GET` and `DELETE /v1/files/{file_id}`."""
        workspace = self._workspace(request, "delete_file" if request.method == "DELETE" else "file")
        document = self._find("files", request.path_params["file_id"], workspace)
        if request.method == "DELETE":
            self.store.delete("files", document["id"])
            return JSONResponse({"id": document["id"], "object": "file", "deleted": True})
        return JSONResponse(told_file(document) | {"deleted": False})

    async def content(self, request: Request) -> Response:
        """`GET /v1/files/{file_id}/content`, with a Content-Length."""
        given = request.query_params.get("token")
        file_id = request.path_params["file_id"]
        if given is None:
            document = self._find("files", file_id, self._workspace(request, "download"))
        else:
            document = self._signed(file_id, given)
        return Download(self.store.content(document["id"]), media_type="application/octet-stream")

    async def url(self, request: Request) -> Response:
        """`GET /v1/files/{file_id}/url`: an address that needs no key."""
        document = self._find("files", request.path_params["file_id"], self._workspace(request, "url"))
        whole(request.query_params, "expiry", 24)
        address = request.url.replace(path=f"/v1/files/{document['id']}/content", query=f"token={token(document)}")
        return JSONResponse({"url": str(address)})

    async def create(self, request: Request) -> Response:
        """`POST /v1/batch/jobs`."""
        try:
            received = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears that; what was cut off does not count as received
        workspace = self._workspace(request, "create")
        try:
            body = json.loads(received)
            # JSON has no NaN, and half a surrogate pair is not text.
            json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError):
            raise Refused(422, detail("body", "JSON decode error", kind="json_invalid")) from None
        fields = checked_job(body)
        if fields["requests"] is not None:
            fields["input_files"] = [self._inline_file(fields["requests"], workspace)]
        del fields["requests"]
        total = 0
        for file_id in fields["input_files"]:
            document = self._find("files", file_id, workspace)
            if document["purpose"] != "batch":
                raise Refused(400, told_error(400, f"File {file_id} was not uploaded with purpose batch."))
            total += document["num_lines"]
        if total > self._max_requests_per_job:
            raise Refused(400, told_error(400, f"A job takes {self._max_requests_per_job} requests, not {total}."))
        pending = self._pending(workspace)
        if pending + total > self._max_pending_requests:
            raise Refused(
                429,
                told_error(429, f"The workspace has {pending} of {self._max_pending_requests} requests pending."),
            )
        job = self.worker.create(fields, workspace=workspace, total=total)
        self.witness.created(pending + total)
        return JSONResponse(self.worker.report(job))

    async def list_jobs(self, request: Request) -> Response:
        """`GET /v1/batch/jobs`, paged and filtered."""
        workspace = self._workspace(request, "list_jobs")
        query = request.query_params
        (order,) = chosen([query.get("order_by", "-created")], "order_by", ("created", "-created"))
        statuses = chosen(query.getlist("status"), "status", STATUSES)
        boolean(query, "created_by_me", default=False)
        after = moment(query, "created_after")
        found = [
            report
            for job in self.store.all("jobs")
            if job["workspace"] == workspace and job["made_at"] >= after
            for report in [self.worker.report(job)]
            if query.get("model") in (None, report["model"])
            and query.get("agent_id") in (None, report["agent_id"])
            and among(report["status"], statuses)
        ]
        if order == "created":
            found.reverse()
        return JSONResponse({"data": page_of(found, query), "object": "list", "total": len(found)})

    async def job(self, request: Request) -> Response:
        """`GET /v1/batch/jobs/{job_id}`."""
        job = self._find("jobs", request.path_params["job_id"], self._workspace(request, "job"))
        report = self.worker.report(job)
        if boolean(request.query_params, "inline", default=False) and report["output_file"]:
            report["outputs"] = await run_in_threadpool(self._lines, report["output_file"])
        return JSONResponse(report)

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/batch/jobs/{job_id}/cancel`."""
        job = self._find("jobs", request.path_params["job_id"], self._workspace(request, "cancel"))
        return JSONResponse(self.worker.report(self.worker.cancel(job)))

    def _workspace(self, request: Request, route: str) -> str:
        """Count the request and return its key's workspace; refuse the request without a valid key."""
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

    def _signed(self, file_id: str, given: str) -> Document:
        document = self.store.get("files", file_id)
        if document is None or given != token(document):
            raise Refused(404, {"detail": "No such signed address"})
        return document

    def _lines(self, file_id: str) -> list[Any] | None:
        """Return the lines of a results file, or None once it is deleted."""
        if self.store.get("files", file_id) is None:
            return None
        return [json.loads(line) for line in self.store.content(file_id).read_bytes().splitlines()]

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
