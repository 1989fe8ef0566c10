"""From an unsuccessful HTTP answer to the error that a person reads."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from duckdb_mistral.errors import (
    ApiError,
    AuthenticationError,
    BillingError,
    ForbiddenError,
    LimitError,
    NotFoundError,
)
from duckdb_mistral.runtime.json_text import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

#: An answer's text in an error message is cut to this length.
LONGEST_DETAIL = 500


def refusal(what: str, server_url: str, response: Any, hide_key: Callable[[str], str]) -> ApiError:
    """Return the error for `response`, the answer to an attempt to do `what`."""
    status = response.status_code
    if response.is_success:  # a body of the wrong type, which is not read, because it may have any length
        kind = response.headers.get("content-type", "no content type")
        return ApiError(f"Could not {what}: {server_url} answered with {kind}.")
    said = _detail(response, hide_key)
    match status:
        case 401:
            return AuthenticationError(
                f"Could not {what}: {server_url} refused the API key (HTTP 401{said}). "
                "Check MISTRAL_API_KEY and the workspace that it belongs to.",
                status_code=401,
            )
        case 402:
            return BillingError(
                f"Could not {what}: {server_url} does not do it until billing is on (HTTP 402{said}). Turn on billing "
                "for the key's workspace, at https://console.mistral.ai for Mistral, and run the same statement again: "
                "it continues from here, and uses what was uploaded.",
                status_code=402,
            )
        case 403:
            return ForbiddenError(
                f"Could not {what}: {server_url} does not allow it for this API key (HTTP 403{said}). The key's "
                "workspace decides which models, endpoints and files it may use: choose a different one, or set "
                "MISTRAL_API_KEY to a key that is allowed.",
                status_code=403,
            )
        case 404:
            return NotFoundError(f"Could not {what}: {server_url} does not know it (HTTP 404{said}).", status_code=404)
        case 410:
            return NotFoundError(f"Could not {what}: {server_url} no longer has it (HTTP 410{said}).", status_code=410)
        case 429:
            return LimitError(
                f"Could not {what}: a limit of the workspace is reached (HTTP 429{said}).",
                status_code=429,
                retry_after=_retry_after(response),
            )
    if response.is_redirect:
        said = " and points elsewhere, which is not followed: check the server_url setting"
    return ApiError(
        f"Could not {what}: {server_url} answered HTTP {status}{said}.",
        status_code=status,
        retry_after=_retry_after(response),
    )


def _detail(response: Any, hide_key: Callable[[str], str]) -> str:
    """Return what the server said about its refusal, shortened, for the brackets after the status."""
    try:
        body = read_json(response.content)
    except ValueError:
        return ""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    text = body if isinstance(body, str) else _violations(body) or json.dumps(body, ensure_ascii=False)
    return f": {hide_key(text)[:LONGEST_DETAIL]}"  # hide the key first: one cut in half is not found


def _violations(body: Any) -> str:
    """Return what an HTTPValidationError of the API says, location by location; '' for any other answer."""
    if not isinstance(body, list) or not all(
        isinstance(one, dict) and isinstance(one.get("loc"), list) and "msg" in one for one in body
    ):
        return ""
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in body)


def _retry_after(response: Any) -> float | None:
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return None if math.isnan(seconds) else max(0.0, seconds)
