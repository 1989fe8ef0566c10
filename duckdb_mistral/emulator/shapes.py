"""Files, jobs, models and errors in the shapes of the API's OpenAPI text."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb_mistral.emulator.store import Document

#: Some of the API's models, and what each is for.
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


def told_model(name: str) -> dict[str, Any]:
    """Return a model as the API shows it (schema BaseModelCard)."""
    ability = MODELS[name]
    return {
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


def told_file(document: Document) -> dict[str, Any]:
    """Return a file as the API shows it (schema FileSchema)."""
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
        "source": source(document),
        "signature": None,
        "expires_at": document.get("expires_at"),
        "visibility": document.get("visibility", "workspace"),
    }


def source(document: Document) -> str:
    """Return where a file comes from (schema Source)."""
    return "mistral" if document["sample_type"] in ("batch_result", "batch_error") else "upload"


def token(document: Document) -> str:
    """Return the token that a file's signed address ends with."""
    return hashlib.sha256(f"{document['id']} {document['made_at']}".encode()).hexdigest()[:32]


def told_job(job: Document, status: str, *, succeeded: int, failed: int, ended: bool) -> dict[str, Any]:
    """Return a job as the API shows it (schema BatchJobOut); a job that has not ended has no files yet."""
    outcome = job["outcome"] if ended else {}
    # In a recorded answer of the real API, a queued job has neither a total nor a start.
    is_queued = status == "QUEUED"
    return {
        "id": job["id"],
        "object": "batch",
        "input_files": job["input_files"],
        "metadata": job["metadata"],
        "endpoint": job["endpoint"],
        "model": job["model"],
        "agent_id": job["agent_id"],
        "output_file": outcome.get("output_file"),
        "error_file": outcome.get("error_file"),
        "errors": outcome.get("errors", []),
        "outputs": None,
        "status": status,
        "created_at": int(job["made_at"]),
        "total_requests": 0 if is_queued else outcome.get("total", job["total"]),
        "completed_requests": succeeded + failed,
        "succeeded_requests": succeeded,
        "failed_requests": failed,
        "started_at": None if is_queued else int(job["made_at"]),
        "completed_at": outcome.get("ended_at"),
    }


def told_error(status: int, message: str) -> dict[str, Any]:
    """Return the body of an error other than 422."""
    return {
        "object": "error",
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": str(status),
    }
