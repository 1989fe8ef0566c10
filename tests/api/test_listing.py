"""The workspace's list, read as a whole: from servers that cap, repeat, shift, or tell no total."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from duckdb_mistral.api.listing import (
    PASSES,
    REPEATS,
    SECOND,
    Listing,
    Sought,
    newer,
    probed,
    read,
    read_pages,
    widened,
)
from duckdb_mistral.jobs.report import JobReport
from duckdb_mistral.jobs.tags import Tags, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TAGS = Tags(submission_id="5ab", place=place(1, "model-latest"), identity="1dentity")
METADATA = TAGS.to_metadata()
JOB_ID, ANOTHER_JOB_ID = "3f2a9c1e-0000-4000-8000-000000000000", "3f2a9c1e-0000-4000-8000-000000000001"


def jobs(*numbers: int) -> list[JobReport]:
    """Return jobs with these numbers as their ids."""
    return [JobReport(job_id=str(number), status="QUEUED") for number in numbers]


class Pages:
    """A workspace whose pages a function gives, and how many were asked for."""

    def __init__(self, page_of: Callable[[int], tuple[Sequence[JobReport], int | None]]) -> None:
        """Ask `page_of` for each page."""
        self.page_of = page_of
        self.asked = 0
        self.options: list[dict[str, Any]] = []

    def pages(self, **options: Any) -> Iterator[tuple[list[JobReport], int | None]]:
        """Yield the pages."""
        self.options.append(options)

        def counted(number: int) -> tuple[Sequence[JobReport], int | None]:
            self.asked += 1
            return self.page_of(number)

        return read_pages(counted)


def paged(numbers: Sequence[int], size: int, total: int | None) -> Pages:
    """Return a workspace that gives so many jobs at a time."""
    return Pages(lambda page: (jobs(*numbers[page * size : (page + 1) * size]), total))


@pytest.mark.parametrize(("size", "count"), [(100, 5), (100, 250), (20, 45), (20, 40), (1, 3)])
@pytest.mark.parametrize("told", [True, False])
def test_every_job_is_read(size: int, count: int, told: bool) -> None:
    """All jobs are read, whatever a server gives at a time, and whether it tells how many there are."""
    workspace = paged(range(count), size, count if told else None)
    listing = read(workspace)
    assert sorted(map(int, listing.reports)) == list(range(count))
    assert listing.is_whole
    # A list of a page or more that tells no total is asked for once more, from its end.
    assert workspace.asked == -(-count // size) + 1 + (count >= 100 and not told)


def test_a_page_that_repeats_for_ever() -> None:
    """A server that gives the same page again and again is not asked for ever, and its list counts as not whole."""
    workspace = Pages(lambda _: (jobs(*range(100)), 150))
    listing = read(workspace)
    assert len(listing.reports) == 100
    assert not listing.is_whole
    assert workspace.asked == PASSES * (1 + REPEATS) + 1
    untold = Pages(lambda _: (jobs(*range(100)), None))
    assert len(read(untold).reports) == 100
    assert untold.asked == 1 + REPEATS + 1


def test_a_page_that_repeats_once() -> None:
    """A page that a cache gives twice hides nothing that comes after it."""
    pages = [range(100), range(100), range(100, 200), range(200, 230)]
    workspace = Pages(lambda page: (jobs(*pages[page]) if page < len(pages) else [], None))
    assert len(read(workspace).reports) == 230


def test_jobs_that_are_lost_between_pages() -> None:
    """Where jobs move up a page while it is read, the list is read again, and what any pass held counts."""
    passes = iter([[range(100), range(101, 200)], [range(100), range(100, 200)]])
    current: list[range] = []

    def page_of(page: int) -> tuple[Sequence[JobReport], int | None]:
        if page == 0:
            current[:] = next(passes)
        return (jobs(*current[page]) if page < len(current) else []), 200

    listing = read(Pages(page_of))
    assert len(listing.reports) == 200
    assert listing.is_whole


def test_a_list_that_is_cut() -> None:
    """A list that ends at a hundred may be cut, whatever total it tells, and is asked for in narrower pieces."""
    listing = read(paged(range(100), 100, 100))
    assert listing.is_whole
    assert listing.may_be_cut
    assert not read(paged(range(99), 100, 99)).may_be_cut
    assert not read(paged([], 100, 0)).may_be_cut
    narrow = paged(range(3), 100, 3)
    assert {report.job_id for report in probed(narrow, since=7, models=["m"])} == {"0", "1", "2"}
    assert narrow.options[:2] == [{"oldest_first": True, "created_after": 7}, {"model": "m"}]
    assert {"statuses": ["QUEUED"]} in narrow.options


class Capped(Pages):
    """A workspace that returns so many jobs of any list, a job made each second, and tells no total."""

    def __init__(self, count: int, cap: int, *, sorts: bool, keeps_oldest: bool) -> None:
        """Have `count` jobs; `sorts` tells whether the order that is asked for counts, or the oldest come first."""
        self.made = [replace(made, created_at=number * SECOND) for number, made in enumerate(jobs(*range(count)))]
        self.cap, self.sorts, self.keeps_oldest = cap, sorts, keeps_oldest
        self.asked = 0

    def pages(self, **options: Any) -> Iterator[tuple[list[JobReport], int | None]]:
        """Yield the pages, of the oldest or the first jobs of the list."""
        found = [report for report in self.made if (report.created_at or 0) >= (options.get("created_after") or 0)]
        if self.keeps_oldest:
            found = found[: self.cap]
        if self.sorts and not options.get("oldest_first"):
            found.reverse()
        shown = found[: self.cap]

        def page_of(number: int) -> tuple[Sequence[JobReport], int | None]:
            self.asked += 1
            return shown[number * 100 : (number + 1) * 100], None

        return read_pages(page_of)


@pytest.mark.parametrize(("sorts", "keeps_oldest"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("cap", [100, 130, 250])
def test_a_list_that_is_cut_anywhere(cap: int, sorts: bool, keeps_oldest: bool) -> None:
    """What a server leaves out of a list that tells no total, the newest jobs or the oldest, is asked for and read."""
    workspace = Capped(777, cap, sorts=sorts, keeps_oldest=keeps_oldest)
    assert len(read(workspace).reports) == 777
    whole = Capped(cap, cap, sorts=sorts, keeps_oldest=keeps_oldest)
    assert len(read(whole).reports) == cap
    assert whole.asked == -(-cap // 100) + 1 + 2
    below = Capped(99, cap, sorts=sorts, keeps_oldest=keeps_oldest)
    assert len(read(below).reports) == 99
    assert below.asked == 2


@pytest.mark.parametrize("told", [37, 1])
def test_a_list_that_shows_nothing(told: int) -> None:
    """A list that shows no job and counts some is not whole, and one that counts none is."""
    assert not read(paged([], 100, told)).is_whole
    assert read(paged([], 100, 0)).is_whole
    assert read(paged([], 100, None)).is_whole


def test_jobs_created_while_the_list_is_read() -> None:
    """A list is whole though each time that it is read another job is created before its end."""
    current = list(range(150))

    def page_of(page: int) -> tuple[Sequence[JobReport], int | None]:
        found = jobs(*current[page * 100 : (page + 1) * 100])
        if page == 1:
            current.insert(0, 1000 + len(current))
        return found, len(current)

    listing = read(Pages(page_of))
    assert listing.is_whole
    assert len(listing.reports) >= 150 + PASSES


def test_narrower_lists_beside_a_cut_one() -> None:
    """Narrower lists make a list whole where together they hold as many jobs as it counts."""
    cut = read(paged(range(100), 100, 150))
    assert not widened(paged(range(90, 149), 100, 59), cut, since=0, models=["m"]).is_whole
    assert widened(paged(range(90, 150), 100, 60), cut, since=0, models=["m"]).is_whole


def test_newer_jobs() -> None:
    """What was created since a list was read is found without reading all of it again."""
    before = read(paged(range(300), 100, 300))
    workspace = paged([1000, 1001, *range(300)], 100, 302)
    assert [report.job_id for report in newer(workspace, before)] == ["1000", "1001"]
    assert workspace.asked == 2
    assert newer(paged(range(300), 100, 300), before) == []
    assert newer(paged([], 100, 0), Listing()) == []


def report(**fields: Any) -> JobReport:
    """Return a job."""
    return JobReport(**{"job_id": JOB_ID, "status": "RUNNING"} | fields)


@pytest.mark.parametrize(
    ("found", "is_ours"),
    [
        (report(metadata=tuple(METADATA.items())), True),
        (report(metadata=tuple((key.upper(), value.upper()) for key, value in METADATA.items())), True),
        (report(metadata=(("other", "x"), *METADATA.items()), model="another"), True),
        (report(metadata=tuple(METADATA.items())[:2], input_files=("file",), model="model-latest"), True),
        (report(metadata=tuple((key, value[:2]) for key, value in METADATA.items()), input_files=("file",)), True),
        (report(input_files=("file",), model="MODEL-LATEST"), True),
        (report(input_files=("file",), model="model-2506"), True),
        (report(input_files=("file",), model="model-other"), False),
        (report(input_files=("other",), model="model-latest"), False),
        (report(metadata=tuple(METADATA.items())[:2], model="model-latest"), False),
        (report(model="model-latest"), False),
        (
            report(
                job_id="../../ticket", metadata=tuple(METADATA.items()), input_files=("file",), model="model-latest"
            ),
            False,
        ),
    ],
)
def test_what_is_ours(found: JobReport, is_ours: bool) -> None:
    """A job with an id is ours by its tags, in any case, or by our input file and model, whatever its metadata says."""
    sought = Sought(tags=TAGS, model="model-latest", file_id="file")
    assert sought.among([found]) == ([found] if is_ours else [])


OTHERS = Tags(submission_id="0ther", place=TAGS.place, identity="0ther").to_metadata()


@pytest.mark.parametrize(
    ("told", "is_ours"),
    [
        (report(input_files=("file",), model="model-latest", metadata=tuple(METADATA.items())), True),
        (report(input_files=("file",), model="model-2506"), True),
        (report(input_files=("file",), model="model-latest", metadata=tuple(OTHERS.items())), True),
        (report(input_files=("file",)), True),
        (report(input_files=("file",), metadata=(("team", "search"),)), True),
        (report(input_files=("file",), metadata=tuple(OTHERS.items())), False),
        (report(input_files=("file",), model="another"), False),
        (report(input_files=("file",), model="another", metadata=tuple(METADATA.items())), True),
        (report(input_files=("other",), model="model-latest", metadata=tuple(METADATA.items())), False),
        (report(metadata=tuple(METADATA.items())), True),
        (report(metadata=tuple(OTHERS.items()), model="model-latest"), False),
        (report(model="model-latest"), False),
        (report(), False),
    ],
)
def test_what_an_answer_tells(told: JobReport, is_ours: bool) -> None:
    """An answer is believed for our tags, or for our file with our model or no word against it."""
    assert Sought(tags=TAGS, model="model-latest", file_id="file").is_told_by(told) == is_ours


def test_a_model_that_is_not_told() -> None:
    """Where several models run on a file, a job on it that tells no model is nobody's; without a file none is found."""
    found = report(input_files=("file",))
    assert Sought(tags=TAGS, model="m", file_id="file").among([found]) == [found]
    assert Sought(tags=TAGS, model="m", file_id="file", models=2).among([found]) == []
    assert Sought(tags=TAGS, model="m", file_id=None).among([found]) == []


def test_tags_come_first() -> None:
    """Where one job carries the tags, another one on the same file does not stand beside it."""
    tagged, other = (
        report(metadata=tuple(METADATA.items())),
        report(job_id=ANOTHER_JOB_ID, input_files=("file",), model="m"),
    )
    assert Sought(tags=TAGS, model="m", file_id="file").among([other, tagged]) == [tagged]
