"""From the columns of `source` to request bodies: the expressions that DuckDB runs, and the check of the columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlglot import exp, parse_one

from duckdb_mistral.endpoints import OWN_COLUMNS, Endpoint
from duckdb_mistral.errors import ArgumentError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from duckdb_mistral.spool import Spool

DIALECT = "duckdb"
#: A column whose name is this near to a field's is taken for a misspelt one.
NEAR = 0.85
#: Shorter names than this are near to too much.
SHORTEST_NEAR = 6

# A value as JSON text. Text in a column stands for JSON where the field takes no string.
# What is no JSON is NULL here, and told by `problem`.
_JSON_ONLY = "CASE WHEN typeof(:x) = 'VARCHAR' THEN to_json(TRY_CAST(:x::VARCHAR AS JSON)) ELSE to_json(:x) END"
_STRING_OR_OBJECT = (
    "CASE WHEN typeof(:x) = 'VARCHAR' AND :x::VARCHAR LIKE '{%' AND json_valid(:x::VARCHAR) "
    "THEN to_json(:x::VARCHAR::JSON) ELSE to_json(:x) END"
)
_STRING = "CASE WHEN typeof(:x) = 'JSON' THEN to_json(:x) ELSE to_json(:x::VARCHAR) END"
_ANY = "to_json(:x)"
_NOT_JSON = "typeof(:x) = 'VARCHAR' AND NOT json_valid(:x::VARCHAR)"
_MESSAGES = (
    "CASE WHEN messages IS NULL "
    "THEN '[' || concat_ws(',', '{\"role\":\"system\",\"content\":' || :system || '}', "
    "'{\"role\":\"user\",\"content\":' || to_json(prompt::VARCHAR) || '}') || ']' "
    "WHEN :system IS NULL THEN :messages "
    'ELSE \'[{"role":"system","content":\' || :system || \'},\' || substr(:messages, 2) END'
)


class RequestColumns:
    """The SQL of one submission's requests: `known_columns`, `problem` and `body`, as text for the templates."""

    def __init__(self, endpoint: Endpoint, *, system: str | None, params: Mapping[str, Any]) -> None:
        """Plan the requests of `endpoint`; `params` are body fields for every row.

        Raises ArgumentError for params that cannot be body fields.
        """
        _check_params(endpoint, params)
        self._endpoint = endpoint
        self._system = system
        self._params = {
            _field(endpoint, name): _parsed(endpoint, name, value)
            for name, value in params.items()
            if value is not None
        }
        self._names = tuple(dict.fromkeys((*OWN_COLUMNS, *endpoint.option_fields)))

    @property
    def known_columns(self) -> str:
        """Every column that means something, as an untyped NULL of its name."""
        return ", ".join(exp.alias_(exp.Null(), name, quoted=True).sql(DIALECT) for name in self._names)

    @property
    def body(self) -> str:
        """The request body of a row, as JSON text."""
        members = [f"'\"messages\":' || {self._messages()}", self._options()]
        members += [
            _literal(f"{json.dumps(name)}:{_json(value)}")
            for name, value in self._params.items()
            if name not in self._endpoint.fields
        ]
        built = f"'{{' || concat_ws(',', {', '.join(members)}) || '}}'"
        # Both branches are VARCHAR: beside JSON, what was built would be parsed again.
        return f"CASE WHEN body IS NULL THEN {built} ELSE ({_filled(_JSON_ONLY, 'body')})::VARCHAR END"

    @property
    def problem(self) -> str:
        """What is wrong with a row, in words, or NULL."""
        options = self._endpoint.option_fields
        cases = [
            ("custom_id IS NULL", "no custom_id"),
            (
                "body IS NOT NULL AND (" + _any_given(self._endpoint.content_columns) + ")",
                "both body and prompt",
            ),
            (
                "body IS NOT NULL AND (" + _any_given(("system", *options)) + ")",
                "a body beside other fields of the request",
            ),
            (
                f"body IS NOT NULL AND coalesce(json_type({_safe_json('body')}), '') <> 'OBJECT'",
                "a body that is no JSON object",
            ),
            ("prompt IS NOT NULL AND messages IS NOT NULL", "both prompt and messages"),
            ("body IS NULL AND prompt IS NULL AND messages IS NULL", "no prompt"),
            (
                f"messages IS NOT NULL AND coalesce(json_type({_safe_json('messages')}), '') <> 'ARRAY'",
                "messages that are no JSON list",
            ),
            (
                "messages IS NOT NULL AND json_array_length(" + _safe_json("messages") + ") = 0",
                "an empty list of messages",
            ),
        ]
        cases += [
            (_filled(_NOT_JSON, name), f"a {name} that is no JSON")
            for name in options
            if "string" not in self._endpoint.fields[name]
        ]
        whens = " ".join(f"WHEN {condition} THEN {_literal(words)}" for condition, words in cases)
        return f"CASE {whens} END"

    def _messages(self) -> str:
        system = "to_json(system::VARCHAR)"
        if self._system is not None:
            system = f"to_json(coalesce(system::VARCHAR, {_literal(self._system)}))"
        tree = exp.replace_placeholders(
            parse_one(_MESSAGES, dialect=DIALECT),
            system=parse_one(system, dialect=DIALECT),
            messages=parse_one(_filled(_JSON_ONLY, "messages") + "::VARCHAR", dialect=DIALECT),
        )
        return tree.sql(DIALECT)

    def _options(self) -> str:
        """Return the members of the option fields; most rows have none, and are not asked for each."""
        names = self._endpoint.option_fields
        members = f"concat_ws(',', {', '.join(self._member(name) for name in names)})"
        if any(name in self._params for name in names):
            return members
        return f"CASE WHEN {_any_given(names)} THEN {members} END"

    def _member(self, name: str) -> str:
        """Return a member of the body, NULL where the row leaves it out."""
        types = self._endpoint.fields[name]
        if "string" not in types:
            value = _filled(_JSON_ONLY, name)
        elif types == {"string"}:
            value = _filled(_STRING, name)
        elif "object" in types:
            value = _filled(_STRING_OR_OBJECT, name)
        else:
            value = _filled(_ANY, name)
        member = f"{_literal(json.dumps(name) + ':')} || {value}"
        if name not in self._params:
            return member
        return f"coalesce({member}, {_literal(f'{json.dumps(name)}:{_json(self._params[name])}')})"


def check_columns(endpoint: Endpoint, names: Iterable[str]) -> None:
    """Refuse the columns of a source that cannot be what was meant; raise SourceError, naming them."""
    given = {name.lower(): name for name in names}
    content = (*endpoint.content_columns, "body")
    if "custom_id" not in given:
        raise SourceError(
            f"The source has no column custom_id{_meant('custom_id', given)}; each request needs one, to join its "
            "answer by. Nothing was sent."
        )
    if not any(name in given for name in content):
        wanted = " or ".join((", ".join(content[:-1]), content[-1]))
        near = next((hint for name in content if (hint := _meant(name, given))), "")
        raise SourceError(f"The source has no column {wanted}{near}, so there is nothing to ask. Nothing was sent.")
    candidates = ["custom_id", "system", *endpoint.option_fields]
    for name in given:
        field = None if name in (*endpoint.fields, *OWN_COLUMNS) else nearest(name, candidates)
        if field is not None:
            raise SourceError(
                f"The source's column {given[name]} looks like a misspelt {field}, which would be left out of the "
                f"requests. Rename it to {field}, or leave it out (SELECT * EXCLUDE ({given[name]})). "
                "Nothing was sent."
            )


def check_rows(summary: Mapping[str, Any], spool: Spool) -> None:
    """Refuse the rows of a source that cannot be sent as they are; raise SourceError, naming them."""
    if not summary["rows"]:
        raise SourceError("The source has no rows, so there is nothing to send.")
    problems = dict(summary["problems"] or ())
    if problems:
        told = "; ".join(f"{_rows(count)} {problem}" for problem, count in sorted(problems.items()))
        examples = summary["examples"] or []
        which = f" For example {'; '.join(f'custom_id {_example(text)}' for text in examples)}." if examples else ""
        raise SourceError(f"The source cannot be sent: {told}.{which} Nothing was sent.")
    if summary["custom_ids"] < summary["rows"]:
        repeated = _repeated_ids(spool)
        raise SourceError(
            f"The source repeats {summary['rows'] - summary['custom_ids']:,} of its {summary['rows']:,} custom_ids: "
            f"{', '.join(repeated)}. Answers are joined by custom_id, so each must be there once. Nothing was sent."
        )


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def _example(text: str) -> str:
    problem, _, custom_id = text.partition(": ")
    return f"{custom_id} ({problem})"


def _repeated_ids(spool: Spool, most: int = 5) -> list[str]:
    """Return some of the custom_ids that are there more than once, as the finished spool has them."""
    import duckdb

    paths = [str(part.path) for part in spool.finish()]
    with duckdb.connect(":memory:") as engine:
        found = engine.execute(
            "SELECT custom_id, count(*) FROM read_json($paths, format = 'newline_delimited', "
            "columns = {custom_id: 'VARCHAR'}, maximum_object_size = 536870912) "
            "GROUP BY custom_id HAVING count(*) > 1 ORDER BY custom_id LIMIT $most",
            {"paths": paths, "most": most},
        ).fetchall()
    return [f"{custom_id} ({times} times)" for custom_id, times in found]


def nearest(name: str, candidates: Iterable[str], shortest: int = SHORTEST_NEAR) -> str | None:
    """Return the candidate that `name` was probably meant to be, or None."""
    import difflib

    plain = {_plain(candidate): candidate for candidate in candidates}
    if _plain(name) in plain:
        return plain[_plain(name)]
    long_enough = [candidate for candidate in plain if len(candidate) >= shortest]
    near = difflib.get_close_matches(_plain(name), long_enough, n=1, cutoff=NEAR)
    return plain[near[0]] if near else None


def _check_params(endpoint: Endpoint, params: Mapping[str, Any]) -> None:
    for name in params:
        if name.lower() in (*endpoint.content_columns, "body", "custom_id", "system"):
            raise ArgumentError(
                f"params cannot hold {name}: it is a column of the source, or an argument of its own. Nothing was sent."
            )
        field = None if name.lower() in endpoint.fields else nearest(name, endpoint.option_fields)
        if field is not None:
            raise ArgumentError(f"params holds {name}, which looks like a misspelt {field}. Nothing was sent.")


def _field(endpoint: Endpoint, name: str) -> str:
    """Return the field that a name of params stands for, in its own spelling; another name stays as it is."""
    return name.lower() if name.lower() in endpoint.fields else name


def _parsed(endpoint: Endpoint, name: str, value: Any) -> Any:
    """Return a value of params; text stands for JSON where the field takes no string, as in a column."""
    types = endpoint.fields.get(name.lower(), frozenset({"string"}))
    if not isinstance(value, str) or "string" in types:
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ArgumentError(f"params holds a {name} that is no JSON: {value[:80]!r}. Nothing was sent.") from None


def _meant(wanted: str, given: Mapping[str, str]) -> str:
    near = nearest(wanted, given, shortest=len(wanted) - 2)
    return f" (was {given[near]} meant to be {wanted}?)" if near else ""


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _column(name: str) -> exp.Column:
    return exp.column(name, quoted=True)


def _filled(snippet: str, name: str) -> str:
    """Return `snippet` with the column `name` in the place of :x."""
    return exp.replace_placeholders(parse_one(snippet, dialect=DIALECT), x=_column(name)).sql(DIALECT)


def _safe_json(name: str) -> str:
    """Return an expression for a column's JSON that is NULL, not an error, where its text is none."""
    return _filled(
        "CASE WHEN typeof(:x) <> 'VARCHAR' THEN to_json(:x) WHEN json_valid(:x::VARCHAR) THEN :x::VARCHAR::JSON END",
        name,
    )


def _any_given(names: Iterable[str]) -> str:
    return " OR ".join(f"{_column(name).sql(DIALECT)} IS NOT NULL" for name in names)


def _literal(text: str) -> str:
    return exp.Literal.string(text).sql(DIALECT)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
