"""From the columns of `source` to request bodies: the expressions that DuckDB runs, and the check of the columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.endpoints import CONTENT_COLUMNS, CONVERSATIONS, OUTPUT_FIELDS, Endpoint
from duckdb_mistral.duck.engine import own_engine
from duckdb_mistral.duck.qualifying import call
from duckdb_mistral.duck.quoting import identifier, literal
from duckdb_mistral.errors import ArgumentError, SourceError
from duckdb_mistral.requests.content import ANY_JSON, content_members, filled, json_text, value
from duckdb_mistral.requests.field_names import taken_for_field
from duckdb_mistral.requests.spool import read_keys
from duckdb_mistral.runtime.json_text import as_json, given_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from duckdb_mistral.requests.spool import Spool

CORRELATED = (
    "The source uses a column of the statement around mistral_batch_submit, so it would be submitted once for each of "
    "that statement's rows. Nothing was sent. Submit all rows with one call that stands alone, and join their answers."
)
#: A column whose name is at least this similar to a field's counts as a misspelling of it.
NEAR = 0.85
#: Stricter, so that service_time is no misspelt service_tier, and n_tokens no misspelt min_tokens.
NEARER = 0.93
#: Names shorter than this are similar to too many others.
SHORTEST_NEAR = 6

_NOT_JSON = "typeof(:x) = 'VARCHAR' AND NOT json_valid(:x::VARCHAR)"
# DuckDB reads and writes numbers that JSON does not have; only the whole value shows whether one is really text.
_TEXT = "CASE WHEN typeof(:x) = 'VARCHAR' THEN :x::VARCHAR ELSE to_json(:x)::VARCHAR END"
_NOT_FINITE = (
    f"regexp_matches({_TEXT}, '(?i)(^|[\\[:,\"])\\s*-?(nan|inf)') AND NOT regexp_full_match({_TEXT}, "
    '\'(?s)(null|true|false|[-+0-9.eE{}\\[\\]:,\\s]|"([^"\\\\]|\\\\.)*")*\')'
)
# A field that takes strings does not read text as JSON, so only types that contain numbers are checked.
_NUMBERS_NOT_FINITE = f"regexp_matches(typeof(:x), 'FLOAT|DOUBLE|JSON|VARIANT') AND {_NOT_FINITE}"


class RequestColumns:
    """The SQL of one submission's requests: `known_columns`, `problem` and `body`, as text for the templates."""

    def __init__(
        self, endpoint: Endpoint, *, system: str | None, params: Mapping[str, Any], declared: bool = False
    ) -> None:
        """Plan the requests for `endpoint`; `params` are body fields for every row.

        With `declared`, params includes the format of a declared output, which no row may change.

        Raises ArgumentError for params that cannot be body fields.
        """
        _check_params(endpoint, params)
        self._endpoint = endpoint
        self._system = system
        self._output_field = OUTPUT_FIELDS.get(endpoint.path) if declared else None
        self._params = {
            _field(endpoint, name): _parsed(endpoint, name, value)
            for name, value in params.items()
            if value is not None
        }
        self._names = tuple(dict.fromkeys((*endpoint.own_columns, *endpoint.option_fields)))

    @property
    def known_columns(self) -> str:
        """Every column that has a meaning, as an untyped NULL of that name."""
        return ", ".join(f"NULL AS {identifier(name)}" for name in self._names)

    @property
    def body(self) -> str:
        """The request body of a row, as JSON text."""
        content = content_members(self._endpoint, self._system)
        pieces = [
            "'{'",
            self._content(content),
            *self._options([name for name in self._endpoint.option_fields if name not in content]),
            *(
                literal(f",{json.dumps(name)}:{as_json(given)}")
                for name, given in self._params.items()
                if name not in self._endpoint.fields
            ),
            "'}'",
        ]
        # One concat copies the text once, while every `||` copies it again; and concat skips NULLs.
        built = f"concat({', '.join(pieces)})"
        # Both branches are VARCHAR: if one were JSON, the built text would be parsed again.
        return f"CASE WHEN body IS NULL THEN {built} ELSE ({json_text('body')})::VARCHAR END"

    @property
    def problem(self) -> str:
        """What is wrong with a row, in words, or NULL."""
        options = self._endpoint.option_fields
        content = self._endpoint.content_columns
        beside = (*(("system",) if self._endpoint.takes_system else ()), *options)
        cases = [
            *self._nothing_wrong(content, options),
            ("custom_id IS NULL", "no custom_id"),
            (f"body IS NOT NULL AND ({_any_given(content)})", f"both body and {content[0]}"),
            (f"body IS NOT NULL AND ({_any_given(beside)})", "a body beside other fields of the request"),
            (
                f"body IS NOT NULL AND coalesce(json_type({_safe_json('body')}), '') <> 'OBJECT'",
                f"a body that is not a JSON object (text belongs in {content[0]})",
            ),
            *(
                (f"{_given(one)} AND {_given(other)}", f"both {one} and {other}")
                for number, one in enumerate(content)
                for other in content[number + 1 :]
            ),
            (f"body IS NULL AND NOT ({_any_given(content)})", f"no {content[0]}"),
            *(case for name in content for case in self._content_problems(name)),
        ]
        values = [name for name in options if "string" not in self._endpoint.fields[name]]
        cases += [(filled(_NOT_JSON, name), f"{_article(name)} {name} that is not JSON") for name in values]
        read_as_json = ("body", *(name for name in content if self._types(name) == {"array"}), *values)
        cases += [
            (f"{_given(name)} AND {condition}", f"a number in {name} that is NaN or infinite")
            for name in dict.fromkeys((*read_as_json, *content, *options))
            if name != "prompt"
            for condition in [filled(_NOT_FINITE if name in read_as_json else _NUMBERS_NOT_FINITE, name)]
        ]
        if self._output_field is not None:
            cases.append(
                (_given(self._output_field), f"{_article(self._output_field)} {self._output_field} beside output")
            )
        whens = " ".join(f"WHEN {condition} THEN {literal(words)}" for condition, words in cases)
        return f"CASE {whens} END"

    def _nothing_wrong(self, content: Sequence[str], options: Sequence[str]) -> Iterator[tuple[str, None]]:
        """Yield the case that spares most rows all others: they have nothing but the text of their content."""
        usual, *others = content
        if not any(self._content_problems(usual)):
            given = _any_given(("body", *others, *options))
            yield f"custom_id IS NOT NULL AND {_given(usual)} AND NOT ({given})", None

    def _content_problems(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the possible problems with the value of one content column."""
        types = self._types(name)
        found = f"coalesce(json_type({_safe_json(name)}), '')"
        if "array" in types:
            empty = f"{_given(name)} AND {found} = 'ARRAY' AND json_array_length({_safe_json(name)}) = 0"
            yield empty, f"an empty list of {name}"
        if types == {"array"}:
            yield f"{_given(name)} AND {found} <> 'ARRAY'", f"{name} not given as a JSON list"
            if name == "messages" and self._endpoint.path != CONVERSATIONS:
                yield f"{_given(name)} AND {_no_role(name)}", f"{name} without a role (each is role and content)"
        elif types == {"array", "string"}:
            is_text = f"typeof({identifier(name)}) = 'VARCHAR'"
            yield (
                f"{_given(name)} AND NOT {is_text} AND {found} = 'OBJECT'",
                f"{_article(name)} {name} that is neither text nor a list",
            )
        elif "string" not in types and "array" in types:
            yield filled(_NOT_JSON, name), f"{_article(name)} {name} that is not JSON"
        elif types == {"object"}:
            is_text = f"typeof({identifier(name)}) = 'VARCHAR'"
            yield f"{_given(name)} AND NOT {is_text} AND {found} <> 'OBJECT'", f"a {name} that is not a JSON object"

    def _types(self, name: str) -> frozenset[str]:
        """Return the JSON types that a content column may have."""
        return self._endpoint.fields.get(name, frozenset({"array"} if name == "messages" else {"string"}))

    def _content(self, content: Mapping[str, tuple[str, ...]]) -> str:
        """Return the members that the content columns fill, with commas between; every row sent has at least one."""
        if len(content) == 1:
            ((name, texts),) = content.items()
            return ", ".join((literal(json.dumps(name) + ":"), *texts))
        return f"concat_ws(',', {', '.join(self._member(name, text, '') for name, (text,) in content.items())})"

    def _options(self, names: Sequence[str]) -> Iterator[str]:
        """Yield the members of the option fields, each after a comma; one check covers the many rows with none."""
        members = ", ".join(self._member(name, value(self._endpoint, name), ",") for name in names)
        if any(name in self._params for name in names):
            yield members
        elif names:
            yield f"CASE WHEN {_any_given(names)} THEN concat({members}) END"

    def _member(self, name: str, text: str, before: str) -> str:
        """Return a member of the body, NULL if the row leaves it out; `text` is the SQL of the row's own value."""
        key = f"{before}{json.dumps(name)}:"
        # A JSON null leaves the member out, as NULL does.
        member = call("||", literal(key), f"nullif(({text})::VARCHAR, 'null')")
        if name not in self._params:
            return member
        return f"coalesce({member}, {literal(key + as_json(self._params[name]))})"


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
        field = _misspelt(endpoint, name, ("system",) if endpoint.takes_system else ())
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
        raise SourceError("The source has no rows, so there is nothing to send.")
    problems = dict(summary["problems"] or ())
    if problems:
        told = "; ".join(f"{_rows(count)} {problem}" for problem, count in sorted(problems.items()))
        examples = summary["examples"] or []
        which = f" For example {'; '.join(f'custom_id {_example(text)}' for text in examples)}." if examples else ""
        raise SourceError(f"The source cannot be sent: {told}.{which} Nothing was sent.")
    repeated, names = (summary["rows"] - summary["custom_ids"], []) if spool is None else _repeated_ids(spool)
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


def _misspelt(endpoint: Endpoint, name: str, others: Iterable[str] = ()) -> str | None:
    """Return the field that a name was probably meant to be; for newer fields, whose names resemble data, be strict."""
    fields = [field for field in endpoint.option_fields if field not in endpoint.added]
    newer = [field for field in endpoint.option_fields if field in endpoint.added and field[0] == name[:1]]
    return nearest(name, [*others, *fields]) or nearest(name, newer, near=NEARER)


def nearest(name: str, candidates: Iterable[str], shortest: int = SHORTEST_NEAR, near: float = NEAR) -> str | None:
    """Return the candidate that `name` was probably meant to be, or None."""
    import difflib

    plain = {_plain(candidate): candidate for candidate in candidates}
    if _plain(name) in plain:
        return plain[_plain(name)]
    long_enough = [candidate for candidate in plain if len(candidate) >= shortest]
    found = difflib.get_close_matches(_plain(name), long_enough, n=1, cutoff=near)
    return plain[found[0]] if found else None


def _check_params(endpoint: Endpoint, params: Mapping[str, Any]) -> None:
    for name in params:
        if name.lower() in (*endpoint.content_columns, "body", "custom_id", "system"):
            raise ArgumentError(
                f"params cannot hold {name}: it is a column of the source, or a separate argument. Nothing was sent."
            )
        field = None if name.lower() in endpoint.fields else _misspelt(endpoint, name.lower())
        if field is not None:
            raise ArgumentError(f"params holds {name}, which looks like a misspelt {field}. Nothing was sent.")


def _field(endpoint: Endpoint, name: str) -> str:
    """Return the field that a name in params stands for, in the field's spelling; other names stay as they are."""
    return name.lower() if name.lower() in endpoint.fields else name


def _parsed(endpoint: Endpoint, name: str, value: Any) -> Any:
    """Return a value in params; as in a column, text is JSON if the field takes no strings."""
    types = endpoint.fields.get(name.lower(), frozenset({"string"}))
    if not isinstance(value, str) or "string" in types:
        return value
    return given_json(f"params.{name}", value)


def _meant(wanted: str, given: Mapping[str, str]) -> str:
    near = nearest(wanted, given, shortest=len(wanted) - 2)
    return f" (was {given[near]} meant to be {wanted}?)" if near else ""


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _safe_json(name: str) -> str:
    """Return an expression for a column's JSON that is NULL, not an error, if its text is not JSON."""
    return filled(
        f"CASE WHEN typeof(:x) <> 'VARCHAR' THEN {ANY_JSON} WHEN json_valid(:x::VARCHAR) THEN :x::VARCHAR::JSON END",
        name,
    )


def _no_role(name: str) -> str:
    """Return the condition that a message of a row has no role.

    A STRUCT's type answers that for all rows; a text that contains "role" anywhere is not parsed again to check.
    """
    json, kind = _safe_json(name), filled("typeof(:x)", name)
    roles = call("len", call("json_extract", json, "'$[*].role'"))
    unsaid = f"NOT contains({identifier(name)}::VARCHAR, '\"role\"') AND {roles} < json_array_length({json})"
    return (
        f"CASE WHEN {kind} IN ('VARCHAR', 'JSON', 'VARIANT') OR starts_with({kind}, 'MAP(') THEN {unsaid} "
        f"ELSE NOT regexp_matches({kind}, '[( \"]role\"? ') END"
    )


def _given(name: str) -> str:
    return f"{identifier(name)} IS NOT NULL"


def _any_given(names: Iterable[str]) -> str:
    return " OR ".join(_given(name) for name in names)


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"
