"""Refusals before anything is sent: columns that cannot be what was meant, and rows that cannot be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.endpoints import CONTENT_COLUMNS, Endpoint
from duckdb_mistral.duck.engine import own_engine
from duckdb_mistral.duck.quoting import identifier
from duckdb_mistral.errors import SourceError
from duckdb_mistral.requests.field_names import taken_for_field
from duckdb_mistral.requests.keys import read_keys
from duckdb_mistral.requests.spelling import misspelt, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from duckdb_mistral.requests.spool import Spool

CORRELATED = (
    "The source uses a column of the statement around mistral_batch_submit, so it would be submitted once for each of "
    "that statement's rows. Nothing was sent. Submit all rows with one call that stands alone, and join their answers."
)


def check_columns(endpoint: Endpoint, names: Iterable[str]) -> None:
    """Refuse columns of a source that cannot be what was meant; raise SourceError, naming them."""
    names = list(names)
    given = {name.lower(): name for name in names}
    for name in dict.fromkeys((*endpoint.own_columns, *endpoint.option_fields)):
        same = [one for one in names if one.lower() == name]
        if len(same) > 1:
            raise SourceError(
                f"The source has {len(same)} columns named {name} ({', '.join(same)}), but only one can be sent. "
                f"Leave out all but one (SELECT t.* EXCLUDE ({name})), or rename the others. Nothing was sent."
            )
    content = (*endpoint.content_columns, "body")
    if "custom_id" not in given:
        raise SourceError(
            f"The source has no column custom_id{_meant('custom_id', given)}; each request needs one, by which its "
            "answer is joined. Nothing was sent."
        )
    if not any(name in given for name in content):
        wanted = " or ".join((", ".join(content[:-1]), content[-1]))
        near = next((hint for name in content if (hint := _meant(name, given))), "")
        raise SourceError(f"The source has no column {wanted}{near}, so there is nothing to ask. Nothing was sent.")
    # custom_id is there, so customer_id is no misspelling of it
    known = {
        *endpoint.fields,
        *endpoint.own_columns,
        "system",
        *(name for of in CONTENT_COLUMNS.values() for name in of),
    }
    for name in given:
        if name in known:
            continue
        field = misspelt(endpoint, name, ("system",) if endpoint.takes_system else ())
        if field is not None:
            raise SourceError(
                f"The source's column {given[name]} looks like a misspelt {field}, which would be left out of the "
                f"requests. Rename it to {field}, or leave it out (SELECT * EXCLUDE ({identifier(given[name])})). "
                "Nothing was sent."
            )
        meant = taken_for_field(endpoint, name, given)
        if meant is not None:
            raise SourceError(
                f"The source's column {given[name]} would be left out of the requests, and {meant}. Nothing was sent."
            )


def check_spooled(summary: Mapping[str, Any], spool: Spool) -> None:
    """Refuse a spool that does not hold the rows that were counted; its `finish` reports rows it could not write."""
    if spool.failure is None:
        written = summary["rows"] - sum(dict(summary["problems"] or ()).values())
        if spool.request_count != written:
            raise SourceError(CORRELATED)


def check_rows(summary: Mapping[str, Any], spool: Spool | None = None) -> None:
    """Refuse rows of a source that cannot be sent as they are; raise SourceError, naming them."""
    if not summary["rows"]:
        raise SourceError("The source has no rows, so there is nothing to send. Nothing was sent.")
    problems = dict(summary["problems"] or ())
    if problems:
        told = "; ".join(f"{_rows(count)} {problem}" for problem, count in sorted(problems.items()))
        examples = summary["examples"] or []
        which = f" For example {'; '.join(f'custom_id {_example(text)}' for text in examples)}." if examples else ""
        raise SourceError(f"The source cannot be sent: {told}.{which} Nothing was sent.")
    if spool is None:
        repeated, names = summary["rows"] - summary["custom_ids"], summary["repeats"] or []
    else:
        repeated, names = _repeated_ids(spool)
    if repeated:
        named = f": {', '.join(names)}" if names else ""
        raise SourceError(
            f"The source repeats {repeated:,} of its {summary['rows']:,} custom_ids{named}. Answers are joined by "
            "custom_id, so each must occur only once. Nothing was sent."
        )


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def _example(text: str) -> str:
    problem, _, custom_id = text.partition(": ")
    return f"{custom_id} ({problem})"


def _repeated_ids(spool: Spool, most: int = 5) -> tuple[int, list[str]]:
    """Return how many custom_ids of a spool are repeats, and some of them."""
    # Counting them takes several times their size; eight bytes of each nearly always show that none repeats.
    if not spool.may_repeat():
        return 0, []
    with own_engine(spool.spill) as engine:
        selects = []
        for part in spool.finish():
            engine.register(f"keys_{part.part}", read_keys(part.path))
            selects.append(f"SELECT custom_id FROM keys_{part.part}")
        engine.execute(f"CREATE TEMP VIEW ids AS {' UNION ALL '.join(selects)}")
        ((repeated,),) = engine.execute("SELECT count(*) - count(DISTINCT custom_id) FROM ids").fetchall()
        found = engine.execute(
            "SELECT custom_id, count(*) FROM ids GROUP BY custom_id HAVING count(*) > 1 ORDER BY custom_id LIMIT $most",
            {"most": most},
        ).fetchall()
    return int(repeated), [f"{custom_id} ({times} times)" for custom_id, times in found]


def _meant(wanted: str, given: Mapping[str, str]) -> str:
    near = nearest(wanted, given, shortest=len(wanted) - 2)
    return f" (was {given[near]} meant to be {wanted}?)" if near else ""
