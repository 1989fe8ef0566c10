"""Downloading a file to its end, within the limits of size and time for a real answer."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from duckdb_mistral.api.pacing import PATIENCE, PIECE_BYTES, Allowance, OversizedError, write_lines
from duckdb_mistral.errors import ApiError
from duckdb_mistral.runtime.failpoints import failpoint

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.api.caller import Caller
    from duckdb_mistral.api.transport import Transport


class Downloads:
    """Downloads files through the SDK."""

    def __init__(self, sdk: Any, transport: Transport, caller: Caller, deadline: float) -> None:
        """Allow a file of unknown size a multiple of `deadline`, in seconds."""
        self._sdk = sdk
        self._transport = transport
        self._caller = caller
        self._deadline = deadline

    def download(self, file_id: str, target: Path, requests: int | None) -> None:
        """Stream a file's bytes into `target`, in one attempt, as `BatchClient.download` describes."""
        what = f"download file {file_id}"
        failpoint("before-request")
        self._transport.forget()
        try:
            with self._transport.streaming():
                response = self._sdk.files.download(
                    file_id=file_id, retries=None, http_headers={"accept-encoding": "identity"}
                )
            with closing(response):
                allowance = self._allowance(file_id, response, requests)
                with target.open("wb") as file:
                    write_lines(allowance.spent(response.iter_bytes()), file)
        except self._transport.error as error:
            raise self._caller.unreachable(what, error) from None
        except OversizedError:
            raise self._caller.oversized(what) from None
        except OSError:  # from the file; errors of the network are the SDK's HTTP errors
            raise
        except Exception as error:  # noqa: BLE001  mapped by the raw answer
            if self._transport.last is not None:
                self._transport.last.close()
            raise self._caller.refused(what, error) from None
        failpoint("after-request")

    def described(self, file_id: str) -> dict[str, Any]:
        """Return what the server says of a file, in one attempt (API: `GET /v1/files/{file_id}`)."""
        return self._caller.get(f"look for file {file_id}", f"/v1/files/{quote(file_id, safe='')}")

    def _allowance(self, file_id: str, response: Any, requests: int | None) -> Allowance:
        """Return how much a download may take; raises OversizedError if its headers already announce more."""
        length = response.headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            allowance = Allowance.of(requests)
            if int(length[:20]) > allowance.most_bytes:
                raise OversizedError
            return allowance
        size = self._told_size(file_id)
        if size is None:
            return Allowance.of(requests, PATIENCE * self._deadline)
        return Allowance(most_bytes=2 * size + PIECE_BYTES)

    def _told_size(self, file_id: str) -> int | None:
        """Return the size in bytes that the server reports for a file; None if it reports none."""
        try:
            body = self.described(file_id)
        except ApiError:
            return None
        size = body.get("bytes")
        return size if isinstance(size, int) and size > 0 else None
