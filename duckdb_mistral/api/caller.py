"""One call to the API, read from its raw answer; a failure becomes an error that a person reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.pacing import OversizedError
from duckdb_mistral.api.refusals import refusal
from duckdb_mistral.api.secrets import KeyHider
from duckdb_mistral.errors import ApiError, OversleptError, UnreachableError
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.runtime.json_text import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb_mistral.api.transport import Transport


class Caller:
    """Makes calls over one transport, and removes the key from their answers."""

    def __init__(self, transport: Transport, server_url: str, key: str) -> None:
        """Name `server_url` in errors; show `key` nowhere."""
        self._transport = transport
        self._server_url = server_url
        self._hider = KeyHider(key)
        self._authorization: Callable[[], dict[str, str]] = lambda: {"authorization": f"Bearer {key}"}

    def call(self, what: str, call: Callable[[], object]) -> dict[str, Any]:
        """Make one call, through the SDK or without it, and return the JSON object of its answer.

        It does not matter what the SDK's models make of the answer: a job whose answer has an unknown shape was
        still created.
        """
        failpoint("before-request")
        self._transport.forget()
        problem: Exception | None = None
        try:
            call()
        except self._transport.error as error:
            raise self.unreachable(what, error) from None
        except OversizedError:
            raise self.oversized(what) from None
        except Exception as error:  # noqa: BLE001  mapped below, by the raw answer
            problem = error
        failpoint("after-request")
        response = self._transport.last
        if response is None or not response.is_success:
            raise self.refused(what, problem) from None
        try:
            body = self._hider.body(read_json(response.content))
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise ApiError(f"Could not {what}: the answer of {self._server_url} is not a JSON object.") from None
        return body

    def get(self, what: str, path: str, **parameters: Any) -> dict[str, Any]:
        """Return the JSON object at the API's own path; a list among the parameters is one parameter per member."""
        headers = self._authorization() | {"accept": "application/json"}
        return self.call(
            what,
            lambda: self._transport.client.get(f"{self._server_url}{path}", params=parameters, headers=headers),
        )

    def post(self, what: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send JSON to the API's own path, exactly once, and return the JSON object of the answer."""
        return self.call(
            what,
            lambda: self._transport.client.post(f"{self._server_url}{path}", json=body, headers=self._authorization()),
        )

    def unreachable(self, what: str, error: Exception) -> UnreachableError:
        """Return the error for a call that the server did not answer, or not in time."""
        if isinstance(error, self._transport.overslept):
            return OversleptError(sent=False)
        reason = self._hider.text(str(error)) or type(error).__name__
        sent = not isinstance(error, self._transport.not_sent)
        advice = "" if sent else " Check the network and the server_url setting (MISTRAL_SERVER_URL)."
        return UnreachableError(
            f"Could not {what}: {self._server_url} gave no answer ({reason}).{advice}",
            sent=sent,
            timed_out=isinstance(error, self._transport.timed_out),
        )

    def oversized(self, what: str) -> ApiError:
        """Return the error for an answer that never ends."""
        return ApiError(
            f"Could not {what}: the answer of {self._server_url} is larger, or takes longer, than any real answer, and "
            "was not read to its end. Check the server_url setting (MISTRAL_SERVER_URL)."
        )

    def refused(self, what: str, error: Exception | None) -> ApiError:
        """Return the error for an unsuccessful answer."""
        response = self._transport.last
        if response is None:
            return ApiError(f"Could not {what}: {type(error).__name__} in the SDK.")
        return refusal(what, self._server_url, response, self._hider.text)
