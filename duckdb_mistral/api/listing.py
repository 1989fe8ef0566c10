"""Reading the workspace's whole list of jobs, even if it repeats, shifts, or holds less than it claims.

A job's absence means nothing unless the list was whole.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from duckdb_mistral.jobs.report import ENDED, PENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.jobs.tags import Tags

PAGE_SIZE = 100
#: After this many pages in a row with nothing new, the rest is assumed to hold nothing new either.
REPEATS = 2
#: How many times a list that lost rows between its pages is read; a job in any of the passes counts.
PASSES = 3
#: In the microseconds of a job's times, which are whole seconds.
SECOND = 1_000_000
#: The statuses that a list can be filtered by, to read it in pieces.
TOLD = (*PENDING, *sorted(ENDED))


class Workspace(Protocol):
    """Anything that lists jobs."""

    def pages(
        self,
        *,
        statuses: Sequence[str] | None = None,
        model: str | None = None,
        created_after: int | None = None,
        oldest_first: bool = False,
    ) -> Iterator[tuple[list[JobReport], int | None]]:
        """Yield for each page the jobs that no earlier page held, and the total that it reports."""
        ...


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The jobs that the workspace listed, newest first."""

    reports: Mapping[str, JobReport] = field(default_factory=dict)
    #: How many jobs the server said it has, 0 if it did not say.
    total: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether, as far as can be told, no job is missing."""
        return len(self.reports) >= self.total

    @property
    def told_short(self) -> str:
        """What a message says of a list that is not whole."""
        return f"the list is incomplete: it holds {len(self.reports):,} of the {self.total:,} jobs that the API counts"

    def told_of(self, submission_id: str, file_ids: Collection[str]) -> list[JobReport]:
        """Return the jobs that carry a submission's id, or were created with one of the files."""
        files = [report for file_id in file_ids for report in self._by_file.get(file_id, ()) if report.runs_on(file_id)]
        return [*self._by_submission.get(submission_id, ()), *files]

    @cached_property
    def _by_submission(self) -> dict[str, list[JobReport]]:
        found: dict[str, list[JobReport]] = {}
        for report in self.reports.values():
            found.setdefault(report.tags.submission_id or "", []).append(report)
        return found

    @cached_property
    def _by_file(self) -> dict[str, list[JobReport]]:
        found: dict[str, list[JobReport]] = {}
        for report in self.reports.values():
            for file_id in report.input_files:
                found.setdefault(file_id, []).append(report)
        return found

    @property
    def may_be_cut(self) -> bool:
        """Whether the list may have been cut short: it ended at a round number, as if the server caps it."""
        return not self.is_whole or (bool(self.reports) and len(self.reports) % PAGE_SIZE == 0)


@dataclass(frozen=True, kw_only=True)
class Sought:
    """A job that may be in the list: the tags, the file and the model that it was created with."""

    tags: Tags
    model: str
    file_id: str | None
    #: How many models run on that file.
    models: int = 1

    def among(self, reports: Iterable[JobReport]) -> list[JobReport]:
        """Return the jobs that carry the tags or, if none does, those created with the file and the model."""
        by_id = {report.job_id: report for report in reports}
        tagged = [report for report in by_id.values() if self.tags.finds(report.tags)]
        return tagged or [report for report in by_id.values() if self._is_made_of(report)]

    def is_told_by(self, report: JobReport) -> bool:
        """Tell whether the answer to the create names its job, and not another program's.

        The tags say so, or the file and nothing that contradicts it. A server may leave out the metadata and the model.
        """
        if report.input_files and self.file_id not in report.input_files:
            return False
        if self.tags.submission_id is not None and self.tags.finds(report.tags):
            return True
        if self.file_id is None or not report.runs_on(self.file_id):
            return False
        return not self.tags.contradict(report.tags) if report.model is None else self._is_model(report.model)

    def _is_made_of(self, report: JobReport) -> bool:
        if self.file_id is None or not report.runs_on(self.file_id):
            return False
        return self.models == 1 if report.model is None else self._is_model(report.model)

    def _is_model(self, model: str) -> bool:
        return model.casefold() == self.model.casefold() or _family(model) == _family(self.model)


def _family(model: str) -> str:
    """Return a model's name without its version, because a server may name the version that 'latest' stands for."""
    name, _, version = model.casefold().rpartition("-")
    return name if name and (version == "latest" or version.isdecimal()) else model.casefold()


def read_pages(
    page_of: Callable[[int], tuple[Sequence[JobReport], int | None]],
) -> Iterator[tuple[list[JobReport], int | None]]:
    """Yield for each page the jobs that no earlier page held, and the total that it reports, to the end of the list.

    A job created in the meantime pushes others to the next page, so some appear twice. A server may return fewer jobs
    per page than asked for, and no total or a wrong one: only an empty page ends its list.
    """
    seen: set[str] = set()
    repeats = 0
    for number in itertools.count():
        entries, total = page_of(number)
        fresh = {report.job_id: report for report in entries if report.job_id not in seen}
        seen |= fresh.keys()
        yield list(fresh.values()), total
        repeats = 0 if fresh else repeats + 1
        if not entries or repeats == REPEATS:
            return


def read(workspace: Workspace) -> Listing:
    """Return the workspace's list, read again if rows were lost between two pages, or created while it was read."""
    reports: dict[str, JobReport] = {}
    total = 0
    for _ in range(PASSES):
        for fresh, told in workspace.pages():
            reports |= {report.job_id: report for report in fresh}
            total = told or total
        listing = Listing(reports=reports, total=total)
        if listing.is_whole:
            return listing if total or len(reports) < PAGE_SIZE else _continued(workspace, listing)
    # What was created during the last pass is counted by its later pages, and stands on its first one.
    return Listing(reports=reports | {report.job_id: report for report in newer(workspace, listing)}, total=total)


def _continued(workspace: Workspace, listed: Listing) -> Listing:
    """Return a list with what lies before its oldest job and after its newest, where a server shows that if asked.

    One that tells no total may cut its list anywhere, and give the oldest jobs first whatever it is asked for. If
    nothing is missing, that takes a page at each end.
    """
    newest = max(report.created_at or 0 for report in listed.reports.values())
    for end in dict.fromkeys((0, newest)):
        since = end
        while fresh := newer(workspace, listed, oldest_first=True, created_after=max(0, since - SECOND)):
            listed = Listing(reports={report.job_id: report for report in fresh} | dict(listed.reports))
            since = max(report.created_at or 0 for report in fresh)
    return listed


def first_pages(workspace: Workspace, before: Listing, **options: Any) -> list[JobReport]:
    """Return the jobs of the first pages, up to the first page of which a list knows every job.

    They are the newest ones, unless `options` ask for others.
    """
    found: list[JobReport] = []
    for fresh, _ in workspace.pages(**options):
        found += fresh
        if all(report.job_id in before.reports for report in fresh):
            break
    return found


def newer(workspace: Workspace, before: Listing, **options: Any) -> list[JobReport]:
    """Return the jobs created since a list was read; with `options`, those of a narrower list that it lacks."""
    return [report for report in first_pages(workspace, before, **options) if report.job_id not in before.reports]


def widened(workspace: Workspace, listed: Listing, *, since: int, models: Iterable[str]) -> Listing:
    """Return a list that may be cut short with what narrower ones show; `since` is in microseconds."""
    found = {report.job_id: report for report in probed(workspace, since=since, models=models)}
    return Listing(reports={**found, **listed.reports}, total=listed.total)


def probed(workspace: Workspace, *, since: int, models: Iterable[str]) -> Iterator[JobReport]:
    """Yield jobs from narrower lists, in case the whole one is cut short; `since` is in microseconds."""
    narrower: list[dict[str, Any]] = [{"oldest_first": True, "created_after": since}]
    narrower += [{"model": model} for model in models]
    narrower += [{"statuses": [status]} for status in TOLD]
    for options in narrower:
        for fresh, _ in workspace.pages(**options):
            yield from fresh
