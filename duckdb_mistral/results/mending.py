"""SQL that reads what is nearly JSON all the same: what is plainly the text of an answer is not paid for twice."""

from __future__ import annotations

from duckdb_mistral.duck.quoting import literal

_TOKENS = r'(?s)"(?:[^"\\]|\\.)*"|[^"]+|"'
_HEX = "[0-9a-fA-F]"
#: While escapes are sorted, these stand for a backslash in the text and for that of a good escape.
_BACKSLASH, _ESCAPE = "chr(1)", "chr(2)"
#: Half a character, which no text can hold, becomes the character that stands for what cannot be read.
_REPLACEMENT = "\ufffd"
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def mended(text: str) -> str:
    """Return the SQL of a line of nearly JSON as JSON.

    Raw control characters are escaped, halves of surrogate pairs become U+FFFD, escapes that JSON does not have are
    read as most programs do, and what stands between the values and is no blank becomes one.
    """
    between = r"regexp_replace(token, '[\x00-\x1f\x{feff}]', ' ', 'g')"
    return _rebuilt(text, string=_string("token"), between=between)


def finite(text: str) -> str:
    """Return the SQL of JSON with null in place of NaN and the infinities, which DuckDB takes and writes as JSON."""
    between = r"regexp_replace(token, '(?i)-?(?:nan|inf(?:inity)?)', 'null', 'g')"
    odd = " OR ".join(f"contains({text}, {literal(word)})" for word in ("NaN", "Infinity"))
    return f"CASE WHEN {odd} THEN {_rebuilt(text, string='token', between=between)}::JSON ELSE {text} END"


def _rebuilt(text: str, *, string: str, between: str) -> str:
    """Return the SQL of JSON with what is made of each `token`: of its strings, and of what stands between them."""
    made = f"CASE WHEN left(token, 1) = '\"' THEN {string} ELSE {between} END"
    return (
        f"list_aggregate(list_transform(regexp_extract_all({text}, {literal(_TOKENS)}), lambda token: {made}), "
        "'string_agg', '')"
    )


def _string(token: str) -> str:
    """Return the SQL of a JSON string with good escapes alone."""
    made = token
    for number in range(32):
        escape = _SHORT.get(chr(number), f"\\u{number:04x}")
        made = f"replace({made}, chr({number}), {literal(escape)})"
    made = f"CASE WHEN regexp_matches({token}, '[\\x00-\\x1f]') THEN {made} ELSE {token} END"
    return _escaped(
        made,
        (rf"\\(u{_HEX}{{4}}|[\"/bfnrt])", rf"{_ESCAPE} || '\1'"),
        (rf"\\x({_HEX}{{2}})", rf"{_ESCAPE} || 'u00\1'"),
        (r"\\'", literal("'")),
        (r"\\", _BACKSLASH),
    )


def with_whole_pairs(text: str) -> str:
    """Return the SQL of JSON in which U+FFFD stands for halves of surrogate pairs, and all else is what it was."""
    return f"CASE WHEN NOT regexp_matches({text}, '[\\x01\\x02]') THEN {_escaped(text)} END"


def _escaped(text: str, *others: tuple[str, str]) -> str:
    """Return the SQL of a text without halves of surrogate pairs, and with what `others` replace among its escapes."""
    made = f"replace({text}, {literal(chr(92) * 2)}, {_BACKSLASH})"
    pairs = rf"\\(u[dD][89abAB]{_HEX}{{2}})\\(u[dD][c-fC-F]{_HEX}{{2}})"
    for pattern, replacement in (
        (pairs, rf"{_ESCAPE} || '\1' || {_ESCAPE} || '\2'"),
        (rf"\\u[dD][89a-fA-F]{_HEX}{{2}}", literal(_REPLACEMENT)),
        *others,
    ):
        made = f"regexp_replace({made}, {literal(pattern)}, {replacement}, 'g')"
    return f"replace(replace({made}, {_ESCAPE}, {literal(chr(92))}), {_BACKSLASH}, {literal(chr(92) * 2)})"
