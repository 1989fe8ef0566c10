"""What the API refuses in a new job (schema BatchJobIn), and how it says so."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/fim/completions",
    "/v1/moderations",
    "/v1/chat/moderations",
    "/v1/ocr",
    "/v1/classifications",
    "/v1/chat/classifications",
    "/v1/conversations",
    "/v1/audio/transcriptions",
)
MOST_INLINE_REQUESTS = 10_000
LONGEST_METADATA_KEY = 32
LONGEST_METADATA_VALUE = 512
#: What a job may ask of the echo in its metadata, under `emulate`: an ending, with how many requests are answered
#: by then, or how long the job appears to run.
EMULATE = r"(SUCCESS|FAILED|TIMEOUT_EXCEEDED|CANCELLED)( \d{1,9})?|seconds \d{1,9}(\.\d{1,9})?"


class Refused(Exception):
    """A request that is answered with an error, whose JSON is `body`."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def detail(field: str, message: str, *, kind: str = "value_error", place: str = "body") -> dict[str, Any]:
    """Return the body of a 422 (schema HTTPValidationError)."""
    return {"detail": [{"loc": [place, field], "msg": message, "type": kind}]}


def checked_job(body: Any) -> dict[str, Any]:
    """Return the fields of a new job with their defaults; raise Refused for the first that the API does not accept."""
    if not isinstance(body, dict):
        raise Refused(422, detail("body", "Input should be a valid dictionary", kind="dict_type"))
    endpoint = body.get("endpoint")
    if endpoint not in ENDPOINTS:
        raise Refused(422, detail("endpoint", f"Input should be one of {', '.join(ENDPOINTS)}", kind="enum"))
    for name in ("model", "agent_id"):
        if not isinstance(body.get(name), str | None):
            raise Refused(422, detail(name, "Input should be a valid string", kind="string_type"))
    timeout_hours = body.get("timeout_hours", 24)
    if isinstance(timeout_hours, bool) or not isinstance(timeout_hours, int):
        raise Refused(422, detail("timeout_hours", "Input should be a valid integer", kind="int_type"))
    _check_metadata(body.get("metadata"))
    input_files, requests = body.get("input_files"), body.get("requests")
    if (input_files is None) == (requests is None):
        raise Refused(422, detail("input_files", "Give either input_files or requests"))
    if requests is not None:
        _check_requests(requests)
    elif not isinstance(input_files, list) or not input_files or not all(map(_is_uuid, input_files)):
        raise Refused(422, detail("input_files", "Input should be a list of UUIDs", kind="list_type"))
    if not body.get("model") and not body.get("agent_id"):
        raise Refused(422, detail("model", "Give a model or an agent_id"))
    return {
        "endpoint": endpoint,
        "model": body.get("model"),
        "agent_id": body.get("agent_id"),
        "metadata": body.get("metadata"),
        "timeout_hours": timeout_hours,
        "input_files": [str(UUID(file_id)) for file_id in input_files or ()],
        "requests": requests,
    }


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise Refused(422, detail("metadata", "Input should be a valid dictionary", kind="dict_type"))
    for key, value in metadata.items():
        if not 1 <= len(key) <= LONGEST_METADATA_KEY:
            raise Refused(422, detail("metadata", "Keys should have 1 to 32 characters", kind="string_too_long"))
        if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_METADATA_VALUE:
            raise Refused(422, detail("metadata", "Values should be text of 1 to 512 characters", kind="string_type"))
    if "emulate" in metadata and not re.fullmatch(EMULATE, metadata["emulate"]):
        message = (
            "emulate should be an ending (SUCCESS, FAILED, TIMEOUT_EXCEEDED, CANCELLED), with a number of answered "
            "requests or without, or 'seconds' and a number"
        )
        raise Refused(422, detail("metadata", message))


def _check_requests(requests: Any) -> None:
    if not isinstance(requests, list) or not 1 <= len(requests) <= MOST_INLINE_REQUESTS:
        raise Refused(422, detail("requests", "Input should be a list of 1 to 10000 requests", kind="list_type"))
    for request in requests:
        if not isinstance(request, dict) or not isinstance(request.get("body"), dict):
            raise Refused(422, detail("requests", "Each request needs a body", kind="missing"))
        if not isinstance(request.get("custom_id"), str | None):
            raise Refused(422, detail("requests", "custom_id should be a valid string", kind="string_type"))


def _is_uuid(value: Any) -> bool:
    try:
        UUID(value)
    except (ValueError, AttributeError, TypeError):
        return False
    return True
