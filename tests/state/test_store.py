"""The store: what is put is there whole or not at all, what is brought is whole, and trouble is told in sentences."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest
from object_server import KEY, SECRET, ObjectServer, Relay, free_port, serving
from pyarrow import fs
from support import clean_environment, run_python

from duckdb_mistral.errors import StoreError
from duckdb_mistral.state import names
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.store import Store

if TYPE_CHECKING:
    from pathlib import Path

NAME = "results/job.parquet"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return an empty directory that is a store."""
    path = tmp_path / "store of the team"
    path.mkdir()
    return path


@pytest.fixture(params=["file", "bucket", "google_bucket"])
def url(request: pytest.FixtureRequest, directory: Path) -> str:
    """Return the URL of an empty store, of each kind that is tested."""
    return f"file://{directory}" if request.param == "file" else str(request.getfixturevalue(request.param))


def file(home: Path, content: bytes = b"content", name: str = NAME) -> Path:
    """Return a file of a home, just written."""
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def any_file(_: Path) -> bool:
    """Take any file for whole."""
    return True


def objects(url: str) -> dict[str, bytes]:
    """Return what lies in a store, by name, as another program sees it."""
    filesystem, root = fs.FileSystem.from_uri(url.replace(" ", "%20"))
    found = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    names_there = [one.path.removeprefix(f"{root}/") for one in found if one.is_file]
    return {name: filesystem.open_input_file(f"{root}/{name}").read() for name in names_there}


def test_a_file_comes_back_as_it_was(url: str, home: Path) -> None:
    """A file that one home puts lies in the store by the name that it has there, and another home gets it as it was."""
    content = os.urandom(3 << 20)
    Store(url, home).put(file(home, content))
    assert objects(url) == {NAME: content}
    other = home.with_name("other")
    store = Store(url, other)
    assert store.sizes([other / NAME, other / "results/none.parquet"]) == [len(content), None]
    assert store.get(other / NAME, any_file)
    assert (other / NAME).read_bytes() == content
    assert (other / NAME).stat().st_mode & 0o777 == 0o600
    assert [path.stat().st_mode & 0o777 for path in (other, other / "results")] == [0o700, 0o700]
    assert store.files() == {other / NAME: len(content)}


def test_a_file_from_elsewhere_has_the_name_that_it_will_have(url: str, home: Path) -> None:
    """What lies in a scratch directory can be put by the name of where it is going."""
    Store(url, home).put(home / NAME, file(home, b"scratch", "results/scratch-7/answers.jsonl"))
    assert objects(url) == {NAME: b"scratch"}


def test_threads_that_begin_at_once(bucket: str, home: Path) -> None:
    """Threads may be the first to use a store at the same moment, be it the same store or not."""
    code = f"""if True:
        import threading
        from pathlib import Path
        from duckdb_mistral.state.store import Store

        stores = [Store({bucket!r}, Path({str(home)!r}) / str(number % 3)) for number in range(6)]
        begin = threading.Barrier(len(stores) * 2)

        def look(store):
            begin.wait()
            path = store._home / {NAME!r}
            assert store.sizes([path]) == [None]

        threads = [threading.Thread(target=look, args=[store]) for store in stores * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("all came back")
    """
    child = run_python(code, clean_environment())
    assert (child.returncode, child.stdout, child.stderr) == (0, "all came back\n", "")


def test_what_is_not_whole_is_not_brought(url: str, home: Path) -> None:
    """A file that is not what was asked for leaves nothing behind, and what lay there before stays."""
    Store(url, home).put(file(home, b"cut"))
    kept = file(home, b"what was here")
    assert not Store(url, home).get(kept, lambda path: path.stat().st_size == 4)
    assert not Store(url, home).get(home / "results/other.parquet", any_file)
    assert kept.read_bytes() == b"what was here"
    assert list(kept.parent.iterdir()) == [kept]


def test_a_later_file_takes_the_place_of_the_first(url: str, home: Path) -> None:
    """A file can be put again, and is read as it was put last."""
    store = Store(url, home)
    store.put(file(home, b"first"))
    store.put(file(home, b"the second"))
    assert objects(url) == {NAME: b"the second"}


def test_a_file_on_its_way_that_is_removed(url: str, home: Path) -> None:
    """A file that a clean removes on its way is brought once more."""
    Store(url, home).put(file(home))
    taken: list[Path] = []

    def remove_once(path: Path) -> bool:
        taken.append(path)
        if len(taken) == 1:
            path.unlink()
        return True

    assert Store(url, home).get(home / NAME, remove_once)
    assert len(taken) == 2
    assert {names.stem_of(path) for path in taken} == {"job"}
    assert all(map(names.is_unfinished, taken))


def test_no_bucket(url: str, directory: Path, home: Path) -> None:
    """Where there is no bucket, or no directory, that is said; nothing counts as absent, and nothing is made."""
    what = "directory" if url.startswith("file:") else "bucket"
    nowhere = f"file://{directory}/none" if what == "directory" else url.replace("://bucket-", "://no-bucket-")
    store = Store(nowhere, home)
    for call in (lambda: store.sizes([home / NAME]), lambda: store.get(home / NAME, any_file), store.files):
        with pytest.raises(StoreError, match=rf"(in the|The) store {re.escape(nowhere)} ") as caught:
            call()
        assert f"there is no {what}" in str(caught.value)
    with pytest.raises(StoreError, match=r"results/job.parquet could not be written to the store .* bucket|directory"):
        store.put(file(home))
    assert not (directory / "none").exists()


def test_a_copy_that_is_cut(url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where less arrives in the store than was put, that is an error: it must not be recorded."""
    path, short = file(home), file(home, b"cut", "results/short.parquet")
    copy_files, copyfile = fs.copy_files, shutil.copyfile
    monkeypatch.setattr(fs, "copy_files", lambda _, *others, **named: copy_files(str(short), *others, **named))
    monkeypatch.setattr(shutil, "copyfile", lambda _, target: copyfile(short, target))
    with pytest.raises(StoreError, match=r"could not be written to the store .* \(3 of 7 bytes arrived\)"):
        Store(url, home).put(path)


def test_home_itself(home: Path) -> None:
    """The directory of home is no store: what is cleaned there as a copy would be all that there is."""
    path = file(home)
    with pytest.raises(StoreError, match="it is home itself: choose another directory"):
        Store(f"file://{home}", home).files()
    with pytest.raises(StoreError, match="it is home itself"):
        Store(f"file://{home}", home).put(path)


def test_no_answer(bucket: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is down is told in a sentence, which names neither the key nor the secret."""
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(StoreError, match=rf"{NAME} could not be looked for in the store {bucket} \(.*\). Nothing"):
        Store(bucket, home).get(home / NAME, any_file)

    def repeat(*_: object, **__: object) -> None:
        raise OSError(f"Access denied to {KEY} with {SECRET}\nand more")

    monkeypatch.setattr(fs, "copy_files", repeat)
    with pytest.raises(StoreError, match=r"could not be written to the store s3://.* \(Access denied to … with …\)\."):
        Store(bucket, home).put(file(home))


def test_a_server_that_refuses(home: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses is told with what it says, and what it refuses to tell of does not count as absent."""

    class Refusing(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = refuse  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        store = Store(bucket, home)
        with pytest.raises(StoreError, match=r"could not be looked for in the store .*ACCESS_DENIED"):
            store.get(home / NAME, any_file)
        with pytest.raises(StoreError, match=r"could not be written to the store .*ACCESS_DENIED"):
            store.put(file(home))
        server.shutdown()


def test_a_server_that_the_url_names(
    object_server: ObjectServer, bucket: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server, its scheme and region can stand in the URL, which counts before the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    where = object_server.url.removeprefix("http://")
    store = Store(f"{bucket}?endpoint_override={where}&scheme=http&region=us-east-1", home)
    store.put(file(home))
    assert store.sizes([home / NAME]) == [len(b"content")]


def test_a_server_that_says_nothing(
    object_server: ObjectServer, bucket: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes a connection and answers nothing is given up in the end, and told of."""
    monkeypatch.setattr("duckdb_mistral.state.store.QUIET_SECONDS", 1)
    monkeypatch.setattr("duckdb_mistral.state.store.ATTEMPTS", 1)
    with object_server.silent(), pytest.raises(StoreError, match="could not be looked for in the store"):
        Store(bucket, home).sizes([home / NAME])
    assert Store(bucket, home).sizes([home / NAME]) == [None]


def test_a_directory_that_cannot_be_written(directory: Path, home: Path) -> None:
    """What the system says of a directory is told, and nothing of the file is left there."""
    (directory / "results").write_text("a file in the place of the directory")
    with pytest.raises(StoreError, match=rf"{NAME} could not be written to the store file:///.*\(File exists\)"):
        Store(f"file://{directory}", home).put(file(home))


KILLED = """
import sys
from pathlib import Path
from duckdb_mistral.state.store import Store
home, url, source = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
Store(url, home).put(home / "results/job.parquet", source)
print("put", flush=True)
"""


def kill_while_uploading(server: ObjectServer, url: str, source: Path, home: Path) -> None:
    """Kill a process that uploads a large file, once the server has received a part of it."""
    relay = Relay(server.url, 8 << 20)
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(home), url, str(source)],
        env=clean_environment() | {"AWS_ENDPOINT_URL": relay.url},
        stdout=subprocess.PIPE,
    )
    assert relay.is_full.wait(60)
    child.kill()
    said, _ = child.communicate()
    relay.close()
    assert (said, child.returncode) == (b"", -signal.SIGKILL)


def test_killed_while_uploading(object_server: ObjectServer, bucket: str, home: Path) -> None:
    """Of a process that is killed in the middle of an upload, no object is there; what was there before stays."""
    large = file(home, bytes(24 << 20), "results/large.parquet")
    kill_while_uploading(object_server, bucket, large, home)
    assert objects(bucket) == {}
    Store(bucket, home).put(file(home))
    kill_while_uploading(object_server, bucket, large, home)
    assert objects(bucket) == {NAME: b"content"}


@pytest.mark.parametrize("point", ["before-put", "put-unfinished"])
def test_killed_while_copying(point: str, directory: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that is killed in the middle of a copy, no file is there under its name, and none is listed."""
    path = file(home, bytes(100))
    url = f"file://{directory}"
    found = subprocess.run(
        [sys.executable, "-c", KILLED, str(home), url, str(path)],
        env=clean_environment() | {"DUCKDB_MISTRAL_FAILPOINT": point},
        check=False,
    )
    assert found.returncode == -signal.SIGKILL
    assert Store(url, home).files() == {}
    assert Store(url, home).sizes([path]) == [None]
    Store(url, home).put(path)
    assert Store(url, home).sizes([path]) == [100]


def test_check(url: str, home: Path, tmp_path: Path) -> None:
    """A check leaves nothing in a store that can be written, read and listed."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    Store(url, home).check(scratch)
    assert objects(url) == {}


def test_no_store_no_import(home: Path) -> None:
    """Nothing of pyarrow's file systems is imported by a context that has no store."""
    code = (
        "import sys; from duckdb_mistral.batches.context import Context; "
        "from duckdb_mistral.settings import Settings; from pathlib import Path; "
        f"context = Context(Settings(home=Path({str(home)!r}))); context.ledger.jobs(); "
        "assert context.home.store is None; print('pyarrow.fs' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], env=clean_environment(), capture_output=True, check=True)
    assert found.stdout == b"False\n"
    assert Home(home).store is None


def test_moto_is_the_server_of_the_tests() -> None:
    """A server for tests answers within a minute of its start, and is gone after it."""
    with serving() as server:
        assert server.filesystem().get_file_info("none").type is fs.FileType.NotFound
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
