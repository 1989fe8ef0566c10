"""Whose turn it is if several homes submit the same at once: the one that uploaded first.

An upload costs nothing, and the workspace lists it with the server's time. So whoever is about to create the first job
of a submission looks at the uploads of the same content: who finds none before its own goes on at once, the others wait
for that one's jobs, and take them over. Of two in the same second, either may have gone on before it could see the
other: then even the first of them waits a moment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import newer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Submission
    from duckdb_mistral.jobs.report import JobReport

#: A home that has uploaded, and created nothing for so long, is not waited for.
CLAIM_SECONDS = 30.0
#: How long the first of one second waits for a job of another that may have gone on at once.
TIE_SECONDS = 4.0
PAUSE_SECONDS = 0.25
#: The start of an identity, by which the uploads of the same content are found.
PREFIX = 16
NAME = re.compile(r"[0-9a-f]{16}-([0-9a-f-]{36})-.*")


class OvertakenError(Exception):
    """Another home has created jobs of the same content meanwhile, and this one has created none."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The uploads of a submission: when the first of them was made, and the last, by the server's clock in seconds."""

    submission_id: str
    first: int
    last: int


class Turns:
    """Whose turn it is in one workspace."""

    def __init__(self, context: Context) -> None:
        """Look through the workspace of `context`."""
        self._client = context.client
        self._ledger = context.ledger
        self._pause = context.retry.pause

    def wait(self, submission: Submission, before: Listing) -> None:
        """Return once it is this submission's turn, none of whose jobs exist yet, and some part of which is uploaded.

        `before` is what the workspace listed before it was made. Raises OvertakenError where others have created the
        same meanwhile.
        """
        waited = 0.0
        while True:
            claims = self._claims(submission.identity)
            mine = next((claim for claim in claims if claim.submission_id == submission.submission_id), None)
            if mine is None:  # the list does not tell
                return
            ahead = [
                claim
                for claim in claims
                if claim.first <= mine.first
                and mine.last + waited - claim.last <= CLAIM_SECONDS
                and not self._is_known(claim.submission_id)
                and not self._ledger.was_forgotten(claim.submission_id)
                and not before.told_of(claim.submission_id, ())
            ]
            is_first = all((mine.first, mine.submission_id) < (one.first, one.submission_id) for one in ahead)
            if not ahead or (is_first and waited >= TIE_SECONDS):
                return
            self._pause(PAUSE_SECONDS)
            waited += PAUSE_SECONDS
            self.check(submission, newer(self._client, before))

    def check(self, submission: Submission, reports: Iterable[JobReport]) -> None:
        """Raise OvertakenError where any job is of the same content, and not of this home."""
        for report in reports:
            theirs = report.tags.submission_id
            is_the_same = report.tags.identity == submission.identity
            if is_the_same and theirs is not None and not self._is_known(theirs):
                raise OvertakenError

    def _is_known(self, submission_id: str) -> bool:
        return self._ledger.submission(submission_id) is not None

    def _claims(self, identity: str) -> Sequence[Claim]:
        """Return the claims of an identity, as far as the workspace lists them."""
        times: dict[str, list[int]] = {}
        for name, created_at in self._client.files(identity[:PREFIX]):
            found = NAME.fullmatch(name)
            if found is not None and name.startswith(identity[:PREFIX]):
                times.setdefault(found[1], []).append(created_at)
        return [Claim(submission_id=one, first=min(told), last=max(told)) for one, told in times.items()]


def file_name(submission: Submission, part_name: str) -> str:
    """Return the name that a part is uploaded with."""
    return f"{submission.identity[:PREFIX]}-{submission.submission_id}-{part_name}"
