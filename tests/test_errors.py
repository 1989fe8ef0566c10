"""The error tree: one base, sentences as messages, and the tree that its module shows."""

from __future__ import annotations

import re

import pytest

from duckdb_mistral import errors

ALL = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


@pytest.mark.parametrize("kind", ALL)
def test_default_message_is_a_sentence(kind: type[errors.MistralBatchError]) -> None:
    """Each error says what happened where nobody says more, in one line that ends as a sentence."""
    message = str(kind())
    assert re.match(r"[A-Z].*\.$", message.split(" `")[0])
    assert "\n" not in message


@pytest.mark.parametrize("kind", ALL)
def test_given_message(kind: type[errors.MistralBatchError]) -> None:
    """A given message is the whole message, and the error is one of the package's."""
    assert str(kind("This happened.")) == "This happened."
    assert issubclass(kind, errors.MistralBatchError)


def test_tree_in_the_docstring() -> None:
    """The tree at the top of the module shows every error under its parent."""
    assert errors.__doc__ is not None
    parents: list[str] = []
    shown = {}
    for text in errors.__doc__.splitlines():
        found = re.match(r"^([│├└─ ]*)([A-Z]\w+Error)\b", text)
        if found:
            depth = len(found[1]) // 4
            del parents[depth:]
            shown[found[2]] = parents[-1] if parents else "Exception"
            parents.append(found[2])
    assert shown == {kind.__name__: kind.__bases__[0].__name__ for kind in ALL}


def test_api_error_keeps_its_facts() -> None:
    """An error of the API keeps status and pause, and an unanswered request whether it left."""
    error = errors.LimitError("x", status_code=429, retry_after=3.0)
    assert (error.status_code, error.retry_after) == (429, 3.0)
    assert errors.UnreachableError("x").sent is True
    assert errors.UnreachableError("x", sent=False).sent is False
