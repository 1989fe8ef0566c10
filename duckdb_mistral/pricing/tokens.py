"""How many tokens a text has: from Mistral's own tokenizer if the extra `tokens` is installed, or else from bytes."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from duckdb_mistral.duck.arrow_function import create_arrow_function
from duckdb_mistral.duck.vectors import vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

TOKENIZER = "mistral-common"
BYTES = "bytes"
#: On the low side, because an estimate guards money: English has about four and a half bytes per token.
BYTES_PER_TOKEN = 3
#: A digit is always a separate token, so texts joined by one keep their own tokens.
SEPARATOR = "0"
#: One call of the tokenizer takes about this many characters.
MOST_CHARACTERS = 1 << 20


def tokens_from() -> str:
    """Return where counts come from: 'mistral-common', or 'bytes' if that is not installed."""
    return TOKENIZER if find_spec("mistral_common") is not None and find_spec("tiktoken") is not None else BYTES


def count_tokens(texts: pa.Array, models: pa.Array) -> pa.Array:
    """Return one number per text; only their sum per model, the tokens of its texts, has a meaning.

    The texts of a vector are joined and encoded together, which is ten times as fast as one by one.
    """
    found = np.zeros(len(texts), dtype=np.int64)
    different = pc.unique(models)
    numbers = pc.index_in(models, value_set=different).to_numpy()
    for number in range(len(different)):
        rows = np.flatnonzero(numbers == number)
        words = (texts if len(different) == 1 else texts.take(pa.array(rows))).drop_null().to_pylist()
        if words:
            found[rows[0]] = sum(_joined(words[start:end]) for start, end in _slices(words))
    return vector(found, pa.int64())


def create_function(engine: duckdb.DuckDBPyConnection) -> None:
    """Give one of our own connections a function that registered ones have: mistral_internal_tokens."""
    create_arrow_function(engine, "mistral_internal_tokens", count_tokens, ["VARCHAR", "VARCHAR"], "BIGINT", pure=False)


def _joined(words: Sequence[str]) -> int:
    return len(_encoding().encode_ordinary(SEPARATOR.join(words))) - (len(words) - 1)


def _slices(words: Sequence[str]) -> list[tuple[int, int]]:
    """Cut texts into runs of about MOST_CHARACTERS."""
    ends = np.cumsum([len(word) for word in words])
    cuts = np.unique(np.searchsorted(ends, np.arange(MOST_CHARACTERS, ends[-1] + 1, MOST_CHARACTERS)) + 1)
    bounds = np.unique(np.concatenate(([0], cuts, [len(words)])))
    return [(int(start), int(end)) for start, end in zip(bounds[:-1], bounds[1:], strict=True) if start < len(words)]


@cache
def _encoding() -> Any:
    """Return the encoding that today's models share, from the files in mistral-common's wheel."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    tokenizer = MistralTokenizer.v3(is_tekken=True).instruct_tokenizer.tokenizer
    return getattr(tokenizer, "_model")  # noqa: B009
