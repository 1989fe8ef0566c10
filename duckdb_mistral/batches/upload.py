"""Uploading the parts of a submission; files of a call that died before recording them are found again."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from duckdb_mistral.batches.turns import file_name
from duckdb_mistral.errors import SourceError
from duckdb_mistral.runtime.endings import ending
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.runtime.parallel import together

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Part, Submission

#: A file that was uploaded a moment ago may not be found yet by the create.
FILE_PAUSE_SECONDS = 1.0
#: While the server stores one file, which takes it a while, others use the line; more would only share it.
UPLOADS_AT_ONCE = 3
#: So often files that were uploaded are recorded: those of a call that dies before are found again by their names.
RECORDED_SECONDS = 1.0


class Uploader:
    """Uploads parts to one workspace, and records their files in the ledger."""

    def __init__(self, context: Context) -> None:
        """Work in `context`; raises MissingKeyError where there is no key."""
        self._home = context.home
        self._ledger = context.ledger
        self._client = context.client
        self._retry = context.retry

    def uploaded(self, submission: Submission, parts: Iterable[Part]) -> dict[int, Part]:
        """Return parts by number, each with its file at the API; those without one are uploaded."""
        files = {part.part: part for part in parts}
        missing = [part for part in files.values() if part.file_id is None]
        self._ledger.begin_uploads(missing)
        unrecorded: list[Part] = []
        recorded_at = time.monotonic()

        def record() -> None:
            self._ledger.set_files(unrecorded)
            unrecorded.clear()

        def keep(part: Part, file_id: str) -> None:
            nonlocal recorded_at
            files[part.part] = replace(part, file_id=file_id)
            unrecorded.append(files[part.part])
            if time.monotonic() - recorded_at > RECORDED_SECONDS:
                record()
                recorded_at = time.monotonic()

        with ending(record):
            if len(missing) > 1:
                # Daemons, so that a program that was interrupted can end while the server keeps silent.
                together(
                    missing,
                    lambda part: self._upload(submission, part),
                    keep,
                    threads=UPLOADS_AT_ONCE,
                    daemon=True,
                )
            else:
                for part in missing:
                    keep(part, self._upload(submission, part))
        return files

    def find_again(self, submission: Submission, files: dict[int, Part], number: int) -> None:
        """Give a file that the create did not find a moment; upload it again if it is gone."""
        part = files[number]
        if not self._client.file_exists(str(part.file_id)):
            part = replace(part, file_id=None, upload_began=False)
            self._ledger.set_files([part])
        self._retry.pause(FILE_PAUSE_SECONDS)
        if part.file_id is None:
            part = replace(part, file_id=self._upload(submission, part))
            self._ledger.set_files([part])
        files[number] = part

    def _upload(self, submission: Submission, part: Part) -> str:
        """Upload a part's requests, or find them uploaded by a call that died before recording it."""
        path = self._home.part(submission.submission_id, part.part)
        name = file_name(submission, path.name)
        may_be_there = part.upload_began is not False
        file_id = self._client.find_file(name, part.input_bytes) if may_be_there else None
        if file_id is None:
            if not self._home.holds(part):
                if self._ledger.shared:
                    raise SourceError(
                        f"The requests of part {part.part} of submission {submission.submission_id} are not in "
                        f"{path.parent}: another home has built them, and has not uploaded them. Run the submit "
                        "statement there; or here with force := true, which pays for its other parts again, if that "
                        "home is gone."
                    )
                raise SourceError(
                    f"The requests of part {part.part} of submission {submission.submission_id} are gone from "
                    f"{path.parent}, and were not uploaded. Run the submit statement again, with force := true if "
                    "other parts were sent, to build them again."
                )
            failpoint("before-upload")
            file_id = self._client.upload(path, name)
            failpoint("after-upload")
        return file_id
