"""A form whose file goes to disk as it arrives: read once, written once, never entirely in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

BLOCK_BYTES = 1 << 20
#: The most bytes kept of a form field that is not a file.
LONGEST_FIELD = 1 << 16


class Form:
    """The parts of a form: its fields, and the name, size and lines of its file."""

    def __init__(self, target: BinaryIO, most: int) -> None:
        """Write at most `most` bytes of the form's file to `target`."""
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self.lines = 0
        self.is_whole = False
        self._target = target
        self._most = most
        self._last = b"\n"
        self._is_file = False
        self._name = ""
        self._value = b""
        self._header = [b"", b""]
        self._disposition = b""

    def on_part_begin(self) -> None:
        """Start a new part."""
        self._value = self._disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """Append a piece of a header's name."""
        self._header[0] += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Append a piece of a header's value."""
        self._header[1] += data[start:end]

    def on_header_end(self) -> None:
        """Keep the one header that matters."""
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def on_headers_finished(self) -> None:
        """Note what part this is; a second file replaces the first."""
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode()
        self._is_file = self._name == "file" and b"filename" in options
        if self._is_file:
            self.filename = options[b"filename"].decode()
            self.size = self.lines = 0
            self._last = b"\n"
            self._target.seek(0)
            self._target.truncate()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Write a piece of the file, or append one to a field."""
        piece = data[start:end]
        if not self._is_file:
            self._value = (self._value + piece)[:LONGEST_FIELD]
            return
        self.size += len(piece)
        if self.size <= self._most:
            self.lines += piece.count(b"\n")
            self._last = piece[-1:] or self._last
            self._target.write(piece)

    def on_part_end(self) -> None:
        """Count a last line without a newline, or keep the field."""
        if self._is_file:
            self.lines += self._last != b"\n"
        else:
            self.fields[self._name] = self._value.decode()

    def on_end(self) -> None:
        """Note that the form is complete."""
        self.is_whole = True


async def received(request: Request, path: Path, most: int) -> Form:
    """Read a request's form, with its file into `path`; raise ValueError if it is not a form or ends too early."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ValueError("The body is not multipart/form-data with a boundary.")
    with path.open("wb") as target:
        form = Form(target, most)
        parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": form.on_part_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_headers_finished": form.on_headers_finished,
                "on_part_data": form.on_part_data,
                "on_part_end": form.on_part_end,
                "on_end": form.on_end,
            },
        )
        block = bytearray()
        async for piece in request.stream():
            block += piece
            if len(block) >= BLOCK_BYTES:
                await run_in_threadpool(parser.write, bytes(block))
                block.clear()
        await run_in_threadpool(parser.write, bytes(block))
        parser.finalize()
    if not form.is_whole:
        raise ValueError("The form ends too early.")
    return form
