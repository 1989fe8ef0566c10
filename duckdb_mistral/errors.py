"""Every error that this package raises; each message is a sentence for the person who meets it.

MistralBatchError
├── SettingError               a setting is missing or cannot be used
│   └── MissingKeyError        no API key where one is needed
├── ArgumentError              an argument of a function cannot be used
├── SourceError                rows or columns of `source` cannot be sent as they are
├── UnknownJobError            neither the ledger nor the API knows the id
├── NotEndedError              results were asked for before the jobs ended
├── NotSentError               a part waits for a submit statement, and for nothing else
├── WaitTimeoutError           the jobs run on, past the timeout that the caller set
├── IncompleteResultsError     the files hold less than the job's counts promise
├── OutcomeUnknownError        a create was sent and its answer was lost
├── LedgerError                the state directory or the ledger cannot be read or written
│   └── StoreError             the store cannot be read or written, or has lost a file
└── ApiError                   the API refused, or could not be reached
    ├── AuthenticationError    401
    ├── BillingError           402
    ├── ForbiddenError         403
    ├── NotFoundError          404 or 410
    ├── LimitError             429
    └── UnreachableError       no answer arrived
        └── OversleptError     a create was not sent, because its time had passed
"""

from __future__ import annotations

from duckdb_mistral.printable import printable


class MistralBatchError(Exception):
    """The Mistral batch function could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(printable(message or " ".join((type(self).__doc__ or "").split())))


class SettingError(MistralBatchError):
    """A setting of duckdb_mistral cannot be used."""


class MissingKeyError(SettingError):
    """No API key is set: set MISTRAL_API_KEY in the environment, or pass api_key to register()."""


class ArgumentError(MistralBatchError):
    """An argument of a mistral function cannot be used."""


class SourceError(MistralBatchError):
    """The rows of the source cannot be sent as they are; nothing was sent."""


class UnknownJobError(MistralBatchError):
    """No submission or job has this id."""


class NotEndedError(MistralBatchError):
    """The submission has not ended yet, so there are no results."""


class NotSentError(MistralBatchError):
    """A part of the submission was not sent; run the submit statement again to continue it."""


class WaitTimeoutError(MistralBatchError):
    """The jobs had not ended when the timeout passed; they run on."""


class IncompleteResultsError(MistralBatchError):
    """The result files hold less than the job's counts promise; nothing was kept."""


class OutcomeUnknownError(MistralBatchError):
    """A job was sent and the answer was lost; run the same statement again to look for the job."""


class LedgerError(MistralBatchError):
    """The state directory of duckdb_mistral cannot be used."""


class StoreError(LedgerError):
    """The store cannot be used, or has lost a file; nothing is paid twice for that."""


class ApiError(MistralBatchError):
    """The Mistral API did not do what was asked.

    `status_code` is the HTTP status, or None if no answer arrived; `retry_after` is in seconds, or None.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        status_code: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retry_after = retry_after


class AuthenticationError(ApiError):
    """The Mistral API refused the key."""


class BillingError(ApiError):
    """The Mistral API does not do this for the workspace until billing is enabled."""


class ForbiddenError(ApiError):
    """The Mistral API does not let this key do what was asked, such as use a model, an endpoint or a file."""


class NotFoundError(ApiError):
    """The Mistral API does not know what was asked for."""


class LimitError(ApiError):
    """A limit of the Mistral API is reached for now."""


class UnreachableError(ApiError):
    """The Mistral API gave no answer.

    `sent` is False if the request certainly did not reach the server. `timed_out` is True if the request was given up
    while the server may still be working on it.
    """

    def __init__(self, message: str | None = None, *, sent: bool = True, timed_out: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.timed_out = timed_out


class OversleptError(UnreachableError):
    """A job was not created, because this process was stopped for too long just before sending it.

    Nothing was sent: run the statement again.
    """
