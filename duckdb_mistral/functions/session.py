"""What the functions of one database do: settings, open spools, and one call to a use case each.

Heavy modules are imported when a statement first needs them, so that registering costs next to nothing.
"""

from __future__ import annotations

import atexit
import itertools
import json
import threading
import weakref
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from duckdb_mistral.errors import ArgumentError, MistralBatchError, SourceError
from duckdb_mistral.runtime.forks import is_inherited, leave_to_parent
from duckdb_mistral.runtime.memory import check_room
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import duckdb

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.functions.waiting import Waiting
    from duckdb_mistral.jobs.job import Job, Plan
    from duckdb_mistral.pricing.pilot import Pilot
    from duckdb_mistral.requests.spool import Spool


#: While a macro is made, DuckDB 1.5 binds its body with names that begin so in the place of its parameters.
MACRO_PARAMETER = "0_macro_parameters"
#: What mistral_batch_results has in place of an id where none is given, which is not the same as NULL.
EVERY = "every ended submission"
NULL_ID = "The id is NULL; give the submission_id or the job_id that mistral_batch_submit returned."

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
#: Spools of statements that failed, whose connections are gone.
_left: SimpleQueue[Spool] = SimpleQueue()


class _Opened(NamedTuple):
    """A spool that a running statement fills, with what it is submitted with, and which statement of whose it is."""

    context: Context
    spool: Spool
    plan: str
    connection: int
    query: int


class Session:
    """One database's functions at work; every connection and cursor of the database shares it."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Keep the settings that were given; the rest comes from the environment at each call.

        Raises SettingError for settings that cannot be used, and where a limit leaves too little memory to work in.
        """
        check_room()
        #: By which another connection of the same database finds it.
        self.name = str(uuid4())
        self._lock = threading.Lock()
        self._piloting = threading.Lock()
        self._pilots: dict[str, list[Pilot]] = {}
        self._given: dict[str, Any] = {}
        self._context: Context | None = None
        self._earlier: list[Context] = []
        self._spools: dict[int, _Opened] = {}
        self._numbers = itertools.count(1)
        self._waits: dict[int, Waiting[list[Job]]] = {}
        self._one_waits = threading.Lock()
        #: Hears why the API could not be asked for jobs that a status shows all the same.
        self.on_trouble: Callable[[str], object] = lambda _: None
        #: The connections and cursors that have registered, by their address.
        self._members: set[int] = set()
        self.configure(given)
        _sessions.add(self)
        leave_to_parent(self)

    def join(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Work for a connection or cursor; when the last one is gone, so is what is heavy."""
        _discard_left()
        self._members.add(id(connection))
        finalizer: Any = weakref.finalize(connection, self._leave, id(connection))
        finalizer.atexit = False

    def _leave(self, member: int) -> None:
        """Be without a connection that is gone. This runs wherever Python collects it: so it waits for nothing."""
        self._members.discard(member)
        if not self._members and self._lock.acquire(blocking=False):  # held: somebody is at work
            try:
                self._context = None
                self._earlier.clear()
                while self._spools:
                    _left.put(self._spools.popitem()[1].spool)
                self._pilots.clear()
            finally:
                self._lock.release()

    def configure(self, given: Mapping[str, Any]) -> None:
        """Take over the settings in `given` and keep the others; raises SettingError before changing any."""
        merged = self._given | {name: value for name, value in given.items() if value is not None}
        Settings.resolve(given)
        Settings.resolve(merged)
        self._given = merged

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return Settings.resolve(self._given)

    def context(self) -> Context:
        """Return what use cases work with, for the settings as they are now; raises LedgerError."""
        from duckdb_mistral.batches.context import Context

        settings = self.settings
        with self._lock:
            if self._context is None or self._context.settings != settings or not settings.home.exists():
                if self._context is not None:
                    self._earlier.append(self._context)  # a call on another thread may still be at it
                    self._context = None
                context = Context(settings)
                _ = context.ledger
                self._context = context
            return self._context

    def close(self) -> None:
        """Let go of connections to the API, and of waits and spools whose statement never came to its end."""
        with self._lock:
            waits, self._waits = list(self._waits.values()), {}
        for waiting in waits:
            waiting.leave()
        with self._lock:
            for opened in self._spools.values():
                opened.spool.discard()
            self._spools.clear()
            if self._context is not None:
                self._earlier.append(self._context)
                self._context = None
            for context in self._earlier:
                context.close()
            self._earlier.clear()

    # While a statement is bound

    def compile(self, name: str, arguments: str) -> str:
        """Return the statement that a call of submit, preview or results stands for."""
        from duckdb_mistral.functions import row_types, statements
        from duckdb_mistral.results.convert import COLUMNS
        from duckdb_mistral.runtime import interrupts

        interrupts.listen()
        interrupts.begin()
        given = json.loads(arguments)
        columns = {
            "submit": row_types.columns(row_types.SUBMIT),
            "preview": statements.PREVIEW_COLUMNS,
            "estimate": row_types.columns(row_types.ESTIMATE),
            "results": COLUMNS,
        }[name]
        if str(given.get("source")).startswith(MACRO_PARAMETER):
            return statements.refusal(columns, "A macro that is being made has no source yet.")
        try:
            if name == "results":
                return self._results(given)
            return self._requests(name, given)
        except MistralBatchError as error:
            if name == "results":  # a relation or a view of what has not ended must fit what there will be
                columns = columns | {"output": self._output_type(given["id"])}
            return statements.refusal(columns, str(error))
        except KeyboardInterrupt:
            return statements.refusal(columns, interrupts.INTERRUPTED)

    def _requests(self, name: str, given: Mapping[str, Any]) -> str:
        from duckdb_mistral.functions import arguments, statements
        from duckdb_mistral.results.output import UnknownTypeError

        if given.get("compared"):
            raise ArgumentError(arguments.COMPARED)
        try:
            checked = self._submit_arguments(given)
        except UnknownTypeError as error:
            return statements.with_type_of_caller(name, given, error)
        unsent = None
        if name == "estimate" and checked.plan.reuse_requests:
            from duckdb_mistral.batches.reuse import unsent_sql

            unsent = unsent_sql(self.context(), checked.plan)
        return statements.request_statement(name, checked, unsent)

    def _submit_arguments(self, given: Mapping[str, Any]) -> Any:
        from duckdb_mistral.functions.arguments import submit_arguments

        return submit_arguments(given, self.settings.model)

    def _results(self, given: Mapping[str, Any]) -> str:
        from duckdb_mistral.batches.collect import collect
        from duckdb_mistral.functions.arguments import COMPARED, boolean
        from duckdb_mistral.functions.reach import refuse_out_of_reach
        from duckdb_mistral.functions.statements import results_statement

        if isinstance(given["id"], bool) or given["partial"] is None:
            raise ArgumentError(COMPARED)
        identifier, partial = given["id"], boolean("partial", given["partial"])
        if identifier is None:
            raise ArgumentError(f"{NULL_ID} Without an id, the results of every ended submission are read.")
        if not isinstance(identifier, str):
            raise ArgumentError(f"id must be the text of a submission or job id, but is {identifier!r}.")
        context = self.context()
        refuse_out_of_reach(context.home, given.get("allowed"))
        collected = collect(context, None if identifier == EVERY else identifier, partial=partial)
        return results_statement(collected.families, collected.output)

    def _output_type(self, identifier: Any) -> str:
        """Return the type of the column output of an id's results, as far as it is known here."""
        from duckdb_mistral.batches.lookup import declared_output
        from duckdb_mistral.results.output import declared

        output = None
        if isinstance(identifier, str):
            with suppress(MistralBatchError):
                output = declared_output(self.context(), identifier)
        return "JSON" if output is None else declared(output).sql_type

    # While a submit runs

    def check(self, plan: str, names: list[str]) -> str | None:
        """Return what is wrong with the columns of a source, or None."""
        try:
            self._check_columns(plan, names)
        except MistralBatchError as error:
            return str(error)
        return None

    def open(self, plan: str, names: list[str], connection: int, query: int, allowed: list[str] | None) -> int:
        """Check the columns of a source and open a spool for its requests; return the spool's token.

        DuckDB hands the token over with every row, so it is a number. A connection runs one query at a time, so the
        spools of its earlier ones are of statements that failed or were interrupted, and go. `allowed` are the
        directories that the connection may reach, None for all.
        """
        from duckdb_mistral.batches.spools import new_spool
        from duckdb_mistral.functions.reach import refuse_out_of_reach

        self._check_columns(plan, names)
        context = self.context()
        refuse_out_of_reach(context.home, allowed)
        context.settings.required_key()
        self._discard_earlier(connection, query)
        spool = new_spool(context)
        with self._lock:
            token = next(self._numbers)
            self._spools[token] = _Opened(context, spool, plan, connection, query)
        return token

    def _discard_earlier(self, connection: int, query: int) -> None:
        """Remove the spools that other queries of a connection have left, or of connections that are gone."""
        _discard_left()
        with self._lock:
            left = [
                token
                for token, opened in self._spools.items()
                if opened.connection == connection and opened.query != query
            ]
            earlier = [self._spools.pop(token) for token in left]
        for opened in earlier:
            opened.spool.discard()

    def spool(self, token: int) -> Spool | None:
        """Return an open spool, None where its submit is over."""
        opened = self._spools.get(token)
        return None if opened is None else opened.spool

    def refuse_spools(self, tokens: Iterable[int]) -> None:
        """Let the submits of spools whose rows came mixed be refused."""
        from duckdb_mistral.requests.columns import CORRELATED

        for spool in filter(None, map(self.spool, tokens)):
            spool.fail(SourceError(CORRELATED))

    def submit(self, token: int, summary: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        """Check what was spooled, and submit it; return a row per job."""
        from duckdb_mistral.batches.submit import Submitter
        from duckdb_mistral.functions import row_types
        from duckdb_mistral.requests.columns import CORRELATED, check_rows, check_spooled

        with self._lock:
            opened = self._spools.pop(token, None)
        if opened is None:
            raise SourceError(CORRELATED)
        spool = opened.spool
        try:
            check_spooled(summary, spool)
            check_rows(summary, spool)
            jobs = Submitter(opened.context).submit(_plan(opened.plan), spool, summary["fingerprint"])
            return [row_types.submit_row(job, reused) for job, reused in jobs]
        finally:
            spool.discard()

    def _check_columns(self, plan: str, names: list[str]) -> None:
        from duckdb_mistral.api.endpoints import endpoint_of
        from duckdb_mistral.requests.columns import check_columns

        check_columns(endpoint_of(json.loads(plan)["endpoint"]), names)

    # The few-row functions

    def estimate(
        self,
        plan: str,
        summary: Mapping[str, Any],
        measured: Sequence[Mapping[str, Any]] | None,
        pilot: list[str] | None,
        names: list[str],
    ) -> Iterable[dict[str, Any]]:
        """Return the one row of an estimate; refuse what a submit of the same arguments would refuse.

        `names` are the columns of the source.
        """
        from duckdb_mistral.api.endpoints import endpoint_of
        from duckdb_mistral.pricing.plans import estimate_plan
        from duckdb_mistral.requests.columns import check_rows
        from duckdb_mistral.requests.field_names import unsent_columns

        check_rows(summary)
        planned = _plan(plan)
        unsent = unsent_columns(endpoint_of(planned.endpoint), names)
        row = estimate_plan(planned, measured or [], self.settings, unsent)
        return [self._piloted(row, planned, pilot) if pilot else row]

    def _piloted(self, row: dict[str, Any], plan: Plan, bodies: list[str]) -> dict[str, Any]:
        """Return an estimate with what a pilot makes of it; the same pilot again is not paid again."""
        from duckdb_mistral.pricing import pilot
        from duckdb_mistral.pricing.prices import load_prices

        settings = self.settings
        key = pilot.fingerprint(settings.server_url, plan, bodies)
        with self._piloting:
            if key not in self._pilots:
                self._pilots[key] = pilot.run(self.context().client, plan, bodies)
        return pilot.with_pilot(row, self._pilots[key], load_prices(settings.prices))

    def cost(self, identifier: str | None) -> Iterable[dict[str, Any]]:
        """Return what each job of an id has cost, from its kept results."""
        from duckdb_mistral.batches.collect import collect
        from duckdb_mistral.batches.lookup import find
        from duckdb_mistral.pricing.prices import load_prices
        from duckdb_mistral.pricing.usage import job_costs

        context = self.context()
        identifier = _required(identifier)
        collected = collect(context, identifier)
        files = [file for family in collected.families for files in family.generations for file in files]
        return job_costs(find(context, identifier), files, load_prices(self.settings.prices))

    def status(self, identifier: str | None) -> Iterable[dict[str, Any]]:
        """Return a row per job of an id, or of every submission; `on_trouble` hears why some may not be new."""
        from duckdb_mistral.batches.track import status
        from duckdb_mistral.functions import row_types

        polled = status(self.context(), identifier)
        if polled.trouble is not None:
            self.on_trouble(polled.trouble)
        return map(row_types.status_row, polled.jobs)

    def wait(self, identifier: str | None, timeout_seconds: float | None, number: int | None) -> dict[str, Any]:
        """Wait for an id's jobs, or go on with the wait of that number; return a row per job, or the number.

        Each call is short, so that DuckDB can end the statement after it.
        """
        from duckdb_mistral.functions import row_types
        from duckdb_mistral.functions.waiting import SLICE_SECONDS, Waiting

        with self._lock:
            if number is None:
                self._waits = {key: other for key, other in self._waits.items() if not other.left}
                wanted = _required(identifier)
                number = next(self._numbers)
                self._waits[number] = Waiting(lambda: self._waited(wanted, timeout_seconds))
            waiting = self._waits.get(number)
        if waiting is None:
            raise MistralBatchError("The process that waited has ended. The jobs run on; wait again.")
        if not waiting.has_ended(SLICE_SECONDS / max(1, len(self._waits))):
            return {"wait": number}
        self._waits.pop(number, None)
        return {"rows": list(map(row_types.status_row, waiting.outcome()))}

    def _waited(self, identifier: str, timeout_seconds: float | None) -> list[Job]:
        """Return the ended jobs of an id, showing how far they are meanwhile."""
        from duckdb_mistral.batches.wait import wait
        from duckdb_mistral.functions.progress import tell, watching
        from duckdb_mistral.jobs.failures import what_to_do
        from duckdb_mistral.runtime import interrupts

        context = self.context()
        while not self._one_waits.acquire(timeout=0.1):  # one after another, as their bars share a terminal
            interrupts.check()
        try:
            with watching() as watch:
                jobs = wait(context, identifier, timeout_seconds, watch)
            tell(what_to_do(jobs))
        finally:
            self._one_waits.release()
        return jobs

    def cancel(self, identifier: str | None) -> Iterable[dict[str, Any]]:
        """Ask for the cancellation of an id's jobs; return a row per job."""
        from duckdb_mistral.batches.cancel import cancel
        from duckdb_mistral.functions import row_types

        return map(row_types.status_row, cancel(self.context(), _required(identifier)))

    def retry(self, identifier: str | None) -> Iterable[dict[str, Any]]:
        """Send again what an id's jobs left; return a row per job."""
        from duckdb_mistral.batches.retry import Retrier
        from duckdb_mistral.functions import row_types

        jobs = Retrier(self.context()).retry(_required(identifier))
        return [row_types.submit_row(job, reused) for job, reused in jobs]

    def workspace_jobs(
        self, status: str | None, model: str | None, metadata: str | None, created_after: int | None
    ) -> Iterable[dict[str, Any]]:
        """Return a row per job of the workspace; `created_after` is in microseconds, what else is given is JSON."""
        from duckdb_mistral.functions import arguments, row_types

        wanted = dict(arguments.metadata_filter(json.loads(metadata) if metadata else None))
        reports = self.context().client.jobs(
            statuses=arguments.statuses(json.loads(status) if status else None),
            model=arguments.text("model", json.loads(model) if model else None),
            created_after=created_after,
        )
        return [row_types.reported(report) for report in reports if wanted.items() <= dict(report.metadata).items()]

    def models(self, _: bool | None) -> Iterable[dict[str, Any]]:
        """Return a row per model that the key may use."""
        from duckdb_mistral.functions import row_types

        return map(row_types.model_row, self.context().client.models())


def _discard_left() -> None:
    while True:
        try:
            spool = _left.get_nowait()
        except Empty:
            return
        spool.discard()


def _plan(text: str) -> Plan:
    from duckdb_mistral.jobs.job import Plan

    fields = json.loads(text)
    return Plan(
        **fields
        | {
            "models": tuple(fields["models"]),
            "metadata": tuple(tuple(pair) for pair in fields["metadata"]),
        }
    )


@atexit.register
def _close_all() -> None:
    """Close what is still open when Python ends."""
    _discard_left()
    for session in list(_sessions):
        if not is_inherited(session):
            session.close()


def _required(identifier: str | None) -> str:
    if identifier is None:
        raise ArgumentError(NULL_ID)
    return identifier
