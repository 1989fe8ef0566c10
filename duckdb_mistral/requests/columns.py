"""From the columns of `source` to request bodies: the expressions that DuckDB runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.endpoints import CONVERSATIONS, OUTPUT_FIELDS, Endpoint
from duckdb_mistral.duck.qualifying import call
from duckdb_mistral.duck.quoting import identifier, literal
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.requests.content import READ_AS_JSON, body_text, content_members, filled, given, option
from duckdb_mistral.requests.spelling import misspelt
from duckdb_mistral.runtime.json_text import as_json, given_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_NOT_JSON = "typeof(:x) = 'VARCHAR' AND NOT json_valid(:x::VARCHAR)"
# DuckDB reads and writes numbers that JSON does not have: the text is all else that JSON is made of, or it has one.
_TEXT = "CASE WHEN typeof(:x) = 'VARCHAR' THEN :x::VARCHAR ELSE to_json(:x)::VARCHAR END"
_FINITE = '\'(?s)(null|true|false|[-+0-9.eE{}\\[\\]:,\\s]|"([^"\\\\]|\\\\.)*")*\''
_NOT_FINITE = f"NOT regexp_full_match({_TEXT}, {_FINITE})"
# A field that takes strings does not read text as JSON, so only types that contain numbers are checked.
_NUMBERS_NOT_FINITE = f"regexp_matches(typeof(:x), 'FLOAT|DOUBLE|JSON|VARIANT') AND {_NOT_FINITE}"


class RequestColumns:
    """The SQL of one submission's requests: `known_columns`, `taken`, `problem` and `body`, as text for the templates.

    An option is written once, for there are many: planning them is most of what a small submission costs.
    """

    def __init__(
        self, endpoint: Endpoint, *, system: str | None, params: Mapping[str, Any], declared: bool = False
    ) -> None:
        """Plan the requests for `endpoint`; `params` are body fields for every row.

        With `declared`, params includes the format of a declared output, which no row may change.

        Raises ArgumentError for params that cannot be body fields.
        """
        _check_params(endpoint, params)
        self._endpoint = endpoint
        self._output_field = OUTPUT_FIELDS.get(endpoint.path) if declared else None
        self._params = {
            _field(endpoint, name): _parsed(endpoint, name, value)
            for name, value in params.items()
            if value is not None
        }
        self._names = tuple(dict.fromkeys((*endpoint.own_columns, *endpoint.option_fields)))
        self._content = content_members(endpoint, system)
        self._options = [name for name in endpoint.option_fields if name not in self._content]

    @property
    def known_columns(self) -> str:
        """Every column that has a meaning, as an untyped NULL of that name."""
        return ", ".join(f"NULL AS {identifier(name)}" for name in self._names)

    def taken(self, source: str) -> str:
        """Return the FROM of `problem` and `body`: the known columns of the table `source` as a request takes them.

        A JSON null is NULL. Of a row that has options (`has_options`), each is JSON text, and `options` is the members
        that they fill, each after a comma. Most rows have none, and nothing is made for those.
        """
        own = {name: given(name) for name in self._endpoint.own_columns if name != "body"}  # a JSON null is refused
        given_columns = ", ".join(f"{own.get(name, identifier(name))} AS {identifier(name)}" for name in self._names)
        texts = ", ".join(
            f"CASE WHEN has_options THEN {option(self._endpoint, name)} END AS {identifier(name)}"
            for name in self._options
        )
        members = f"concat({', '.join(self._member(name, identifier(name), ',') for name in self._options)})"
        if not any(name in self._params for name in self._options):
            members = f"CASE WHEN has_options THEN {members} END"
        return (
            f"(SELECT *, {members} AS options FROM (SELECT * REPLACE ({texts}) FROM "
            f"(SELECT {given_columns}, {_any_given(self._endpoint.option_fields)} AS has_options FROM {source})))"
        )

    @property
    def body(self) -> str:
        """The request body of a row, as JSON text."""
        pieces = [
            "'{'",
            self._content_text(),
            "options",
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
        return f"CASE WHEN body IS NULL THEN {built} ELSE ({body_text()})::VARCHAR END"

    @property
    def problem(self) -> str:
        """What is wrong with a row, in words, or NULL."""
        content = self._endpoint.content_columns
        beside = "system IS NOT NULL OR has_options" if self._endpoint.takes_system else "has_options"
        cases = [
            *self._nothing_wrong(content),
            ("custom_id IS NULL", "no custom_id"),
            (f"body IS NOT NULL AND ({_any_given(content)})", f"both body and {content[0]}"),
            (f"body IS NOT NULL AND ({beside})", "a body beside other fields of the request"),
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
        read_as_json = ("body", *(name for name in content if self._types(name) == {"array"}))
        written = (*content, *(name for name in self._endpoint.option_fields if name not in self._options))
        not_finite = [
            (f"{_given(name)} AND {condition}", f"a number in {name} that is NaN or infinite")
            for name in dict.fromkeys((*read_as_json, *written))
            if name != "prompt"
            for condition in [filled(_NOT_FINITE if name in read_as_json else _NUMBERS_NOT_FINITE, name)]
        ]
        whens = [
            *(f"WHEN {condition} THEN {literal(words)}" for condition, words in cases),
            *self._options_not_json(),
            *(f"WHEN {condition} THEN {literal(words)}" for condition, words in not_finite),
            self._options_not_finite(),
        ]
        if self._output_field is not None:
            words = f"{_article(self._output_field)} {self._output_field} beside output"
            whens.append(f"WHEN {_given(self._output_field)} THEN {literal(words)}")
        return f"CASE {' '.join(whens)} END"

    def _nothing_wrong(self, content: Sequence[str]) -> Iterator[tuple[str, None]]:
        """Yield the case that spares most rows all others: they have nothing but the text of their content."""
        usual, *others = content
        if not any(self._content_problems(usual)):
            given = f"{_any_given(('body', *others))} OR has_options"
            yield f"custom_id IS NOT NULL AND {_given(usual)} AND NOT ({given})", None

    def _options_not_json(self) -> Iterator[str]:
        """Yield the case of a row that has text in an option which takes JSON alone, and which that text is not."""
        values = [name for name in self._options if "string" not in self._endpoint.fields[name]]
        if values:
            texts = ", ".join(map(identifier, values))
            words = ", ".join(literal(f"{_article(name)} {name} that is not JSON") for name in values)
            wrong = call("list_position", f"list_value({texts})", "''")
            yield f"WHEN '' IN ({texts}) THEN {_nth(words, wrong)}"

    def _options_not_finite(self) -> str:
        """Return the case of a row that has a number in its options which JSON does not have."""
        texts = ", ".join(map(identifier, self._options))
        words = ", ".join(literal(f"a number in {name} that is NaN or infinite") for name in self._options)
        checked = f"list_transform(list_value({texts}), lambda text: regexp_full_match(text, {_FINITE}))"
        wrong = call("list_position", checked, "false")
        return f"WHEN has_options AND NOT regexp_full_match(options, {_FINITE}) THEN {_nth(words, wrong)}"

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
            is_text = f"(typeof({identifier(name)}) = 'VARCHAR' OR {found} = 'VARCHAR')"
            yield f"{_given(name)} AND NOT {is_text} AND {found} <> 'OBJECT'", f"a {name} that is not a JSON object"

    def _types(self, name: str) -> frozenset[str]:
        """Return the JSON types that a content column may have."""
        return self._endpoint.fields.get(name, frozenset({"array"} if name == "messages" else {"string"}))

    def _content_text(self) -> str:
        """Return the members that the content columns fill, with commas between; every row sent has at least one."""
        if len(self._content) == 1:
            ((name, texts),) = self._content.items()
            return ", ".join((literal(json.dumps(name) + ":"), *texts))
        members = [self._member(name, f"({text})::VARCHAR", "") for name, (text,) in self._content.items()]
        return f"concat_ws(',', {', '.join(members)})"

    def _member(self, name: str, text: str, before: str) -> str:
        """Return a member of the body, NULL if the row leaves it out; `text` is the SQL of the row's own JSON text."""
        key = f"{before}{json.dumps(name)}:"
        # A JSON null leaves the member out, as NULL does.
        member = call("||", literal(key), f"nullif({text}, 'null')")
        if name not in self._params:
            return member
        return f"coalesce({member}, {literal(key + as_json(self._params[name]))})"


def _check_params(endpoint: Endpoint, params: Mapping[str, Any]) -> None:
    for name in params:
        if not name.strip():
            raise ArgumentError(
                "params holds a field without a name, as row(1) makes it on DuckDB 1.5. Name every field, as in "
                "{'max_tokens': 100}. Nothing was sent."
            )
        if name.lower() in (*endpoint.content_columns, "body", "custom_id", "system"):
            raise ArgumentError(
                f"params cannot hold {name}: it is a column of the source, or a separate argument. Nothing was sent."
            )
        field = None if name.lower() in endpoint.fields else misspelt(endpoint, name.lower())
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


def _safe_json(name: str) -> str:
    """Return an expression for a column's JSON that is NULL, not an error, if its text is not JSON."""
    return filled(READ_AS_JSON, name)


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


def _nth(texts: str, number: str) -> str:
    return call("list_extract", f"list_value({texts})", number)


def _given(name: str) -> str:
    return f"{identifier(name)} IS NOT NULL"


def _any_given(names: Iterable[str]) -> str:
    return " OR ".join(_given(name) for name in names)


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"
