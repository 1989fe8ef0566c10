"""What an error says, as SQL: one sentence out of the JSON in which servers, proxies and people write errors."""

from __future__ import annotations

from duckdb_mistral.duck.quoting import literal, literals

#: Where an error's words are, one inside the other, the first that is there.
_WORDS = tuple(
    f"$.{name}" for name in ("message", "error", "detail", "errors", "msg", "reason", "error_description", "title")
)
#: So many of these may lie inside each other.
_DEEPEST = 6
#: A longer message is cut.
MOST_LETTERS = 2000
_NOTHING = "('null', 'false', '\"\"', '{}', '[]', '0')"
#: JSON in which nothing but keys, empty values and codes of success is found, at whatever depth.
_SAYS_NOTHING = (
    r'(?i)(?:[\s{}\[\],]|"(?:[^"\\]|\\.)*"\s*:|"object"\s*:\s*"error"|(?:null|false|0|2[0-9]{2})\b|'
    r'"(?:\s|\\[nrt])*(?:null|none|nil|undefined|false|ok|success|0|2[0-9]{2}|\{\s*\}|\[\s*\])?(?:\s|\\[nrt])*")*'
)


def is_error(value: str) -> str:
    """Return the SQL condition that a result line's member `error` says that there is one."""
    return f"{value} IS NOT NULL AND NOT regexp_full_match({value}, {literal(_SAYS_NOTHING)})"


def told(value: str) -> str:
    """Return the SQL of the sentence that JSON says an error in; NULL where it says nothing.

    Read are texts, pages of HTML, objects with a message in them, at whatever depth, lists of these, and lists of
    violations: {loc, msg}. JSON that says it some other way is told as it is.
    """
    steps = ", ".join([value] * _DEEPEST)
    words = f"list_reduce([{steps}], lambda whole, again: {_inside('whole')})"
    items = f"list_transform(json_transform(words, '[\"JSON\"]'), lambda item: {_violation('item')})"
    text = (
        f"CASE json_type(words) WHEN 'VARCHAR' THEN {_plain(_text('words'))} "
        f"WHEN 'ARRAY' THEN array_to_string(list_filter({items}, lambda said: said <> ''), '; ') "
        "ELSE words::VARCHAR END"
    )
    sentence = rf"nullif(left(trim(regexp_replace({text}, '\s+', ' ', 'g')), {MOST_LETTERS}), '')"
    return f"list_transform([{words}], lambda words: CASE WHEN {_says('words')} THEN {sentence} END)[1]"


def _inside(value: str) -> str:
    """Return the words that are inside an object, or a text that is JSON once more; anything else stays as it is."""
    text = _text(value)
    again = f"CASE WHEN regexp_matches({text}, '^\\s*[\\[{{]') THEN TRY_CAST({text} AS JSON) END"
    return (
        f"CASE json_type({value}) WHEN 'OBJECT' THEN coalesce({_member(value)}, {value}) "
        f"WHEN 'VARCHAR' THEN coalesce({again}, {value}) ELSE {value} END"
    )


def _violation(item: str) -> str:
    """Return what one of several errors says; of a violation also where."""
    where = f"array_to_string(json_transform({item}->'$.loc', '[\"VARCHAR\"]')::VARCHAR[], '.')"
    at = f"CASE WHEN json_type({item}->'$.loc') = 'ARRAY' THEN {where} || ': ' ELSE '' END"
    said = f"coalesce({_member(item)}, {item})"
    return f"CASE json_type({item}) WHEN 'OBJECT' THEN {at} ELSE '' END || ({said}->>'$')"


def _member(value: str) -> str:
    """Return the first member of a JSON object that has words; NULL where none has."""
    return f"list_filter(json_extract({value}, [{literals(_WORDS)}]), lambda member: {_says('member')})[1]"


def _says(value: str) -> str:
    return f"{value} IS NOT NULL AND {value} NOT IN {_NOTHING}"


def _plain(text: str) -> str:
    """Return a text; of a page of HTML its title, or else its words."""
    title = f"regexp_extract({text}, '(?is)<(?:title|h1)[^>]*>(.*?)</', 1)"
    shown = f"regexp_replace({text}, '(?is)<(?:style|script).*?</(?:style|script)>', ' ', 'g')"
    words = f"regexp_replace({shown}, '<[^>]*>', ' ', 'g')"
    return (
        f"CASE WHEN regexp_matches({text}, '(?i)^\\s*<(!doctype|html|head|body|h1)') "
        f"THEN coalesce(nullif(trim({title}), ''), {words}) ELSE {text} END"
    )


def _text(value: str) -> str:
    return f"({value}->>'$')"
