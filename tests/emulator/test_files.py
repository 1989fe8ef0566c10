"""Files: upload, list, read, download, delete."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from emulator.calling import Caller, chats

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

#: HTTP and files, which are the same whatever the version of DuckDB.
pytestmark = pytest.mark.newest

FILE = 'name="file"; filename="rows.jsonl"'


def test_upload_and_download(caller: Caller) -> None:
    """What is uploaded comes back byte for byte, with its size and lines told."""
    content = 'one\n"\u2028é"\r\nno newline at the end'.encode()
    answer = caller.post_form(('name="purpose"', b"batch"), (FILE, content)).json()
    told = {name: answer[name] for name in ("object", "bytes", "num_lines", "filename", "purpose", "sample_type")}
    assert told == {
        "object": "file",
        "bytes": len(content),
        "num_lines": 3,
        "filename": "rows.jsonl",
        "purpose": "batch",
        "sample_type": "batch_request",
    }
    downloaded = caller.get(f"/v1/files/{answer['id']}/content")
    assert downloaded.content == content
    assert downloaded.headers["content-type"] == "application/octet-stream"
    assert downloaded.headers["content-length"] == str(len(content))


def test_large_upload(caller: Caller) -> None:
    """A file of many chunks, in which the line between the parts nearly occurs, comes back as it was."""
    block = bytes(range(256)) * 1000 + b"\r\n--the-line-between-the-part\r\n"
    content = block * 20
    assert len(content) > 5_000_000
    file_id = caller.upload(content)
    assert caller.get(f"/v1/files/{file_id}/content").content == content
    assert caller.get(f"/v1/files/{file_id}").json()["num_lines"] == content.count(b"\n")


def test_form_fields(caller: Caller) -> None:
    """Purpose, visibility and expiry of the form are told with the file."""
    before = int(time.time())
    parts = ("purpose", b"ocr"), ("visibility", b"user"), ("expiry", b"2")
    answer = caller.post_form(*((f'name="{name}"', value) for name, value in parts), (FILE, b"x")).json()
    assert (answer["purpose"], answer["visibility"], answer["sample_type"]) == ("ocr", "user", "instruct")
    assert before + 7200 <= answer["expires_at"] <= time.time() + 7200


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ((('name="purpose"', b"batch"),), "file"),
        ((('name="purpose"', b"batch"), ('name="file"', b"no filename, so no file")), "file"),
        ((('name="purpose"', b"poetry"), (FILE, b"x")), "purpose"),
        ((('name="visibility"', b"everyone"), (FILE, b"x")), "visibility"),
        ((('name="expiry"', b"soon"), (FILE, b"x")), "expiry"),
    ],
)
def test_bad_form(caller: Caller, parts: Any, field: str) -> None:
    """A bad field of the form is refused by name, and no file is kept."""
    answer = caller.post_form(*parts)
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"] == ["body", field]
    assert caller.get("/v1/files").json()["total"] == 0


@pytest.mark.parametrize("content_type", ["multipart/form-data", "application/json", "multipart/form-data; boundary=x"])
def test_no_form(caller: Caller, content_type: str) -> None:
    """A body that is no form is refused."""
    answer = caller.ask("POST", "/v1/files", body=b"{}", headers={"Content-Type": content_type})
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


def test_cut_form(caller: Caller, tmp_path: Path) -> None:
    """A form that ends before its last line is refused, and nothing is kept of it."""
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = caller.ask("POST", "/v1/files", body=body, headers=headers)
    assert (answer.status, answer.json()["detail"][0]["loc"]) == (422, ["body", "body"])
    assert list((tmp_path / "server" / "files").iterdir()) == []


def test_two_files_in_a_form(caller: Caller) -> None:
    """Of two files in one form the second is kept, whole and alone."""
    answer = caller.post_form((FILE, b"first\nand longer"), (FILE, b"second")).json()
    assert (answer["bytes"], answer["num_lines"]) == (6, 1)
    assert caller.get(f"/v1/files/{answer['id']}/content").content == b"second"


def test_client_hangs_up(caller: Caller, emulator: Emulator, tmp_path: Path) -> None:
    """An upload whose client hangs up leaves nothing behind."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", int(emulator.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a\r\nContent-Length: 99999\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + head + b"half"
        )
        deadline = time.monotonic() + 30
        while not list((tmp_path / "server" / "files").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    while list((tmp_path / "server" / "files").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert caller.get("/v1/files").json()["total"] == 0


def test_too_large(caller: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file above the limit is refused with 413 and leaves nothing behind."""
    monkeypatch.setattr("duckdb_mistral.emulator.server.LARGEST_FILE", 1000)
    assert caller.post_form((FILE, b"x" * 1001)).status == 413
    assert list((tmp_path / "server" / "files").iterdir()) == []
    assert caller.post_form((FILE, b"x" * 1000)).status == 200


def test_list_pages(caller: Caller) -> None:
    """Files are listed newest first, in pages counted from 0."""
    ids = [caller.upload(b"x") for _ in range(5)]
    pages = [caller.get("/v1/files", page=page, page_size=2).json() for page in range(4)]
    assert [[file["id"] for file in page["data"]] for page in pages] == [ids[:2:-1], ids[2:0:-1], ids[:1], []]
    assert [page["total"] for page in pages] == [5] * 4
    assert caller.get("/v1/files", include_total="false").json()["total"] is None


def test_list_filters(caller: Caller) -> None:
    """Files are found by purpose, name, sample type, source and media type."""
    training = caller.upload(b"x", purpose="fine-tune", name="training.jsonl")
    job = caller.ended(caller.create(chats("a", "[[error 400]]")))
    (requests,) = job["input_files"]

    def found(**query: Any) -> set[str]:
        return {file["id"] for file in caller.get("/v1/files", **query).json()["data"]}

    assert found(purpose="fine-tune") == {training}
    assert found(search="train") == {training}
    assert found(sample_type="batch_request") == {requests}
    assert found(sample_type=["batch_result", "batch_error"]) == {job["output_file"], job["error_file"]}
    assert found(source="mistral") == {job["output_file"], job["error_file"]}
    assert found(source="upload") == {training, requests}
    assert found(mimetypes="text/csv") == set()
    assert len(found(mimetypes="application/jsonl")) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page", "-1"),
        ("page", "x"),
        ("page_size", ""),
        ("include_total", "perhaps"),
        ("purpose", "poetry"),
        ("sample_type", "x"),
        ("source", "x"),
    ],
)
def test_bad_query(caller: Caller, name: str, value: str) -> None:
    """A bad parameter of the list is refused by name."""
    answer = caller.get("/v1/files", **{name: value})
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"] == ["query", name]


def test_delete(caller: Caller) -> None:
    """A deleted file is gone from everywhere."""
    file_id = caller.upload(b"x")
    assert caller.get(f"/v1/files/{file_id}").json()["deleted"] is False
    assert caller.ask("DELETE", f"/v1/files/{file_id}").json() == {"id": file_id, "object": "file", "deleted": True}
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content", f"/v1/files/{file_id}/url"):
        assert caller.get(path).status == 404
    assert caller.ask("DELETE", f"/v1/files/{file_id}").status == 404
    assert caller.get("/v1/files").json()["data"] == []


def test_unknown_file(caller: Caller) -> None:
    """An id that is no UUID is refused, and one that is unknown is not found."""
    assert caller.get("/v1/files/..%2Fjobs/content").status in (404, 422)
    assert caller.get("/v1/files/x").json()["detail"][0]["loc"] == ["path", "id"]
    assert caller.get("/v1/files/00000000-0000-4000-8000-000000000000").status == 404


def test_signed_address(caller: Caller, emulator: Emulator) -> None:
    """The signed address of a file needs no key; another token opens nothing."""
    file_id = caller.upload(b"content")
    address = caller.get(f"/v1/files/{file_id}/url", expiry=1).json()["url"]
    assert address.startswith(emulator.url)
    stranger = Caller(emulator, key=None)
    assert stranger.get(address.removeprefix(emulator.url)).content == b"content"
    assert stranger.get(f"/v1/files/{file_id}/content", token="a guess").status == 404
    assert caller.get(f"/v1/files/{file_id}/url", expiry="x").status == 422
