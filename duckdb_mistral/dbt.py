"""The functions in dbt: name this module among the plugins of a dbt-duckdb profile.

    plugins:
      - module: duckdb_mistral.dbt
        config: {model: mistral-small-latest}

`config` takes the settings of `duckdb_mistral.register()`; settings that are not given come from the environment. The
macros of the dbt package `dbt_package/` call further functions of this module, which take and return JSON.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from dbt.adapters.duckdb.plugins import BasePlugin
from dbt_common.exceptions import DbtRuntimeError

from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.functions.register import register
from duckdb_mistral.functions.session import Session
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job

_GONE = "With partial=true in its config, a model counts the rows of such a job as missing, and may send them again."
#: Functions given to DuckDB, kept alive because it calls them by address.
_kept: list[Callable[[str], str]] = []
#: The arguments of a submit for which the model's config gives none.
DEFAULTS = {"source": "rows", "endpoint": "/v1/chat/completions", "timeout_hours": 24, "force": False}


class Plugin(BasePlugin):
    """Give every model the mistral functions."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Check the settings; raise DbtRuntimeError if one cannot be used."""
        # dbt-duckdb passes the profile's DuckDB settings too, in one dictionary with those of `config`.
        of_duckdb = set((self.creds.settings if self.creds else None) or ()) - {
            field.name for field in fields(Settings)
        }
        self._settings = {name: value for name, value in plugin_config.items() if name not in of_duckdb}
        try:
            self._macros = MacroCalls(Session(self._settings))
        except MistralBatchError as error:
            raise DbtRuntimeError(str(error)) from error

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Create the functions on the database."""
        register(conn, **self._settings)
        self._macros.create(conn)

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Create the macros, which are TEMP, on a model's connection."""
        register(cursor)


class MacroCalls:
    """The functions for the dbt package's macros, in addition to those that people call."""

    def __init__(self, session: Session) -> None:
        """Answer with the settings and the ledger of `session`."""
        self._session = session

    def create(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create the functions on the database of `connection`, unless another of its connections has done so."""
        ((known,),) = connection.execute(
            "SELECT count(*) FROM duckdb_functions() WHERE function_name = 'mistral_dbt_plan'"
        ).fetchall()
        calls: dict[str, Callable[[Any], Any]] = {
            "mistral_dbt_look": self.look,
            "mistral_dbt_found": self.found,
            "mistral_dbt_plan": self.plan,  # last, because its presence means that all are there
        }
        for name, call in () if known else calls.items():
            function = _in_json(call)
            _kept.append(function)
            connection.create_function(name, function, ["VARCHAR"], "VARCHAR", side_effects=True)

    def plan(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the arguments of a submit; return what they resolve to here, and the columns of its results.

        `given` has the arguments of mistral_batch_submit. Raises ArgumentError as that function does.
        """
        from duckdb_mistral.functions.arguments import submit_arguments
        from duckdb_mistral.results.columns import COLUMNS

        settings = self._session.settings
        models = given.get("model")
        checked = [
            submit_arguments(DEFAULTS | {"reuse": "requests"} | dict(given) | {"model": model}, settings.model)
            for model in (models if isinstance(models, list) and models else [models])
        ]
        output = checked[0].output
        return {
            "endpoint": checked[0].plan.endpoint,
            "models": [model for one in checked for model in one.plan.models],
            "server_url": settings.server_url,
            "reuse_requests": checked[0].plan.reuse_requests,
            "columns": COLUMNS,
            "output": "JSON" if output is None else output.sql_type,
            "fields": [] if output is None else _field_names(output.sql_type),
        }

    def look(self, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the progress of submissions, and which of their ids have results to read.

        `given` has submissions, each with its submission_id and its jobs, which are used if the ledger does not know
        the submission, as under a new `home`. With `partial`, a job that the workspace does not know (any more) counts
        as ended without results; otherwise it raises UnknownJobError. With `asking` false, the answer comes from the
        ledger alone, and the API is not asked.
        """
        partial, asking = bool(given.get("partial")), given.get("asking") is not False
        return [self._looked(one, partial=partial, asking=asking) for one in given["submissions"]]

    def _looked(self, one: Mapping[str, Any], *, partial: bool, asking: bool) -> dict[str, Any]:
        from duckdb_mistral.batches.describe import describe, not_sent
        from duckdb_mistral.batches.lookup import find
        from duckdb_mistral.batches.track import unsent

        context, submission_id = self._session.context(), one["submission_id"]
        known = context.ledger.submission(submission_id) is not None
        if known and not asking:
            jobs = find(context, submission_id)
        else:
            jobs = _polled(context, [submission_id] if known else one["jobs"] if asking else [], partial=partial)
        planned = unsent(context, jobs)
        ended = all(job.ended for job in jobs)
        read = [job.job_id for job in jobs if job.ended and job.job_id]
        return {
            "submission_id": submission_id,
            "ended": ended,
            "jobs": [job.job_id for job in jobs if job.job_id],
            "ids": [submission_id] if known and ended and jobs else read,
            "wait": [submission_id] if known else [job.job_id for job in jobs if not job.ended],
            "told": str(not_sent(context, planned)) if planned else describe(jobs) if jobs else "",
            "pending": _pending_ids(context, [job for job in jobs if not job.ended]) if known else None,
        }

    def found(self, given: Mapping[str, Any]) -> dict[str, str | None]:
        """Return a SELECT of the `ok` answers under `home`, with their requests' hashes; None if there are none.

        `given` has endpoint and model, and wanted: the name of a table with the wanted hashes in a column `request`.
        """
        from duckdb_mistral.batches.answers import answered_sql
        from duckdb_mistral.results.responses import kept_rows

        context = self._session.context()
        selects = [
            f"SELECT {age} AS age, answered.request, results.* FROM {kept_rows([file])} AS results "
            f"JOIN ({select}) AS answered ON results.custom_id COLLATE C = answered.answered_as "
            f"WHERE results.outcome = 'ok' AND answered.request IN (SELECT request FROM {given['wanted']})"
            for age, (file, select) in enumerate(answered_sql(context, given["endpoint"], given["model"]))
        ]
        union = " UNION ALL ".join(f"({select})" for select in selects)
        newest = f"SELECT DISTINCT ON (request) * EXCLUDE (age) FROM ({union}) ORDER BY request, age"
        return {"select": newest if selects else None}


def _polled(context: Context, identifiers: Sequence[str], *, partial: bool) -> list[Job]:
    """Return the jobs of ids as the API reports them; with `partial`, without those that it does not know."""
    from duckdb_mistral.batches.describe import not_known
    from duckdb_mistral.batches.track import poll
    from duckdb_mistral.errors import UnknownJobError

    jobs: list[Job] = []
    for identifier in identifiers:
        try:
            polled = poll(context, identifier)
            if polled.gone and not partial:
                raise not_known(context, polled.gone[0])
        except UnknownJobError as error:
            if not partial:
                raise UnknownJobError(f"{error} {_GONE}") from None
            continue
        lost = {job.key for job in polled.gone}
        jobs += [job for job in polled.jobs if job.key not in lost]
    return jobs


def _in_json(call: Callable[[Any], Any]) -> Callable[[str], str]:
    """Return a function from JSON to JSON; an error for the user is returned as its member `error`."""

    def function(given: str) -> str:
        interrupts.begin()
        try:
            answer = {"answer": call(json.loads(given))}
        except MistralBatchError as error:
            answer = {"error": str(error)}
        return json.dumps(answer, default=str)

    return function


def _field_names(sql_type: str) -> list[str]:
    """Return the fields of a STRUCT; none for any other type."""
    import duckdb

    kind = duckdb.sqltype(sql_type)
    return [name for name, _ in kind.children] if kind.id == "struct" else []


def _pending_ids(context: Context, jobs: Sequence[Job]) -> str | None:
    """Return a SELECT of the custom_ids that were sent in jobs, as far as they are known here."""
    return " UNION ALL ".join(_ids_of_jobs(context, jobs)) or None


def _ids_of_jobs(context: Context, jobs: Sequence[Job]) -> Iterator[str]:
    from duckdb_mistral.batches.answers import hashed_requests
    from duckdb_mistral.batches.reuse_files import bring_reused
    from duckdb_mistral.jobs.tags import Tags

    home = context.home
    for job in jobs:
        hashes = home.hashes(job)
        requests = home.part(job.submission_id or "", job.part)
        if hashes.exists():
            yield _ids_of(hashes)
        elif not requests.exists() and home.store is not None:
            known = hashed_requests(context, job)
            if known is not None:
                yield f"SELECT custom_id FROM ({known})"
        elif requests.exists():
            yield (
                f"SELECT custom_id FROM read_json({literal(requests)}, format = 'newline_delimited', "
                "columns = {custom_id: 'VARCHAR'}, maximum_object_size = 67108864)"
            )
    for submission_id in dict.fromkeys(job.submission_id for job in jobs if job.submission_id):
        submission = context.ledger.submission(submission_id) if home.store is not None else None
        if submission is not None:
            bring_reused(home, submission_id, Tags.from_metadata(submission.metadata))
        for path in (home.copies(submission_id), home.found(submission_id)):
            if path.exists():
                yield _ids_of(path)


def _ids_of(path: Path) -> str:
    return f"SELECT custom_id FROM read_parquet({literal(path)})"
