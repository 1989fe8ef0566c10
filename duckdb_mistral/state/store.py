"""The store: files that other machines may need, kept under the URL of the setting `store` too.

The one place that knows how they lie there: each has the name that it has under `home`. A file counts once the ledger
names it, or the name of what it belongs to; so it is put here first, and recorded after that. What is put is there
whole or not at all, and what is brought is whole under its name in `home`, or not there.

pyarrow is asked for a file system at the first use, and has the credentials from the environment. No message repeats
them.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit
from uuid import uuid4

from duckdb_mistral.errors import StoreError
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.settings import variable
from duckdb_mistral.state.names import brought_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: A server of Google's that is in trouble would be asked for a quarter of an hour.
GOOGLE_SECONDS = 30
#: A server of the S3 API that sends nothing for so long is given up, and asked again so often.
QUIET_SECONDS = 10
ATTEMPTS = 3
#: A file on its way is brought once more if a `clean` took it for what a killed process left.
TRIES = 2
#: What a store lies in, where that is not called a bucket.
KINDS = {"local": "directory", "abfs": "container"}
#: Variables whose values are not repeated, whatever a server says.
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_KEY",
)
ADVICE = (
    "Nothing is lost, and nothing is paid twice: run the statement again once the store can be used. "
    "`duckdb-mistral doctor` checks it."
)
#: One thread at a time opens a file system: where several do for the first time, pyarrow 15 dies.
_opening = threading.Lock()


class Store:
    """The store of one `home`."""

    def __init__(self, url: str, home: Path) -> None:
        """Open nothing yet; `url` is as the settings have checked it."""
        self.url = url
        self._home = home
        self._opened: tuple[int, Any, str] | None = None

    def __str__(self) -> str:
        """Return the URL, which has no credentials."""
        return self.url

    def put(self, path: Path, source: Path | None = None) -> None:
        """Copy a finished file, that lies at `source` or at `path`, to where `path` lies in the store.

        Others see it whole or not at all. Raises StoreError.
        """
        source = source or path
        with self._told(f"{self._name(path)} could not be written to the store {self}"):
            filesystem, root = self._opened_here()
            target = f"{root}/{self._name(path)}"
            failpoint("before-put", writes=True)
            if filesystem.type_name == "local":
                self._check_root(filesystem, root)
                _put_file(source, Path(target))
            else:
                # Not a stream of our own: closing that after an error would publish what it has so far.
                _copy(source, target, destination_filesystem=filesystem)
            arrived, expected = filesystem.get_file_info(target).size, source.stat().st_size
            if arrived != expected:
                raise OSError(f"{arrived or 0:,} of {expected:,} bytes arrived")

    def sizes(self, paths: Sequence[Path]) -> list[int | None]:
        """Return the bytes of files by what they are called under `home`; None for what the store does not have.

        Raises StoreError; so nothing counts as lost while the store cannot be asked.
        """
        named = ", ".join(map(self._name, paths))
        with self._told(f"{named} could not be looked for in the store {self}"):
            filesystem, root = self._opened_here()
            found = filesystem.get_file_info([f"{root}/{self._name(path)}" for path in paths])
            sizes = [one.size if one.is_file else None for one in found]
            if None in sizes:  # every name is absent where there is no bucket
                self._check_root(filesystem, root)
            return sizes

    def get(self, path: Path, is_whole: Callable[[Path], bool]) -> bool:
        """Bring a file to its place under `home`; False where the store does not have it, or not as `is_whole` wants.

        `is_whole` looks at it before it has its name. Raises StoreError.
        """
        if self.sizes([path]) == [None]:
            return False
        with self._told(f"{self._name(path)} could not be brought to {self._home} from the store {self}"):
            for left in range(TRIES - 1, -1, -1):
                brought = brought_path(path)
                try:
                    return self._get(path, brought, is_whole)
                except FileNotFoundError:
                    if not left:
                        raise
                finally:
                    brought.unlink(missing_ok=True)
        raise AssertionError("the last try returns or raises")

    def _get(self, path: Path, brought: Path, is_whole: Callable[[Path], bool]) -> bool:
        filesystem, root = self._opened_here()
        for directory in (self._home, *reversed(path.relative_to(self._home).parents[:-1])):
            (self._home / directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy(f"{root}/{self._name(path)}", brought, source_filesystem=filesystem)
        brought.chmod(0o600)
        if not is_whole(brought):
            return False
        failpoint("before-brought")
        brought.replace(path)
        return True

    def files(self) -> dict[Path, int]:
        """Return the bytes of all that the store has, by where it would lie under `home`; raises StoreError."""
        from pyarrow import fs

        with self._told(f"The store {self} could not be listed"):
            filesystem, root = self._opened_here()
            self._check_root(filesystem, root)
            found = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
            return {
                self._home / one.path.removeprefix(root).lstrip("/"): one.size
                for one in found
                if one.is_file and not one.base_name.startswith(".")
            }

    def check(self, scratch: Path) -> None:
        """Write, list, read and remove a file of our own, which lies in the directory `scratch` here.

        Raises StoreError.
        """
        from pyarrow import fs

        name = f"check-{uuid4().hex}.txt"
        written, read = scratch / name, scratch / f"{name}.read"
        written.write_bytes(b"duckdb_mistral doctor\n")
        self.put(self._home / name, written)
        with self._told(f"{name} could be written, but not listed, read or removed in the store {self}"):
            filesystem, root = self._opened_here()
            listed = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
            if name not in {one.base_name for one in listed}:
                raise OSError("it is not listed")
            _copy(f"{root}/{name}", read, source_filesystem=filesystem)
            if read.read_bytes() != written.read_bytes():
                raise OSError("it came back otherwise")
            filesystem.delete_file(f"{root}/{name}")

    # How it is done

    def _name(self, path: Path) -> str:
        return path.relative_to(self._home).as_posix()

    def _opened_here(self) -> tuple[Any, str]:
        """Return the file system and where the store is in it; a process that was forked opens its own."""
        if self._opened is None or self._opened[0] != os.getpid():
            with _opening:
                self._opened = (os.getpid(), *_opened(self.url))
        return self._opened[1:]

    def _check_root(self, filesystem: Any, root: str) -> None:
        """Raise OSError where there is no such bucket, or directory: a disk may not be mounted just now."""
        from pyarrow import fs

        is_local = filesystem.type_name == "local"
        top = root if is_local else root.partition("/")[0]
        if filesystem.get_file_info(top).type is not fs.FileType.Directory:
            kind = KINDS.get(filesystem.type_name, "bucket")
            raise OSError(f"there is no {kind} {top}: make it, or correct the setting")
        if is_local and self._home.exists() and self._home.samefile(top):  # a clean would take all for copies
            raise OSError("it is home itself: choose another directory")

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn what pyarrow and the system raise into one sentence, without credentials."""
        from pyarrow import ArrowException

        try:
            yield
        except (OSError, ArrowException) as error:
            raise StoreError(f"{what} ({_reason(error)}). {ADVICE}") from None


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of a store, and where the store is in it."""
    from pyarrow import fs

    url = quote(url, safe=":/?#[]@!$&'()*+,;=%~")
    if url.startswith("gs:"):
        url += f"{'&' if '?' in url else '?'}retry_limit_seconds={GOOGLE_SECONDS}"
    filesystem, root = fs.FileSystem.from_uri(url)
    if filesystem.type_name == "s3":
        filesystem = _patient(url, filesystem.region)
    return filesystem, root.rstrip("/")


def _patient(url: str, region: str) -> Any:
    """Return the file system of an s3 URL that gives a silent server up sooner; a URL cannot say so."""
    from pyarrow import fs

    given = dict(parse_qsl(urlsplit(url).query))
    # As pyarrow reads them where it is given a URL, and not where it is not.
    endpoint = given.get("endpoint_override") or variable("AWS_ENDPOINT_URL_S3") or variable("AWS_ENDPOINT_URL")
    return fs.S3FileSystem(
        region=region,
        scheme=given.get("scheme", "https"),
        endpoint_override=endpoint,
        connect_timeout=QUIET_SECONDS,
        request_timeout=QUIET_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _copy(source: Path | str, target: Path | str, **filesystems: Any) -> None:
    from pyarrow import fs

    here = fs.LocalFileSystem()
    given = {"source_filesystem": here, "destination_filesystem": here} | filesystems
    fs.copy_files(str(source), str(target), **given)


def _put_file(source: Path, target: Path) -> None:
    """Copy a file to a directory that other machines may see, by a temporary name and on the disk for good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        shutil.copyfile(source, temporary)
        failpoint("put-unfinished", writes=True)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """Return why something failed, in one line."""
    told = getattr(error, "strerror", None) or str(error)
    reason = (told.splitlines() or [type(error).__name__])[0].rstrip(".")
    for name in SECRETS:
        value = variable(name)
        if value is not None:
            reason = reason.replace(value, "…")
    return reason
