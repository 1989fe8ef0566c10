"""The metadata of jobs: what is written is read again, and what servers make of it is read as far as it can be."""

from __future__ import annotations

from uuid import uuid4

import pytest

from duckdb_mistral.jobs.report import JobReport
from duckdb_mistral.jobs.tags import KEYS, Tags, counted, given_metadata, place

TAGS = Tags(
    submission_id="5ab",
    place=place(2, "mistral-small-latest"),
    identity="1dentity",
    jobs=4,
    retry_of="0ther",
    models=("mistral-small-latest", "ministral-3b-latest"),
    copies=3,
    answered=1,
    forced=True,
)


def test_metadata_is_a_format() -> None:
    """Jobs are found again by the keys and values that every version has written."""
    assert TAGS.to_metadata() == {
        "duckdb_mistral_copies": "3",
        "duckdb_mistral_answered": "1",
        "duckdb_mistral_forced": "1",
        "duckdb_mistral_submission": "5ab",
        "duckdb_mistral_part": "2 mistral-small-latest",
        "duckdb_mistral_identity": "1dentity",
        "duckdb_mistral_jobs": "4",
        "duckdb_mistral_retry_of": "0ther",
        "duckdb_mistral_models": '["mistral-small-latest", "ministral-3b-latest"]',
    }
    assert TAGS.to_metadata().keys() == KEYS


def test_what_is_written_is_read() -> None:
    """A job tells what was written, beside anything else that it carries; what is not there is not told."""
    metadata = (("team", "tests"), *TAGS.to_metadata().items())
    report = JobReport(job_id=str(uuid4()), status="QUEUED", metadata=metadata)
    assert (report.tags, report.tags.part, report.tags.model) == (TAGS, 2, "mistral-small-latest")
    assert given_metadata(metadata) == (("team", "tests"),)
    assert Tags.from_metadata([]) == Tags()
    assert Tags().to_metadata() == {}
    assert (Tags().part, Tags().model) == (1, "")


def test_case_does_not_matter() -> None:
    """A server that changes the case of metadata hides no job, and none of its keys counts as somebody's own."""
    loud = [(key.upper(), value.upper()) for key, value in TAGS.to_metadata().items()]
    told = Tags.from_metadata(loud)
    assert TAGS.finds(told)
    assert (told.submission_id, told.identity, told.retry_of) == ("5ab", "1dentity", "0ther")
    assert given_metadata(tuple(loud)) == ()


@pytest.mark.parametrize(
    "other",
    [
        Tags(submission_id="5ab", place=TAGS.place, identity="another"),
        Tags(submission_id="5ab", place=place(1, "mistral-small-latest"), identity="1dentity"),
        Tags(submission_id="5ab"),
        Tags(),
    ],
)
def test_another_job_is_not_found(other: Tags) -> None:
    """A job that tells another submission, part or content, or nothing, is not taken for the one that is sought."""
    assert not TAGS.finds(other)


@pytest.mark.parametrize("text", ["../../ticket", "a/b", "/etc", ".", "a b", "ä", "a\n", "a\\b"])
def test_odd_ids(text: str) -> None:
    """An id that could lead to another file than ours counts as not told."""
    told = Tags.from_metadata([(key, text) for key in KEYS if key.endswith(("_submission", "_identity", "_retry_of"))])
    assert told == Tags()


def test_job_without_an_id() -> None:
    """A job whose own id is none of the API's tells nothing of a submission, whatever it says of its files."""
    metadata = tuple(TAGS.to_metadata().items())
    report = JobReport(job_id="../../ticket", status="QUEUED", metadata=metadata, input_files=("a",))
    assert report.tags == Tags()
    assert not report.runs_on("a")


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "None", "1" * 5000])
def test_odd_numbers(text: str) -> None:
    """A number that nobody has written so counts as not told."""
    assert Tags.from_metadata([("duckdb_mistral_jobs", text), ("duckdb_mistral_copies", text)]) == Tags()
    assert Tags(place=f"{text} m").part == 1


@pytest.mark.parametrize("text", ["", "x", "{}", "1", "null", "[" * 100_000])
def test_odd_models(text: str) -> None:
    """Models that nobody has written so count as not told."""
    assert Tags.from_metadata([("duckdb_mistral_models", text)]).models == ()


@pytest.mark.parametrize(("model", "told"), [("a", True), ("a" * 300, False)])
def test_models_are_told_within_the_limits(model: str, told: bool) -> None:
    """The names of several models travel with a job where the API takes them, and one model's never."""
    assert Tags(models=(model,)).to_metadata() == {}
    assert bool(Tags(models=(f"{model}1", f"{model}2")).to_metadata()) == told


def test_keys_are_within_the_limits() -> None:
    """The metadata keys that find a job again are ones that the API takes."""
    assert all(1 <= len(key) <= 32 for key in KEYS)


def test_the_largest_number_counts() -> None:
    """Of the jobs of one submission the one that tells the most is believed."""
    assert counted([Tags(jobs=1, copies=2), Tags(), Tags(jobs=3, answered=4)]) == Tags(jobs=3, copies=2, answered=4)
    assert counted([]) == Tags()
