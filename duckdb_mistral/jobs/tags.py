"""What the metadata of a job tells of its submission: how it is found again, and how a lost ledger is rebuilt."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Metadata = tuple[tuple[str, str], ...]

_SUBMISSION = "duckdb_mistral_submission"
_PLACE = "duckdb_mistral_part"
_IDENTITY = "duckdb_mistral_identity"
_JOBS = "duckdb_mistral_jobs"
_RETRY_OF = "duckdb_mistral_retry_of"
_MODELS = "duckdb_mistral_models"
_COPIES = "duckdb_mistral_copies"
_ANSWERED = "duckdb_mistral_answered"
_FORCED = "duckdb_mistral_forced"
#: The keys that nobody else may use.
KEYS = frozenset({_SUBMISSION, _PLACE, _IDENTITY, _JOBS, _RETRY_OF, _MODELS, _COPIES, _ANSWERED, _FORCED})
#: The values of these are ids and hashes, of small letters.
_HASHED = frozenset({_SUBMISSION, _IDENTITY, _RETRY_OF})
#: They go into file names.
_NAME = re.compile(r"[0-9a-z-]+")
#: What the API takes as a value (schema BatchJobIn).
_LONGEST_VALUE = 512
_LONGEST_NUMBER = 18


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What a job tells of its submission, read whatever a server made of the case of it.

    By the first three a job is found whose create lost its answer; by all of them a lost ledger is rebuilt.
    """

    submission_id: str | None = None
    #: The part and the model that the job was created for, as `place` writes them.
    place: str | None = None
    #: What makes two submissions the same.
    identity: str | None = None
    #: How many jobs the submission has, 0 where that is not told.
    jobs: int = 0
    #: The submission or job of which it sends again what was left.
    retry_of: str | None = None
    #: Its models, where they are several: those of which no job was created are known by it alone.
    models: tuple[str, ...] = ()
    #: How many of its rows share the request of another one: which ones is told by a file under `home` alone.
    copies: int = 0
    #: How many of its rows were answered before: the answers lie under `home` alone.
    answered: int = 0
    #: Whether somebody asked for it with `force`: it does not give way to the same content.
    forced: bool = False

    @classmethod
    def from_metadata(cls, metadata: Iterable[tuple[str, str]]) -> Tags:
        """Read the metadata of a job; what nobody could have written so counts as not told."""
        told = {key.lower(): value for key, value in metadata if key.lower() in KEYS}
        told = {key: value.lower() if key in _HASHED else value for key, value in told.items()}
        told = {key: value for key, value in told.items() if key not in _HASHED or _NAME.fullmatch(value)}
        return cls(
            submission_id=told.get(_SUBMISSION),
            place=told.get(_PLACE),
            identity=told.get(_IDENTITY),
            jobs=_number(told.get(_JOBS)),
            retry_of=told.get(_RETRY_OF),
            models=_models(told.get(_MODELS)),
            copies=_number(told.get(_COPIES)),
            answered=_number(told.get(_ANSWERED)),
            forced=_FORCED in told,
        )

    def to_metadata(self) -> dict[str, str]:
        """Return what is told as a job's metadata; models that no value of it would hold are left out."""
        models = json.dumps(self.models)
        told = {
            _COPIES: str(self.copies or ""),
            _ANSWERED: str(self.answered or ""),
            _FORCED: "1" if self.forced else None,
            _SUBMISSION: self.submission_id,
            _PLACE: self.place,
            _IDENTITY: self.identity,
            _JOBS: str(self.jobs or ""),
            _RETRY_OF: self.retry_of,
            _MODELS: models if len(self.models) > 1 and len(models) <= _LONGEST_VALUE else None,
        }
        return {key: value for key, value in told.items() if value}

    def finds(self, other: Tags) -> bool:
        """Tell whether a job that tells `other` is the one that these were written for."""
        return all(
            (ours or "").casefold() == (theirs or "").casefold()
            for ours, theirs in (
                (self.submission_id, other.submission_id),
                (self.place, other.place),
                (self.identity, other.identity),
            )
        )

    def contradict(self, other: Tags) -> bool:
        """Tell whether a job tells of another place, submission or identity; what it leaves out says nothing."""
        return any(
            theirs is not None and (ours or "").casefold() != theirs.casefold()
            for ours, theirs in (
                (self.submission_id, other.submission_id),
                (self.place, other.place),
                (self.identity, other.identity),
            )
        )

    @property
    def part(self) -> int:
        """The part that the job was created for; 1 where that is not told."""
        return _number((self.place or "").partition(" ")[0], 1)

    @property
    def model(self) -> str:
        """The model that the job was created for, which the API may call otherwise; empty where that is not told."""
        return (self.place or "").partition(" ")[2]


def place(part: int, model: str) -> str:
    """Return what tells a job of one part and one model from the others of its submission."""
    return f"{part} {model}"


def counted(told: Iterable[Tags]) -> Tags:
    """Return the numbers that the jobs of one submission tell of it, the largest of each."""
    every = list(told)
    return Tags(
        jobs=max((one.jobs for one in every), default=0),
        copies=max((one.copies for one in every), default=0),
        answered=max((one.answered for one in every), default=0),
    )


def given_metadata(metadata: Metadata) -> Metadata:
    """Return the metadata that somebody gave, without what we tell of a submission, which is true of that one alone."""
    return tuple(pair for pair in metadata if pair[0].lower() not in KEYS)


def _number(text: str | None, default: int = 0) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) <= _LONGEST_NUMBER else default


def _models(text: str | None) -> tuple[str, ...]:
    try:
        told = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return ()
    return tuple(model for model in told if isinstance(model, str)) if isinstance(told, list) else ()
